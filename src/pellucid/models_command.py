"""What ``pellucid models`` does: what there is, what is known of it, made ready beforehand, put to the test."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pellucid.config import installed
from pellucid.engines.cache import Cache
from pellucid.engines.own_test import run_own_test
from pellucid.errors import ConfigError, PellucidError, did_you_mean
from pellucid.models import Engine, Model, Port, shelf
from pellucid.models.package import CARDS
from pellucid.runtime.chain import pick_device
from pellucid.terminal import console

__all__ = ["build_engine", "import_model", "list_models", "show_model", "verify_model"]

Say = Callable[[str], None]
_VERIFY_SIDE = 512


def list_models(say: Say) -> None:
    """Print what is here: name, what it is for, size, licence, engines that can run it."""
    device = pick_device("auto")
    table = Table(box=None, pad_edge=False)
    for title in ("name", "what for", "pixels", "MB", "licence", "engines here"):
        table.add_column(title)
    for where, names in (("imported", shelf.imported()), ("shipped", shelf.shipped())):
        for name in names:
            try:
                model = shelf.find(name)
            except PellucidError as error:
                table.add_row(f"{name} ({where})", f"[red]{escape(str(error))}[/red]", "", "", "", "")
                continue
            table.add_row(
                f"{name}" + ("" if where == "shipped" else " (imported)"),
                escape(str(model.card.get("description", ""))[:60]),
                f"x{model.scale}" + (f", {model.frames} frames" if model.frames > 1 else ""),
                f"{sum(p.stat().st_size for p in model.weights.values()) / 1e6:.1f}",
                escape(str(model.card.get("licence", ""))),
                ", ".join(kind for kind, engine in _engines().items() if not engine.missing(model, device)) or "none",
            )
    console.print(table)
    say('use one: [[stages]] kind = "restore", model = "NAME"; more: pellucid models import FILE')


def show_model(given: str, say: Say) -> None:
    """Print all that is known of a model."""
    model = shelf.find(given)
    device = pick_device("auto")
    card = model.card
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    rows = {
        "name": model.name,
        "for": card.get("description"),
        "licence": card.get("licence"),
        "authors": ", ".join(card.get("authors") or ()),
        "cite": "; ".join(card.get("cite") or ()),
        "takes": _port(model.given) + (f", the last {model.frames} frames" if model.frames > 1 else ""),
        "gives": _port(model.result) + (f", {model.scale} pixels for one" if model.scale > 1 else ""),
        "before": _steps(model.before),
        "after": _steps(model.after),
        "halo": " x ".join(map(str, model.halo)) or "not known; 64 px are taken",
        "sha256": model.sha256,
        "documentation": card.get("documentation"),
    }
    for key, value in rows.items():
        if value:
            table.add_row(key, Text(str(value)))
    for form, file in model.weights.items():
        table.add_row("file", Text(f"{form}: {file} ({file.stat().st_size / 1e6:.1f} MB)"))
    for kind, engine in _engines().items():
        table.add_row("engine", Text(f"{kind}: {engine.missing(model, device) or 'can run it here'}"))
    for entry, _ in Cache().entries():
        facts = entry.facts
        if facts.get("model") == model.sha256:
            table.add_row("built", Text(_entry(facts)))
    console.print(table)
    trained = card.get("trained") or {}
    if trained.get("quality"):
        say(f"quality: {trained['quality']}")


def import_model(source: str, name: str | None, say: Say) -> None:
    """Copy a model to this computer's shelf."""
    model = shelf.import_model(source, name, say)
    home = next(iter(model.weights.values())).parent
    say(f'imported as "{model.name}" into {home}')
    say(f'use it: [[stages]] kind = "restore", model = "{model.name}"')


def build_engine(
    given: str, kind: str, shape: str, precision: str | None, device: str, capabilities: list[str], say: Say
) -> None:
    """Make an engine beforehand, so that a run begins at once."""
    model = shelf.find(given)
    sides = _sides(shape, model)
    keys: dict[str, Any] = {"precision": precision} if precision else {}
    if capabilities:
        if kind not in ("auto", "tensorrt-rtx"):
            raise ConfigError(f"--capability: only tensorrt-rtx builds for a GPU that is not here, not {kind}")
        wanted = [_capability(text) for text in capabilities]
        entries = _engine("tensorrt-rtx", keys).ahead(model, sides, wanted, say)  # type: ignore[attr-defined]
        for entry in entries:
            say(f"built {_entry(entry.facts)}")
        return
    where = pick_device(device)
    engine = _engine(kind, keys)
    if why := engine.missing(model, where):
        raise ConfigError(why)
    engine.open(model, sides, where, say)
    made = engine.made
    engine.close()
    say(f"{model.name} on {made.kind}, {made.precision}, {made.device}: {'was there' if made.cached else 'built'}")


