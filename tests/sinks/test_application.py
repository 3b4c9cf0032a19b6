"""Sink "micromanager-display" against the application of the test server."""

from __future__ import annotations

import time

import numpy as np
import pytest

import pellucid
from pellucid.errors import SinkError
from pellucid.ledger import Ledger
from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.sinks.application import ApplicationDisplay
from pellucid.testing import LocalRing, check_sink
from tests.sources.bridge_parts import Answering

pytest.importorskip("pymmcore", reason="pymmcore is not installed: pip install pellucid[micromanager]")
pytest.importorskip("mm_test_adapters", reason="mm-test-adapters is not installed: pip install pellucid[demo]")

from pellucid.testing.bridge import BridgeServer, studio
from pellucid.testing.bridge.java import Face

PATIENCE_S = 20.0
DATA = "org.micromanager.data"


@pytest.fixture
def server():
    with BridgeServer() as server:
        yield server


class Store:
    """A ``RewritableDatastore``."""

    face = Face(
        f"{DATA}.internal.DefaultRewritableDatastore",
        f"void putImage({DATA}.Image)",
        interfaces=(f"{DATA}.RewritableDatastore", f"{DATA}.Datastore", f"{DATA}.DataProvider"),
    )

    def __init__(self) -> None:
        self.images = []

    def putImage(self, image):
        self.images.append(image)


class Window:
    """A ``DisplayWindow``."""

    face = Face(
        "org.micromanager.display.internal.displaywindow.DisplayController",
        "boolean isClosed()",
        "void close()",
        "void setCustomTitle(java.lang.String)",
    )

    def __init__(self, store: Store) -> None:
        self.store, self.title, self.closed = store, "", False

    def isClosed(self):
        return self.closed

    def close(self):
        self.closed = True

    def setCustomTitle(self, title):
        self.title = title


class Displays:
    """A ``DisplayManager``."""

    face = Face(
        "org.micromanager.display.internal.DefaultDisplayManager",
        f"org.micromanager.display.DisplayWindow createDisplay({DATA}.DataProvider)",
    )

    def __init__(self) -> None:
        self.windows: list[Window] = []

    def createDisplay(self, store):
        self.windows.append(Window(store))
        return self.windows[-1]


@pytest.fixture
def displays(monkeypatch):
    """Windows of their own, which the test server's application has not."""
    displays = Displays()
    for cls, method, make in (
        (studio.Studio, "org.micromanager.display.DisplayManager displays()", lambda _: displays),
        (studio.DataManager, f"{DATA}.RewritableDatastore createRewritableRAMDatastore()", lambda _: Store()),
    ):
        old = cls.face
        monkeypatch.setattr(cls, "face", Face(old.name, *old.methods, method, interfaces=old.types[1:-1]))
        monkeypatch.setattr(cls, method.split()[1].removesuffix("()"), make, raising=False)
    return displays


class Show:
    """A sink between ``open`` and ``close``, with one stream."""

    def __init__(self, port: int, planes: dict[str, Spec], **keys) -> None:
        self.sink = ApplicationDisplay(port=port, **{"window": "live", "max_fps": 100, **keys})
        self.ledger = Ledger()
        self.stream = Stream(planes["raw"], pixel_um=0.1)
        self.ring = LocalRing(self.stream, 2, {name: spec for name, spec in planes.items() if name != "raw"})
        self.frames = 0
        try:
            self.sink.open([self.stream], [planes], {"ledger": self.ledger})
        except BaseException:
            self.ring.close()
            raise

    def __enter__(self) -> Show:
        return self

    def __exit__(self, *_: object) -> None:
        self.sink.finish()
        self.sink.close(None)
        self.ring.close()
        assert self.sink.shown + self.sink.skipped == self.frames

    def write(self, *names: str, **planes: np.ndarray | float) -> None:
        slot = self.ring.slots[0]
        slot.info = FrameInfo(self.frames)
        for name, value in planes.items():
            slot.planes[name][...] = value
        self.sink.write(slot, names or tuple(planes))
        self.frames += 1

    def until(self, done, **planes) -> None:
        """Write the same frame until something is true."""
        end = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < end, self.ledger.notes
            if planes:
                self.write(**planes)
            time.sleep(0.02)


GREY = {"raw": Spec((48, 64), "uint16"), "restored": Spec((48, 64), "float32")}


@pytest.mark.parametrize("big_endian", [True, False])
def test_pixels_arrive_as_they_are(big_endian):
    ramp = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21
    with BridgeServer(big_endian=big_endian) as server, Show(server.port, GREY, plane="raw") as show:
        show.write(raw=ramp)
        show.until(lambda: server.displayed)
    assert server.displayed[0].dtype == np.uint16
    assert (server.displayed[0] == ramp).all()


def test_floats_are_scaled_alike_in_every_frame(server):
    with Show(server.port, GREY, scale=10.0, offset=5.0) as show:
        for value in (2.0, 5.04, 105.0, 1e9, np.nan):
            show.write(restored=value)
            show.until(lambda n=show.frames: show.sink.shown == n)
    assert [int(picture[0, 0]) for picture in server.displayed] == [0, 0, 1000, 65535, 0]


def test_colours_arrive_in_their_order(server):
    specs = {"raw": Spec((3, 8, 6), "uint8", axes="cyx")}
    picture = np.empty((3, 8, 6), np.uint8)
    picture[:] = np.array([10, 20, 30])[:, None, None]
    with Show(server.port, specs, plane="raw") as show:
        show.write(raw=picture)
        show.until(lambda: server.displayed)
    assert server.displayed[0].shape == (8, 6, 4)
    assert list(server.displayed[0][0, 0]) == [30, 20, 10, 0]


