"""What the bench of windows measures: real windows, one of them stopped, and every frame on the disk."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("PySide6")

from pellucid.bench import display
from pellucid.errors import MissingExtra

pytestmark = pytest.mark.screen


@pytest.mark.parametrize(("windows", "stopped"), [(1, False), (1, True)])
def test_a_window_costs_no_frame(windows, stopped, screen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = display._record(64, 20.0, 2.0, windows, stopped=stopped)
    assert run["frames"] > 20
    assert run["not on the disk"] == run["unaccounted"] == 0
    if not stopped:
        assert run["to the screen, frames/s"] > 0
    assert not os.listdir(tmp_path)


def test_the_way_to_the_screen_is_measured(screen):
    run = display._screen(64, 20.0, 2.0, 1, {"size": (400, 300)})
    assert run["restored"] > 0
    assert run["restored p50, ms"] <= run["drawn p50, ms"] <= run["drawn p99, ms"]


def test_without_a_screen_it_says_so(monkeypatch):
    monkeypatch.setattr(display.Window, "why_not", classmethod(lambda cls: "there is no screen"))
    with pytest.raises(MissingExtra, match="no screen"):
        display.measure_display(True)