def verify_model(given: str, kind: str, say: Say) -> bool:
    """Check a model's content, its own test and every engine that is here; False where something fails."""
    model = shelf.find(given)
    say(f"content: in order ({', '.join(model.weights)}, sha256 {model.sha256[:12]})")
    fine = True
    if model.samples:
        try:
            say(f"own test: largest difference {run_own_test(model, 'own test'):.2g} of the range")
        except PellucidError as error:
            say(f"FAILED {error}")
            fine = False
    else:
        say("own test: it has no test tensors")
    fine &= _of_others(model, say)
    device = pick_device("auto")
    sides = _sides(f"{_VERIFY_SIDE}x{_VERIFY_SIDE}", model)
    names = list(_engines()) if kind == "all" else [kind]
    ran = 0
    for name in names:
        engine = _engine(name, {})
        if why := engine.missing(model, device):
            say(f"{name}: not here: {why}")
            fine &= kind == "all"
            continue
        try:
            engine.open(model, sides, device)
        except PellucidError as error:
            say(f"FAILED {name}: {error}")
            fine = False
            continue
        fidelity = engine.made.fidelity
        figure = (
            f"largest difference {fidelity.largest:.2g} of the range, rms {fidelity.rms:.1g}, from {fidelity.reference}"
            if fidelity
            else "is the reference itself"
        )
        say(f"{name}: {engine.made.precision}, {figure}")
        engine.close()
        ran += 1
    return fine and ran > 0


def _of_others(model: Model, say: Say) -> bool:
    """Let bioimageio.core test a package, where it is installed."""
    home = next(iter(model.weights.values())).parent
    card = next((home / name for name in CARDS if (home / name).is_file()), None)
    if card is None:
        return True
    if importlib.util.find_spec("bioimageio") is None:
        say('bioimageio.core: not installed. Type: pip install "pellucid[models]"')
        return True
    try:
        from bioimageio.core import test_model

        summary = test_model(str(card))
    except Exception as error:  # its own dependencies may not fit together
        told = (str(error).strip().splitlines() or [""])[0][:120]
        say(f'bioimageio.core: cannot run here: {type(error).__name__}: {told}. Type: pip install "pydantic<2.14"')
        return True
    say(f"bioimageio.core: {summary.status}")
    return str(summary.status) == "passed"


def _engines() -> dict[str, Engine]:
    return {kind: _engine(kind, {}) for kind in installed("engines") if kind != "auto"}


def _engine(kind: str, keys: dict[str, Any]) -> Engine:
    known = installed("engines")
    if kind not in known:
        raise ConfigError(f'--engine "{kind}": no such engine.{did_you_mean(kind, known)} Known: {", ".join(known)}')
    engine: Engine = known[kind].load()(**keys)
    return engine


def _sides(text: str, model: Model) -> tuple[int, ...]:
    """Return the tensor's shape for frames of so many pixels, sides as the model allows them."""
    try:
        given = [int(n) for n in text.lower().split("x")]
    except ValueError:
        given = []
    if len(given) != model.given.ndim or min(given) < 1:
        example = "2048x2048" if model.given.ndim == 2 else "16x512x512"
        raise ConfigError(f'--shape "{text}": {model.name} takes {model.given.ndim} sides, such as {example}')
    space = dict(
        zip(
            (a for a in "zyx" if a in model.given.axes),
            (s.up(n) for s, n in zip(model.given.sides, given, strict=True)),
            strict=True,
        )
    )
    return tuple({"b": 1, "c": model.given.channels, **space}[a] for a in model.given.axes)


def _capability(text: str) -> tuple[int, int]:
    parts = text.split(".")
    if len(parts) != 2 or not all(p.isdecimal() for p in parts):
        raise ConfigError(f'--capability "{text}": give it as 8.6, 8.9 or 12.0')
    return int(parts[0]), int(parts[1])


def _port(port: Port) -> str:
    sides = " x ".join(
        f"{s.least}" if s.step == 0 else f"{s.least} + n*{s.step}" if s.step > 1 else f"from {s.least}"
        for s in port.sides
    )
    return f"{port.axes} {port.dtype}, {port.channels} channel{'s' * (port.channels > 1)}, sides {sides}"


def _steps(operations: Any) -> str:
    return ", ".join(
        f"{o.name}({', '.join(f'{k}={v}' for k, v in o.keys.items())})" if o.keys else o.name for o in operations
    )


def _entry(facts: Any) -> str:
    fidelity = facts.get("fidelity") or {}
    far = f", largest difference {fidelity['largest']:.2g}" if fidelity else ""
    where = facts.get("device") or facts.get("capability") or ""
    return f"{facts.get('kind', '')} {facts.get('precision', '')} {facts.get('library', '')} {where}{far}"
