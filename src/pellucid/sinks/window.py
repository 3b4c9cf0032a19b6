"""To the screen: frames for the window, which is a process of its own.

The newest frame only. The window's slots are few; when all are on their way to the screen a frame is left
out here, and nothing waits. A window that is closed, killed or stands still costs the run nothing. Streams that
begin or change during the run are told to it between two frames.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
import threading
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass

from pellucid.errors import MissingExtra, SinkError, WireError, did_you_mean
from pellucid.ledger import Ledger
from pellucid.metrics import now_ns
from pellucid.protocols import RESTORED, Slot, Spec, Stream
from pellucid.sinks._window_chain import chain_in_words
from pellucid.sinks._window_link import WindowLink
from pellucid.sinks._window_note import WHY
from pellucid.sinks._window_pictures import WHOLE_BYTES, Pictures
from pellucid.sinks._window_process import START_S, WindowProcess

__all__ = ["WHY", "Window"]

Limits = Annotated[tuple[float, float], Field(description="low, high")]
Gamma = Annotated[float, Field(ge=0.1, le=10)]
TEND_S = 0.1
"""Between two signs of life to the window, also while no frame comes."""
CLOSE_S = 2.0
"""For the window to answer that it closes; one that does not may be busy, and has as long again to go by itself."""
SAVE_S = 5.0
"""For a window that has answered, to save its picture."""


@dataclass(config=ConfigDict(extra="forbid"))
class Window:
    """Show raw and restored side by side, zoomed together.

    Parameters
    ----------
    title
        Over the panes; empty for the names of camera and channel.
    size
        Width and height in pixels; left out, as it was when it was closed last, and 1280x740 at first.
    arrangement
        Of raw and restored: ``"side"`` by side, ``"split"`` with a line that can be moved, ``"blink"``, ``"raw"`` or
        ``"restored"`` alone. Left out, as it was last.
    overlay
        Lay channels over each other in colours, where they have the same size. Left out, as it was last.
    contrast
        ``"auto"`` (slow percentiles), ``[low, high]``, or a table of planes.
    colormap
        A map of cmap's (``"gray"``, ``"viridis"``, ``"magma"``, ``"green"`` ...) for all planes, or a table of planes.
        Left out, as it was last, and gray at first.
    gamma
        For all planes, or a table of planes: below 1 dark parts are lighter. Left out, as it was last, and 1 at first.
    max_fps
        Frames in between are left out.
    stack
        What is shown of a stack at first, raw and restored alike: ``"slice"``, ``"volume"``, or ``"max"``, its maximum
        along z; the key Z takes the next. With ``"max"`` and ``"middle"`` (its middle plane) only that goes to the
        window, which is less to copy. Left out, stacks of up to 32 MB can be looked through, shown as it was last;
        ``"slice"`` and ``"volume"`` take up to 256 MB. Which it is stands over the picture.
    screenshot
        PNG to write of the window when it closes.

    Attributes
    ----------
    drawn, skipped : int
        Frames that are known to have been drawn, and those left out here because the window had no room, because
        of `max_fps`, because newer ones had overtaken them, or because it is gone.
    closed_by_user : bool
    """

    title: str = ""
    size: tuple[Annotated[int, Field(ge=320, le=16384)], Annotated[int, Field(ge=240, le=16384)]] | None = None
    arrangement: Literal["side", "split", "blink", "raw", "restored"] | None = None
    overlay: bool | None = None
    contrast: Literal["auto"] | Limits | dict[str, Literal["auto"] | Limits] = "auto"
    colormap: str | dict[str, str] | None = None
    gamma: Gamma | dict[str, Gamma] | None = None
    max_fps: Annotated[float, Field(gt=0, le=1000)] = 60.0
    stack: Literal["max", "middle", "slice", "volume"] | None = None
    screenshot: Path | None = None
    policy: ClassVar[str] = "latest"
    early: ClassVar[bool] = False
    needs: ClassVar[dict[str, str]] = {"vispy": "window", "PySide6": "window", "OpenGL": "window", "cmap": "window"}

    @field_validator("contrast")
    @classmethod
    def _in_order(cls, contrast: Any) -> Any:
        for given in contrast.values() if isinstance(contrast, dict) else [contrast]:
            if not isinstance(given, str) and not given[0] < given[1]:
                raise ValueError(f"the lower limit comes first and is smaller, not {given[0]:g}, {given[1]:g}")
        return contrast

    @field_validator("colormap")
    @classmethod
    def _is_known(cls, colormap: Any) -> Any:
        if importlib.util.find_spec("cmap") is None:
            return colormap  # `ready` says what is to be installed
        import cmap

        for name in colormap.values() if isinstance(colormap, dict) else [colormap]:
            try:
                cmap.Colormap(name or "gray")
            except (ValueError, TypeError):
                near = did_you_mean(str(name), [one.rpartition(":")[2] for one in cmap.Catalog()])
                raise ValueError(f'"{name}" is no colour map.{near} Such as gray, viridis, magma, green') from None
        return colormap

    def __post_init__(self) -> None:
        self.skipped = 0
        self.closed_by_user = False
        self._process: WindowProcess | None = None
        self._link: WindowLink | None = None
        self._ledger = Ledger()
        self._over = threading.Event()
        self._tender: threading.Thread | None = None
        self._period_ns = round(1e9 / self.max_fps)
        self._pictures: dict[int, Pictures] = {}
        self._active = False

    @property
    def drawn(self) -> int:
        """Frames that are known to have been drawn."""
        return self._link.drawn if self._link is not None else 0

    @classmethod
    def why_not(cls) -> str | None:
        """Return why there can be no window here, None where there can be one."""
        for module, extra in cls.needs.items():
            if importlib.util.find_spec(module) is None:
                return f'the package {module} is not installed. Type: pip install "pellucid[{extra}]"'
        if (why := _forgets()) is not None:
            return why
        screens = ("DISPLAY", "WAYLAND_DISPLAY")
        offscreen = os.environ.get("QT_QPA_PLATFORM") in ("offscreen", "vnc")
        if sys.platform.startswith("linux") and not offscreen and not any(os.environ.get(name) for name in screens):
            return "there is no screen (neither DISPLAY nor WAYLAND_DISPLAY is set). Type: --headless"
        return None

    # ---------------------------------------------------------------- open

    def ready(self) -> None:
        """Raise what `open` would for want of a package or a screen."""
        why = self.why_not()
        if why is not None:
            raise (MissingExtra if "not installed" in why else SinkError)(why)

    def open(self, streams: Sequence[Stream], planes: Sequence[Mapping[str, Spec]], run: Mapping[str, Any]) -> None:
        """Start the window's process and connect to it.

        Raises
        ------
        MissingExtra
            Where vispy or PySide6 is not installed.
        SinkError
            Where there is no screen, or the window does not come up.
        """
        why = self.why_not()
        if why is not None:
            raise (MissingExtra if "not installed" in why else SinkError)(why)
        if self.screenshot is not None and not self.screenshot.absolute().parent.is_dir():
            raise SinkError(f'screenshot = "{self.screenshot}": there is no folder {self.screenshot.absolute().parent}')
        self._ledger = run["ledger"]
        self._pictures = {
            stream.index: Pictures(stream, specs, self._period_ns, self.stack)
            for stream, specs in zip(streams, planes, strict=True)
        }
        for pictures in self._pictures.values():
            if (spec := pictures.too_large) is not None:
                found = (
                    f'window: stack = "{self.stack}": stacks of {spec.nbytes / 1e6:.0f} MB are shown as their maximum'
                )
                self._ledger.note(f"{found}, those up to {WHOLE_BYTES / 1e6:.0f} MB can be looked through")
                break
        feeds = [pictures.feed for pictures in self._pictures.values()]
        told = {
            "title": self.title,
            "size": self.size,
            "contrast": self.contrast,
            "arrangement": self.arrangement,
            "overlay": self.overlay,
            "stack": self.stack if self.stack in ("slice", "volume") else None,
            "chain": chain_in_words(run.get("stages", list)()),
            "colormap": self.colormap,
            "gamma": self.gamma,
            "screenshot": str(self.screenshot.absolute()) if self.screenshot else "",
            "session": os.getpid(),
            "planes": list(dict.fromkeys([*(name for feed in feeds for name in feed.planes), *_may_come(run)])),
        }
        process = self._process = WindowProcess(told)
        try:
            self._link = WindowLink(process.endpoint, list(self._pictures.values()), self._ledger)
            self._link.open(START_S)
        except WireError as error:
            self._link = None
            text = process.complaint()
            self._process = None
            process.end(0)
            raise SinkError(f"the window did not come up: {text or error}") from None
        self._active = True
        self._over.clear()
        self._tender = threading.Thread(target=self._tend, name="pellucid window", daemon=True)
        self._tender.start()

    # ---------------------------------------------------------------- frames

    def extend(self, stream: Stream, planes: Mapping[str, Spec]) -> None:
        """Show another stream from now on, in place of the one that it replaces; waits for nobody."""
        pictures = Pictures(stream, planes, self._period_ns, self.stack)
        self._pictures[stream.index] = pictures
        if self._active and self._link is not None:
            self._link.extend(pictures)

    def write(self, slot: Slot, names: tuple[str, ...]) -> None:
        """Hot: copy the planes into the window's memory, if it has room; else leave the frame out."""
        now = now_ns()
        pictures = self._pictures[slot.stream.index]
        ready = pictures.wanted(slot.info, names, now) if self._active else []
        if not (ready and self._link is not None and self._link.show(pictures, slot, ready, now)):
            self.skipped += 1

    def _tend(self) -> None:
        """Keep the connection while no frame comes, and notice when the window is gone."""
        assert self._process is not None
        assert self._link is not None
        while not self._over.wait(TEND_S):
            self._link.tend()
            code = self._process.poll()
            if code is not None:
                self._active = False
                self.closed_by_user = code == 0
                self._link.close(0)  # its memory would stay as long as this side has it
                why = self._process.complaint() if code else ""
                what = "was closed" if code == 0 else f"ended with {code}{why and f' ({why})'}"
                self._ledger.note(f"window: it {what}; the run goes on")
                return

    # ---------------------------------------------------------------- the end

    def finish(self) -> None:
        """Wait a little for the last frame to be drawn."""
        deadline = now_ns() + 2_000_000_000  # a busy computer is half a second behind
        while self._active and self._link is not None and self._link.waits and now_ns() < deadline:
            self._over.wait(0.02)

    def close(self, report: Mapping[str, Any] | None) -> None:
        """Close the window, or end its process if it does not."""
        self._active = False
        self._over.set()
        if self._tender is not None:
            self._tender.join()
            self._tender = None
        hears = self._link is None or self._link.close(CLOSE_S)
        process, self._process = self._process, None
        if process is not None:
            process.end(SAVE_S if hears else CLOSE_S)


def _forgets() -> str | None:
    """Return what is wrong with a PySide6 that drops references to None, which lives for ever since Python 3.12."""
    if sys.version_info >= (3, 12):
        return None
    try:
        version = importlib.metadata.version("PySide6_Essentials")
        major, minor = (int(part) for part in version.split(".")[:2])
    except (importlib.metadata.PackageNotFoundError, ValueError):  # built by somebody, who will know
        return None
    if (major, minor) < (6, 12):
        return None
    python = ".".join(str(part) for part in sys.version_info[:2])
    what = f"PySide6 {version} aborts a window within minutes under Python {python}"
    return f'{what}. Type: pip install "PySide6-Essentials<6.12", or use Python 3.12'


def _may_come(run: Mapping[str, Any]) -> list[str]:
    """Return the planes that stages of this run can write, also for streams that nobody knows of yet."""
    stages = tomllib.loads(run.get("config", "")).get("stages", [])
    return [RESTORED, *(stage["writes"] for stage in stages if isinstance(stage.get("writes"), str))]
