"""The server: its port, its core, and the objects that clients have asked for."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import zmq
from numpy.typing import NDArray

from pellucid.errors import require
from pellucid.testing.bridge.answering import Answering, JavaClass
from pellucid.testing.bridge.core import RemoteCore
from pellucid.testing.bridge.java import STRING, Face, JavaError
from pellucid.testing.bridge.live import LiveMode
from pellucid.testing.bridge.stub import Stub
from pellucid.testing.bridge.studio import Studio
from pellucid.testing.bridge.values import VECTORS, Vector

__all__ = ["BridgeServer"]

LOOPBACK = "127.0.0.1"
SOCKETS = 64
"""At most: a client that never lets go of what it asked for must not take all ports."""
FREE_BEHIND = 12
"""Ports that must be free behind one that was not named."""
BIND_S = 0.5
"""For a port that was just given back."""
UNLOADS = 40
"""Tries, 50 ms apart, to unload the devices."""


class BridgeServer:
    """A server for clients of pycromanager, with threads in this process.

    Parameters
    ----------
    port
        Of the first socket, on the loopback only; 0: any with some free ports behind it.
    properties
        ``{"Camera.PixelType": "16bit"}``: set in this order after the configuration was loaded.
    config
        ``"demo"``, or a ``.cfg`` file for the adapters of mm-test-adapters.
    buffer_mb
        Of the core's ring.
    version
        What the handshake says; clients expect 5.1.0.
    live
        Turn live mode on at every start, as the application's button does.
    keep
        Displayed pictures that are kept.
    big_endian
        How arrays from the client are read: the real server reads them so on any machine, and swaps the bytes of
        what a PC sends. False: a server without that fault.

    Attributes
    ----------
    port : int
    """

    def __init__(
        self,
        port: int = 0,
        properties: Mapping[str, Any] | None = None,
        config: str | Path = "demo",
        buffer_mb: int = 256,
        *,
        version: str = "5.1.0",
        live: bool = False,
        keep: int = 16,
        big_endian: bool = True,
    ) -> None:
        self.port = port
        self.version = version
        self.big_endian = big_endian
        self._preview_errors = 0
        self._live_mode: LiveMode | None = None
        self._live_lock = threading.Lock()
        self.remote: Any = None
        self._properties = dict(properties or {})
        self._config, self._buffer_mb, self._live_at_start = config, buffer_mb, live
        self._shown: deque[NDArray[Any]] = deque(maxlen=keep)
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._sockets: dict[int, Answering] = {}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._pymmcore: Any = None

    def __enter__(self) -> BridgeServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---------------------------------------------------------------- life

    def start(self) -> None:
        """Load the core anew and listen; on the same port as before, if it was started before.

        Raises
        ------
        OSError
            Where the port is taken.
        RuntimeError
            Where the core refuses the configuration or a property.
        """
        if self._context is not None:
            return
        self._pymmcore = require("pymmcore", "micromanager", "the bridge server")
        stub = _read_stub(self._pymmcore)
        core = self._pymmcore.CMMCore()
        self.remote = RemoteCore(core, stub, self._pymmcore.Metadata)
        self._preview_errors = 0
        try:
            self._load(core)
            self._classes = self._known_classes(stub)
            self._faces = stub.faces
            self.port = self.port or _free_port()
            self._context = zmq.Context()
            self._listen(self.port, main=True)
            if self._live_at_start:
                self.set_live(True)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Close all sockets, end all threads and unload the core; twice is as good as once.

        A call of the core that is under way is waited for.
        """
        if self.remote is not None:
            self.set_live(False)
        context, self._context = self._context, None
        if context is not None:
            context.term()  # wakes all that wait for a message, and returns when they have closed their sockets
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._sockets.clear()
        if self.remote is not None:
            _unload(self.remote.core)
        self.remote = None

    @property
    def core(self) -> Any:
        """The ``pymmcore.CMMCore`` itself, for a test to do things behind the clients' back.

        Raises
        ------
        RuntimeError
            While the server is stopped.
        """
        if self.remote is None:
            raise RuntimeError("the bridge server is stopped, so it has no core")
        return self.remote.core

    def _load(self, core: Any) -> None:
        adapters = require("mm_test_adapters", "demo", "the bridge server")
        folder = Path(adapters.device_adapter_path())
        core.setDeviceAdapterSearchPaths([str(folder)])
        core.setCircularBufferMemoryFootprint(self._buffer_mb)
        file = folder / "MMConfig_demo.cfg" if self._config == "demo" else Path(self._config)
        core.loadSystemConfiguration(str(file))
        for key, value in self._properties.items():
            device, _, name = key.partition(".")
            self.remote.setProperty(device, name, value if isinstance(value, int | float) else str(value))
        core.updateSystemStateCache()

    # ---------------------------------------------------------------- the application

    @property
    def displayed(self) -> list[NDArray[Any]]:
        """What clients displayed, the oldest first."""
        return list(self._shown)

    def show(self, picture: NDArray[Any]) -> None:
        """Keep a picture that was displayed."""
        self._shown.append(picture)

    @property
    def live(self) -> bool:
        """Whether live mode is on: a sequence without an end, and a preview that looks at its newest images."""
        return self._live_mode is not None

    @property
    def preview_errors(self) -> int:
        """Since `start`, exceptions in the preview after its first image: it found the ring empty, for example."""
        return self._preview_errors + (self._live_mode.errors if self._live_mode is not None else 0)

    def set_live(self, on: bool) -> None:
        """Turn live mode on or off."""
        with self._live_lock:
            mode, self._live_mode = self._live_mode, None
            if mode is not None:
                mode.close()
                self._preview_errors += mode.errors
            if on:
                self._live_mode = LiveMode(self.remote, self._pymmcore.Metadata)

    # ---------------------------------------------------------------- classes and sockets

    def _known_classes(self, stub: Stub) -> dict[str, JavaClass]:
        """Return what ``constructor`` and ``get-class`` know."""
        made = self._pymmcore
        studio = Studio(self)
        setting = made.PropertySetting
        classes = [
            JavaClass("mmcorej.CMMCore", {(): lambda: self.remote}, stub.static, self.remote),
            JavaClass("org.micromanager.Studio", {(): lambda: studio}),
            JavaClass("mmcorej.Metadata", {(): made.Metadata}),
            JavaClass("mmcorej.Configuration", {(): made.Configuration}),
            JavaClass("mmcorej.PropertySetting", {(): setting, (STRING,) * 3: setting}),
            *(JavaClass(name, {(): partial(Vector, name)}) for name in VECTORS),
            *(JavaClass(enum.name, {}, enum.methods, enum) for enum in stub.enums.values()),
        ]
        return {c.name: c for c in classes}

    def find_class(self, name: object) -> JavaClass:
        """Return a class that clients may construct or call."""
        if not isinstance(name, str) or name not in self._classes:
            raise JavaError("Class not found on any classloaders")
        return self._classes[name]

    def find_face(self, value: Any) -> Face:
        """Return what clients are told of an object."""
        face = getattr(value, "face", None) or self._faces.get(type(value))
        if not isinstance(face, Face):
            raise JavaError(f"{type(value).__name__} is an internal class that was accidentally exposed")
        return face

    def find_object(self, number: object) -> Any:
        """Return an object that any of the sockets handed out."""
        for answering in list(self._sockets.values()):
            if number in answering.objects:
                return answering.objects[number]
        raise JavaError(f"Object with Hash code {number} unknown to all ZMQ servers")

    def open_socket(self) -> Answering:
        """Listen on the next free port too."""
        if len(self._sockets) >= SOCKETS:
            raise JavaError(f"{SOCKETS} sockets are open already")
        return self._listen(self.port + 1, main=False)

    def _listen(self, port: int, main: bool) -> Answering:
        context = self._context
        assert context is not None
        router = context.socket(zmq.ROUTER)
        router.linger = 0
        until = time.monotonic() + BIND_S
        with self._lock:
            while True:
                while not main and port in self._sockets:
                    port += 1
                try:
                    router.bind(f"tcp://{LOOPBACK}:{port}")
                    break
                except zmq.ZMQError as error:
                    if main and time.monotonic() < until:
                        time.sleep(0.02)  # the socket before is closed, but not by the system yet
                    elif main:
                        router.close()
                        raise OSError(error.errno, f"port = {port}: {error}") from None
                    else:
                        port += 1
            self._sockets[port] = answering = Answering(self, port, router, main)
            self._threads = [t for t in self._threads if t.is_alive()]
            thread = threading.Thread(target=answering.run, name=f"pellucid-bridge-{port}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return answering

    def forget_socket(self, port: int) -> None:
        """Note that a socket was closed."""
        with self._lock:
            self._sockets.pop(port, None)


@cache
def _read_stub(pymmcore: Any) -> Stub:
    """Read the signatures once: they do not change, and a test starts many servers."""
    return Stub(pymmcore)


def _free_port() -> int:
    """Return a port with free ones behind it, below those that systems give to outgoing connections."""
    while True:
        port = random.randrange(20000, 30000)
        try:
            for each in range(port, port + FREE_BEHIND):
                with socket.socket() as probe:
                    probe.bind((LOOPBACK, each))
        except OSError:
            continue
        return port


def _unload(core: Any) -> None:
    """End the sequence and unload the devices; a camera thread that is just ending still counts as running."""
    for _ in range(UNLOADS):
        try:
            for camera in core.getLoadedDevicesOfType(2):
                if core.isSequenceRunning(camera):
                    core.stopSequenceAcquisition(camera)
            core.reset()
            return
        except RuntimeError:
            time.sleep(0.05)
