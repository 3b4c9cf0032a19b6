"""Pointwise work on large arrays, piece by piece, on all threads of the CPU.

A piece of a few arrays stays in a core's own cache while one operation after the other is done on it. torch's threads
would meet after each operation on each piece, and spin there until the last has come: where another program keeps a
core busy, a frame takes twenty times as long. Here each thread has its share of the pieces, torch does not divide any
of them further, and they meet once, asleep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

__all__ = ["Pieces"]

_PIECE = 128_000
"""Numbers: three arrays of half a MB. With less the threads wait for Python's lock, with more for the memory."""


class Pieces:
    """Calls a function on pieces of arrays.

    Parameters
    ----------
    device
        On a GPU, where memory is not to be saved in this way, a piece is the whole.
    """

    def __init__(self, device: str) -> None:
        self._whole = device != "cpu"
        self._threads = torch.get_num_threads()
        self._pool = None
        if self._threads > 1 and not self._whole:
            self._pool = ThreadPoolExecutor(self._threads, initializer=_alone)

    def __call__(self, work: Callable[..., None], *arrays: torch.Tensor) -> None:
        """Hot: call `work` with the same piece of each of `arrays`, which it changes; return when all are done."""
        if self._whole:
            work(*arrays)
            return
        # A list, not a generator: a tuple made of one is larger than it says, and Python keeps a thousand of them.
        rows = list(zip(*[a.view(-1).split(_PIECE) for a in arrays], strict=True))
        if self._pool is None or len(rows) == 1:
            _do(work, rows)
            return
        share = -(-len(rows) // self._threads)
        shares = [self._pool.submit(_do, work, rows[i : i + share]) for i in range(0, len(rows), share)]
        for one in shares:
            one.result()


def _alone() -> None:
    torch.set_num_threads(1)  # of what this thread itself calls; the others keep theirs


def _do(work: Callable[..., None], rows: Sequence[tuple[torch.Tensor, ...]]) -> None:
    with torch.inference_mode():  # each thread has a mode of its own
        for row in rows:
            work(*row)
