"""What may be changed of a config: only what it has, nothing that was to stay, and no more than the bounds allow."""

from __future__ import annotations

import os
import tomllib

import pytest

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.tuning.space import knobs_of, parse_range, parse_try

TEXT = """\
[source]
kind = "simulated"

[[stages]]
kind = "restore"
model = "denoise"
engine = { kind = "openvino", bound = 0.001 }

[[stages]]
kind = "deconvolve"
psf = { kind = "gaussian", fwhm_px = 3.0 }
iterations = 5

[[sinks]]
kind = "recorder"
path = "never-made"

[session]
slots = 8
threads = 1
device = "cpu"
"""


def knobs(text=TEXT, **given):
    keys = {"shape": (512, 512), "point": "restored"} | given
    return {one.key: one for one in knobs_of(Config.parse(text), tomllib.loads(text), **keys)}


def test_what_the_config_has_is_what_is_tried():
    found = knobs()
    assert set(found) == {
        "session.threads", "stages.0.engine", "stages.0.tile", "stages.0.batch", "session.restore", "session.slots",
    }  # fmt: skip
    assert 8 not in found["session.slots"].values
    assert 1 not in found["session.threads"].values
    assert all(value is None or value <= (os.cpu_count() or 1) for value in found["session.threads"].values)
    assert found["stages.0.tile"].values == ([256, 256],)
    assert not any(one.trades for one in found.values())


def test_an_engine_keeps_the_bound_that_was_given():
    engines = knobs()["stages.0.engine"].values
    assert {engine["kind"] for engine in engines} >= {"openvino", "torch"}
    assert all(engine["bound"] == 0.001 for engine in engines)
    plain = knobs(TEXT.replace('engine = { kind = "openvino", bound = 0.001 }\n', ""))["stages.0.engine"].values
    assert not any(isinstance(engine, dict) and "bound" in engine for engine in plain)
    assert not any(
        isinstance(engine, dict) and engine.get("mode") == "compile"
        for engine in knobs(minutes=1.0)["stages.0.engine"].values
    )


def test_iterations_change_only_within_bounds_and_from_the_best_picture_on():
    found = knobs(iterations=(2, 8))["stages.1.iterations"]
    assert found.trades
    assert found.values == (8, 6, 4, 3, 2)
    wiener = TEXT.replace("iterations = 5", 'method = "wiener"')
    assert "stages.1.iterations" not in knobs(wiener, iterations=(2, 8))


def test_the_disk_is_tuned_where_the_latency_ends_there():
    found = knobs(point="disk")
    assert {"sinks.0.compression", "sinks.0.threads", "sinks.0.commit_every_s"} <= set(found)
    assert found["sinks.0.compression"].values == ("blosc-lz4",)


def test_what_is_to_stay_stays():
    assert set(knobs(keep=["session", "stages.0.engine"])) == {"stages.0.tile", "stages.0.batch"}


def test_a_key_of_the_users_own():
    found = knobs(tries={"stages.1.tv": [0.0, 0.002], "session.slots": [5]})
    assert found["stages.1.tv"].trades
    assert found["session.slots"].values == (5,)
    with pytest.raises(ConfigError, match="no key of this config"):
        knobs(tries={"stages.7.tv": [1]})


def test_what_is_typed_is_read():
    assert parse_range("1:6") == (1, 6)
    assert parse_range(None) is None
    assert parse_try(['stages.0.way="a","b"', "session.slots=4, 8", "a.b=[1, 2],[3]", "a.c=x,y"]) == {
        "stages.0.way": ["a", "b"], "session.slots": [4, 8], "a.b": [[1, 2], [3]], "a.c": ["x", "y"],
    }  # fmt: skip
    for wrong in ("6:1", "0:3", "x", "1-3", "1:1001"):
        with pytest.raises(ConfigError, match="such as --iterations 1:6"):
            parse_range(wrong)
