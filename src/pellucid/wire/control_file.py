"""Which sessions run on this computer: one small file for each, in a folder of the user.

The file says how the session is reached and holds what lets one in, so only the user may read it: it is made with mode
0600, and on Windows it lies in the user's own folder. Who looks trusts a file by its owner and not by its folder, since
without ``XDG_RUNTIME_DIR`` that folder is below ``/tmp``, where another user may have made it first.

A session that was killed leaves its file. It is told by its process: a process number is given again after a while, so
the time at which the process began is compared as well.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import platform
import re
import secrets
import stat
import sys
import warnings
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import platformdirs
import psutil

from pellucid.errors import WireError
from pellucid.wire.control_message import one_line, unpack
from pellucid.wire.keys import Curve

__all__ = ["Running", "running_sessions", "runtime_folder"]

_FORM = 1
_ADDRESS = re.compile(r"tcp://127(\.\d{1,3}){3}:\d{1,5}")
_LIMIT = 64 << 10
_SAME_S = 2.0
"""Of the begin of a process: boot times are whole seconds on Linux and may be rounded both ways."""


def runtime_folder() -> Path:
    """Return the folder of running sessions: ``PELLUCID_RUNTIME``, else that of the user's running programs.

    Raises
    ------
    WireError
        Where ``PELLUCID_RUNTIME`` is no whole path (the session and who looks for it have to mean the same folder), or
        the system has no folder that is the user's.
    """
    given = os.environ.get("PELLUCID_RUNTIME")
    if given:
        with contextlib.suppress(RuntimeError):  # ~nobody
            path = Path(given).expanduser()
            if path.is_absolute():
                return path
        raise WireError(f'PELLUCID_RUNTIME = "{one_line(given)}": give the whole path of a folder of yours')
    try:
        return _users_own()
    except OSError as error:
        raise WireError(
            f"there is no folder for running programs: {error.strerror or error}. Set PELLUCID_RUNTIME to one of yours"
        ) from None


@functools.cache
def _users_own() -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is below /tmp: see above
        return platformdirs.user_runtime_path("pellucid", appauthor=False)


@dataclass(frozen=True)
class Running:
    """A session as its file tells of it.

    Attributes
    ----------
    pid, born
        Number of its process, and when that began, in s: of the boot on Linux, where the time of the clock at which a
        process began moves whenever the clock is set; else of the epoch.
    host
        Name of its computer: the folder may be shared between several.
    address
        Where it listens.
    key
        Its public CURVE key. Without it nobody gets as far as saying anything, and who has no secret key to it cannot
        pass for the session.
    token
        Has to stand in each request.
    config
        What it runs: a path, or a name.
    began
        Local time, ISO 8601.
    commands
        What may be asked of it.
    """

    pid: int
    born: float
    host: str
    address: str
    key: str
    token: str = field(repr=False)
    config: str
    began: str
    commands: tuple[str, ...] = ()

    @classmethod
    def here(cls, address: str, key: str, config: str, commands: tuple[str, ...]) -> Running:
        """Describe a session of this process, with a new token."""
        began = datetime.now().astimezone().isoformat(timespec="microseconds")
        config = config[:1000]
        born = _born(psutil.Process())
        return cls(os.getpid(), born, platform.node(), address, key, secrets.token_urlsafe(32), config, began, commands)

    @classmethod
    def parse(cls, data: bytes) -> Running:
        """Read a file's content.

        Raises
        ------
        WireError
            Where it is none of these files, or one of another version.
        """
        found = unpack(data, _LIMIT)
        if found.pop("pellucid", None) != _FORM:
            raise WireError("it is of another version of pellucid")
        try:
            made = cls(**found)
        except TypeError:
            raise WireError("its keys are others") from None
        texts = [made.host, made.address, made.key, made.token, made.config, made.began]
        if not isinstance(made.commands, list) or not all(isinstance(t, str) for t in [*texts, *made.commands]):
            raise WireError("its values are others")
        if not isinstance(made.pid, int) or not 0 < made.pid < 1 << 32:
            raise WireError("its process is none")
        if not isinstance(made.born, float) or not math.isfinite(made.born):
            raise WireError("its process is none")
        if not _ADDRESS.fullmatch(made.address):
            raise WireError("its address is not on this computer")
        Curve.check(made.key)
        return cls(**{**found, "commands": tuple(made.commands)})

    def text(self) -> str:
        """Return what stands in the file."""
        return json.dumps({"pellucid": _FORM, **asdict(self)}, indent=1) + "\n"

    @property
    def name(self) -> str:
        """For the user: what it runs, and its process."""
        return f"{one_line(Path(self.config).name or 'a session')} (pid {self.pid})"

    def answers_to(self, which: str) -> bool:
        """Tell whether the user means this one: by process, address, or the path, name or stem of its config."""
        if which in (str(self.pid), self.address):
            return True
        path = Path(self.config)
        with contextlib.suppress(OSError, ValueError):
            if Path(which).is_file() and Path(which).resolve() == path:
                return True
        return which in (self.config, path.name, path.stem)

    def lives(self) -> bool:
        """Tell whether its process is still there; so it is said of one on another computer."""
        if self.host != platform.node():
            return True
        try:
            process = psutil.Process(self.pid)
            return process.status() != psutil.STATUS_ZOMBIE and abs(_born(process) - self.born) < _SAME_S
        except (psutil.NoSuchProcess, OverflowError):
            return False
        except psutil.AccessDenied:
            return True

    def announce(self, folder: Path, name: str = "") -> Path:
        """Write the file, whole or not at all, readable for this user only; return its path.

        Parameters
        ----------
        folder
            It is made where it is missing.
        name
            Of the file; left out, a new one, as a process may have several sessions.

        Raises
        ------
        WireError
            Where the folder cannot be made or written.
        """
        path = folder / (name or f"{self.pid}-{secrets.token_hex(4)}.json")
        beside = folder / f".{path.name}.new"
        try:
            folder.mkdir(0o700, parents=True, exist_ok=True)
            beside.unlink(missing_ok=True)
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(self.text())
            beside.replace(path)
        except OSError as error:
            raise WireError(
                f"{folder} cannot be written: {error.strerror or error}. "
                "Set PELLUCID_RUNTIME to a folder of yours, for the session and for who speaks to it"
            ) from None
        return path


def running_sessions() -> list[Running]:
    """Return the user's sessions on this computer, the oldest first; files of those that are gone are removed."""
    found = []
    try:
        paths = sorted(runtime_folder().glob("*.json"))
    except OSError:
        paths = []  # no such folder for us: nobody has announced anything
    for path in paths:
        try:
            session = Running.parse(_read_own(path))
        except (OSError, WireError):
            continue  # gone meanwhile, somebody else's, or no file of ours: it is left alone
        if session.host != platform.node():
            continue
        if session.lives():
            found.append(session)
        else:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
    return sorted(found, key=lambda session: (session.began, session.config, session.address))


def _read_own(path: Path) -> bytes:
    """Read a file of this user; no link is followed and no pipe waited for."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or (sys.platform != "win32" and about.st_uid != os.geteuid()):
            raise WireError("it belongs to somebody else")
        return file.read(_LIMIT + 1)


def _born(process: Any) -> float:
    """Return when a process began, in s, by a clock that is never set."""
    # First the boot time: older psutil keeps the one that it read last, and adds it.
    booted = psutil.boot_time() if sys.platform == "linux" else 0.0
    return float(process.create_time()) - booted
