"""Sessions that other computers may look at, and their keys."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wire_parts import LONG_S

import pellucid
from pellucid.wire.keyfile import tend_keys
from pellucid.wire.keys import Curve

CONFIG = """
[source]
kind = "simulated"
shape = [64, 96]
fps = 30
[[stages]]
kind = "deconvolve"
psf = {{ kind = "gaussian", fwhm_px = 3.0 }}
[[sinks]]
kind = "recorder"
path = "rec-{{time}}"
{recorder}
[session.view]
address = "{address}"
keys = "scope.keys"
control = {control}
"""


def make_keys(folder: Path) -> None:
    """Introduce two computers to each other: ``scope.keys`` and ``laptop.keys``."""
    tend_keys(folder / "scope.keys", None, [])
    tend_keys(folder / "laptop.keys", Curve.load(folder / "scope.keys").public, [])
    tend_keys(folder / "scope.keys", None, [Curve.load(folder / "laptop.keys").public])


def write_config(folder: Path, address: str, *, control: bool = False, recorder: str = "") -> Path:
    path = folder / "live.toml"
    path.write_text(CONFIG.format(address=address, control=str(control).lower(), recorder=recorder))
    return path


class Scope:
    """A session that runs in this process until it is told to stop."""

    def __init__(self, config: Path) -> None:
        self.live = pellucid.open(config, headless=True, policy="latest")
        self.session = self.live.session
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._go)
        self._thread.start()

    def _go(self) -> None:
        try:
            with self.live:
                for _ in self.live:
                    pass
        except Exception as error:
            self.error = error

    @property
    def windows(self) -> list[Any]:
        return [place.sink for place in list(self.session._onlookers._there.values())]

    @property
    def notes(self) -> str:
        return "\n".join(self.session.ledger.notes)

    def drawn(self) -> int:
        return sum(window.drawn for window in self.windows)

    def begun(self) -> Scope:
        until(lambda: self.session.ledger.received > 0 and "other computers may look" in self.notes)
        return self

    def end(self) -> dict[str, Any]:
        self.live.stop()
        self._thread.join(LONG_S)
        assert not self._thread.is_alive()
        report: dict[str, Any] = self.live.report
        return report


def accounted(report: dict[str, Any]) -> None:
    """Every frame is accounted for, and each one is on the disk."""
    frames = report["frames"]
    assert frames["unaccounted"] == 0
    assert frames["received"] == frames["recorded"] > 0
    assert not frames["lost"]
    assert report["sinks"]["recorder"]["lost"] == 0


def seen(status: Path) -> dict[str, Any]:
    """Return what a `looker` has written."""
    try:
        found: dict[str, Any] = json.loads(status.read_text())
    except OSError:
        return {"frames": 0, "sessions": 0, "why": "", "age_ms": [], "unsure_ms": -1.0}
    return found


def until(done: Callable[[], Any]) -> Any:
    end = time.monotonic() + LONG_S
    while not (got := done()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return got
