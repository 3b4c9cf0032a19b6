"""``pellucid snap``: the newest frame of a session as pictures and as data.

The frame is taken from the session, whole and as it was computed, whatever a window shows of it. Of each plane a PNG is
written within the display limits, with a scale bar, and an OME-TIFF of its values with the size of its pixels. Nothing
is ever overwritten.
"""

from __future__ import annotations

import contextlib
import queue
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import RunError, SinkError
from pellucid.metrics import now_ns
from pellucid.picture import robust_limits, scale_bar_um
from pellucid.protocols import FrameInfo, Slot, Spec, Stream
from pellucid.runtime.session import Session

__all__ = ["Snapped", "newest", "write"]

WAIT_S = 2.5
SMALLEST = 256
"""Pixels along the shorter side of a PNG; smaller planes are enlarged, each pixel to a square of some."""
_GREY = 255


@dataclass(frozen=True)
class Snapped:
    """A frame that was taken, in memory of its own."""

    stream: Stream
    info: FrameInfo
    planes: Mapping[str, NDArray[Any]]
    specs: Mapping[str, Spec]


def newest(session: Session, wait_s: float = WAIT_S) -> list[Snapped]:
    """Return the next frame of each stream that comes to the end of the stages.

    Raises
    ------
    RunError
        Where none comes in that time.
    """
    taker = _Taker(session)
    lanes = session.lanes_that_go_on()
    for lane in lanes:
        lane.wanted = taker
    frames: list[Snapped] = []
    end = now_ns() + round(wait_s * 1e9)
    try:
        while len(frames) < len(lanes):
            try:
                frames.append(_copy(session, taker.came.get(timeout=max(0.0, (end - now_ns()) * 1e-9))))
            except queue.Empty:
                break
    finally:
        for lane in lanes:
            lane.wanted = None
        taker.end()
    if not frames:
        raise RunError(
            f"no frame came within {wait_s:g} s, so there is nothing to snap. Type it again when frames come"
        )
    return sorted(frames, key=lambda frame: frame.stream.index)


class _Taker:
    """Takes slots that are held for it, until it has ended; from any thread."""

    def __init__(self, session: Session) -> None:
        self.came: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        self._session = session
        self._lock = threading.Lock()
        self._over = False

    def __call__(self, slot: Slot) -> None:
        with self._lock:
            if not self._over:
                self.came.put(slot)
                return
        self._session.release(slot)  # it came when nobody waited any more

    def end(self) -> None:
        """Let go of what nobody took, now and later."""
        with self._lock:
            self._over = True
        while not self.came.empty():
            self._session.release(self.came.get())


def _copy(session: Session, slot: Slot) -> Snapped:
    """Copy a slot that is held for us, and let go of it."""
    try:
        specs = next(lane.planes for lane in session.lanes if lane.stream.index == slot.stream.index)
        planes = {name: slot.planes[name].copy() for name in slot.ready}
        return Snapped(slot.stream, slot.info, planes, {name: specs[name] for name in planes})
    finally:
        session.release(slot)


def write(frames: Sequence[Snapped], folder: Path, limits: Sequence[Mapping[str, Any]] = ()) -> list[Path]:
    """Write frames to a folder, which is made; return the files.

    Parameters
    ----------
    frames
    folder
    limits
        Rows of ``camera``, ``channel``, ``plane``, ``limits`` (low, high), as a window shows them; planes that are not
        among them, and all for a terminal, get the 0.1 and the 99.9 percentile.

    Raises
    ------
    SinkError
    """
    seen = {
        (str(row.get("camera")), str(row.get("channel")), str(row.get("plane"))): row.get("limits") for row in limits
    }
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    made: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for frame in frames:
            stream = frame.stream
            which = f"-{_word(stream.camera)}-{_word(stream.channel)}" if len(frames) > 1 else ""
            for name, plane in frame.planes.items():
                end = f"frame{frame.info.seq:06d}{which}-{_word(name)}"
                shown = _limits(seen.get((stream.camera, stream.channel, name))) or robust_limits(
                    _flat(plane, frame, name)
                )
                with _new(folder, f"snap-{stamp}-{end}", ".png") as (file, path):
                    _write_png(file, plane, frame, name, shown)
                    made.append(path)
                with _new(folder, f"snap-{stamp}-{end}", ".ome.tif") as (file, path):
                    _write_tiff(file, plane, frame, name)
                    made.append(path)
    except OSError as error:
        raise SinkError(
            f"snap: {folder} cannot be written: {error.strerror or error}. Give another: --to FOLDER"
        ) from None
    return made


