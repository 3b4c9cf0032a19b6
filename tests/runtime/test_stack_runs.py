"""Stacks from what a lab has: Micro-Manager's camera, files, another process; and as what they are recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

import pellucid
from pellucid.check import check_config
from pellucid.config import Config
from pellucid.errors import ConfigError, SourceError
from pellucid.metrics import now_ns
from tests.runtime.stack_parts import HERE, image, rows, run

STACK = np.random.default_rng(0).integers(0, 4000, (2, 5, 2, 24, 32), dtype=np.uint16)
"""t, z, c, y, x."""


def multiscale(path: Path) -> dict:
    return json.loads((path / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]


def axes_and_scale(path: Path) -> tuple[str, list[float]]:
    told = multiscale(path)
    scale = told["datasets"][0]["coordinateTransformations"][0]["scale"]
    return "".join(axis["name"] for axis in told["axes"]), scale


@pytest.fixture
def tiff(tmp_path) -> Path:
    path = tmp_path / "stack.ome.tif"
    sizes = {"PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1, "PhysicalSizeZ": 0.4}
    tifffile.imwrite(path, STACK, metadata={"axes": "TZCYX", "Channel": {"Name": ["DAPI", "FITC"]}} | sizes, ome=True)
    return path


def replayed(path: Path, to: Path, unit: str, **keys) -> None:
    source = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
    stage = 'stages = [{ kind = "blend" }]' if unit == "stack" else ""
    _, session = run(
        f"""
        {stage}
        sinks = [{{ kind = "recorder", path = "{to.as_posix()}" }}]
        [source]
        kind = "replay"
        path = "{path.as_posix()}"
        {source}
        [session]
        unit = "{unit}"
        slots = 3
        """
    )
    assert session.report["frames"]["processed"] == 20
    assert session.report["unit"] == unit


def wanted_mean() -> np.ndarray:
    moved = np.moveaxis(STACK, 2, 1).astype(np.float32)
    return np.broadcast_to(moved.mean(axis=2, keepdims=True), moved.shape)


def test_a_recording_of_stacks_lies_as_one_of_planes_and_plays_as_both(tiff, tmp_path):
    replayed(tiff, tmp_path / "planes", "plane")
    replayed(tiff, tmp_path / "stacks", "stack")
    for name in ("planes", "stacks"):
        np.testing.assert_array_equal(image(tmp_path / name), np.moveaxis(STACK, 2, 1))
        axes, scale = axes_and_scale(tmp_path / name / "raw.ome.zarr")
        assert axes == "tczyx"
        assert scale[2:] == pytest.approx([0.4, 0.1, 0.1])
    np.testing.assert_allclose(image(tmp_path / "stacks", "restored"), wanted_mean(), rtol=1e-6)
    assert axes_and_scale(tmp_path / "stacks/restored.ome.zarr")[1][2:] == pytest.approx([0.4, 0.1, 0.1])
    for source in ("planes", "stacks"):
        for unit in ("plane", "stack"):
            replayed(tmp_path / source, tmp_path / f"{source}-{unit}", unit)
            np.testing.assert_array_equal(image(tmp_path / f"{source}-{unit}"), np.moveaxis(STACK, 2, 1))
    np.testing.assert_allclose(image(tmp_path / "planes-stack", "restored"), wanted_mean(), rtol=1e-6)
    told = rows(tmp_path / "stacks")
    assert [(row["seq"], row["to_seq"], row["axes"]) for row in told[:2]] == [
        (0, 8, {"t": 0, "c": 0}),
        (1, 9, {"t": 0, "c": 1}),
    ]


def test_an_imagej_stack_keeps_its_step(tmp_path):
    path = tmp_path / "stack.tif"
    meta = {"axes": "TZCYX", "spacing": 0.25, "unit": "um"}
    tifffile.imwrite(path, STACK, imagej=True, resolution=(10, 10), metadata=meta)
    replayed(path, tmp_path / "rec", "stack")
    np.testing.assert_array_equal(image(tmp_path / "rec"), np.moveaxis(STACK, 2, 1))
    assert axes_and_scale(tmp_path / "rec/raw.ome.zarr")[1][2:] == pytest.approx([0.25, 0.1, 0.1])


WRITE_NDTIFF = """
import sys
import numpy as np
from ndstorage import NDTiffDataset
given = np.load(sys.argv[1])
summary = {"PixelSize_um": 0.1, "z-step_um": 0.4}
writer = NDTiffDataset(sys.argv[2], summary_metadata=summary, name="run", writable=True)
for t, z, c in np.ndindex(given.shape[:3]):
    writer.put_image({"z": int(z), "channel": ("DAPI", "FITC")[c], "time": int(t)}, given[t, z, c], {})
