"""The arrays of OUT: made by the writer of recordings, so that they are as a recording's, then written by index.

A unit is a whole number of chunk files (`make_arrays` looks), so no two blocks ever write to the same file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import SinkError
from pellucid.process.recorded import Recorded
from pellucid.protocols import Spec
from pellucid.recording.disk import Disk
from pellucid.recording.image import Ending
from pellucid.recording.plan import plan_image
from pellucid.recording.zarr_image import ZarrImage

__all__ = ["Arrays", "make_arrays"]

# A frame of zeros is a file as well: one that is done again must not leave an older one. And of zarr's pipelines its
# own, which puts a file there in one step. ome-writers leaves its choice of both behind.
_ZARR = {"array.write_empty_chunks": True, "codec_pipeline.path": "zarr.core.codec_pipeline.BatchedCodecPipeline"}


def make_arrays(
    folder: Path,
    recorded: Recorded,
    planes: Sequence[Mapping[str, Spec]],
    run: Mapping[str, Any],
) -> list[dict[str, list[str]]]:
    """Make all images in their whole size, full of zeros.

    Parameters
    ----------
    folder
        OUT, or what becomes OUT.
    recorded
        IN, whose axes, names and sizes they get.
    planes
        For each stream those that are written.
    run
        What a recorder gets: ``config_sha256``, ``version``.

    Returns
    -------
    list of dict
        For each stream and plane the arrays of its positions, as paths below `folder`.
    """
    made: dict[tuple[str, int, Spec], list[str]] = {}
    names: set[str] = set()
    out: list[dict[str, list[str]]] = []
    for stream, specs in zip(recorded.streams, planes, strict=True):
        number = recorded.image_of[stream.index]
        image = recorded.images[number]
        out.append({})
        for plane, spec in specs.items():
            key = (plane, number, spec)
            if key not in made:
                base = re.sub(r"[^A-Za-z0-9_.-]", "_", plane)
                name = f"{base}{image.end}.ome.zarr"
                if name in names:  # of a channel whose stages give another type
                    name = (
                        f"{base}{image.end}-{re.sub(r'[^A-Za-z0-9_.-]', '_', stream.channel)}-{stream.index}.ome.zarr"
                    )
                names.add(name)
                made[key] = _make(folder / name, number, recorded, spec, run)
            out[-1][plane] = [Path(array).relative_to(folder).as_posix() for array in made[key]]
    return out


def _make(
    path: Path,
    number: int,
    recorded: Recorded,
    spec: Spec,
    run: Mapping[str, Any],
) -> list[str]:
    image = recorded.images[number]
    streams = [s for s in recorded.streams if recorded.image_of[s.index] == number]
    plan = plan_image(path.name.removesuffix(".ome.zarr"), path.name.removesuffix(".ome.zarr"), streams, spec, run)
    made = ZarrImage(path.parent, plan, Disk())
    try:
        made.create()
        lengths = [image.sizes[0]] * max(len(plan.positions), 1)
        made.finish(Ending(lengths, _interval_s(recorded, number)))
    except OSError as error:
        raise SinkError(f"{path} cannot be made: {error.strerror or error}") from None
    # With several positions each is a folder of its own, in the order in which they were given.
    import zarr

    names = streams[0].names.get("p", ()) if image.sizes[1] > 1 else ()
    arrays = [str(path / name / "0") for name in names] or [str(path / "0")]
    for array in arrays:
        opened = zarr.open_array(array, mode="r", zarr_format=3)
        files = opened.shards or opened.chunks
        if any(n != 1 for n in files[: -len(spec.shape)]):
            raise SinkError(f"{array} has files of several frames, {files}, which blocks cannot share")
    return arrays


def _interval_s(recorded: Recorded, number: int) -> float | None:
    """Return the time between two places along t: as IN says, else as the frames of a recording came."""
    image = recorded.images[number]
    if image.facts.interval_s is not None or recorded.rows is None:
        return image.facts.interval_s
    times = recorded.rows.camera_time[image.first : image.first + image.stored.count]
    known = times[~np.isnan(times)]
    return float(np.ptp(known)) / (image.sizes[0] - 1) if len(known) > 1 and image.sizes[0] > 1 else None


class Arrays:
    """Arrays of OUT, opened for writing.

    Parameters
    ----------
    folder
        OUT.
    paths
        As `make_arrays` returned them.
    """

    def __init__(self, folder: Path, paths: Sequence[Mapping[str, Sequence[str]]]) -> None:
        self._folder, self._paths = folder, paths
        self._opened: dict[str, Any] = {}

    def write(self, stream: int, plane: str, place: tuple[int, tuple[int, ...]], pixels: NDArray[Any]) -> None:
        """Put a plane where it belongs; what was there before is replaced in one step, file by file."""
        position, index = place
        self._array(self._paths[stream][plane][position])[index] = pixels

    def sync(self, stream: int, plane: str, place: tuple[int, tuple[int, ...]]) -> None:
        """Have what `write` put there on the disk itself, for the day when the power fails."""
        position, index = place
        path = self._paths[stream][plane][position]
        array = self._array(path)
        ends = [range(-(-n // c)) for n, c in zip(array.shape, array.chunks, strict=True)][len(index) :]
        for rest in np.ndindex(*(len(end) for end in ends)):
            key = array.metadata.encode_chunk_key((*index, *rest))
            with open(self._folder / path / key, "rb+") as file:
                os.fsync(file.fileno())

    def _array(self, path: str) -> Any:
        if path not in self._opened:
            import zarr

            with zarr.config.set(_ZARR):
                self._opened[path] = zarr.open_array(str(self._folder / path), mode="r+", zarr_format=3)
        return self._opened[path]
