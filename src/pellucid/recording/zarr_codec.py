"""How the pixels of a plane become bytes in a Zarr 3 array: as they lie, or losslessly compressed by numcodecs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import SinkError

__all__ = ["Codec"]

_SHUFFLE = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


class Codec:
    """The codecs of one array.

    Parameters
    ----------
    codecs
        As the array's metadata has them: ``bytes``, and at most one of ``blosc`` and ``zstd``.

    Raises
    ------
    SinkError
        Where there are others.
    """

    def __init__(self, codecs: Sequence[Mapping[str, Any]]) -> None:
        self._compressor: Any = None
        for codec in codecs:
            name, options = codec["name"], codec.get("configuration", {})
            if name == "bytes":
                continue
            if self._compressor is not None or name not in ("blosc", "zstd"):
                raise SinkError(f"an array with the codec {name} cannot be written here. Known: bytes, blosc, zstd")
            if name == "blosc":
                from numcodecs.blosc import Blosc

                self._compressor = Blosc(options["cname"], options["clevel"], _SHUFFLE[options["shuffle"]])
            else:
                from numcodecs.zstd import Zstd

                self._compressor = Zstd(options.get("level", 0), options.get("checksum", False))

    def encode(self, plane: NDArray[Any]) -> Any:
        """Hot: return the bytes of a contiguous plane; the plane itself where nothing is to be done."""
        return plane if self._compressor is None else self._compressor.encode(plane)

    def decode(self, data: bytes, dtype: str, size: Sequence[int]) -> NDArray[Any] | None:
        """Return the plane; None where these are not the bytes of one."""
        want = int(np.prod(size)) * np.dtype(dtype).itemsize
        if self._compressor is not None:
            try:
                data = bytes(memoryview(self._compressor.decode(data)))
            except Exception:  # numcodecs raises what it likes at bytes that are not its own
                return None
        if len(data) != want:
            return None
        return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(tuple(size))
