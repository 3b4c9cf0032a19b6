"""The before/after picture: one scale, limits that are stated, the same area magnified, the same bytes each time."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pellucid.picture import GAP, MARGIN, PANE, _range, before_after, busiest_area, robust_limits, scale_bar_um


def width_of(path) -> int:
    with Image.open(path) as image:
        return image.width


def specimen(shape: tuple[int, int] = (256, 256)) -> np.ndarray:
    rng = np.random.default_rng(3)
    plane = rng.poisson(100, shape).astype(np.float64)
    plane[40:56, 180:200:4] += 3000  # stripes: where most is to be seen
    return plane


def test_picture_is_written_and_the_same_each_time(tmp_path):
    plane = specimen().astype(np.uint16)
    for name in ("a.png", "b.png"):
        before_after(plane, plane.astype(np.float32), tmp_path / name, pixel_um=0.1, subtitle="5 µm – a × b")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert width_of(tmp_path / "a.png") == 2 * MARGIN + GAP + 2 * PANE


def test_the_halves_show_what_they_were_given(tmp_path):
    raw = np.zeros((200, 200), np.uint16)
    raw[:, 100:] = 1000
    restored = np.zeros((200, 200), np.float32)
    restored[100:] = 5
    before_after(raw, restored, tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as page:
        assert page.mode == "RGB"
        image = np.asarray(page.convert("L")).astype(int)
    x0, x1 = MARGIN, MARGIN + PANE + GAP
    y0 = next(
        y for y in range(image.shape[0]) if image[y, x0 + PANE - 60] > 200 and image[y + 40, x0 + PANE - 60] > 200
    )
    quarter, most = PANE // 8, PANE - PANE // 8
    at = {
        (half, y, x): image[y0 + y, left + x]
        for half, left in enumerate((x0, x1))
        for y in (quarter, most)
        for x in (quarter, most)
    }
    assert [at[0, quarter, quarter], at[0, most, quarter]] == [0, 0]
    assert [at[0, quarter, most], at[0, most, most]] == [255, 255]
    assert [at[1, quarter, quarter], at[1, quarter, most]] == [0, 0]
    assert [at[1, most, quarter], at[1, most, most]] == [255, 255]


def test_busiest_area_is_where_the_structure_is():
    top, left, rows, columns = busiest_area(specimen())
    assert columns == round(256 * 0.2)
    assert rows == columns // 2
    assert top <= 56 <= top + rows + 16
    assert left <= 200
    assert left + columns >= 180


def test_a_hot_pixel_attracts_nobody():
    plane = specimen((512, 512))
    plane[400, 100] = 65535
    top, left, rows, columns = busiest_area(plane)
    assert not (top <= 400 < top + rows and left <= 100 < left + columns)


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (300, 7), (64, 2048)])
def test_any_shape_has_a_picture(tmp_path, shape):
    before_after(np.ones(shape, np.uint8), np.ones(shape, np.float32), tmp_path / "p.png", pixel_um=1.0)
    assert width_of(tmp_path / "p.png") > 0


def test_stacks_finer_sampling_and_strange_values(tmp_path):
    restored = np.full((4, 64, 64), np.nan, np.float32)
    restored[0] = 1
    before_after(np.zeros((3, 32, 32), np.int16), restored, tmp_path / "p.png")
    assert width_of(tmp_path / "p.png") > 0


@pytest.mark.parametrize("plane", [np.zeros(5), np.zeros((0, 4)), np.zeros((4, 4), complex)])
def test_what_is_no_picture_is_refused(tmp_path, plane):
    with pytest.raises(ValueError, match="restored: a plane"):
        before_after(np.zeros((4, 4)), plane, tmp_path / "p.png")


def test_robust_limits():
    assert robust_limits(np.full((5, 5), 7.0)) == (7.0, 8.0)
    assert robust_limits(np.full((5, 5), np.nan)) == (0.0, 1.0)
    low, high = robust_limits(np.arange(10_001))
    assert (low, high) == pytest.approx((10, 9990))


@pytest.mark.parametrize(
    ("um", "label", "length"),
    [
        (37, "20 µm", 20),
        (20, "20 µm", 20),
        (0.3, "200 nm", 0.2),
        (1.2, "1 µm", 1),
        (5400, "5 mm", 5000),
        (999, "500 µm", 500),
    ],
)
def test_scale_bar(um, label, length):
    assert scale_bar_um(um) == (pytest.approx(length), label)


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ((0.000827, 700), "0 to 700"),
        ((98, 1450), "98 to 1 450"),
        ((-0.001, 0.5), "-0.001 to 0.500"),
        ((0, 12), "0.0 to 12.0"),
    ],
)
def test_limits_are_written_to_their_own_precision(limits, text):
    assert _range(limits) == text
