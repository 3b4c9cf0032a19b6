"""What a user does to a window: a key pressed in it; closed through the window system (WM_DELETE_WINDOW)."""

from __future__ import annotations

import ctypes
import ctypes.util


class _ClientMessage(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message_type", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5),
        ("room", ctypes.c_long * 16),  # XEvent is larger than this member of it
    )


class _Key(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        *((name, ctypes.c_ulong) for name in ("window", "root", "subwindow", "time")),
        *((name, ctypes.c_int) for name in ("x", "y", "x_root", "y_root")),
        ("state", ctypes.c_uint),
        ("keycode", ctypes.c_uint),
        ("same_screen", ctypes.c_int),
        ("room", ctypes.c_long * 16),  # XEvent is larger than this member of it
    )


class _Windows:
    """The windows at the top whose title contains a text."""

    def __init__(self, text: str) -> None:
        x = self.x = ctypes.CDLL(ctypes.util.find_library("X11") or "libX11.so.6")
        x.XOpenDisplay.restype = ctypes.c_void_p
        x.XDefaultRootWindow.restype = x.XInternAtom.restype = x.XStringToKeysym.restype = ctypes.c_ulong
        x.XDefaultRootWindow.argtypes = x.XCloseDisplay.argtypes = x.XFlush.argtypes = [ctypes.c_void_p]
        x.XInternAtom.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
        x.XKeysymToKeycode.argtypes = [ctypes.c_void_p, ctypes.c_ulong]
        x.XKeysymToKeycode.restype = ctypes.c_ubyte
        x.XFree.argtypes = [ctypes.c_void_p]
        x.XFetchName.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.POINTER(ctypes.c_char_p)]
        x.XQueryTree.argtypes = [ctypes.c_void_p, ctypes.c_ulong, *[ctypes.c_void_p] * 4]
        x.XSendEvent.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
        self.display = x.XOpenDisplay(None)
        assert self.display, "no connection to the X server"
        self.root = x.XDefaultRootWindow(self.display)
        root, parent = ctypes.c_ulong(), ctypes.c_ulong()
        children, count = ctypes.POINTER(ctypes.c_ulong)(), ctypes.c_uint()
        x.XQueryTree(
            self.display, self.root, ctypes.byref(root), ctypes.byref(parent), ctypes.byref(children),
            ctypes.byref(count),
        )  # fmt: skip
        self.found = []
        for window in children[: count.value]:
            name = ctypes.c_char_p()
            x.XFetchName(self.display, window, ctypes.byref(name))
            if text.encode() in (name.value or b""):
                self.found.append(window)

    def send(self, window: int, event: ctypes.Structure) -> None:
        self.x.XSendEvent(self.display, window, 0, 0, ctypes.byref(event))

    def done(self) -> int:
        self.x.XFlush(self.display)
        self.x.XCloseDisplay(self.display)
        return len(self.found)


def close_windows_titled(text: str) -> int:
    """Ask all windows whose title contains `text` to close; return how many."""
    there = _Windows(text)
    x, display = there.x, there.display
    for window in there.found:
        event = _ClientMessage(33, 0, 1, display, window, x.XInternAtom(display, b"WM_PROTOCOLS", 0), 32)
        event.data[0] = x.XInternAtom(display, b"WM_DELETE_WINDOW", 0)
        there.send(window, event)
    return there.done()


def press_in_windows_titled(text: str, key: str) -> int:
    """Press and release a key, such as ``r``, in all windows whose title contains `text`; return how many."""
    there = _Windows(text)
    code = there.x.XKeysymToKeycode(there.display, there.x.XStringToKeysym(key.encode()))
    for window in there.found:
        for kind in (2, 3):
            there.send(window, _Key(kind, 0, 1, there.display, window, there.root, 0, 0, 1, 1, 1, 1, 0, code, 1))
    return there.done()
