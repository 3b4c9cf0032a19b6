"""The config file of a session that runs: followed as somebody edits it, and written back into.

Only keys that differ from the version before are taken over, so that what was set by a command meanwhile stays. What
is no config leaves the run as it is, with one line that says why; the next version is held against the last good one.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from pellucid.config import Config
from pellucid.controls.controls import Controls
from pellucid.controls.text import Steps, differences, get, key_of, put, same
from pellucid.errors import ConfigError, PellucidError

__all__ = ["ConfigFile", "following"]

LOOK_S = 0.5
BY = "config file"
_PATIENCE_S = 10.0
_BOM = "\ufeff"
_SHOWN = 6


class ConfigFile:
    """The file that a session was started with.

    Parameters
    ----------
    controls
        Of the session; its `path` is the file.
    sets, headless
        As the session was started.
    note
        Takes a line for the user.

    Raises
    ------
    PellucidError
    """

    def __init__(
        self, controls: Controls, sets: Sequence[str], note: Callable[[str], None], *, headless: bool = False
    ) -> None:
        assert controls.path is not None
        self._path, self._controls, self._note = controls.path, controls, note
        self._sets, self._headless = list(sets), headless
        self._working = threading.Lock()
        text = controls.config.given  # the file may have been changed since, while a camera was opened
        self._began: dict[str, Any] = tomlkit.parse(text).unwrap()
        self._last: dict[str, Any] = self._began
        self._absolute = self._tree(text)
        self._told: list[Steps] = []

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot read the config {self._path}: {error.strerror or error}") from None

    def _check(self, text: str, sets: Sequence[str] | None = None) -> Config:
        controls = self._controls
        return Config.parse(
            text,
            self._path.parent,
            self._sets if sets is None else sets,
            headless=self._headless,
            name=self._path.name,
            own=controls.config.own,
        )

    def _tree(self, text: str) -> dict[str, Any]:
        """Return the tree of a text, its stages as they stand, with whole paths as the config that runs has them."""
        try:
            config = self._check(text, [one for one in self._sets if not one.strip().startswith("stages.")])
        except ConfigError:
            config = self._check(text)  # it is a config only with what was given at the start
        tree: dict[str, Any] = tomlkit.parse(config.text).unwrap()
        return tree

    # ---------------------------------------------------------------- followed

    def take(self, data: bytes) -> None:
        """Take over what a new version of the file says; whatever is wrong with it is one line."""
        with self._working:
            try:
                self._take(_text_of(data))
            except PellucidError as error:
                self._note(f"{self._path.name} was changed and is not used: {error}. The run goes on as it was")

    def _take(self, text: str) -> None:
        try:
            tree = tomlkit.parse(text).unwrap()
        except TOMLKitError as error:
            raise ConfigError(f"not valid TOML: {' '.join(str(error).split())}") from None
        if not any(differences(self._last, tree)):
            return  # a comment, or back to the version before one that was none
        rest = [steps for steps, _, _ in differences(self._began, tree) if not self._controls.may_change(steps)]
        fresh = {steps: new for steps, _, new in differences(self._last, tree) if self._controls.may_change(steps)}
        if ("plugins",) not in rest:  # those are not read while the session runs
            self._check(text)
        if fresh:
            self._controls.set({key_of(steps): value for steps, value in fresh.items()}, BY)
        self._last = tree
        if ("plugins",) not in rest:
            self._absolute = self._tree(text)
        if rest and rest != self._told:
            names = ", ".join(map(key_of, rest[:_SHOWN])) + (" and others" if len(rest) > _SHOWN else "")
            self._note(f"{self._path.name}: {names} changed in the file, and need a restart")
        self._told = rest

    # ---------------------------------------------------------------- written

    def save(self) -> str:
        """Write the parameters that run into the file, its comments kept; return what was written.

        Raises
        ------
        ConfigError
            Where the file is no config any more, has other stages, says something else by now of a key that would be
            written, or cannot be written. It is as it was then.
        """
        with self._working:
            data = self._read()
            text = _text_of(data)
            try:
                now = self._tree(text)
                document = tomlkit.parse(text)
            except (PellucidError, TOMLKitError) as error:
                raise ConfigError(f"not saved: {self._path.name} is no config at present: {error}") from None
            running = tomlkit.parse(self._controls.text).unwrap()
            written = []
            for steps, old, new in differences(now.get("stages", []), running.get("stages", []), ("stages",)):
                if not self._controls.may_change(steps):
                    raise ConfigError(
                        f"not saved: {key_of(steps)} of {self._path.name} is another than in the run, so its stages "
                        "are others. Set it back, or start again"
                    )
                if not same(get(self._absolute, steps), old):
                    raise ConfigError(
                        f"not saved: {key_of(steps)} was changed in {self._path.name} meanwhile, to {old!r}; the run "
                        f"has {new!r}. Set the run to it, or the file back"
                    )
                put(document, steps, new)
                written.append(key_of(steps))
            if not written:
                return f"{self._path.name} says what runs already"
            made = tomlkit.dumps(document)
            if "\r\n" in text:
                made = made.replace("\r\n", "\n").replace("\n", "\r\n")
            absolute = self._tree(made)
            if self._read() != data:
                raise ConfigError(f"not saved: {self._path.name} was changed at this moment. Type it again")
            _replace(self._path, ((_BOM if data.startswith(_BOM.encode()) else "") + made).encode())
            self._last = tomlkit.parse(made).unwrap()
            self._absolute = absolute
            return f"saved {', '.join(written)} to {self._path}"


def _text_of(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError("it is not a text file") from None


def _replace(path: Path, data: bytes) -> None:
    """Put a file in the place of another at once, so that nobody ever finds half of it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(path.stat().st_mode)
        for left in reversed(range(20)):
            try:
                beside.replace(path)
                return
            except PermissionError:  # Windows, while somebody reads it
                if not left:
                    raise
                threading.Event().wait(0.05)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ConfigError(f"not saved: {path} cannot be written: {error.strerror or error}") from None


@contextlib.contextmanager
def following(
    controls: Controls,
    sets: Sequence[str],
    note: Callable[[str], None],
    *,
    headless: bool = False,
    look_s: float = LOOK_S,
) -> Iterator[None]:
    """Follow the config file of a session while it runs; without a file do nothing.

    The file is read twice a second, and taken when it was the same twice: editors write in several steps, or put
    another file in its place.
    """
    if controls.path is None:
        yield
        return
    try:
        file = ConfigFile(controls, sets, note, headless=headless)
    except PellucidError as error:
        note(f"changes of the config file are not followed: {error}")
        yield
        return
    controls.save = file.save
    over = threading.Event()

    def look() -> None:
        taken: bytes | None = None
        seen = b""
        while not over.wait(look_s):
            try:
                data = controls.path.read_bytes() if controls.path is not None else b""
            except OSError:
                continue  # between two steps of an editor, or a share that is away
            if data != taken and data == seen and data.strip():
                taken = data
                try:
                    file.take(data)
                except Exception as error:  # of a plugin; the next version is looked at all the same
                    note(f"{controls.path}: {type(error).__name__}: {error}")
            seen = data

    thread = threading.Thread(target=look, name="pellucid config file", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_PATIENCE_S)  # a stage that is just being opened may take minutes; it is closed when it is done
