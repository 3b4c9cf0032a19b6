"""Bad input: one line that says what to do, and nothing written."""

from __future__ import annotations

import json
import os
import re
import sys

import numpy as np
import psutil
import pytest
import tifffile
import zarr

from pellucid.errors import PellucidError
from tests.process.conftest import pixels


@pytest.fixture
def stored(bench):
    bench.tiff("given.tif", np.arange(4 * 16 * 16, dtype=np.uint16).reshape(4, 16, 16), metadata={"axes": "TYX"})
    return bench


def refused(bench, given, config=None, out="out", **options) -> str:
    before = {p.relative_to(bench.folder) for p in bench.folder.rglob("*")}
    config = config or bench.config()
    with pytest.raises(PellucidError) as caught:
        bench.process(given, config, out, **options)
    after = {p.relative_to(bench.folder) for p in bench.folder.rglob("*")}
    assert after - before <= {config.relative_to(bench.folder)}
    assert "\n" not in str(caught.value)
    return f"{type(caught.value).__name__}: {caught.value}"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda f: None, "SourceError: IN .* does not exist"),
        (lambda f: (f / "in").mkdir(), "SourceError: IN .* is an empty folder"),
        (lambda f: (f / "in").touch(), "SourceError: IN .* is an empty file"),
        (lambda f: (f / "in").write_text("no picture"), "none of what can be replayed"),
    ],
)
def test_an_in_that_cannot_be_read(bench, make, says):
    make(bench.folder)
    assert re.search(says, refused(bench, "in"))


def test_a_near_name_is_told(stored):
    assert 'Did you mean "given.tif"' in refused(stored, "givn.tif")


def test_a_truncated_file(stored):
    file = stored.folder / "given.tif"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert refused(stored, "given.tif").startswith("SourceError")


