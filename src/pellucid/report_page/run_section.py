"""What ran, on what: streams, stages, machine, versions, hashes, config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pellucid.report_page.facts import Facts, stream_name, table
from pellucid.report_page.svg import Markup, el, join
from pellucid.report_page.tables import facts_list, table_of

__all__ = ["run_section"]

_HARDWARE = {
    "system": "system",
    "processor": "processor",
    "cores": "cores",
    "memory_gb": "memory, GB",
    "gpu": "GPU",
    "cuda": "CUDA",
    "python": "Python",
    "torch": "PyTorch",
    "threads": "threads of the stages",
    "device": "device of the stages",
}


def run_section(facts: Facts) -> Markup:
    """Return the section."""
    about, hardware = facts.contents.about, table(facts.report, "hardware")
    machine = facts_list((name, _text(hardware.get(key))) for key, name in _HARDWARE.items())
    if not hardware:
        machine = el("p", "Not known: the run did not come to write its report.", class_="note")
    hashes = [("config.toml, SHA-256", facts.config_sha256)]
    for stage in _stages(facts):
        name = stage.get("stage", "stage")
        hashes += [(f"{name}: {what}, SHA-256", value) for what, value in _hashes(stage)]
    return el(
        "section",
        el("h2", "What ran", id="run-title"),
        el("h3", "Streams"),
        _streams(facts),
        join(el("h3", "Stages"), *(_stage(stage) for stage in _stages(facts))) if _stages(facts) else None,
        el("h3", "Machine"),
        machine,
        _clock(facts),
        el("h3", "Versions and hashes"),
        facts_list(
            [
                ("pellucid", about.version),
                ("recording", f"{about.file_format}, committed every {about.commit_every_s:g} s"),
                ("began", about.began),
                *hashes,
            ]
        ),
        join(el("h3", "Config, as run"), el("pre", el("code", facts.config))) if facts.config else None,
        id="run",
        aria_labelledby="run-title",
    )


def _clock(facts: Facts) -> Markup | None:
    """Return what was known of another computer's clock at the end of the run."""
    told = table(facts.report, "clock")
    units = (
        ("offset_ms", "it is ahead by", "ms"),
        ("unsure_ms", "known to", "ms"),
        ("round_trip_ms", "shortest way there and back", "ms"),
        ("drift_ppm", "it runs faster by", "millionths"),
        ("drift_unsure_ppm", "which is known to", "millionths"),
        ("exchanges", "exchanges", ""),
        ("jumps", "jumps", ""),
    )
    some = [
        (name, f"{told[key]:,} {unit}".strip()) for key, name, unit in units if isinstance(told.get(key), int | float)
    ]
    return join(el("h3", "The clock of the camera's computer, at the end"), facts_list(some)) if some else None


def _streams(facts: Facts) -> Markup:
    rows = []
    for index, stream in sorted(facts.contents.streams.items()):
        um, z_um, ms = stream.pixel_um, stream.z_um, stream.exposure_ms
        rows.append(
            (
                str(index),
                stream_name(facts.contents, index),
                str(stream.spec),
                "–" if um is None else f"{um:.4g} µm" + (f", z {z_um:.4g} µm" if z_um else ""),
                "–" if ms is None else f"{ms:.4g} ms",
            )
        )
    return table_of(
        "As the camera's side told them.", ("number", "camera, channel", "frames", "pixel", "exposure"), rows, (1, 2)
    )


def _stages(facts: Facts) -> list[dict[str, Any]]:
    """Return the stages of all streams; those that are alike once."""
    out: list[dict[str, Any]] = []
    for index in sorted(facts.contents.streams):
        out += [stage for stage in facts.stages(index) if stage not in out]
    return out


def _stage(stage: Mapping[str, Any]) -> Markup:
    """Return what a stage said of itself: what it is, and all else under it."""
    engine, model = table(stage, "engine"), table(stage, "model")
    fidelity = table(engine, "fidelity")
    near = ""
    if isinstance(fidelity.get("largest"), float) and isinstance(fidelity.get("rms"), float):
        near = (
            f"differs from {fidelity.get('reference')} by {fidelity['largest']:.1e} of the range at most, "
            f"{fidelity['rms']:.1e} rms"
        )
    rest = {k: v for k, v in stage.items() if k not in ("stage", "reads", "writes", "device", "captured")}
    return join(
        facts_list(
            [
                ("stage", _text(stage.get("stage"))),
                ("reads, writes", f"{stage.get('reads', '')} → {stage.get('writes', '')}"),
                ("on", f"{stage.get('device', '')}{', captured as a graph' if stage.get('captured') else ''}"),
                ("network", _text(model.get("name"))),
                ("engine", ", ".join(str(engine[k]) for k in ("library", "precision") if engine.get(k))),
                ("fidelity", near),
            ]
        ),
        el("details", el("summary", "all it says of itself"), el("pre", el("code", "\n".join(_lines(rest)))))
        if rest
        else None,
    )


def _hashes(told: Any, name: str = "") -> list[tuple[str, str]]:
    """Return all that is a hash in what a stage says, with the name of what it is of."""
    if not isinstance(told, Mapping):
        return []
    out: list[tuple[str, str]] = []
    for key, value in told.items():
        if isinstance(value, str) and "sha256" in str(key):
            out.append((name or str(key), value))
        else:
            out += _hashes(value, str(key))
    return out


def _lines(told: Any, depth: int = 0) -> list[str]:
    """Return tables within tables as indented lines."""
    out: list[str] = []
    for key, value in told.items():
        if isinstance(value, Mapping):
            out += [f"{'  ' * depth}{key}", *_lines(value, depth + 1)]
        else:
            out.append(f"{'  ' * depth}{key}: {_text(value)}")
    return out


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(_text(each) for each in value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_text(each)}" for key, each in value.items()) + "}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
