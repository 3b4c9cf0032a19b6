"""Coarser levels: right pixels in the right place, one plane at a time, and nothing half made is ever seen."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import yaozarrs
import zarr
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pellucid.errors import SinkError
from pellucid.pyramid_command import add_levels, find_images
from pellucid.recording.disk import Disk
from pellucid.recording.image import At, Ending, Plan
from pellucid.recording.levels import halve, level_sizes, pick
from pellucid.recording.pyramid import PLACE, Pyramid
from pellucid.recording.zarr_image import ZarrImage

SIZE = (1030, 515)
LEVELS = [(515, 258), (258, 129)]


def make(folder: Path, *, times=3, seed=0, leave_out=(), **keys) -> Path:
    """Write an image as the recorder does."""
    plan = Plan("raw", "raw", **{"dtype": "uint16", "size": SIZE, "channels": ("A", "B"), "pixel_um": 0.1, **keys})
    folder.mkdir(exist_ok=True)
    disk = Disk()
    image = ZarrImage(folder, plan, disk)
    image.create()
    rng = np.random.default_rng(seed)
    for p in range(max(len(plan.positions), 1)):
        for at in np.ndindex(times, len(plan.channels), plan.depth or 1):
            if at not in leave_out:
                plane = rng.integers(0, 60_000, plan.size).astype(plan.dtype)
                image.put(At(p, *at), plane, 0)
    lengths = [times] * max(len(plan.positions), 1)
    image.grow(lengths)
    image.finish(Ending(lengths))
    disk.commit()
    return folder / "raw.ome.zarr"


def finished(folder: Path) -> Path:
    for name in ("frames.jsonl", "report.json"):
        (folder / name).write_text("{}\n")
    return folder


def add(folder: Path, stop=lambda: False) -> tuple[bool, list[str]]:
    lines: list[str] = []
    return add_levels(folder, stop, lines.append), lines


def read(path: Path) -> np.ndarray:
    """Read an array with tensorstore, and see that zarr-python reads the same."""
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/"}}
    pixels = tensorstore.open(spec).result().read().result()
    assert np.array_equal(zarr.open_array(path, mode="r")[:], pixels)
    return pixels


def mean(plane: np.ndarray) -> np.ndarray:
    """Halve a plane the slow way."""
    out = np.empty([(n + 1) // 2 for n in plane.shape], np.float64)
    for y, x in np.ndindex(out.shape):
        out[y, x] = plane[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].astype(np.float64).mean()
    return np.rint(out).astype(plane.dtype) if plane.dtype.kind in "iu" else out.astype(plane.dtype)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# -------------------------------------------------------------------- pixels


@settings(deadline=None, max_examples=150)
@given(
    arrays.arrays(
        st.sampled_from(["uint8", "uint16", "uint32", "int16", "int32", "float32"]).map(np.dtype),
        st.tuples(st.integers(1, 7), st.integers(1, 7)),
        elements={"allow_nan": False, "allow_infinity": False},
    )
)
def test_a_half_is_the_mean_of_what_there_is(plane):
    small = halve(plane)
    assert small.dtype == plane.dtype
    if plane.dtype.kind == "f":
        scale = float(np.abs(plane).max(initial=0))
        np.testing.assert_allclose(small.astype(float), mean(plane).astype(float), rtol=1e-6, atol=1e-6 * scale)
    else:
        assert np.array_equal(small, mean(plane))


def test_levels_end_under_512():
    assert level_sizes(511, 10) == []
    assert level_sizes(512, 100) == [(256, 50)]
    assert level_sizes(*SIZE) == LEVELS
    assert level_sizes(2048, 2048) == [(1024, 1024), (512, 512), (256, 256)]


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"dtype": "float32"},
        {"compression": "blosc-zstd", "shard_frames": 2},
        {"compression": "zstd", "depth": 3, "times": 1},
        {"shard_frames": 2, "depth": 3, "times": 2, "channels": ("A",)},
        {"shard_frames": 8, "dtype": "uint8"},
    ],
    ids=str,
)
def test_every_level_is_the_half_of_the_one_before(tmp_path, keys):
    image = make(tmp_path / "rec", leave_out={(0, 0, 1), (1, 0, 0)}, **keys)
    finished(tmp_path / "rec")
    before = files(image / "0")
    assert add(tmp_path / "rec")[0]
    assert files(image / "0") == before
    yaozarrs.validate_zarr_store(image)
    pixels = read(image / "0")
    for name, size in zip("12", LEVELS, strict=True):
        level = read(image / name)
        assert level.shape == (*pixels.shape[:-2], *size)
        for at in np.ndindex(pixels.shape[:-2]):
            assert np.array_equal(level[at], halve(pixels[at]))
        pixels = level
        told, finest = (json.loads((image / n / "zarr.json").read_text()) for n in (name, "0"))
        assert told["dimension_names"] == finest["dimension_names"]
        assert told["codecs"][0]["name"] == finest["codecs"][0]["name"]
        assert zarr.open_array(image / name, mode="r").chunks == (1,) * (pixels.ndim - 2) + size
    assert not (image / PLACE).exists()


def test_levels_lie_where_their_pixels_are(tmp_path):
    image = make(tmp_path / "rec", times=1)
    add(image)
    scales = yaozarrs.open_group(image).attrs["ome"]["multiscales"][0]
    steps = [[list(t.values())[1][-2:] for t in level["coordinateTransformations"]] for level in scales["datasets"]]
    assert steps[0] == [[0.1, 0.1]]
    np.testing.assert_allclose(steps[1], [[0.2, 0.2], [0.05, 0.05]])
    np.testing.assert_allclose(steps[2], [[0.4, 0.4], [0.15, 0.15]])
    assert [level["path"] for level in scales["datasets"]] == ["0", "1", "2"]
    assert scales["type"] == "mean"


def test_of_labels_pixels_are_picked(tmp_path):
    image = make(tmp_path / "rec", times=1)
    told = json.loads((image / "zarr.json").read_text())
    told["attributes"]["ome"]["image-label"] = {}
    (image / "zarr.json").write_text(json.dumps(told))
    add(image)
    pixels = read(image / "0")
    assert np.array_equal(read(image / "2")[0, 1], pick(pick(pixels[0, 1])))
    scales = json.loads((image / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]
    assert scales["datasets"][1]["coordinateTransformations"][1]["translation"] == [0.0] * 4


def test_planes_that_are_not_there_take_no_space(tmp_path):
    image = make(tmp_path / "rec", leave_out={(1, 0, 0)})
    add(image)
    assert not (image / "1/c/1/0").exists()
    assert (image / "1/c/1/1/0/0").is_file()
    assert not read(image / "1")[1, 0].any()


# -------------------------------------------------------------------- recordings


def test_positions_and_parts_as_well_and_again_nothing(tmp_path):
    rec = tmp_path / "rec"
    image = make(rec, times=1, positions=("left", "right"))
    (rec / "part-0002").mkdir()
    other = make(rec / "part-0002", times=1, seed=1)
    small = make(rec / "part-0003", times=1, size=(64, 64))
    finished(rec)
    assert list(find_images(rec)) == [other, small, image / "left", image / "right"]
    assert add(rec) == (True, [f"levels were added to 3 of 4 images, 6 planes: {rec}"])
    yaozarrs.validate_zarr_store(image)
    assert np.array_equal(read(image / "right/1")[0, 0], halve(read(image / "right/0")[0, 0]))
    before = files(rec)
    assert add(rec)[1] == [f"nothing to do: the images of {rec} (4) have levels, or are small enough without"]
    assert files(rec) == before


@pytest.mark.parametrize("left", ["frames.jsonl", "journal", ".process"])
def test_a_recording_that_is_not_finished_is_left_alone(tmp_path, left):
    rec = tmp_path / "rec"
    image = make(rec, times=1, positions=("left", "right"))
    (rec / left).mkdir() if left == ".process" else (rec / left).touch()
    before = files(rec)
    for folder in (tmp_path, rec, image, image / "left"):
        with pytest.raises(SinkError, match=r"not finished: type (pellucid recover \S+ first|the pellucid process)"):
            add(folder)
    assert files(rec) == before


def test_mistakes_are_one_line(tmp_path):
    with pytest.raises(SinkError, match="is no folder"):
        add(tmp_path / "nothing")
    with pytest.raises(SinkError, match=r"holds no OME-Zarr image of version 0\.5"):
        add(tmp_path)
    image = make(tmp_path / "rec", times=1)
    good = (image / "zarr.json").read_text()

    def says(change, text):
        told = json.loads(good)
        change(told["attributes"]["ome"])
        (image / "zarr.json").write_text(json.dumps(told))
        with pytest.raises(SinkError, match=text):
            add(image)

    says(lambda ome: ome["multiscales"].append(ome["multiscales"][0]), "2 multiscales")
    says(lambda ome: ome["multiscales"][0].pop("datasets"), "not that of an image")
    says(lambda ome: ome["multiscales"][0]["axes"].reverse(), "y, x come last")
    says(lambda ome: ome["multiscales"][0]["datasets"][0].update(path="9"), "No such file")
    (image / "zarr.json").write_text("{")
    with pytest.raises(SinkError, match="not readable"):
        add(image)
    (image / "zarr.json").write_text(good)
    array = (image / "0/zarr.json").read_text()
    for old, new, text in ('"uint16"', '"bool"', "holds bool"), ('"name": "bytes"', '"name": "gzip"', "codec gzip"):
        (image / "0/zarr.json").write_text(array.replace(old, new))
        with pytest.raises(SinkError, match=text):
            add(image)
    (image / "0/zarr.json").write_text(array)
    (image / "1").mkdir()
    with pytest.raises(SinkError, match="1 is in the way"):
        add(image)
    (image / "1").rmdir()
    (image / PLACE).mkdir()
    with FileLock(image / PLACE / "lock"), pytest.raises(SinkError, match="another pellucid pyramid is at work"):
        add(image)
    assert add(image)[0]


def test_a_plane_that_cannot_be_read_is_named(tmp_path):
    image = make(tmp_path / "rec", compression="blosc-zstd")
    (image / "0/c/1/1/0/0").write_bytes(b"torn")
    with pytest.raises(SinkError, match=r"the plane at \(1, 1\) cannot be read"):
        add(image)
    assert len(json.loads((image / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]["datasets"]) == 1


# -------------------------------------------------------------------- going on


def test_stopped_at_any_plane_it_goes_on_and_gives_the_same(tmp_path):
    whole = make(tmp_path / "whole", shard_frames=2)
    again = tmp_path / "again.ome.zarr"
    shutil.copytree(whole, again)
    add(whole)
    calls = 0
    for after in (1, 2, 3, 4, 100):
        left = after

        def stop():
            nonlocal left
            left -= 1
            return left < 0

        calls += 1
        if add(again, stop)[0]:
            break
        yaozarrs.validate_zarr_store(again)
        assert not (again / "1").exists()
    assert calls > 2
    assert files(again) == files(whole)


class Killed(BaseException):
    pass


def test_killed_at_any_step_it_goes_on_and_gives_the_same(tmp_path):
    """After each operation on the disk in turn, with a torn file where it was at work."""
    given = make(tmp_path / "given", times=2, size=(520, 300), channels=("A",), shard_frames=1)
    whole, again = tmp_path / "whole.ome.zarr", tmp_path / "again.ome.zarr"
    shutil.copytree(given, whole)
    add(whole)
    steps = 0

    class Ending(Disk):
        """Dies at its n-th change; a file that it was to write is torn."""

        def __init__(self, n):
            super().__init__()
            self.left = n

        def _step(self):
            self.left -= 1
            if self.left < 0:
                raise Killed

        def _create(self, path):
            self._step()
            return super()._create(path)

        def _write(self, handle, data, at):
            try:
                self._step()
            except Killed:
                super()._write(handle, bytes(data)[: len(data) // 2], at)
                raise
            return super()._write(handle, data, at)

        def _abandon(self, path):
            if self.left >= 0:  # the dead remove nothing
                super()._abandon(path)

        def _rename(self, old, new):
            self._step()
            super()._rename(old, new)

    while True:
        shutil.rmtree(again, ignore_errors=True)
        shutil.copytree(given, again)
        try:
            assert Pyramid(again, Ending(steps)).make(lambda: False, lambda planes: None)
            break
        except Killed:
            pass
        datasets = json.loads((again / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]["datasets"]
        for level in datasets:
            assert np.array_equal(read(again / level["path"]), read(whole / level["path"]))
        assert add(again)[0]
        assert {k: v for k, v in files(again).items() if not k.endswith(".new")} == files(whole)
        steps += 1
    assert steps > 10


MADE = """
import sys
from pathlib import Path
from pellucid.pyramid_command import add_levels
add_levels(Path(sys.argv[1]), lambda: False, print)
"""


def test_a_real_kill(tmp_path):
    image = make(tmp_path / "rec", times=10)
    process = subprocess.Popen([sys.executable, "-c", MADE, str(image)], stdout=subprocess.PIPE)
    while process.poll() is None and not (image / PLACE / "1/c/2").exists():
        pass
    process.kill()
    process.communicate()
    assert add(image)[0]
    pixels, level = read(image / "0"), read(image / "1")
    for at in np.ndindex(10, 2):
        assert np.array_equal(level[at], halve(pixels[at]))
    assert not (image / PLACE).exists()


ON_TMPFS = """
import shutil, sys
from pathlib import Path
from pellucid.errors import SinkError
from pellucid.pyramid_command import add_levels
image, place = Path(sys.argv[1]), Path(sys.argv[2])
copied = place / "raw.ome.zarr"
shutil.copytree(image, copied)
try:
    add_levels(copied, lambda: False, print)
