"""A session from Python: opened from a config, restored frames iterated as arrays.

::

    import pellucid

    with pellucid.open("configs/simulated.toml") as session:
        for frame in session:
            print(frame.info.seq, frame["restored"].mean())

A program that acquires by itself, with pymmcore-plus, has its frames followed by a session::

    with pellucid.open("live.toml").follow(mmc) as session:
        mmc.run_mda(sequence, block=True)
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tomlkit

from pellucid._version import version
from pellucid.config import Config
from pellucid.controls import Controls, following
from pellucid.controls.text import parse_change
from pellucid.controls.views import Views
from pellucid.controls.visits import looked_at
from pellucid.errors import ConfigError, PellucidError
from pellucid.runtime.session import Session, Settings
from pellucid.tap import Frame, Tap
from pellucid.wire.control import reachable

__all__ = ["Frame", "LiveSession", "make_session", "open"]

KEPT_BYTES = 256 << 20
"""Of frames that a followed acquisition gave and nobody has iterated yet."""


def make_session(
    config: Config,
    extra_sinks: Mapping[str, Any] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Session:
    """Build a session from a checked config; nothing is opened yet. `tell` takes lines while stages open."""
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
            s.unit,
        ),
        {"config": config.text, "config_sha256": config.sha256, "version": version},
        tell,
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
    name = "python" if isinstance(config, Mapping) else str(config)
    return LiveSession(checked, policy, name, sets, headless=headless)


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

    def __init__(
        self, config: Config, policy: str, name: str = "python", sets: Sequence[str] = (), *, headless: bool = False
    ) -> None:
        self._name, self._sets, self._headless = name, sets, headless
        self._tap = Tap("block" if policy == "every" else "latest")
        self.session = make_session(config, {"python": self._tap})
        self.controls = Controls(config, self.session, None if name == "python" else Path(name))
        self._source: Any = config.source
        self._kind = config.kinds["source"]
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._followed: Any = None

    @property
    def report(self) -> dict[str, Any] | None:
        """The run's report, once it ended."""
        return self.session.report

    def follow(self, core: Any) -> LiveSession:
        """Take the frames of a program that acquires with `core`, from within the ``with`` on.

        The session opens in a thread of its own when the first acquisition begins, and ends with the ``with``, which
        waits for an acquisition that still runs. Whatever goes wrong in the session leaves the acquisition alone: it
        is logged at once, and raised at the end of the ``with``.

        Frames may be iterated in another thread, in this one while a ``run_mda`` that does not block runs (the loop
        ends with the acquisition), and afterwards: 256 MB of them wait for that, later ones are skipped and counted.
        As soon as somebody iterates with policy ``"every"``, a slow loop holds the acquisition up.

        Parameters
        ----------
        core
            The ``CMMCorePlus`` of pymmcore-plus; the config's source is ``kind = "pymmcore-plus"``.

        Returns
        -------
        LiveSession
            This one, to be used with ``with``.

        Raises
        ------
        ConfigError
            Where the config has another source.
        SourceError
            Where `core` has no acquisitions to follow.
        """
        source = self._source  # the session's may be one of stacks, around it
        if not hasattr(source, "follow"):
            raise ConfigError(
                f'follow(): the source of the config is "{self._kind}", which follows no other program. '
                'Write [source] kind = "pymmcore-plus"'
            )
        source.follow(core)
        self._followed = source
        self._tap.kept_bytes = KEPT_BYTES
        return self

    def __enter__(self) -> LiveSession:
        if self._followed is None:
            self.session.open()
            return self
        self._start(opens=True)
        while not self._followed.listening:
            if not self._alive():
                self.__exit__(None)
                break
            threading.Event().wait(0.005)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if self._followed is not None and kind is None:
                self._followed.wait(self._alive)
        finally:
            self._end()
        self._raise(kind is None)

    def __iter__(self) -> Iterator[Frame]:
        """Start the run at the first use and yield its frames; raises what ended it early."""
        if self._thread is None:
            self._start(opens=False)
        yield from self._tap.frames(self._caught_up if self._followed is not None else lambda: False)
        if self._followed is not None and self._alive():
            return
        if self._thread is not None:
            self._thread.join()
        self._raise(True)

    def set(self, *changes: str | Mapping[str, Any], wait_s: float = 0.0) -> str:
        """Change parameters of stages while frames flow, from the next frame on.

        The new stages are made in this thread; the old ones run meanwhile. Each change stands with its first frame in
        ``report["changes"]`` and in a recording's ``changes.jsonl``.

        Parameters
        ----------
        changes
            ``"stages.0.iterations=3"``, ``"deconvolve.on=false"``, or tables: ``{"stages.0.iterations": 3}``.
        wait_s
            So long the first frame with it is waited for, which never comes where this thread is the one that iterates.

        Returns
        -------
        str
            What was changed.

        Raises
        ------
        PellucidError
            One line; nothing was changed then.
        """
        given: dict[str, Any] = {}
        for change in changes:
            given |= change if isinstance(change, Mapping) else dict([parse_change(change)])
        return self.controls.set(given, "python", wait_s)

    def save(self) -> str:
        """Write the parameters that run into the config file, its comments kept; return what was written.

        Raises
        ------
        ConfigError
            Where there is no file, or it says something else of these parameters by now.
        """
        return self.controls.save()

    def stop(self) -> None:
        """End the run; frames not yet taken are let go."""
        self.session.stop("stopped from Python")
        if self._followed is not None:
            self._followed.stop()
        self._tap.leave()

    def _start(self, *, opens: bool) -> None:
        self._thread = threading.Thread(target=self._run, args=(opens,), name="pellucid session")
        self._thread.start()

    def _run(self, opens: bool) -> None:
        try:
            if opens:
                self.session.open()
            parts = {**self.session.sinks, "controls": self.controls}
            view = self.controls.config.settings.view
            note = self.session.ledger.note
            with (
                looked_at(view, self.session, self._name, parts, note),
                reachable({**parts, "views": Views(self.session, self._name)}, self._name, note),
                following(self.controls, self._sets, note, headless=self._headless),
            ):
                self.session.run()
        except Exception as error:
            self._error = error
            if opens and self._followed.listening:
                logging.getLogger("pellucid").error("the session ended, the acquisition goes on without it: %s", error)
        finally:
            self._tap.end()

    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _end(self) -> None:
        """Let the run end, and give everything back; of an acquisition with all frames that were taken."""
        if self._followed is None:
            self.stop()
        else:
            self._followed.stop()
        try:
            if self._thread is not None:
                self._thread.join()
            self.session.close()
        finally:
            if self._followed is not None:
                self._followed.leave()

    def _caught_up(self) -> bool:
        """Tell whether no acquisition runs, and all frames of those that ran came to the iterator."""
        done: Mapping[str, int] = self.session.ledger.sinks.get("python", {})
        through = sum(done.get(end, 0) for end in ("written", "skipped", "lost"))
        source: Any = self.session.source
        return bool(source.caught_up and through >= source.given)

    def _raise(self, raises: bool) -> None:
        error, self._error = self._error, None
        if error is None or not raises:
            return
        untaken = self._followed.untaken if self._followed is not None else 0
        if untaken and isinstance(error, PellucidError):
            raise type(error)(f"{error}. {untaken} frames of the acquisition came later and were not taken") from error
        raise error
