"""From a TOML file to the parts of a run; the only reader of entry points.

A config maps one to one onto constructors: ``kind`` is an entry point's name, every other key one of its
arguments. Nothing is opened here, so whatever is wrong with a config is said before a camera moves.

A stage that has a key ``engine`` is given an engine, made of the name or the table that stands there.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tomlkit
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked
from pydantic.fields import FieldInfo
from tomlkit.exceptions import TOMLKitError

from pellucid.errors import ConfigError, MissingExtra, did_you_mean
from pellucid.protocols import Sink, Source, Spec, Stage, Stream
from pellucid.ready_made import find_config
from pellucid.restoration.named import file_of
from pellucid.runtime.off import Off
from pellucid.view_settings import ViewSettings

__all__ = [
    "GROUPS",
    "Config",
    "SessionSettings",
    "StageRow",
    "apply_set",
    "build_checked",
    "build_source",
    "installed",
    "keys_of",
]

GROUPS = ("sources", "stages", "engines", "sinks")
_OF_ANY_KIND = ("kind", "reads", "writes", "channels", "cameras", "on")
ENGINE = "auto"
"""Kind of a stage's engine where the config names none."""


@checked(config=ConfigDict(extra="forbid"))
class SessionSettings:
    """The ``[session]`` part of a config.

    Parameters
    ----------
    device
        ``"auto"`` (the first CUDA device, else the CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"`` ...
    threads
        Of the stages on a CPU; None leaves one core to the camera, the disk and the window: threads that have
        to wait for a busy core make a frame ten times slower, not a little.
    unit
        What stages and sinks are given. ``"plane"``: each picture of the camera; ``"stack"``: the z-stack of a time
        point, position and channel at once, for a source that gives the slices of an experiment. A stack in which
        planes are missing is recorded and not restored.
    slots
        How many frames (stacks, where they are the unit) the session's memory holds; more ride out longer stalls of
        the disk.
    restore
        ``"every"``: every frame is restored, and a chain slower than the camera holds the camera's side up, which
        drops; ``"latest"``: raw goes on at full rate and the chain leaves out frames that it has no time for
        (raw only, counted); ``"auto"``: latest for a camera, every for a source that waits.
    frames, seconds
        End of the run, after so many frames (stacks, where they are the unit); without either it ends with the
        source, or when you stop it.
    stall_s
        A recorder that takes no frame for so long ends the run, loudly.
    view
        Windows of other computers may come: ``{ keys = FILE, address = "tcp://0.0.0.0:5610", control = false }``, or
        ``[session.view]``. None: of this computer only.
    """

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    unit: Literal["plane", "stack"] = "plane"
    slots: Annotated[int, Field(ge=3, le=4096)] = 16
    restore: Literal["auto", "every", "latest"] = "auto"
    frames: Annotated[int, Field(ge=1)] | None = None
    seconds: Annotated[float, Field(gt=0, le=1e8, allow_inf_nan=False)] | None = None
    stall_s: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 10.0
    view: ViewSettings | None = None


def build_source(table: Mapping[str, Any], sets: Sequence[str] = ()) -> Source:
    """Build one source from its table; `sets` change its keys (``"exposure_ms=20"``)."""
    document = tomlkit.document()
    document.update(table)
    for change in sets:
        apply_set(document, change)
    source: Source = _part("sources", document.unwrap(), "source", Path.cwd(), {})
    return source