def test_of_a_stack_the_brightest_projection_is_shown(server):
    specs = {"raw": Spec((3, 8, 6), "uint16")}
    with Show(server.port, specs, plane="raw") as show:
        show.write(raw=np.arange(3 * 8 * 6).reshape(3, 8, 6))
        show.until(lambda: server.displayed)
    assert (server.displayed[0] == np.arange(2 * 48, 3 * 48).reshape(8, 6)).all()


def test_a_frame_that_was_not_restored_is_skipped_not_replaced(server):
    with Show(server.port, GREY) as show:
        show.write("raw", raw=7)
        show.write("raw", "restored", raw=7, restored=3)
        show.until(lambda: server.displayed)
        assert show.sink.skipped == 1
    assert server.displayed[-1][0, 0] == 3


def test_the_rate_is_limited(server):
    with Show(server.port, GREY, max_fps=5) as show:
        began = time.monotonic()
        while time.monotonic() - began < 0.9:
            show.write(restored=1)
            time.sleep(0.005)
    assert 2 <= show.sink.shown <= 6
    assert show.frames > 20


def test_a_window_of_its_own(server, displays):
    with Show(server.port, GREY, window="own", title="restored") as show:
        for value in (1, 2):
            show.write(restored=value)
            show.until(lambda n=show.frames: show.sink.shown == n)
        (window,) = displays.windows
        assert window.title == "restored"
        assert [int(image.picture[0, 0]) for image in window.store.images] == [1, 2]
        assert window.store.images[0].getMetadata().getPixelSizeUm() == 0.1
        window.closed = True
        show.until(lambda: show.ledger.notes, restored=3)
        assert "was closed" in show.ledger.notes[0]
        show.write(restored=4)
    assert len(window.store.images) == 2


def test_a_stream_of_another_size_gets_a_window_of_its_size(server, displays):
    with Show(server.port, GREY, window="own") as show:
        show.write(restored=1)
        show.until(lambda: show.sink.shown == 1)
        other = Stream(Spec((8, 6), "uint16"), index=1, replaces=0)
        show.sink.extend(other, {"raw": other.spec, "restored": Spec((8, 6), "float32")})
        ring = LocalRing(other, 1, {"restored": Spec((8, 6), "float32")})
        ring.slots[0].info = FrameInfo(1, stream=1)
        ring.slots[0].planes["restored"][...] = 2
        show.until(lambda: time.monotonic_ns() > show.sink._due_ns)
        show.sink.write(ring.slots[0], ("restored",))
        show.frames += 1
        show.until(lambda: show.sink.shown == 2)
        ring.close()
    first, second = displays.windows
    assert first.closed
    assert [window.store.images[0].picture.shape for window in (first, second)] == [(48, 64), (8, 6)]


def test_an_application_without_such_windows_is_said_once(server):
    with Show(server.port, GREY, window="own") as show:
        show.until(lambda: show.ledger.notes, restored=1)
        for _ in range(5):
            show.write(restored=1)
            time.sleep(0.02)
    assert len(show.ledger.notes) == 1
    assert "refuses a picture" in show.ledger.notes[0]


def test_an_application_that_goes_and_comes_back():
    with BridgeServer() as server:
        with Show(server.port, GREY) as show:
            show.until(lambda: show.sink.shown >= 1, restored=1)
            server.stop()
            show.until(lambda: show.ledger.notes, restored=2)
            before = show.sink.shown
            began = time.monotonic()
            for _ in range(200):
                show.write(restored=2)
            assert time.monotonic() - began < 1, "the run was held up"
            server.start()
            show.until(lambda: show.sink.shown > before, restored=3)
        assert server.displayed[-1][0, 0] == 3
    assert "trying again" in show.ledger.notes[0]
    assert "is there" in show.ledger.notes[1]
    assert len(show.ledger.notes) == 2


def test_an_application_that_is_not_there_yet(unused_port):
    with Show(unused_port, GREY) as show:
        show.write(restored=1)
        assert "not there yet" in show.ledger.notes[0]
        with BridgeServer(unused_port) as server:
            show.until(lambda: server.displayed, restored=1)


def test_a_port_where_something_else_listens(monkeypatch):
    monkeypatch.setattr("pellucid.sinks.application.ANSWER_S", 0.3)
    with Answering([b"hello"]) as other, pytest.raises(SinkError, match="no Micro-Manager"):
        Show(other.port, GREY)
    with BridgeServer(version="4.0.0") as old, pytest.raises(SinkError, match="Update Micro-Manager"):
        Show(old.port, GREY)


def test_a_plane_that_no_stream_has(server):
    with pytest.raises(SinkError, match=r'plane = "restored": no stream has it\. There are: raw'):
        Show(server.port, {"raw": GREY["raw"]})


def test_the_contract(server):
    check_sink(lambda: ApplicationDisplay(port=server.port, window="live", max_fps=100))


def test_restored_frames_of_a_session_are_shown(server):
    server.set_live(True)
    stage = {"kind": "deconvolve", "psf": {"kind": "gaussian", "fwhm_px": 3.0}, "iterations": 1}
    config = {
        "source": {"kind": "micromanager-java", "port": server.port, "frames": 8},
        "stages": [stage],
        "sinks": [{"kind": "micromanager-display", "port": server.port, "window": "live", "max_fps": 50}],
    }
    with pellucid.open(config) as session:
        for _ in session:
            pass
    counts = session.report["sinks"]["micromanager-display"]
    assert counts["written"] + counts["skipped"] == counts["offered"]
    assert counts["written"] == len(server.displayed) > 0
    assert session.report["frames"]["unaccounted"] == 0
