"""What makes two models the same: one hash over all that has a say in the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from pellucid.models.model import Operation, Port

__all__ = ["hash_files", "hash_model"]


def hash_files(files: Iterable[Path]) -> str:
    """Return the SHA-256 over the bytes of the files, one after the other."""
    whole = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                whole.update(block)
    return whole.hexdigest()


def hash_model(
    weights: str, given: Port, result: Port, before: Sequence[Operation], after: Sequence[Operation], *more: object
) -> str:
    """Return the hash of weights (their own hash) together with ports, operations and whatever else counts."""
    facts = [asdict(given), asdict(result), *[[o.name, dict(o.keys)] for o in (*before, *after)], len(before), *more]
    return hashlib.sha256(f"{weights}\n{json.dumps(facts, sort_keys=True, default=str)}".encode()).hexdigest()
