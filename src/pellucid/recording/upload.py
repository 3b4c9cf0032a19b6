"""What a recorder has committed goes to ``s3://bucket/prefix`` in the background; a pulled cable costs only time.

::

    recorder ── local folder, committed ── offer(paths) ──► Uploader ──► Bucket
                                                            a thread     s3://bucket/prefix
                                                            names only

The recording is always made in a local folder, and is as safe there as without this. Files that were committed are
offered by name, and one thread puts several of them at once. What fails is tried again for as long as the run lasts:
after a fault one file at a time, with growing pauses, until one arrives. A file that changes is put again, whatever it
holds then; one that changes all the time (metadata, rows) waits until it has been left alone for a while, or for the
end. So while the run lasts the bucket may lag behind, and metadata there may tell of pixels that are still to come.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import wait
from pathlib import Path

from pellucid.recording.amounts import amount
from pellucid.recording.upload_fault import Fault, fault_of_file
from pellucid.recording.upload_queue import UploadQueue
from pellucid.recording.upload_report import Report
from pellucid.recording.upload_state import Sent, UploadState, is_chunk, still
from pellucid.recording.upload_store import Bucket, Stored
from pellucid.recording.upload_sums import etag_of

__all__ = ["Report", "Uploader"]

_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_STALL_S = 20.0
"""After which a put that goes on makes one ask whether the store is still there."""


class Uploader:
    """Puts the files of a folder into a bucket, in a thread of its own.

    Parameters
    ----------
    folder
        Of the recording; names in the bucket are relative to it.
    url
        ``s3://bucket/prefix``.
    free_local
        Remove each file of nothing but pixels here as soon as it is there and has been compared.
    at_once
        Files that are put at the same time.
    tell
        Takes lines for the user; called from this thread.
    state
        What was sent before; else it is read from the folder.

    Attributes
    ----------
    refused : str
        What the store answered where trying again will hardly help; empty while it takes what it is given.

    Raises
    ------
    ConfigError
        The URL, the endpoint or the credentials cannot be right.
    MissingExtra
    SinkError
        The list of what was sent before cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        free_local: bool = False,
        at_once: int = 4,
        tell: Callable[[str], None],
        state: UploadState | None = None,
    ) -> None:
        self._folder, self._free_local, self._tell = folder, free_local, tell
        self._bucket = Bucket(url)
        self._state = state or UploadState(folder, self._bucket.url)
        self.refused = ""
        self.freed_bytes = 0
        self._trouble = ""
        self._pause_s = self._until = 0.0
        self._trying = self._noted = False
        self._lock = threading.Lock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._queue = UploadQueue(folder, self._state.sent, self._loop.time)
        self._wake = asyncio.Event()
        self._ending = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(at_once,), name="pellucid upload", daemon=True)
        self._thread.start()

    # ---------------------------------------------------------------- for other threads

    def offer(self, paths: Iterable[Path]) -> None:
        """Take files below the folder that were committed; only their names are kept, and nobody waits.

        Raises
        ------
        ValueError
            A path is not below the folder.
        """
        self._queue.offer(paths)
        with self._lock:
            if not self._closed:
                self._loop.call_soon_threadsafe(self._take_in)

    @property
    def waiting(self) -> tuple[int, int]:
        """Files that are still to be put, and their bytes."""
        return self._queue.waiting

    @property
    def trouble(self) -> str:
        """Why nothing gets through at the moment; empty while all is well."""
        return self._trouble

    @property
    def hopeless(self) -> bool:
        """Nothing waits but files that were tried several times, and with which something is wrong."""
        return self._queue.hopeless

    def finish(self, timeout_s: float | None = None) -> Report:
        """Put what waits, for so long at most, and ask the bucket what it has. More may be offered afterwards.

        Without a time it is over when all is there, but for files with which something is wrong.
        """
        with self._lock:
            if self._closed:
                return self._report(None)
            done = asyncio.run_coroutine_threadsafe(self._finish(timeout_s), self._loop)
        while not done.done():
            wait({done}, 0.2)  # in pieces: on Windows Ctrl-C does not interrupt a long wait
        return self._report(None) if done.cancelled() else done.result()

    def close(self) -> None:
        """End at once: what is under way is given up, and what waits is known to the next upload."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join()

    # ---------------------------------------------------------------- in the thread

    def _run(self, at_once: int) -> None:
        try:
            self._loop.run_until_complete(self._work_until_ended(at_once))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()
            self._state.close()

    async def _work_until_ended(self, at_once: int) -> None:
        workers = [asyncio.ensure_future(self._work()) for _ in range(at_once)]
        await self._ending.wait()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*workers, *others, return_exceptions=True)

    def _take_in(self) -> None:
        self._queue.take_in()
        self._wake.set()

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            name, wait_s = self._next()
            if name is None:
                try:
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                continue
            trial = self._trying = bool(self._trouble)
            try:
                await self._send(name, trial=trial)
            finally:
                if trial:
                    self._trying = False
                self._wake.set()

    def _next(self) -> tuple[str | None, float | None]:
        """Return the next file to put, or in how many seconds to look again; in trouble one goes after the other."""
        if self._trouble:
            pause_s = self._until - self._loop.time()
            if self._trying or pause_s > 0:
                return None, None if self._trying else pause_s
        return self._queue.next()

    async def _send(self, name: str, *, trial: bool) -> None:
        path, began = self._folder / name, self._loop.time()
        chunk = self._free_local and is_chunk(self._folder, name)
        try:
            about = path.stat()
            before = None if chunk else self._as_before(name, path, about.st_size)
            stored = before or await self._watched(self._bucket.put(name, path, prove=chunk))
            after = path.stat()
        except FileNotFoundError:
            self._queue.gone(name)
            return
        except Exception as error:  # whatever it is, it must not end the thread
            self._failed(name, fault_of_file(name, error), trial=trial)
            return
        same = (stored.size, about.st_size, about.st_mtime_ns) == (after.st_size, after.st_size, after.st_mtime_ns)
        sent = Sent(stored.size, still(about) if same else 0, stored.etag)
        self._note(name, sent)
        changed = self._queue.arrived(name, self._loop.time() - began, changed=not same)
        if before is None:
            self._is_well()
        if chunk and not changed:
            self._free(name, sent, about.st_mtime_ns)

    def _as_before(self, name: str, path: Path, size: int) -> Stored | None:
        """Return what the bucket has, where that is what the file holds: it was touched, or noted too soon."""
        before = self._state.sent.get(name)
        if before is None or before.size != size or etag_of(path, before.etag) != before.etag:
            return None
        return Stored(before.size, before.etag)

    async def _watched(self, put: Awaitable[Stored]) -> Stored:
        """Wait for a put; give it up where it goes on and on and the store does not answer any more."""
        task = asyncio.ensure_future(put)
        try:
            while not (await asyncio.wait({task}, timeout=_STALL_S))[0]:
                if not await self._bucket.answers():
                    raise Fault("network", "the connection stands still")
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    # ---------------------------------------------------------------- how it went

    def _failed(self, name: str, fault: Fault, *, trial: bool) -> None:
        if fault.kind == "file":
            if self._queue.faulty(name, str(fault)):
                self._say(f"{fault}; it will be tried again")
            return
        self._queue.back(name)
        self.refused = str(fault) if fault.kind == "refused" else ""
        if not self._trouble:
            self._pause_s = _PAUSE_S
            self._say(f"{fault}; {self._waits()}, and it is tried again and again")
        elif trial:
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._trouble = str(fault)
        self._until = self._loop.time() + self._pause_s

    def _is_well(self) -> None:
        self.refused = ""
        if self._trouble:
            self._trouble = ""
            self._say(f"the connection is back; {self._waits()}")

    def _say(self, text: str) -> None:
        try:
            self._tell(f"upload: {text}")
        except Exception:  # a terminal that is gone must not end the upload
            return

    def _waits(self) -> str:
        files, nbytes = self.waiting
        return f"{files} files ({amount(nbytes)}) wait"

    def _note(self, name: str, sent: Sent) -> None:
        try:
            self._state.add(name, sent)
        except OSError as error:
            if not self._noted:
                self._noted = True
                self._say(f"what was sent cannot be noted ({error.strerror}); the next upload compares more")

    def _free(self, name: str, sent: Sent, mtime_ns: int) -> None:
        try:
            self.freed_bytes += self._state.free(self._folder / name, name, sent, mtime_ns)
        except OSError as error:
            self._say(f"{name} stays here: {error.strerror}")

    # ---------------------------------------------------------------- end

    async def _finish(self, timeout_s: float | None) -> Report:
        self._queue.hurry = True
        self._wake.set()
        try:
            async with asyncio.timeout(timeout_s):
                while self._queue.waiting[0] and not self._queue.hopeless:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pass
        finally:
            self._queue.hurry = False
        try:
            async with asyncio.timeout(timeout_s if timeout_s is None else max(timeout_s, 10.0)):
                there = None if self._trouble else await self._bucket.list()
        except (TimeoutError, Fault):
            there = None
        return self._report(there)

    def _report(self, there: dict[str, Stored] | None) -> Report:
        why = {name: self._queue.faults.get(name) or self._trouble or "not sent yet" for name in self._queue.names()}
        return Report.of(self._bucket.url, self._state.sent, why, there)
