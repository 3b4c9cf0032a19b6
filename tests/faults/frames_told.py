"""A recorder that is given frames whose pixels can be made again from their number, and what is found of them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pellucid.errors import SinkError
from pellucid.ledger import Ledger
from pellucid.metrics import now_ns
from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.recording.about import About
from pellucid.recording.disk import Disk
from pellucid.recording.image import At
from pellucid.recording.opened import Opened, open_image
from pellucid.sinks.recorder import Recorder
from pellucid.testing import LocalRing

SIDE = 64
STREAM = Stream(Spec((SIDE, SIDE), "uint16"), camera="cam", channel="GFP", pixel_um=0.1, exposure_ms=5.0)
CONFIG = "# c\n"


def raw(i: int) -> np.ndarray:
    """Frame `i`: noise, as a camera's; nothing in it is like that of another number."""
    return np.random.default_rng(i).integers(1, 65535, (SIDE, SIDE)).astype(np.uint16)


def restored(i: int) -> np.ndarray:
    return (raw(i) // 2).astype(np.float32)  # the same in uint16, for a format that has no other


class Run:
    """A recorder in this process.

    Parameters
    ----------
    folder
    disk
        Whose faults are tried.
    keys
        Of the recorder.
    """

    def __init__(self, folder: Path, disk: Disk | None = None, **keys: Any) -> None:
        self.folder = folder
        self.recorder = Recorder(path=str(folder), **keys)
        if disk is not None:
            self.recorder.disk = disk
        self.ledger = Ledger()
        self.said: list[str] = []
        self.sent = 0
        self._infos: list[FrameInfo] = []
        sha256 = hashlib.sha256(CONFIG.encode()).hexdigest()
        run = {"config": CONFIG, "config_sha256": sha256, "version": "0"}
        spec = Spec((SIDE, SIDE), "uint16" if keys.get("format") == "ndtiff" else "float32")
        self.recorder.open(
            [STREAM],
            [{"raw": STREAM.spec, "restored": spec}],
            run | {"ledger": self.ledger, "tell": self.said.append},
        )
        self.ring = LocalRing(STREAM, 2, {"restored": spec})

    def give(self, frames: int) -> None:
        for _ in range(frames):
            i = self.sent
            slot = self.ring.slots[i % 2]
            slot.planes["raw"][...] = raw(i)
            slot.planes["restored"][...] = restored(i)
            now = now_ns()
            slot.info = FrameInfo(i, camera_number=i, camera_ns=now, received_ns=now)
            self.ledger.arrived(slot.info, STREAM.spec.nbytes)
            self.sent += 1
            self.recorder.write(slot, ("raw",))
            self.recorder.write(slot, ("restored",))
            self.ledger.ended(slot.info, "processed")
            self.ledger.finish(slot.info)
            self._infos.append(slot.info)

    def written(self) -> list[int]:
        """Return the frames of which every plane was written, by what the recorder says."""
        there = [info.seq for info in list(self._infos) if not info.pending and len(info.sums or {}) == 2]
        return [i for i in there if not self._infos[i].unrecorded]

    def wait(self, seconds: float = 20) -> None:
        """Wait until all that was given is written."""
        end = time.monotonic() + seconds
        while any(info.pending for info in self._infos):
            assert time.monotonic() < end, "the recorder does not write"
            time.sleep(0.001)

    def end(self) -> None:
        try:
            self.recorder.finish()
        finally:
            self.leave()

    def leave(self) -> None:
        """Close what this process holds, as its death would."""
        self.recorder.close({"frames": self.ledger.frames()})
        self.ring.close()


def found(folder: Path) -> dict[str, dict[int, bool]]:
    """Return for each plane which frames a recording says it has, and whether their pixels are those that were sent.

    Read by zarr-python, tifffile or ndstorage, by the rows and by the arrays: a plane without a row that is not zeros
    counts.
    """
    return compared(folder, {"raw": raw, "restored": restored})


def compared(folder: Path, sent: Mapping[str, Callable[[int], np.ndarray]]) -> dict[str, dict[int, bool]]:
    """Do so for frames of a session: `sent` makes each plane's pixels from a frame's number."""
    rows = [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]
    out: dict[str, dict[int, bool]] = {}
    about = About.read(folder)
    of = {part["number"]: part["of"]["0"] for part in about.parts if part["of"]}
    plans = about.plans()
    for plane, make in sent.items():
        seen = out.setdefault(plane, {})
        for number, planes in of.items():
            told = {row["at"][1]: row for row in rows if plane in row.get("xxh3", {}) and row.get("part", 0) == number}
            image = open_image(folder, plans[planes[plane]], about.file_format)
            try:
                length = (image.found()[0][0] or (0,))[0]
                for t in sorted({*told, *range(length)}):
                    if t in told:
                        seq = told[t]["seq"]
                        assert seq not in seen, f"frame {seq} has two places"
                        seen[seq] = bool(np.array_equal(_read(image, t), make(seq)))
                    elif image.read(At(0, t, 0)).any():
                        seen[-1 - t] = False  # pixels of which nobody knows whose they are
            finally:
                image.close()
    return out


def _read(image: Opened, t: int) -> np.ndarray | None:
    """Return the pixels that another reader finds; None where it finds none."""
    try:
        return image.read(At(0, t, 0))
    except SinkError:
        return None
