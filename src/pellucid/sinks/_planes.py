"""One plane of one stream as an OME-Zarr image, through ome-writers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pellucid.protocols import Spec, Stream

__all__ = ["PlaneWriter"]


class PlaneWriter:
    """One plane of one stream in one OME-Zarr image."""

    def __init__(
        self, path: Path, stream: Stream, spec: Spec, backend: str, compression: str, run: Mapping[str, Any]
    ) -> None:
        import ome_writers

        # ome-writers 0.3.2 asks numpy for the integer range of any type when channels have names, which
        # fails for float32; such planes get their channel's name below.
        whole = spec.dtype[0] in "ui"
        named = [ome_writers.Channel(name=stream.channel)] if whole else None
        space: dict[str, Any] = {"type": "space"}
        if stream.pixel_um is not None:
            space |= {"unit": "micrometer", "scale": stream.pixel_um}
        sizes = zip("zyx"[-len(spec.shape) :], spec.shape, strict=True)
        self._stream = ome_writers.create_stream(
            ome_writers.AcquisitionSettings.model_validate(
                {
                    "root_path": str(path),
                    "dtype": spec.dtype,
                    "format": {"name": "ome-zarr", "backend": backend},
                    "compression": None if compression == "none" else compression,
                    "dimensions": [
                        {"name": "t", "count": None, "type": "time", "unit": "second"},
                        {"name": "c", "count": 1, "type": "channel", "coords": named},
                        *({"name": axis, "count": n, **space} for axis, n in sizes),
                    ],
                }
            )
        )
        self.length = 0
        if not whole:
            self._name_channel(stream.channel)
        self._exposure_s = None if stream.exposure_ms is None else stream.exposure_ms * 1e-3
        self._stream.set_global_metadata(
            "pellucid",
            {
                "version": run.get("version", ""),
                "config_sha256": run.get("config_sha256", ""),
                "camera": stream.camera,
                "channel": stream.channel,
                "pixel_um": stream.pixel_um,
                "exposure_ms": stream.exposure_ms,
                "bit_depth": stream.bit_depth,
                "plane": path.name.removesuffix(".ome.zarr"),
                "details": dict(stream.details),
            },
        )

    def append(self, plane: Any) -> int:
        # The exposure is the same for all frames of a stream; kept with the first, since ome-writers holds
        # the metadata of every frame in memory until the end.
        first = {"exposure_time": self._exposure_s} if self._exposure_s is not None and not self.length else None
        self._stream.append(plane, frame_metadata=first)
        self.length += 1
        return self.length - 1

    def append_at(self, index: int, plane: Any) -> None:
        if index > self.length:
            self._stream.skip(frames=index - self.length)
            self.length = index
        self.append(plane)

    def finish(self, length: int, interval_s: float | None) -> None:
        """Make the array as long as raw, note the measured time between frames, and close it."""
        if length > self.length:
            self._stream.skip(frames=length - self.length)
            self.length = length
        if interval_s is not None:
            tree = self._stream.get_metadata()
            for group in tree.values():
                for scale in group["ome"]["multiscales"]:
                    for level in scale["datasets"]:
                        level["coordinateTransformations"][0]["scale"][0] = interval_s
            self._stream.update_metadata(tree)
        self._stream.close()

    def abandon(self) -> None:
        """Close as far as it goes: what cannot be written now never can be."""
        try:
            self._stream.close()
        except Exception:
            # The first fault has been told; ome-writers would try again, aloud, when the interpreter ends.
            self._stream._finalizer.detach()

    def _name_channel(self, name: str) -> None:
        tree = self._stream.get_metadata()
        for group in tree.values():
            group["ome"]["omero"] = {
                "channels": [
                    {"label": name, "color": "FFFFFF", "window": {"min": 0, "max": 65535, "start": 0, "end": 65535}}
                ]
            }
        self._stream.update_metadata(tree)
