"""Blocks given to processes: of this computer, or of a dask.distributed cluster.

A worker needs nothing but the name of OUT, which it must see under the same path: plan, config and IN are found from
there. It runs one block at a time, whatever dask lends it in threads, since torch's number of threads is that of the
process. A worker that dies is dask's business: it gives the block to another one, which begins it anew.
"""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pellucid._version import version
from pellucid.errors import PellucidError, RunError, require
from pellucid.process.block import BlockRunner
from pellucid.process.plan import PLACE, Block

__all__ = ["dask_setup", "run_block", "run_on_cluster"]

_AHEAD = 2
"""Blocks for each worker that the scheduler knows of."""
_one = threading.Lock()
_kept: dict[str, BlockRunner] = {}
"""By the token of its plan: at most one."""


def run_on_cluster(
    out: Path,
    blocks: Sequence[Block],
    *,
    workers: int,
    scheduler: str,
    stop: Callable[[], bool],
    ask_to_stop: Callable[[], None],
    done: Callable[[Block], None],
) -> None:
    """Have blocks done by workers; returns when all are, or have stopped.

    Parameters
    ----------
    out
    blocks
        That are not done yet.
    workers
        Processes to start here, where there is no `scheduler`.
    scheduler
        Address of a cluster, ``"tcp://computer:8786"``.
    stop, ask_to_stop
        Whether to stop, and what tells the workers so.
    done
        Called for each block that is done.

    Raises
    ------
    RunError
        Where the cluster goes away; what was done stays done.
    """
    distributed: Any = require("distributed", "dask", "--scheduler" if scheduler else "--workers")
    token = _token(out)
    waiting = iter(blocks)
    under_way: dict[Any, Block] = {}
    asked = False
    with _client(distributed, workers, scheduler) as client:

        def begin(block: Block) -> None:
            under_way[client.submit(run_block, str(out), token, block.number, pure=False)] = block

        while True:
            room = _AHEAD * max(len(client.nthreads()), 1) - len(under_way)
            for block in () if asked else _first(waiting, room):
                begin(block)
            if not under_way:
                return
            if stop() and not asked:
                asked = True
                ask_to_stop()
            try:
                ended = distributed.wait(list(under_way), timeout=0.25, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                continue
            for future in ended:
                block = under_way.pop(future)
                # Its worker died with the answer; what a block writes is the same each time.
                if future.status == "lost" and client.status == "running":
                    begin(block)
                else:
                    _result(future, block, done)


def _result(future: Any, block: Block, done: Callable[[Block], None]) -> None:
    if future.cancelled() or future.status == "lost":
        raise RunError("the dask cluster went away. Type the same command again: it goes on from there")
    error = future.exception()
    if isinstance(error, PellucidError):
        raise error
    if error is not None:
        raise RunError(
            f"block {block.number} (stream {block.stream}, frames {block.first} to {block.first + block.count - 1}): "
            f"{type(error).__name__}: {error}"
        )
    if future.result() is not None:
        done(block)


@contextmanager
def _client(distributed: Any, workers: int, scheduler: str) -> Iterator[Any]:
    """Connect to a cluster, or start one of processes here."""
    import dask

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if scheduler:
        try:
            client = distributed.Client(scheduler, timeout=15)
        except (OSError, ValueError) as error:
            raise RunError(
                f"--scheduler {scheduler}: no dask scheduler answers there ({' '.join(str(error).split())}). "
                "Start one: dask scheduler"
            ) from None
        with client:
            if not client.nthreads():
                raise RunError(f"--scheduler {scheduler}: it has no workers. Start some: dask worker {scheduler}")
            yield client
        return
    # dask would tell the libraries under numpy to use one thread; here they use what a process without it uses.
    with (
        dask.config.set(
            {"distributed.nanny.pre-spawn-environ": {}, "distributed.worker.multiprocessing-method": "spawn"}
        ),
        distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
            preload=__name__,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the one that started this worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_block(out: str, token: str, number: int) -> int | None:
    """Run a block in this process, a worker of a cluster.

    Parameters
    ----------
    out
    token
        Of the plan that is meant.
    number
        Of the block.

    Returns
    -------
    int or None
        As `BlockRunner.run`.
    """
    folder = Path(out)
    mark = folder / PLACE / "stop"
    with _one:
        if mark.exists():
            return None
        if token not in _kept:
            while _kept:
                _kept.popitem()[1].close()
            _kept[token] = _make(folder, token)
        return _kept[token].run(number, mark.exists)


def _make(folder: Path, token: str) -> BlockRunner:
    here = f"the worker {os.getpid()} on {_name()}"
    try:
        same = _token(folder) == token
    except OSError:
        same = False
    if not same:
        raise RunError(f"{here} does not see OUT {folder}. All workers need IN and OUT under the same path as you")
    runner = BlockRunner(folder)
    mine = {"pellucid": version, "torch": str(torch.__version__)}
    if runner.plan.versions != mine:
        theirs = ", ".join(f"{k} {v}" for k, v in runner.plan.versions.items())
        mine_ = ", ".join(f"{k} {v}" for k, v in mine.items())
        raise RunError(f"{here} has {mine_}; this run is made with {theirs}. Install the same there")
    return runner


def _name() -> str:
    import platform

    return platform.node() or "another computer"


def _token(out: Path) -> str:
    return hashlib.sha256((out / PLACE / "plan.json").read_bytes()).hexdigest()


def _first(blocks: Iterator[Block], count: int) -> Iterator[Block]:
    for _, block in zip(range(count), blocks, strict=False):
        yield block
