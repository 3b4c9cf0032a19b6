"""The stage "restore" in configs: its keys, a session and its recording, recorded data, and what check says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

import pellucid
from pellucid.check import check_config
from pellucid.config import Config
from pellucid.errors import ConfigError, SinkError
from pellucid.process import process_recorded
from pellucid.process.block import BlockRunner
from pellucid.terminal import console, print_summary
from tests.restoration.network_parts import (
    Eager,
    Newest,
    model,
    one_thread,  # noqa: F401
    onnx_file,
    restored,
)

PLUGIN = (Path(__file__).parents[1] / "restoration/engine_plugin.py").as_posix()
RNG = np.random.default_rng(12)
HEAD = f'plugins = ["{PLUGIN}"]\n'
STAGE = '[[stages]]\nkind = "restore"\nmodel = "small"\nengine = "eager"\n'


@pytest.fixture
def known(monkeypatch):
    """Models by name, as the shelf would find them."""
    found = {"small": model(), "twice": model("twice", scale=2)}
    found["memory"] = model("memory", Newest(), channels=3, frames=3, before=(), after=())
    monkeypatch.setattr("pellucid.models.shelf.find", lambda name, folder=None: found[name])
    return found


# Keys


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("", r"stages\[0\]: model is missing"),
        ('model = "a"\nengine = "egaer"', r'stages\[0\].engine.kind = "egaer": no such engine. Did you mean "eager"\?'),
        ('model = "a"\nengine = 3', r"stages\[0\].engine = 3: a table with a kind is needed. Installed: .*eager"),
        ('model = "a"\nengine = { precision = "float32" }', r"stages\[0\].engine: kind is missing"),
        (
            'model = "a"\nengine = { kind = "eager", fast = 1 }',
            r"stages\[0\].engine.fast = 1: no such key. Allowed: prec",
        ),
        (
            'model = "a"\nengine = { kind = "eager", precision = 3 }',
            r"stages\[0\].engine.precision = 3: input should be",
        ),
        ('model = "nets/x.onnx"\nengine = "eager"', r'stages\[0\].model = "nets/x.onnx": .*x.onnx does not exist'),
        ('model = "x.onnx"\nengine = "eager"', r'x.onnx does not exist. Did you mean "xy.onnx"\?'),
        ('model = " "\nengine = "eager"', r"a name or a file is needed"),
        ('model = "a"\nengine = "eager"\ntile = [9]', r"stages\[0\].tile = \[9\]: two sides are needed"),
        ('model = "a"\nengine = "eager"\nadapt_frames = -1', r"stages\[0\].adapt_frames = -1: input should be greater"),
        ('model = "a"\nengine = "eager"\nnormalise = "percentile"', r'stages\[0\].normalise = "percentile": kind = '),
        ('model = "a"\nengine = "eager"\noutput = "uint8"', r'stages\[0\].output = "uint8"'),
    ],
)
def test_one_line_says_where_and_what(keys, says, tmp_path):
    (tmp_path / "xy.onnx").touch()
    with pytest.raises(ConfigError, match=says) as caught:
        Config.parse(f'{HEAD}source = {{ kind = "simulated" }}\n[[stages]]\nkind = "restore"\n{keys}', tmp_path)
    assert "\n" not in str(caught.value)


def test_each_stage_has_an_engine_of_its_own_and_files_are_found_from_the_configs_folder(tmp_path):
    (tmp_path / "net.onnx").touch()
    text = f'{HEAD}source = {{ kind = "simulated" }}\n' + STAGE.replace('"small"', '"net.onnx"') * 2
    config = Config.parse(text, tmp_path)
    stages = [stage for _ in range(2) for stage in config.make_stages().values()]
    assert len({id(stage.engine) for stage in stages}) == 4
    assert {stage.model for stage in stages} == {str(tmp_path / "net.onnx")}
    assert f'model = "{tmp_path.as_posix()}/net.onnx"' in config.text.replace("\\\\", "/")
    # A name stays a name, whatever lies beside the config.
    (tmp_path / "small").mkdir()
    assert Config.parse(f'{HEAD}source = {{ kind = "simulated" }}\n{STAGE}', tmp_path).text.count('"small"') == 1


def test_another_kind_of_source_leaves_the_keys_of_the_first_behind(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((8, 8), np.uint8))
    text = 'source = { kind = "simulated", shape = [32, 32], fps = 5 }'
    config = Config.parse(text, tmp_path, ["source.path=x.tif", "source.fps=7", "source.kind=replay"])
    assert (config.source.path, config.source.fps) == (tmp_path / "x.tif", 7)
    kept = Config.parse(text, tmp_path, ["source.kind=simulated"])
    assert kept.source.fps == 5


# Live


def test_a_session_restores_notes_and_records_what_it_did_it_with(known, tmp_path, capsys):
    text = f"""{HEAD}
        source = {{ kind = "simulated", shape = [48, 64], fps = 200, frames = 6, on_full = "wait", pixel_um = 0.2 }}
        sinks = [{{ kind = "recorder", path = "{(tmp_path / "rec").as_posix()}" }}]
        {STAGE.replace("small", "twice")}"""
    path = tmp_path / "live.toml"
    path.write_text(text)
    with pellucid.open(path) as session:
        frames = [(frame["raw"].copy(), frame["restored"].copy()) for frame in session]
    report = session.report
    assert report["frames"]["processed"] == 6
    assert all(result.shape == (96, 128) and np.isfinite(result).all() for _, result in frames)
    stage = report["streams"][0]["stages"][0]
    assert (stage["model"]["name"], stage["model"]["sha256"]) == ("twice", "5" * 64)
    assert stage["engine"]["kind"] == "eager"
    rows = [json.loads(line) for line in (tmp_path / "rec/frames.jsonl").read_text().splitlines()]
    lows, scales = [], []
    for row, (raw, _) in zip(rows, frames, strict=True):
        low, high = np.percentile(raw, [0.1, 99.9])
        lows.append(low)
        scales.append(high - low)
        noted = row["notes"]["restore"]
        # The mean of what came so far: the time constant is a hundred frames.
        assert noted["offset"] == pytest.approx(np.mean(lows), rel=1e-3)
        assert noted["scale"] == pytest.approx(np.mean(scales), rel=1e-3)
    told = {name: zarr.open_group(tmp_path / f"rec/{name}.ome.zarr", mode="r").attrs for name in ("raw", "restored")}
    values = told["restored"]["pellucid"]["values"]
    assert values["engine"]["precision"] == "float32"
    assert values["model"]["sha256"] == "5" * 64
    assert values["normalise"]["adapt_frames"] == 100
    for name, um in (("raw", 0.2), ("restored", 0.1)):
        scale = told[name]["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
        assert scale[-2:] == [um, um]
        assert told[name]["pellucid"]["pixel_um"] == pytest.approx(um)
    print_summary(report)
    said = capsys.readouterr().out
    assert "twice (555555555555) on torch" in said


def test_check_says_what_would_run_and_its_memory(known, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(console, "width", 200)
    config = Config.parse(f'{HEAD}source = {{ kind = "simulated", shape = [512, 512] }}\n{STAGE}tile = [128, 128]')
    assert check_config(config, "64x64", "uint16")
    said = capsys.readouterr().out
    assert "building small" in said
    assert "small (555555555555) on torch" in said
    assert "tiles of 128x128 a picture, 1 at once" in said
    config = Config.parse(f'{HEAD}source = {{ kind = "simulated", shape = [512, 512] }}\n{STAGE}memory_gb = 0.0001')
    assert not check_config(config, "64x64", "uint16")
    assert "Give memory_gb a larger number" in capsys.readouterr().out


# Recorded data


def process(folder: Path, given: np.ndarray, stage: str, out: str = "out", unit: str = "plane", **options) -> Path:
    keys = {key: options.pop(key) for key in ("photometric", "metadata", "imagej") if key in options}
    if not (folder / "in.tif").exists():
        tifffile.imwrite(folder / "in.tif", given, **({"photometric": "minisblack"} | keys))
    (folder / "c.toml").write_text(f'{HEAD}{stage}\n[session]\nthreads = 1\nunit = "{unit}"\n')
    process_recorded(folder / "in.tif", folder / out, folder / "c.toml", say=lambda line: None, **options)
    return folder / out


def pixels(out: Path) -> np.ndarray:
    return np.asarray(zarr.open_array(out / "restored.ome.zarr/0", mode="r")[:])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(
    ("shape", "axes", "unit"),
    [((30, 41), "YX", "plane"), ((5, 30, 41), "TYX", "plane"), ((4, 30, 41), "ZYX", "plane"),
     ((4, 30, 41), "ZYX", "stack"), ((2, 3, 30, 41), "TZYX", "stack")],
)  # fmt: skip
def test_any_tiff_is_restored(known, tmp_path, monkeypatch, dtype, shape, axes, unit):
    given = RNG.poisson(40, shape).astype(dtype)
    out = process(tmp_path, given, STAGE, unit=unit, metadata={"axes": axes})
    inner = 3 if unit == "stack" else 2
    want = np.stack([
        restored(known["small"], one, monkeypatch) for one in given.reshape(-1, *given.shape[-inner:])
    ])  # fmt: skip
    np.testing.assert_allclose(pixels(out).reshape(given.shape), want.reshape(given.shape), rtol=1e-4, atol=1e-3)
    report = json.loads((out / "report.json").read_text())
    assert report["streams"][0]["stages"][0]["model"]["name"] == "small"


def test_more_pixels_of_a_file_are_smaller(known, tmp_path, monkeypatch):
    given = RNG.poisson(40, (3, 16, 24)).astype("uint16")
    keys = {"metadata": {"axes": "TYX"}, "sets": ["source.pixel_um=0.2"]}
    out = process(tmp_path, given, STAGE.replace("small", "twice"), **keys)
    assert pixels(out).shape[-2:] == (32, 48)
    told = zarr.open_group(out / "restored.ome.zarr", mode="r").attrs
    assert told["pellucid"]["pixel_um"] == pytest.approx(0.1)
    scale = told["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert scale[-2:] == [0.1, 0.1]


@pytest.mark.parametrize("engine", ["openvino", "torch", "auto"])
def test_a_file_runs_on_what_comes_with_pellucid(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    onnx_file(tmp_path)
    given = RNG.poisson(40, (4, 30, 41)).astype("uint16")
    stage = f'[[stages]]\nkind = "restore"\nmodel = "small.onnx"\nengine = "{engine}"\nnormalise = "percentiles"'
    out = process(tmp_path, given, stage, metadata={"axes": "TYX"})
    report = json.loads((out / "report.json").read_text())
    made = report["streams"][0]["stages"][0]["engine"]
    assert made["library"].startswith(("openvino", "torch"))
    assert engine in (made["kind"], "auto")
    want = np.stack([restored(model(), plane, monkeypatch, normalise="percentiles") for plane in given])
    off = np.abs(pixels(out).reshape(want.shape) - want).max() / np.ptp(want)
    assert off < (1e-4 if made["precision"] == "float32" else 0.05)


def test_colours_are_restored_each_by_itself(known, tmp_path, monkeypatch):
    given = RNG.poisson(40, (3, 30, 41, 3)).astype("uint8")
    out = process(tmp_path, given, STAGE, photometric="rgb")
    found = pixels(out)
    assert found.shape == (3, 3, 30, 41)
    for t in range(3):
        for c in range(3):
            want = restored(known["small"], np.ascontiguousarray(given[t, ..., c]), monkeypatch)
            np.testing.assert_allclose(found[t, c], want, rtol=1e-4, atol=1e-3)


def test_each_frame_is_taken_by_itself_and_said_to_be(known, tmp_path):
    given = RNG.poisson(40, (4, 30, 41)).astype("uint16")
    given[2] *= 50
    out = process(tmp_path, given, STAGE + "adapt_frames = 1000")
    rows = [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]
    scales = [row["notes"]["restore"]["scale"] for row in rows]
    assert scales[2] > 20 * scales[1]
    assert scales[3] < 2 * scales[1]
    report = json.loads((out / "report.json").read_text())
    assert report["streams"][0]["stages"][0]["normalise"]["adapt_frames"] == 0


def test_blocks_of_a_network_with_a_memory_give_what_one_run_gives(known, tmp_path, monkeypatch):
    """Twenty blocks, each begun with stages of its own: the frames before are shown to them first."""
    given = np.arange(1, 101, dtype=np.float32).repeat(64).reshape(100, 8, 8)
    stage = STAGE.replace("small", "memory")
    runs = []
    run = BlockRunner.run
    monkeypatch.setattr(BlockRunner, "run", lambda self, number, *a: runs.append(number) or run(self, number, *a))
    found = pixels(process(tmp_path, given, stage, metadata={"axes": "TYX"}))[:, 0, 0, 0]
    assert len(runs) > 5
    n = np.arange(1, 101)
    want = n + np.maximum(n - 1, 1) / 1e3 + np.maximum(n - 2, 1) / 1e6
    np.testing.assert_allclose(found, want, rtol=1e-6)


def test_a_run_that_was_stopped_goes_on_and_gives_the_same(known, tmp_path, monkeypatch):
    given = RNG.poisson(40, (40, 16, 16)).astype("uint16")
    whole = process(tmp_path, given, STAGE, "whole", metadata={"axes": "TYX"})
    run, done = BlockRunner.run, []

    def stopping(self, number, stopped=lambda: False, tick=lambda: None):
        done.append(number)
        if len(done) == 5:
            raise KeyboardInterrupt
        return run(self, number, stopped, tick)

    monkeypatch.setattr(BlockRunner, "run", stopping)
    with pytest.raises(KeyboardInterrupt):
        process(tmp_path, given, STAGE, metadata={"axes": "TYX"})
    monkeypatch.setattr(BlockRunner, "run", run)
    assert not (tmp_path / "out/report.json").exists()
    again = process(tmp_path, given, STAGE, metadata={"axes": "TYX"})
    np.testing.assert_array_equal(pixels(again), pixels(whole))


def test_another_engine_does_not_go_on_with_what_one_began(known, tmp_path, monkeypatch):
    given = RNG.poisson(40, (8, 16, 16)).astype("uint16")
    monkeypatch.setattr(BlockRunner, "run", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        process(tmp_path, given, STAGE, metadata={"axes": "TYX"})
    monkeypatch.setattr(Eager, "library", "torch 99.0")
    with pytest.raises(SinkError, match=r"networks were small \(5+\) on torch .* in float32, now small .* torch 99.0"):
        process(tmp_path, given, STAGE, metadata={"axes": "TYX"})
