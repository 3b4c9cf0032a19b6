"""Every installed part keeps its contract; one that is added without a line here fails."""

from __future__ import annotations

import itertools
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from pellucid.config import GROUPS, installed
from pellucid.engines.openvino import OpenVino
from pellucid.engines.torch import Torch
from pellucid.models import shelf
from pellucid.protocols import Spec
from pellucid.sinks.null import Null
from pellucid.sinks.recorder import Recorder
from pellucid.sinks.window import Window
from pellucid.sources.micromanager import MicroManager
from pellucid.sources.replay import Replay
from pellucid.sources.simulated import Simulated
from pellucid.sources.wire import WireSource
from pellucid.stages.deconvolve import Deconvolve
from pellucid.stages.restore import Restore
from pellucid.testing import check_engine, check_sink, check_source, check_stage
from tests.restoration.network_parts import onnx_file

PSF = {"kind": "gaussian", "fwhm_px": 3.0}
SPECS = [Spec((64, 48), "uint16"), Spec((41, 33), "uint8"), Spec((50, 50), "float32")]


def fake_wire():
    """A sender in a process of its own for every session that opens."""
    source = WireSource(bind="tcp://127.0.0.1:*", linger_s=0.5)
    opened = source.open

    def open_with_a_sender():
        endpoint = source.listen()
        command = [
            sys.executable,
            "-m",
            "pellucid",
            "send",
            "--simulated",
            "--to",
            endpoint,
            "--frames",
            "60",
            "--once",
        ]
        senders.append(subprocess.Popen([*command, "--set", "shape=[32, 32]"], stdout=subprocess.DEVNULL))
        return opened()

    source.open = open_with_a_sender
    return source


senders: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def no_sender_is_left():
    yield
    for sender in senders:
        assert sender.wait(20) == 0
    senders.clear()


def sources(folder):
    tifffile.imwrite(folder / "stack.tif", np.arange(20 * 32 * 24, dtype=np.uint16).reshape(20, 32, 24))
    return {
        "micromanager": partial(MicroManager, config="demo", exposure_ms=5),
        "replay": partial(Replay, path=folder / "stack.tif"),
        "simulated": partial(Simulated, shape=(32, 48), fps=100),
        "wire": fake_wire,
    }


def stages(folder):
    return {
        "deconvolve": [
            partial(Deconvolve, psf=PSF, method=method, output=output)
            for method in ("wiener-butterworth", "richardson-lucy")
            for output in ("float32", "uint16")
        ],
        "restore": [
            partial(Restore, model=str(onnx_file(folder)), engine=engine(), normalise="percentiles", output=output)
            for engine in (Torch, OpenVino)
            for output in ("float32", "uint16")
        ],
    }


def sinks(folder):
    number = itertools.count()
    return {
        "null": Null,
        "recorder": lambda: Recorder(path=str(folder / f"rec{next(number)}")),
        "window": Window,
    }


ELSEWHERE = {
    "micromanager-java": ("sources/test_java.py", "check_source("),
    "pymmcore-plus": ("sources/test_pymmcore_plus.py", "check_source("),
    "micromanager-display": ("sinks/test_application.py", "check_sink("),
    "window": ("viewer/test_window_process.py", "check_sink("),
}
"""Parts that need a server, a core or a screen beside them keep the same contract in their own tests."""


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_what_is_tested_elsewhere_is(kind):
    file, call = ELSEWHERE[kind]
    assert call in (Path(__file__).parents[1] / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", [k for k in installed("sources") if k not in ELSEWHERE])
def test_source(kind, tmp_path):
    check_source(sources(tmp_path)[kind])


@pytest.mark.parametrize("kind", installed("stages"))
def test_stage(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    for make in stages(tmp_path)[kind]:
        check_stage(make, SPECS)


@pytest.mark.parametrize("kind", installed("engines"))
def test_engine(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    make, model = installed("engines")[kind].load(), shelf.find(str(onnx_file(tmp_path)))
    if why := make().missing(model, "cpu"):
        assert "\n" not in why
        pytest.skip(why)
    check_engine(make, model, [(1, 1, 48, 64), (1, 1, 64, 32)])


@pytest.mark.parametrize("kind", [k for k in installed("sinks") if k not in ELSEWHERE])
def test_sink(kind, tmp_path):
    check_sink(sinks(tmp_path)[kind])
    if kind == "recorder":
        raw = zarr.open_array(tmp_path / "rec1/raw.ome.zarr/0", mode="r")[:, 0]
        assert (raw == np.arange(12)[:, None, None]).all()


def test_no_part_is_left_out():
    """The window's suite runs with its screen in tests/viewer."""
    assert {group: sorted(installed(group)) for group in GROUPS} == {
        "sources": ["micromanager", "micromanager-java", "pymmcore-plus", "replay", "simulated", "wire"],
        "stages": ["deconvolve", "restore"],
        "engines": ["auto", "openvino", "tensorrt", "tensorrt-rtx", "torch"],
        "sinks": ["micromanager-display", "null", "recorder", "window"],
    }
