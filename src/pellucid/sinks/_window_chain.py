"""What the stages compute with, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["chain_in_words"]


def chain_in_words(streams: Iterable[Sequence[Mapping[str, Any]]]) -> str:
    """Return a text for the window's header from what the report says of each stream's stages."""
    texts: list[str] = []
    for stages in streams:
        for stage in stages:
            made, model = stage.get("engine"), stage.get("model")
            if made and model:
                texts.append(f"{model['name']}: {made['library']}, {made['precision']}")
            else:
                texts.append(f"{stage['stage']}: {stage.get('method', '')} {stage['device']}".replace(":  ", ": "))
    return "   ".join(dict.fromkeys(texts))