writer.finish()
writer.close()
"""


def test_a_dataset_of_micro_manager_is_put_together(tmp_path):
    pytest.importorskip("ndstorage", reason="ndstorage is not installed: pip install pellucid[replay]")
    np.save(tmp_path / "given.npy", STACK)
    # In a process of its own: ndstorage's writer leaves files open, which would be a warning here.
    subprocess.run(
        [sys.executable, "-c", WRITE_NDTIFF, tmp_path / "given.npy", tmp_path], check=True, capture_output=True
    )
    (folder,) = (p.parent for p in tmp_path.rglob("NDTiff.index"))
    replayed(folder, tmp_path / "rec", "stack")
    np.testing.assert_array_equal(image(tmp_path / "rec"), np.moveaxis(STACK, 2, 1))
    assert axes_and_scale(tmp_path / "rec/raw.ome.zarr")[1][2:] == pytest.approx([0.4, 0.1, 0.1])


def test_a_file_at_the_cameras_rate_needs_a_source_that_waits(tiff, tmp_path):
    with pytest.raises(SourceError, match='on_full = "wait"'):
        replayed(tiff, tmp_path / "rec", "stack", fps=1000)
    replayed(tiff, tmp_path / "rec", "stack", fps=1000, on_full="wait")


def test_frames_in_python_are_stacks(tiff):
    table = {
        "plugins": [str(HERE)],
        "source": {"kind": "replay", "path": str(tiff)},
        "stages": [{"kind": "blend", "channels": ["FITC"]}],
        "session": {"unit": "stack"},
    }
    with pellucid.open(table) as session:
        got = [(frame.info.axes, frame.stream.channel, frame["raw"].copy()) for frame in session]
    assert len(got) == 4
    for axes, channel, raw in got:
        assert channel == ("DAPI", "FITC")[axes["c"]]
        np.testing.assert_array_equal(raw, STACK[axes["t"], :, axes["c"]])


# -------------------------------------------------------------------- another process


@pytest.mark.parametrize("shared", [True, False])
def test_planes_come_from_another_process_and_are_stacks_here(shared, tiff, tmp_path, unused_port):
    endpoint = f"tcp://127.0.0.1:{unused_port}"
    # Six time points, of which the session has room for three: the file waits over there.
    command = [sys.executable, "-m", "pellucid", "send", "--replay", str(tiff), "--to", endpoint, "--once"]
    command += ["--set", "loop=3"]
    sender = subprocess.Popen([*command, *([] if shared else ["--in-band"])], stdout=subprocess.PIPE, text=True)
    try:
        _, session = run(
            f"""
            source = {{ kind = "wire", bind = "{endpoint}" }}
            stages = [{{ kind = "blend", slow_s = 0.05 }}]
            sinks = [{{ kind = "recorder", path = "{tmp_path.as_posix()}/rec" }}]
            session = {{ unit = "stack", slots = 3, restore = "every" }}
            """
        )
        said = sender.communicate(timeout=30)[0]
    finally:
        sender.kill()
    assert ("shared memory" in said) == shared
    assert session.report["frames"]["processed"] == 60, session.report["frames"]
    np.testing.assert_array_equal(image(tmp_path / "rec"), np.concatenate([np.moveaxis(STACK, 2, 1)] * 3))
    assert axes_and_scale(tmp_path / "rec/raw.ome.zarr")[1][2:] == pytest.approx([0.4, 0.1, 0.1])


# -------------------------------------------------------------------- Micro-Manager


@pytest.mark.parametrize("order", ["tcz", "tzc"])
def test_a_z_stack_of_a_real_core_is_restored_as_it_comes(order, tmp_path):
    pytest.importorskip("pycromanager", reason="pycromanager is not installed: pip install pellucid[micromanager]")
    pytest.importorskip("mm_test_adapters", reason="mm-test-adapters is not installed: pip install pellucid[demo]")
    began_ns = now_ns()
    _, session = run(
        f"""
        stages = [{{ kind = "blend" }}]
        sinks = [{{ kind = "recorder", path = "{tmp_path.as_posix()}/rec" }}]
        session = {{ unit = "stack", slots = 3 }}
        [source]
        kind = "micromanager"
        config = "demo"
        exposure_ms = 5
        pixel_um = 0.1
        properties = {{ "Camera.Binning" = 8, "Camera.Mode" = "Noise" }}
        [source.sequence]
        axis_order = "{order}"
        time_plan = {{ interval = 0, loops = 2 }}
        channels = ["DAPI", "FITC"]
        z_plan = {{ range = 3, step = 0.5 }}
        """
    )
    report = session.report
    assert report["stacks"] == {"complete": 4}
    assert report["frames"]["processed"] == report["frames"]["recorded"] == 28
    assert [stream["channel"] for stream in report["streams"]] == ["DAPI", "FITC"]
    raw, restored = image(tmp_path / "rec"), image(tmp_path / "rec", "restored")
    assert raw.shape == restored.shape == (2, 2, 7, 64, 64)
    axes, scale = axes_and_scale(tmp_path / "rec/raw.ome.zarr")
    assert (axes, scale[2:]) == ("tczyx", pytest.approx([0.5, 0.1, 0.1]))
    assert all(np.ptp(plane) > 0 for plane in raw.reshape(-1, 64, 64))
    np.testing.assert_allclose(restored[:, :, 3], raw.mean(axis=2), rtol=1e-5)
    # Latency is from the last plane of a stack; from its first the microscope was busy with the others.
    run_ms = (now_ns() - began_ns) * 1e-6
    for row in rows(tmp_path / "rec"):
        assert -run_ms < row["began_ms"] < -6 * 5
        assert row["processed_ms"] < 500


def test_a_stage_knows_the_z_of_each_plane(tmp_path):
    run(
        f"""
        source = {{ kind = "experiment", sizes = {{ t = 2, z = 4 }} }}
        stages = [{{ kind = "where" }}]
        sinks = [{{ kind = "recorder", path = "{tmp_path.as_posix()}/rec" }}]
        """
    )
    assert image(tmp_path / "rec", "restored")[:, 0, :, 0, 0].tolist() == [[0, 1, 2, 3]] * 2


def test_an_acquisition_that_is_followed_gives_stacks(tmp_path):
    core_module = pytest.importorskip("pymmcore_plus", reason="pymmcore-plus is not installed")
    adapters = pytest.importorskip("mm_test_adapters", reason="mm-test-adapters is not installed")
    import useq

    core = core_module.CMMCorePlus(str(adapters.device_adapter_path()))
    core.loadSystemConfiguration(Path(adapters.device_adapter_path()) / "MMConfig_demo.cfg")
    core.setProperty("Camera", "Binning", 8)
    sequence = useq.MDASequence(
        channels=["DAPI", "FITC"], z_plan={"range": 2, "step": 1}, time_plan={"interval": 0, "loops": 2}
    )
    table = {
        "plugins": [str(HERE)],
        "source": {"kind": "pymmcore-plus"},
        "stages": [{"kind": "blend"}],
        "session": {"unit": "stack", "slots": 3},
        "sinks": [{"kind": "recorder", "path": str(tmp_path / "rec")}],
    }
    with pellucid.open(table).follow(core) as session:
        core.run_mda(sequence)
        got = [frame["restored"].shape for frame in session]
        assert got == [(3, 64, 64)] * 4
        core.run_mda(useq.MDASequence(channels=["DAPI"], time_plan={"interval": 0, "loops": 2}), block=True)
    # One without z has stacks of one plane, as it cannot be refused any more.
    assert session.report["stacks"] == {"complete": 6}
    assert session.report["streams"][-1]["planes"]["restored"] == "1x64x64 float32"
    assert session.report["frames"]["unaccounted"] == 0
    assert axes_and_scale(tmp_path / "rec/raw.ome.zarr")[1][2] == 1.0
    core.reset()


# -------------------------------------------------------------------- before a run


def test_check_tells_the_unit_and_the_memory_of_stacks(capsys, tiff):
    def told(text: str, shape: str = "64x64") -> tuple[bool, str]:
        config = Config.parse(f'plugins = ["{HERE.as_posix()}"]\nstages = [{{ kind = "blend" }}]\n{text}')
        fine = check_config(config, shape, "uint16")
        return fine, " ".join(capsys.readouterr().out.split())

    stack = '[session]\nunit = "stack"\nslots = 4'
    fine, text = told(f'source = {{ kind = "replay", path = "{tiff.as_posix()}" }}\n{stack}')
    assert fine, text
    assert "unit stack" in text
    assert "raw 5x24x32 uint16" in text
    assert "in 4 slots of a stack each" in text
    z_plan = 'config = "demo"\nsequence = { z_plan = { range = 12, step = 1 }, channels = ["Cy5"] }'
    fine, text = told(f'source.kind = "micromanager"\nsource.{z_plan.replace(chr(10), chr(10) + "source.")}\n{stack}')
    assert fine, text
    assert "raw 13x64x64 uint16" in text
    fine, text = told(f'source = {{ kind = "wire" }}\n{stack}', "9x64x64")
    assert "raw 9x64x64 uint16" in text
    fine, text = told(f'source = {{ kind = "simulated" }}\n{stack}')
    assert not fine
    assert 'leave out session.unit = "stack"' in text
    with pytest.raises(ConfigError, match="32x2048x2048"):
        told('source = { kind = "wire" }', "1x2x3x4")
    with pytest.raises(ConfigError, match=r"session\.unit"):
        told('source = { kind = "wire" }\nsession = { unit = "volume" }')
