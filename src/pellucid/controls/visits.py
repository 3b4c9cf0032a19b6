"""What a session answers to other computers, where its config opens a door for them: ``[session.view]``.

They may look. Where the config says ``control = true`` they may also do what a window's buttons do; no file of this
computer is ever named by them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pellucid.controls.controls import Controls
from pellucid.controls.text import parse_change
from pellucid.controls.views import Views, max_fps_of, stack_of
from pellucid.errors import ConfigError, PellucidError, SinkError, WireError
from pellucid.runtime.session import Session
from pellucid.sinks.attached import AttachedWindow
from pellucid.view_settings import ViewSettings
from pellucid.wire.codec import CODECS
from pellucid.wire.control_message import one_line
from pellucid.wire.keys import Curve
from pellucid.wire.view_door import FROM, ViewDoor, Visitor

__all__ = ["CONTROLS", "Visits", "looked_at"]

Command = Callable[[Mapping[str, Any]], Mapping[str, Any]]
CONTROLS = {
    "set": ("changes",),
    "set.list": (),
    "snap": ("limits",),
    "record.start": ("name",),
    "record.stop": (),
    "record.status": (),
}
"""What a window's buttons ask for, and what of it may be given from another computer."""
_LEAVE_S = 2.0
_READY_S = 15.0
"""A window that has answered may make ready for so long; others cannot ask meanwhile."""
ONLY_LOOK = "from other computers this session is only looked at; control = true in its [session.view] allows it"


class Visits:
    """Of one session.

    Parameters
    ----------
    session
    config
        Path or name of what it runs.
    settings
        Who may come.
    """

    def __init__(self, session: Session, config: str, settings: ViewSettings) -> None:
        self._session, self._config, self._settings = session, config, settings
        self._curve = settings.curve()
        self._views = Views(session, config)
        self._lock = threading.Lock()
        self._there: dict[str, AttachedWindow] = {}

    def door(self, parts: Mapping[str, Any], note: Callable[[str], None]) -> ViewDoor:
        """Make the door.

        Parameters
        ----------
        parts
            Those that have commands, such as the session's sinks.
        note
            Takes a line for the user.
        """
        commands: dict[str, Command] = {"view.about": self._about, "view.attach": self._attach}
        if self._settings.control:
            for part in parts.values():
                for name, do in dict(getattr(part, "commands", dict)()).items():
                    if name in CONTROLS:
                        commands.setdefault(name, _restricted(name, do, parts))
        refusal = "" if self._settings.control else ONLY_LOOK
        return ViewDoor(commands, self._settings.address, self._curve, refusal, note)

    def _about(self, given: Mapping[str, Any]) -> dict[str, Any]:
        about = self._views.about(given)
        return {**about, "config": Path(self._config).name, "control": self._settings.control}

    def _attach(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Show frames to a window on the computer that asks."""
        visitor: Visitor = given[FROM]
        if "endpoint" in given:
            raise SinkError("view.attach: frames go back to the computer that asks for them; of itself it tells a port")
        port, codec = given.get("port"), given.get("compress", "")
        if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
            raise SinkError(f"view.attach: port {one_line(port)}: 1 to 65535")
        if codec not in CODECS:
            raise SinkError(f'view.attach: compress "{one_line(codec)}": {" or ".join(filter(None, CODECS))}')
        endpoint = f"tcp://{visitor.address}:{port}"
        mine = Curve(self._curve.public, self._curve.secret, server=visitor.key, path=self._curve.path)
        far = {"curve": mine, "shared": False, "compress": codec, "patience_s": _READY_S}
        window: Any = AttachedWindow(endpoint, max_fps_of(given), stack_of(given), far)
        with self._lock:
            before = self._there.get(endpoint)
            if before is not None and not before.gone:
                before.gone = "it has come anew"  # after a cable was pulled
        if before is not None:
            before.closed.wait(_LEAVE_S)  # both would knock at the same port, and the window may take the wrong one
        try:
            name = self._session.join(window)
        except WireError as error:
            if not str(error).startswith("nobody answers"):
                raise
            raise WireError(
                f"the session cannot reach this computer at {endpoint}. Open port {port} in the firewall here, or "
                "choose one that is open: --port"
            ) from None
        with self._lock:
            self._there[endpoint] = window
            self._there = {at: one for at, one in self._there.items() if not one.closed.is_set()}
        return {"text": f"{name}: the session shows its frames there"}


def _restricted(name: str, do: Command, parts: Mapping[str, Any]) -> Command:
    """Return a command that takes from another computer what a window says, and nothing else."""

    def asked(given: Mapping[str, Any]) -> Mapping[str, Any]:
        visitor: Visitor = given[FROM]
        taken = {key: given[key] for key in CONTROLS[name] if key in given}
        if name == "set":
            taken["changes"] = _plain_changes(taken.get("changes"), parts)
            taken["by"] = f"window {visitor.address}"
        return do(taken)

    return asked


def _plain_changes(given: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes whose values are numbers, true or false, or one of a key's choices: none is a file's name."""
    if isinstance(given, list) and all(isinstance(one, str) for one in given):
        changes = dict(map(parse_change, given))
    elif isinstance(given, dict):
        changes = {str(key): value for key, value in given.items()}
    else:
        raise ConfigError("set: changes are a table, or a list of texts such as stages.0.iterations=3")
    controls = next((part for part in parts.values() if isinstance(part, Controls)), None)
    choices = {knob["key"]: knob.get("choices", []) for knob in (controls.knobs() if controls else [])}
    for key, value in changes.items():
        if not (isinstance(value, int | float) or value is None or value in choices.get(key, [])):
            raise ConfigError(f"{one_line(key)} = {one_line(value)[:60]}: texts are changed at the session's computer")
    return changes


@contextlib.contextmanager
def looked_at(
    settings: ViewSettings | None,
    session: Session,
    config: str,
    parts: Mapping[str, Any],
    note: Callable[[str], None],
) -> Iterator[ViewDoor | None]:
    """Let other computers look at a session while it runs, where its config says so.

    Parameters
    ----------
    settings
        None: nobody.
    session, config
        And path or name of what it runs.
    parts
        Name -> part, such as the session's sinks; see `Visits.door`.
    note
        Takes a line for the user.

    Raises
    ------
    ConfigError
        Where its keys or its address do not do.
    """
    if settings is None:
        yield None
        return
    try:
        door = Visits(session, config, settings).door(parts, note).open()
    except PellucidError as error:
        text = str(error)
        raise ConfigError(text if text.startswith("session.view") else f"session.view: {text}") from None
    note(f"other computers may look at {door.endpoint}" + (" and change what runs" if settings.control else ""))
    try:
        yield door
    finally:
        door.close()