def installed(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    """Return the parts of a group that are installed here, by kind."""
    return {e.name: e for e in sorted(importlib.metadata.entry_points(group=f"pellucid.{group}"))}


def keys_of(part: type) -> list[tuple[str, str, str]]:
    """Return ``(key, type, default)`` of every argument of a part, as text."""
    rows = []
    for f in fields(part):
        if f.init:
            default = f.default if f.default_factory is MISSING else f.default_factory()
            if isinstance(default, FieldInfo):
                default = MISSING if default.is_required() else default.get_default(call_default_factory=True)
            rows.append((f.name, _plain(f.type), "required" if default is MISSING else repr(default)))
    return rows


@dataclass(frozen=True)
class StageRow:
    """One ``[[stages]]`` of a config.

    Parameters
    ----------
    kind, part, keys
        Entry point, class and arguments.
    where
        Its place in the config, for errors.
    channels, cameras
        It works on these streams only; empty for all.
    engine
        Class and arguments of what runs its network, where it has one.
    on
        False: frames pass it by, see `pellucid.runtime.off`.
    """

    kind: str
    part: type
    keys: Mapping[str, Any]
    where: str
    channels: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    engine: tuple[type, Mapping[str, Any]] | None = None
    on: bool = True

    def make(self, folder: Path, made: Spec | None = None) -> Stage:
        """Build the stage, with an engine of its own; of one that is off `made` may say what it would make."""
        keys = dict(self.keys)
        if self.engine is not None:
            keys["engine"] = build_checked(*self.engine, f"{self.where}.engine", folder)
        stage: Stage = build_checked(self.part, keys, self.where, folder)
        return stage if self.on else Off(stage, made)

    def works_on(self, stream: Stream) -> bool:
        """Tell whether frames of this stream go through the stage."""
        return (not self.channels or stream.channel in self.channels) and (
            not self.cameras or stream.camera in self.cameras
        )


@dataclass
class Config:
    """A checked config: every part named in it exists and takes its keys.

    Attributes
    ----------
    text : str
        TOML as it will run, overrides included; what ``config.toml`` of a recording holds.
    source : Source
    stages : list of StageRow
    sinks : dict of str to Sink
    settings : SessionSettings
    own : dict
        What the user's own files hold (``plugins``): group -> kind -> class.
    given : str
        The text as it was given, without overrides.
    """

    text: str
    folder: Path
    source: Source
    stages: list[StageRow]
    sinks: dict[str, Sink]
    settings: SessionSettings
    kinds: dict[str, str]
    own: dict[str, dict[str, type]]
    given: str = ""

    @property
    def sha256(self) -> str:
        """Hash of `text`, by which a recording names the config that made it."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def make_stages(self, stream: Stream | None = None) -> dict[str, Stage]:
        """Build a fresh set of the stages of a stream, as every stream needs its own; names as in the report.

        Without a stream all of them.
        """
        return {
            name: row.make(self.folder)
            for name, row in zip(self.stage_names(), self.stages, strict=True)
            if stream is None or row.works_on(stream)
        }

    def stage_names(self) -> list[str]:
        """Return what the stages are called in the report: by their places, so that one has one name in all streams."""
        kinds = [row.kind for row in self.stages]
        return [kind if kind not in kinds[:i] else f"{kind} {i}" for i, kind in enumerate(kinds)]

    @classmethod
    def load(cls, path: str | Path, sets: Sequence[str] = (), *, headless: bool = False) -> Config:
        """Read a config file and check all of it.

        Parameters
        ----------
        path
            Of a TOML file; or the name of a config that comes with pellucid (`pellucid.ready_made`).
        sets
            ``"stages.0.iterations=3"``: keys of the file to be changed, values in TOML.
        headless
            Leave out the windows.

        Raises
        ------
        ConfigError
            One line: where, what was given, what is allowed, what to type.
        """
        path = find_config(path)
        try:
            text = path.read_text(encoding="utf-8-sig")  # Notepad begins a file with a mark
        except IsADirectoryError:
            raise ConfigError(f"{path} is a folder; give the config file in it") from None
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
            raise ConfigError(f"cannot read the config {path}: {reason}") from None
        return cls.parse(text, path.resolve().parent, sets, headless=headless, name=str(path))

    @classmethod
    def parse(
        cls,
        text: str,
        folder: Path | None = None,
        sets: Sequence[str] = (),
        *,
        headless: bool = False,
        name: str = "config",
        own: dict[str, dict[str, type]] | None = None,
    ) -> Config:
        """Check a config given as text; relative paths of inputs are taken from `folder`.

        Where `own` is given the user's own files are not read again: what they hold is that.
        """
        folder = folder or Path.cwd()
        try:
            document = tomlkit.parse(text)
        except TOMLKitError as error:
            raise ConfigError(f"{name} is not valid TOML: {error}") from None
        for change in sorted(sets, key=lambda change: not _is_kind(change)):
            apply_set(document, change)
        tree: dict[str, Any] = document.unwrap()
        allowed = ("source", "stages", "sinks", "session", "plugins")
        for key in tree:
            if key not in allowed:
                raise ConfigError(
                    f"{name}: no such part [{key}].{did_you_mean(key, allowed)} Allowed: {', '.join(allowed)}"
                )
        if "source" not in tree:
            raise ConfigError(
                f'{name}: [source] is missing. Start with: [source] kind = "simulated",'
                " or, for recorded data: --set source.kind=replay --set source.path=FILE"
            )
        own = _load_plugins(tree.get("plugins", []), folder) if own is None else own
        source = _part("sources", tree["source"], "source", folder, own)
        stages = []
        for i, row in enumerate(_rows(tree, "stages", name)):
            where = f"stages[{i}]"
            kind, part, keys = _resolve("stages", row, where, own)
            only = {key: _names(keys.pop(key, []), f"{where}.{key}") for key in ("channels", "cameras")}
            on = keys.pop("on", True)
            if not isinstance(on, bool):
                raise ConfigError(f"{where}.on = {_short(on)}: true or false is needed")
            stages.append(StageRow(kind, part, keys, where, **only, engine=_engine(part, keys, where, own), on=on))
            stages[-1].make(folder)
        sinks: dict[str, Sink] = {}
        skipped: list[int] = []
        for i, row in enumerate(_rows(tree, "sinks", name)):
            kind = str(row.get("kind", "")) if isinstance(row, dict) else ""
            if headless and kind == "window":
                skipped.append(i)
                continue
            if kind == "recorder" and kind in sinks:
                raise ConfigError(f"sinks[{i}]: a run has one recorder, which records every plane; remove this one")
            sinks[kind if kind not in sinks else f"{kind} {i}"] = _part("sinks", row, f"sinks[{i}]", folder, own)
        if not isinstance(tree.get("session", {}), dict):
            raise ConfigError(f"{name}: session = {tree['session']!r}: a table is needed, such as [session]")
        given = dict(tree.get("session", {}))
        if isinstance(given.get("view"), dict):
            given["view"] = build_checked(ViewSettings, given["view"], "session.view", folder)
        settings = build_checked(SessionSettings, given, "session", folder)
        for i in reversed(skipped):
            del document["sinks"][i]
        _make_absolute(document, folder)
        return cls(
            text=tomlkit.dumps(document),
            folder=folder,
            source=source,
            stages=stages,
            sinks=sinks,
            settings=settings,
            kinds={"source": tree["source"]["kind"]},
            own=own,
            given=text,
        )


def _make_absolute(document: Any, folder: Path) -> None:
    """Write the files that a config reads with their whole paths, so that its copy in a recording can be run."""
    parts = [document.get("source"), *document.get("stages", []), document.get("session", {}).get("view")]
    for part in parts:
        for key in ("path", "psf", "config", "adapters", "keys", "sequence"):
            value = part.get(key) if isinstance(part, dict) else None
            holder, name = (value, "path") if isinstance(value, dict) else (part, key)
            given = value.get("path") if isinstance(value, dict) else value
            if isinstance(given, str) and given and (folder / given).exists():
                holder[name] = str((folder / given).resolve())
        model = part.get("model") if isinstance(part, dict) else None
        if isinstance(model, str) and (file := file_of(model, folder)) is not None and file.exists():
            part["model"] = str(file.resolve())
    plugins = document.get("plugins")
    if isinstance(plugins, list):
        for i, given in enumerate(plugins):
            plugins[i] = str((folder / str(given)).resolve())


def _rows(tree: Mapping[str, Any], key: str, name: str) -> list[Any]:
    rows = tree.get(key, [])
    if not isinstance(rows, list):
        raise ConfigError(f"{name}: {key} is a list of tables; write [[{key}]] instead of [{key}]")
    return rows


def _names(given: Any, where: str) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(name, str) and name for name in given):
        raise ConfigError(f'{where} = {_short(given)}: a list of names is needed, such as ["DAPI"]')
    return tuple(given)


def _part(group: str, row: Any, where: str, folder: Path, own: Mapping[str, Mapping[str, type]]) -> Any:
    _, part, keys = _resolve(group, row, where, own)
    return build_checked(part, keys, where, folder)


def _resolve(
    group: str, row: Any, where: str, own: Mapping[str, Mapping[str, type]]
) -> tuple[str, type, dict[str, Any]]:
    """Find the class behind a table's ``kind``."""
    known = {**dict.fromkeys(installed(group)), **dict.fromkeys(own.get(group, {}))}
    names = ", ".join(sorted(known))
    if not isinstance(row, dict):
        raise ConfigError(f"{where} = {row!r}: a table with a kind is needed. Installed: {names}")
    keys = dict(row)
    kind = keys.pop("kind", None)
    if kind is None:
        raise ConfigError(f"{where}: kind is missing. Installed: {names}")
    if not isinstance(kind, str) or kind not in known:
        near = did_you_mean(str(kind), known)
        raise ConfigError(f'{where}.kind = "{kind}": no such {group[:-1]}.{near} Installed: {names}')
    if kind in own.get(group, {}):
        return kind, own[group][kind], keys
    try:
        part: type = installed(group)[kind].load()
    except ImportError as error:
        raise MissingExtra(f'{where}.kind = "{kind}": its package cannot be imported: {error}') from None
    return kind, part, keys


def _engine(
    part: type, keys: Mapping[str, Any], where: str, own: Mapping[str, Mapping[str, type]]
) -> tuple[type, dict[str, Any]] | None:
    """Find the class of a stage's engine; None for a stage that has none."""
    if not is_dataclass(part) or "engine" not in {f.name for f in fields(part)}:
        return None
    given = keys.get("engine", ENGINE)
    row = {"kind": given} if isinstance(given, str) else given
    _, engine, its = _resolve("engines", row, f"{where}.engine", own)
    return engine, its


def build_checked(part: type, keys: Mapping[str, Any], where: str, folder: Path) -> Any:
    """Make a part from its keys, or say in one line what is wrong with the first of them."""
    try:
        return TypeAdapter(part).validate_python(dict(keys), context={"folder": folder})
    except ValidationError as error:
        raise ConfigError(_one_line(error, part, where)) from None


def _one_line(error: ValidationError, part: type, where: str) -> str:
    first = error.errors(include_url=False)[0]
    names = [f.name for f in fields(part) if f.init] + (
        ["channels", "cameras", "on"] if where.startswith("stages") else []
    )
    path = [str(p) for p in first["loc"]]
    # Of a union pydantic tells the place in each of its members; the key itself is what was typed.
    at = ".".join([where, *path])
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden") and len(path) == 1:
        near = did_you_mean(path[0], names)
        return f"{at} = {_short(first['input'])}: no such key.{near} Allowed: {', '.join(names)}"
    if first["type"] in ("missing", "missing_argument"):
        return f"{where}: {'.'.join(path)} is missing. Type: pellucid list"
    text = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return f"{at} = {_short(first['input'])}: {text[0].lower() + text[1:]}"


def _short(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _is_kind(change: str) -> bool:
    """Tell whether a ``--set`` names another kind of part; those come first, whatever their order."""
    return change.partition("=")[0].strip().rpartition(".")[2] == "kind"


def apply_set(document: tomlkit.TOMLDocument, change: str) -> None:
    """Carry out one ``--set``; with another kind the keys of the one that was there go."""
    key, equals, value = change.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"--set {change}: give key=value, such as --set stages.0.iterations=3")
    try:
        parsed = tomllib.loads(f"v = {value.strip()}")["v"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    at: Any = document
    *parents, last = key.split(".")
    for step in parents:
        at = _step(at, step, change, make=True)
    if isinstance(at, list):
        _step(at, last, change, make=False)
        at[int(last)] = parsed
    elif isinstance(at, dict):
        if last == "kind" and at.get(last) not in (None, parsed):
            for other in [other for other in at if other not in _OF_ANY_KIND]:
                del at[other]
        at[last] = parsed
    else:
        raise ConfigError(f"--set {change}: there is no table to hold {last}")


def _step(at: Any, step: str, change: str, *, make: bool) -> Any:
    if isinstance(at, list):
        if not (step.isascii() and step.isdigit()) or int(step) >= len(at):
            raise ConfigError(f"--set {change}: {step} is not one of 0 .. {len(at) - 1}")
        return at[int(step)]
    if not isinstance(at, dict):
        raise ConfigError(f"--set {change}: there is no table to hold {step}")
    if step not in at and make:
        at[step] = tomlkit.table()
    return at[step]


def _load_plugins(paths: Any, folder: Path) -> dict[str, dict[str, type]]:
    """Import a user's own files; each has ``PELLUCID = {"stages": {"mine": Mine}}``."""
    own: dict[str, dict[str, type]] = {group: {} for group in GROUPS}
    if not isinstance(paths, list):
        raise ConfigError(f'plugins = {paths!r}: a list of files is needed, such as plugins = ["my_stage.py"]')
    for i, given in enumerate(paths):
        path = folder / str(given)
        where = f'plugins[{i}] = "{given}"'
        if not path.is_file():
            raise ConfigError(f"{where}: there is no such file (looked for {path})")
        name = f"pellucid_plugin_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ConfigError(f"{where}: not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise ConfigError(f"{where}: {type(error).__name__} while it was imported: {error}") from None
        table = getattr(module, "PELLUCID", None)
        if not isinstance(table, dict) or not set(table) <= set(GROUPS):
            raise ConfigError(f'{where}: it must hold PELLUCID = {{"stages": {{"my_kind": MyClass}}}}')
        for group, parts in table.items():
            own[group].update(parts)
    return own


def _plain(annotation: Any) -> str:
    """Return a type as text, without what `Annotated` adds to it."""
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    while (start := text.find("Annotated[")) >= 0:
        begin = start + len("Annotated[")
        depth, comma = 1, -1
        for end in range(begin, len(text)):
            depth += (text[end] in "[(") - (text[end] in "])")
            if depth == 1 and text[end] == "," and comma < 0:
                comma = end
            if depth == 0:
                break
        text = text[:start] + text[begin:comma] + text[end + 1 :]
    return str(text).replace("typing.", "").replace("pathlib.", "")