@contextlib.contextmanager
def _new(folder: Path, name: str, end: str) -> Iterator[tuple[IO[bytes], Path]]:
    """Open a file that did not exist; the name gets a number where one does."""
    for again in range(1, 10_000):
        path = folder / (name + (f"-{again}" if again > 1 else "") + end)
        try:
            file = path.open("x+b")
        except FileExistsError:
            continue
        try:
            with file:
                yield file, path
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return
    raise FileExistsError(0, f"{name}{end} is there 10,000 times")


def _word(text: str) -> str:
    return re.sub(r"[^\w.+]+", "-", text).strip("-.")[:40] or "plane"


def _limits(given: Any) -> tuple[float, float] | None:
    numbers = isinstance(given, list | tuple) and len(given) == 2 and all(type(v) in (int, float) for v in given)
    return (float(given[0]), float(given[1])) if numbers and given[0] < given[1] else None


def _flat(plane: NDArray[Any], frame: Snapped, name: str) -> NDArray[Any]:
    """Return what is shown of a plane: of a stack its maximum along z."""
    return plane.max(axis=0) if plane.ndim == 3 and not frame.specs[name].is_colour else plane


def _write_png(file: IO[bytes], plane: NDArray[Any], frame: Snapped, name: str, limits: tuple[float, float]) -> None:
    from PIL import Image, ImageDraw
    from PIL.PngImagePlugin import PngInfo

    shown = _flat(plane, frame, name).astype(np.float32)
    low, high = limits
    grey = np.nan_to_num(np.clip((shown - low) * (_GREY / (high - low)), 0, _GREY), nan=0.0).astype(np.uint8)
    picture = np.moveaxis(grey, 0, -1) if grey.ndim == 3 else grey
    larger = -(-SMALLEST // min(picture.shape[:2]))
    if larger > 1:
        picture = picture.repeat(larger, 0).repeat(larger, 1)
    image = Image.fromarray(np.ascontiguousarray(picture)).convert("RGB")
    um = _pixel_um(frame, name)
    if um is not None:
        _draw_bar(ImageDraw.Draw(image), image.size, um / larger)
    info = PngInfo()
    size = f", {um:g} um a pixel" if um is not None else ""
    info.add_text("Description", f"{name}, frame {frame.info.seq}, shown from {low:g} to {high:g}{size}")
    info.add_text("Software", "pellucid")
    image.save(file, "PNG", pnginfo=info)


def _draw_bar(draw: Any, size: tuple[int, int], um: float) -> None:
    """Draw a scale bar at the lower right: white with a dark edge, seen on any picture."""
    from PIL import ImageFont

    width, height = size
    length, label = scale_bar_um(0.25 * width * um)
    across, thick = round(length / um), max(3, height // 160)
    edge = max(8, height // 40)
    right, bottom = width - edge, height - edge
    draw.rectangle((right - across - 1, bottom - thick - 1, right, bottom), fill="white", outline="black")
    draw.text(
        (right - across / 2, bottom - thick - 4),
        label.replace("µ", "u"),  # pillow's own font has no other
        anchor="mb",
        font=ImageFont.load_default(max(12, height // 36)),
        fill="white",
        stroke_width=1,
        stroke_fill="black",
    )


def _pixel_um(frame: Snapped, name: str) -> float | None:
    um = frame.stream.pixel_um
    return None if um is None else um / frame.specs[name].zoom


def _write_tiff(file: IO[bytes], plane: NDArray[Any], frame: Snapped, name: str) -> None:
    import tifffile

    spec, um = frame.specs[name], _pixel_um(frame, name)
    facts: dict[str, Any] = {"axes": spec.axes.upper(), "Name": f"{name}, frame {frame.info.seq}"}
    sizes = {"X": um, "Y": um, "Z": frame.stream.z_um if "z" in spec.axes else None}
    for axis, size in sizes.items():
        if size:
            facts |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    tifffile.imwrite(file, plane, ome=True, metadata=facts, photometric="minisblack")
