"""The stage keeps pellucid's contract, and the light of an even specimen comes out even."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import torch
from pellucid_flatfield import FlatField
from pydantic import TypeAdapter

from pellucid.errors import StageError
from pellucid.protocols import Spec, Stream
from pellucid.testing import check_stage

SHAPE = (40, 56)
SPEC = Spec(SHAPE, "uint16")


@pytest.fixture
def pictures(tmp_path):
    """A lamp that is brightest in the middle, and a dark level with a gradient."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    lamp = np.exp(-((y - 20) ** 2 + (x - 28) ** 2) / 900)
    dark = 100 + x * 0.5
    tifffile.imwrite(tmp_path / "flat.tif", (lamp * 1000 + dark).astype("float32"))
    tifffile.imwrite(tmp_path / "dark.tif", dark.astype("float32"))
    return tmp_path, lamp, dark


def run(stage: FlatField, frame: np.ndarray, spec: Spec = SPEC) -> np.ndarray:
    out = stage.open(Stream(spec), spec, "cpu")
    result = torch.full(out.shape, 7, dtype=getattr(torch, out.dtype))
    stage(torch.from_numpy(frame), result)
    return result.numpy()


@pytest.mark.parametrize("output", ["float32", "uint16"])
def test_contract(pictures, output):
    folder, *_ = pictures
    specs = [SPEC, Spec(SHAPE, "uint8"), Spec(SHAPE, "float32")]
    check_stage(lambda: FlatField(flat=folder / "flat.tif", dark=folder / "dark.tif", output=output), specs)


def test_an_even_specimen_comes_out_even_and_its_light_stays(pictures):
    folder, lamp, dark = pictures
    frame = (lamp * 3000 + dark).astype("float32")
    spec = Spec(SHAPE, "float32")
    result = run(FlatField(flat=folder / "flat.tif", dark=folder / "dark.tif"), frame, spec)
    assert result == pytest.approx(np.full(SHAPE, 3000 * lamp.mean()), rel=1e-4)
    assert result.mean() == pytest.approx((frame - dark).mean(), rel=1e-4)


def test_a_stack_is_corrected_slice_by_slice(pictures):
    folder, lamp, dark = pictures
    stack = np.stack([lamp * level + dark for level in (500, 1500)]).astype("float32")
    result = run(FlatField(flat=folder / "flat.tif", dark=folder / "dark.tif"), stack, Spec(stack.shape, "float32"))
    assert result[1] == pytest.approx(3 * result[0], rel=1e-4)


def test_whole_numbers_are_rounded_and_cut_off(pictures):
    folder, *_ = pictures
    stage = FlatField(flat=folder / "flat.tif", dark=folder / "dark.tif", output="uint16")
    frame = np.zeros(SHAPE, "uint16")
    frame[20, 28] = 65535
    result = run(stage, frame)
    assert result.dtype == np.uint16
    assert result[0, 0] == 0  # below the dark level
    assert result[20, 28] > 10000


@pytest.mark.parametrize(
    ("flat", "dark", "said"),
    [
        (np.ones((4, 4), "uint16"), 0.0, "4x4 pixels, and the frames have 56x40"),
        (np.full(SHAPE, 90, "uint16"), 100.0, "not brighter than dark"),
        (np.full(SHAPE, np.nan, "float32"), 0.0, "NaN"),
        (None, 0.0, "cannot be read"),
    ],
)
def test_pictures_that_are_no_use_are_refused_in_a_line(tmp_path, flat, dark, said):
    if flat is None:
        (tmp_path / "flat.tif").write_text("no TIFF")
    else:
        tifffile.imwrite(tmp_path / "flat.tif", flat)
    with pytest.raises(StageError, match=said) as caught:
        FlatField(flat=tmp_path / "flat.tif", dark=dark).open(Stream(SPEC), SPEC, "cpu")
    assert "\n" not in str(caught.value)


def test_paths_are_seen_from_the_config(tmp_path):
    keys = {"flat": "flat.tif", "dark": 100}
    stage = TypeAdapter(FlatField).validate_python(keys, context={"folder": tmp_path})
    assert stage.flat == tmp_path / "flat.tif"
    assert stage.dark == 100
