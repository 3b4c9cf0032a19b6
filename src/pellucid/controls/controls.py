"""Changes of a session's parameters while it runs.

A change is one of the config's text: it is checked as the whole config is at the start, by the same code, so that what
is wrong with it is said in the same line. Then the stages that it touches are built anew, opened and tried in the
caller's thread, and take their place between two frames (`pellucid.runtime.exchange`). Until then, and after whatever
goes wrong, the old ones run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit

from pellucid.config import Config
from pellucid.controls.knobs import fixed_of, knobs
from pellucid.controls.snap import newest, write
from pellucid.controls.text import Steps, differences, key_of, parse_change, put
from pellucid.errors import ConfigError, did_you_mean
from pellucid.metrics import now_ns
from pellucid.protocols import Spec, Stage
from pellucid.runtime.exchange import Exchange, change_line
from pellucid.runtime.session import Session

__all__ = ["Controls"]

Command = Callable[[Mapping[str, Any]], Mapping[str, Any]]
_WAIT_S = 1.5
"""Whoever typed a command hears at which frame it took effect, where one comes so soon."""


class Controls:
    """What others may change of a run.

    Parameters
    ----------
    config
        That runs; its `stages` are kept up to date.
    session
    path
        Its file; None where it has none.
    """

    def __init__(self, config: Config, session: Session, path: Path | None = None) -> None:
        self.config = config
        self.path = None if path is None else path.resolve()
        self._session = session
        self._lock = threading.Lock()
        self.text = config.text
        """Of the config as it runs now."""
        self.save: Callable[[], str] = _no_file
        """Writes what runs into the file; see `pellucid.controls.file`, which follows it."""

    # ---------------------------------------------------------------- change

    def set(self, changes: Mapping[str, Any] | Iterable[str], by: str = "python", wait_s: float = 0.0) -> str:
        """Change parameters of stages from the next frame on.

        Parameters
        ----------
        changes
            ``{"stages.0.iterations": 3}``, or ``["stages.0.iterations=3"]``; a stage's name may stand for
            ``stages.0``. None takes a key out of the config.
        by
            Who asks, for the ledger.
        wait_s
            So long the first frame with it is waited for.

        Returns
        -------
        str
            What was changed, and from which frame on where that is known.

        Raises
        ------
        PellucidError
            One line; nothing was changed then.
        """
        given = dict(changes) if isinstance(changes, Mapping) else dict(map(parse_change, changes))
        with self._lock:
            rows, done = self._set({self._steps(key): value for key, value in given.items()}, by)
        if not rows:
            return f"{', '.join(given)}: as it was before"
        end = now_ns() + round(wait_s * 1e9)
        for exchange in done:
            exchange.done.wait(max(0.0, (end - now_ns()) * 1e-9))
        return f"{', '.join(map(change_line, rows))}, {_when(done)}"

    def _set(self, given: Mapping[Steps, Any], by: str) -> tuple[list[dict[str, Any]], list[Exchange]]:
        document = tomlkit.parse(self.text)
        before = document.unwrap()
        for steps, value in given.items():
            put(document, steps, value)
        config = Config.parse(tomlkit.dumps(document), self.config.folder, own=self.config.own)
        names = config.stage_names()
        rows = [
            {"what": key_of(steps), "from": old, "to": new, "by": by, "stage": names[int(steps[1])]}
            for steps, old, new in differences(before, tomlkit.parse(config.text).unwrap())
        ]
        if not rows:
            return [], []

        def make(name: str, made: Spec) -> Stage:
            return config.stages[names.index(name)].make(config.folder, made)

        def commit() -> None:
            self.config.stages, self.text = config.stages, config.text

        return rows, self._session.exchange(make, rows, commit)

    def _steps(self, key: str) -> Steps:
        """Return the steps of a key that may be changed while the session runs, or say in one line why it may not."""
        steps = tuple(key.split("."))
        names = self.config.stage_names()
        if steps[0] in names:
            steps = ("stages", str(names.index(steps[0])), *steps[1:])
        if steps[0] != "stages":
            near = did_you_mean(steps[0], names)
            raise ConfigError(
                f"{key}: while a session runs the keys of its stages can be changed.{near} For others change the "
                "config and start again. Type: pellucid set --list"
            )
        if len(steps) < 3 or not steps[1].isdecimal() or int(steps[1]) >= len(names):
            there = ", ".join(f"stages.{i} ({name})" for i, name in enumerate(names)) or "none"
            raise ConfigError(f"{key}: no key of a stage, such as stages.0.on. Stages: {there}")
        if steps[2] in fixed_of(self.config.stages[int(steps[1])]):
            raise ConfigError(
                f"{key} cannot be changed while the session runs: change it in the config and start again"
            )
        return steps

    def may_change(self, steps: Steps) -> bool:
        """Tell whether a key can be changed while the session runs."""
        try:
            self._steps(key_of(steps))
        except ConfigError:
            return False
        return True

    # ---------------------------------------------------------------- for others

    def knobs(self) -> list[dict[str, Any]]:
        """Return what can be changed; see `pellucid.controls.knobs`."""
        return knobs(self.config)

    def commands(self) -> dict[str, Command]:
        """Offer ``set``, ``set.list``, ``set.save`` and ``snap`` to other processes."""
        saved = lambda _: {"text": self.save()}  # noqa: E731
        return {"set": self._asked, "set.list": self._listed, "set.save": saved, "snap": self._snap}

    def _asked(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        wanted, by = given.get("changes"), given.get("by", "command")
        if not isinstance(wanted, list | dict) or not wanted or not isinstance(by, str):
            raise ConfigError('set: changes are a list such as ["stages.0.iterations=3"], or a table')
        if isinstance(wanted, list) and not all(isinstance(one, str) for one in wanted):
            raise ConfigError("set: each change is a text such as stages.0.iterations=3")
        return {"text": self.set(wanted, by[:40], _WAIT_S)}

    def _listed(self, _: Mapping[str, Any]) -> Mapping[str, Any]:
        there = self.knobs()
        return {"text": f"{len(there)} keys can be changed", "knobs": there, "file": str(self.path or "")}

    def _snap(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        to, limits = given.get("to", "snaps"), given.get("limits", [])
        if not isinstance(to, str) or not to.strip() or "\0" in to:
            raise ConfigError("snap: to is a folder, such as snaps")
        if not isinstance(limits, list) or not all(isinstance(row, dict) for row in limits):
            raise ConfigError("snap: limits are rows of camera, channel, plane, limits")
        frames = newest(self._session)
        made = write(frames, Path(to).expanduser().absolute(), limits)
        numbers = ", ".join(dict.fromkeys(str(frame.info.seq) for frame in frames))
        text = f"frame {numbers}: {len(made)} files in {made[0].parent}, {made[0].name} and others"
        self._session.ledger.note(f"snap: {text}")
        return {"text": text, "files": [str(path) for path in made]}


def _no_file() -> str:
    raise ConfigError("not saved: this session was started without a config file, or its file cannot be read")


def _when(done: Sequence[Exchange]) -> str:
    """Say from which frame on a change is in force."""
    if not done:
        return "though no stream of this run goes through that stage yet"
    refused = [exchange.why for exchange in done if exchange.why]
    if refused:
        raise ConfigError(f"not changed: {refused[0]}")
    frames = [exchange.frame for exchange in done if exchange.done.is_set()]
    if len(frames) < len(done):
        return "from the next frame on"
    if len(frames) == 1:
        return f"from frame {frames[0]} on"
    return f"from frames {', '.join(map(str, frames))} on, each in its stream"
