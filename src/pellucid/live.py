"""A session from Python: opened from a config, restored frames iterated as arrays.

::

    import pellucid

    with pellucid.open("configs/simulated.toml") as session:
        for frame in session:
            print(frame.info.seq, frame["restored"].mean())
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tomlkit

from pellucid._version import version
from pellucid.config import Config
from pellucid.protocols import FrameInfo, Slot, Spec, Stream
from pellucid.runtime.session import Session, Settings

__all__ = ["Frame", "LiveSession", "make_session", "open"]


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that is yours to keep.

    Attributes
    ----------
    info : FrameInfo
        Numbers and times.
    stream : Stream
        Camera, channel, pixel size ...
    planes : dict of str to numpy.ndarray
        Copies; ``raw``, ``restored`` and others by name. Without ``restored`` where the frame stayed raw only.
    """

    info: FrameInfo
    stream: Stream
    planes: dict[str, np.ndarray[Any, Any]]

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        try:
            return self.planes[name]
        except KeyError:
            raise KeyError(f"frame {self.info.seq} has no plane {name!r}; it has {', '.join(self.planes)}") from None


def make_session(config: Config, extra_sinks: Mapping[str, Any] | None = None) -> Session:
    """Build a session from a checked config; nothing is opened yet."""
    s = config.settings
    return Session(
        config.source,
        config.make_stages,
        {**config.sinks, **(extra_sinks or {})},
        Settings(
            s.device,
            s.threads,
            s.slots,
            s.restore,
            s.frames,
            s.seconds,
            s.stall_s,
            frozenset(name for row in config.stages for name in row.channels),
            frozenset(name for row in config.stages for name in row.cameras),
        ),
        {"config": config.text, "config_sha256": config.sha256, "version": version},
    )


def open(
    config: str | Path | Mapping[str, Any],
    sets: Sequence[str] = (),
    *,
    headless: bool = False,
    policy: Literal["every", "latest"] = "every",
) -> LiveSession:
    """Open a session from a config.

    Parameters
    ----------
    config
        A file, or the same as a dictionary.
    sets
        Changes, such as ``["stages.0.iterations=3"]``.
    headless
        Leave out the windows of the config.
    policy
        ``"every"``: each frame is given to you, and a loop that is slower than the camera holds it up or
        makes it drop (counted); ``"latest"``: the newest only.

    Returns
    -------
    LiveSession
        To be used with ``with``; iterate it for frames.

    Raises
    ------
    PellucidError
        One line that says what to mend.
    """
    if isinstance(config, Mapping):
        checked = Config.parse(tomlkit.dumps(_without_none(config)), None, sets, headless=headless)
    else:
        checked = Config.load(config, sets, headless=headless)
    return LiveSession(checked, policy)


def _without_none(tree: Any) -> Any:
    """Drop keys that are None: TOML has no such value, and a key that is left out means the same."""
    if isinstance(tree, Mapping):
        return {key: _without_none(value) for key, value in tree.items() if value is not None}
    return [_without_none(value) for value in tree] if isinstance(tree, list | tuple) else tree


class LiveSession:
    """A run in a thread of its own; iterating it gives frames until the run ends.

    Attributes
    ----------
    report : dict or None
        The run's report, once it ended.
    """

    def __init__(self, config: Config, policy: str) -> None:
        self._tap = _Tap("block" if policy == "every" else "latest")
        self.session = make_session(config, {"python": self._tap})
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    @property
    def report(self) -> dict[str, Any] | None:
        """The run's report, once it ended."""
        return self.session.report

    def __enter__(self) -> LiveSession:
        self.session.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join()
        self.session.close()
        error, self._error = self._error, None
        if kind is None and error is not None:
            raise error

    def __iter__(self) -> Iterator[Frame]:
        """Start the run at the first use and yield its frames; raises what ended it early."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pellucid session")
            self._thread.start()
        yield from self._tap.frames()
        if self._thread is not None:
            self._thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def stop(self) -> None:
        """End the run; frames not yet taken are let go."""
        self.session.stop("stopped from Python")
        self._tap.leave()

    def _run(self) -> None:
        try:
            self.session.run()
        except Exception as error:
            self._error = error
        finally:
            self._tap.end()


class _Tap:
    """The sink behind the iterator: a short queue of copies."""

    early = False
    patient = True
    """Whoever iterates may take his time; that is no stalled disk."""

    def __init__(self, policy: str) -> None:
        self.policy = policy
        self._queue: queue.Queue[Frame | None] = queue.Queue(maxsize=4 if policy == "block" else 1)
        self._left = threading.Event()
        self._ended = threading.Event()

    def open(self, streams: Sequence[Stream], planes: Sequence[Mapping[str, Spec]], run: Mapping[str, Any]) -> None:
        """Nothing to make ready."""

    def write(self, slot: Slot, names: tuple[str, ...]) -> None:
        """Copy the frame and queue it."""
        frame = Frame(slot.info, slot.stream, {name: slot.planes[name].copy() for name in names})
        while not self._left.is_set():
            try:
                self._queue.put(frame, timeout=0.1)
                return
            except queue.Full:
                continue

    def finish(self) -> None:
        """Frames still queued belong to the iterator."""

    def close(self, report: Mapping[str, Any] | None) -> None:
        """Nothing to give back."""

    def frames(self) -> Iterator[Frame]:
        """Yield frames until the run ends."""
        while not self._left.is_set():
            try:
                frame = self._queue.get(timeout=0.1)
            except queue.Empty:
                if self._ended.is_set():
                    return
                continue
            if frame is None:
                return
            yield frame

    def end(self) -> None:
        """No frame comes after those in the queue."""
        self._ended.set()
        while not self._left.is_set():
            try:
                self._queue.put(None, timeout=0.1)
                return
            except queue.Full:
                continue

    def leave(self) -> None:
        """Let go: nobody iterates any more."""
        self._left.set()