def test_a_file_of_several_images(stored):
    with tifffile.TiffWriter(stored.folder / "many.ome.tif") as writer:
        for i in range(9):
            writer.write(
                np.full((2 + i, 16, 16), i, np.uint16),
                photometric="minisblack",
                metadata={"axes": "TYX", "Name": f"well {i}", "TimeIncrement": 1.0 + i},
            )
    says = refused(stored, "many.ome.tif")
    assert '0 "well 0" (TYX 2x16x16), 1 "well 1" (TYX 3x16x16), ' in says
    assert says.endswith('7 "well 7" (TYX 9x16x16) .... Say which one: --set source.dataset=0')
    out = stored.process("many.ome.tif", stored.config('kind = "trail"\nhistory = 0'), sets=["source.dataset=5"])
    assert (pixels(out) == 5).all()
    told = json.loads((out / "restored.ome.zarr/zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]
    assert told["datasets"][0]["coordinateTransformations"][0]["scale"][0] == 6.0  # its own, not that of the first
    for name in ("A", "B"):
        array = zarr.create_array(str(stored.folder / f"two.zarr/{name}/0"), shape=(2, 16, 16), dtype="uint16")
        array[:] = 7
        axes = [{"name": axis} for axis in "tyx"]
        told = {"ome": {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}}
        group = {"zarr_format": 3, "node_type": "group", "attributes": told}
        (stored.folder / f"two.zarr/{name}/zarr.json").write_text(json.dumps(group))
    (stored.folder / "two.zarr/zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    assert refused(stored, "two.zarr", out="o2").endswith("A, B. Say which one: --set source.dataset=A")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="this user may read and write everything")
def test_what_one_may_not_read_or_write(stored):
    (stored.folder / "given.tif").chmod(0)
    assert "you may not read it" in refused(stored, "given.tif")
    (stored.folder / "given.tif").chmod(0o600)
    (stored.folder / "shut").mkdir(mode=0o500)
    assert "you may not write to" in refused(stored, "given.tif", out="shut/out")


def test_an_out_that_is_in_or_lies_within_it_or_exists(stored):
    (stored.folder / "nd").mkdir()
    (stored.folder / "nd/NDTiff.index").write_bytes(b"x")
    assert "OUT is IN" in refused(stored, "nd", out="nd")
    assert "OUT is IN" in refused(stored, "given.tif", out="nd/../given.tif")
    assert "lies within IN" in refused(stored, "nd", out="nd/a/b")
    (stored.folder / "there").mkdir()
    assert "exists; it is never overwritten" in refused(stored, "given.tif", out="there")
    (stored.folder / "file").touch()
    assert "is a file, not a folder" in refused(stored, "given.tif", out="file/out")


def test_a_disk_without_room(stored, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10_000})())
    assert re.search(r"SinkError: OUT .* needs 0.02 GB and 0.00 GB are free on its disk", refused(stored, "given.tif"))


def test_memory_that_does_not_hold_a_frame(stored, monkeypatch):
    memory = psutil.virtual_memory()._replace(available=1000)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    assert "of memory are free" in refused(stored, "given.tif")


def test_a_config_that_has_nothing_to_do(stored):
    empty = stored.folder / "empty.toml"
    empty.write_text("[session]\nthreads = 1\n")
    assert "has no [[stages]]" in refused(stored, "given.tif", empty)
    empty.write_text("stages = 3 4")
    assert "not valid TOML" in refused(stored, "given.tif", empty)
    assert "cannot read the config" in refused(stored, "given.tif", stored.folder / "none.toml")
    assert "is a folder" in refused(stored, "given.tif", stored.folder)
    for channel in ("chanel", "Channel"):
        config = stored.config(f'kind = "soften"\nchannels = ["{channel}"]')
        assert refused(stored, "given.tif", config).endswith('channels of IN are channel. Did you mean "channel"?')
    assert "channels of IN are" in refused(stored, "given.tif", stored.config('kind = "soften"\nchannels = ["DAPI"]'))


def test_an_out_without_raw_and_one_that_was_stopped(stored):
    out = stored.process("given.tif", stored.config('kind = "soften"\nwrites = "before"', 'kind = "soften"'))
    says = refused(stored, "out", out="o2")
    assert says.endswith(
        f"has no raw; its images are before.ome.zarr, restored.ome.zarr. Give one of them: {out / 'restored.ome.zarr'}"
    )
    stored.process("out/restored.ome.zarr", stored.config(), "o3")
    (out / ".process").mkdir()
    (out / ".process/plan.json").touch()
    (out / "report.json").unlink()
    for given in ("out", "out/restored.ome.zarr"):
        assert "was stopped" in refused(stored, given, out="o4")


def test_a_name_in_other_letters(stored):
    given = np.ones((2, 2, 8, 8), np.uint16)
    stored.tiff("two.ome.tif", given, metadata={"axes": "TCYX", "Channel": {"Name": ["DAPI", "GFP"]}})
    says = refused(stored, "two.ome.tif", stored.config('kind = "soften"\nchannels = ["Dapi"]'))
    assert says.endswith('stages[0].channels = ["Dapi"], but the channels of IN are DAPI, GFP. Did you mean "DAPI"?')


def test_planes_that_are_no_stacks(stored):
    text = refused(stored, "given.tif", stored.config(unit="stack"))
    assert 'Leave out unit = "stack"' in text


def test_stages_that_cannot_be_opened(stored):
    config = stored.config('kind = "soften"\nreads = "nothing"')
    assert 'reads = "nothing", but the planes there are raw' in refused(stored, "given.tif", config)


def test_a_scheduler_that_is_not_there(stored):
    pytest.importorskip("distributed", reason='dask is not installed: pip install "pellucid[dask]"')
    process = stored.start("given.tif", stored.config(), "out", "--scheduler", "nonsense:::")
    _, wrong = process.communicate(timeout=50)
    assert "Traceback" not in wrong
    assert "no dask scheduler answers there" in wrong
    assert len(wrong.strip().splitlines()) == 1
    assert process.returncode in (1, 2)
