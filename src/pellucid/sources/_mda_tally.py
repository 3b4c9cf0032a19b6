"""Which frames of an acquisition came, and which did not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["Key", "Tally"]

Key = tuple[str, str]
"""Camera and channel."""


class Tally:
    """Counts the frames of one acquisition.

    pymmcore-plus says nothing of a frame that does not come: a picture that fails is a line in its log, and a gap in
    a hardware sequence moves the places of all frames after it.

    Attributes
    ----------
    last : tuple of str or None
        Camera and channel of the last frame of a hardware sequence.
    """

    def __init__(self) -> None:
        self._came: Counter[Key] = Counter()
        self._next: dict[str, int] = {}
        self.last: Key | None = None

    def come(self, key: Key, meta: Mapping[str, Any]) -> tuple[int, int]:
        """Count a frame; return the camera's own number, and how many frames are missing before it.

        Frames of a hardware sequence have a number (others: -1). It begins anew with every such sequence, so only a
        jump forward tells.
        """
        tag = str((meta.get("camera_metadata") or {}).get("ImageNumber", ""))
        number = int(tag) if tag.isdigit() else -1
        gap = max(number - self._next.get(key[0], number), 0)
        if number >= 0:
            self._next[key[0]] = number + 1
            self.last = key
        self._came[key] += 1 + gap
        return number, gap

    def holes(self, counts: Mapping[str, int], cameras: Sequence[str]) -> Iterator[tuple[Key, int]]:
        """Tell how many frames of which camera and channel never came.

        Parameters
        ----------
        counts
            Frames that the sequence has of each channel.
        cameras
            That the acquisition began with; a preset may have changed to another one, whose frames count as well.
        """
        for channel, count in counts.items():
            lack = count * max(len(cameras), 1) - sum(n for key, n in self._came.items() if key[1] == channel)
            for camera in cameras or ("",):
                some = min(lack, count - self._came[camera, channel])
                if some > 0:
                    yield (camera, channel), some
                    lack -= some
