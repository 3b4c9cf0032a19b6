"""What streams, and the places of an experiment, are called over the panes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pellucid.protocols import Stream

__all__ = ["names_of", "title_of", "where_taken"]


def names_of(streams: Sequence[Stream]) -> list[str]:
    """Return what tells each stream from the others: its camera, its channel or both; empty where there is one."""
    parts = [part for part in ("camera", "channel") if len({getattr(stream, part) for stream in streams}) > 1]
    if not parts and len(streams) > 1:
        return [f"stream {number}" for number, _ in enumerate(streams, 1)]
    return ["  ".join(getattr(stream, part) for part in parts) for stream in streams]


def title_of(streams: Sequence[Stream]) -> str:
    """Return all cameras and all channels, each once."""
    kinds = ([stream.camera for stream in streams], [stream.channel for stream in streams])
    return " · ".join(dict.fromkeys(", ".join(dict.fromkeys(names)) for names in kinds))


def where_taken(stream: Stream, axes: Mapping[str, int] | None, places: Mapping[str, str]) -> str:
    """Return a frame's place in its experiment, such as ``t 12/60   p A1 (2/96)   z 3/7``.

    Places are counted from one, as in Micro-Manager, and without an end where it is not known. The channel is
    left out: a stream has but one, which is in its title.

    Parameters
    ----------
    stream
        Its `sizes` tell how many places there are.
    axes
        Of the frame.
    places
        Names of its places.
    """
    if not axes:
        return ""
    texts = []
    for axis in [axis for axis in stream.sizes if axis in axes] + [axis for axis in axes if axis not in stream.sizes]:
        if axis == "c":
            continue
        size = stream.sizes.get(axis)
        number = f"{axes[axis] + 1}/{size}" if size else f"{axes[axis] + 1}"
        texts.append(f"{axis} {places[axis]} ({number})" if axis in places else f"{axis} {number}")
    return "   ".join(texts)