except SinkError as error:
    print("SinkError", error)
(place / "in the way").unlink(missing_ok=True)
add_levels(copied, lambda: False, print)
shutil.copytree(copied, image.parent / "back.ome.zarr")
"""


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_full_disk(tmp_path, compression):
    """Without compression it is known before; else it is met, and after space was made the next call goes on."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare, to mount a small disk without being root")
    image = make(tmp_path / "rec", times=4, compression=compression)
    (tmp_path / "disk").mkdir()
    used = sum(path.stat().st_size for path in image.rglob("*") if path.is_file())
    mount = (
        f"mount -t tmpfs -o size={used + 8_000_000} tmpfs {tmp_path}/disk && "
        f"head -c 7000000 /dev/zero > '{tmp_path}/disk/in the way' && "
        f"exec {sys.executable} -c '{ON_TMPFS}' {image} {tmp_path}/disk"
    )
    out = subprocess.run([unshare, "-rm", "sh", "-c", mount], capture_output=True, text=True, check=False)
    if "mount" in out.stderr or "unshare" in out.stderr:
        pytest.skip(f"needs a small disk: {out.stderr.strip()}")
    assert out.returncode == 0, out.stderr
    lines = out.stdout.splitlines()
    assert lines[0].startswith("SinkError")
    assert ("are free. Free some space" if compression == "none" else "No space left on device") in lines[0]
    assert "levels were added to 1 of 1 images" in lines[-1]
    add(image)
    assert files(tmp_path / "rec/back.ome.zarr") == files(image)
