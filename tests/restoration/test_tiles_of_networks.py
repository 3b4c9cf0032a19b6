"""Tiles of networks: where they lie, what they count, what is mirrored."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.models.model import Side
from pellucid.restoration.tiles import Tiling, lay, mirrored

SIDES = st.builds(Side, st.integers(1, 40), st.sampled_from([1, 2, 8, 16]))


@settings(deadline=None)
@given(st.integers(1, 700), SIDES, st.integers(0, 12), st.integers(0, 60))
def test_tiles_cover_an_axis_and_begin_where_the_network_would(length, allowed, steps, halo):
    side = allowed.up(max(allowed.least + steps * allowed.step, allowed.step))
    axis = lay(length, side, allowed, halo)
    assert axis.starts[0] == 0
    assert axis.starts[-1] + side == axis.padded >= length
    assert allowed.takes(axis.padded) or len(axis.starts) == 1
    assert all(start % allowed.step == 0 for start in axis.starts)
    for a, b in zip(axis.starts, axis.starts[1:], strict=False):
        assert a < b <= a + side - 2 * axis.halo - axis.blend
    for scale in (1, 2):
        total = np.zeros(axis.padded * scale)
        for i, (start, row) in enumerate(zip(axis.starts, axis.weights(scale), strict=True)):
            total[start * scale : (start + side) * scale] += row.numpy()
            inner = row[: axis.halo * scale] if i else row[:0]
            assert not inner.any(), "what the border spoils counts"
        np.testing.assert_allclose(total, 1, atol=1e-6)


def test_a_network_with_one_side_gets_tiles_of_it():
    axis = lay(512, 64, Side(64, 0), 10)
    assert axis.side == 64
    assert all(start % 16 == 0 for start in axis.starts)
    small = lay(40, 64, Side(64, 0), 10)
    assert (small.padded, small.starts) == (64, (0,))


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64])
def test_what_is_beyond_the_end_is_mirrored_like_numpys(length):
    want = np.pad(np.arange(length), (0, 90), mode="reflect") if length > 1 else np.zeros(91)
    assert mirrored(length, length + 90) == want.tolist()


@given(st.integers(1, 3), st.integers(1, 4), st.integers(20, 70), st.integers(20, 70), st.integers(1, 2))
def test_cut_and_put_together_is_the_picture(pictures, batch, height, width, scale):
    axes = [lay(n, 24, Side(8, 4), 3) for n in (height, width)]
    tiling = Tiling(axes, pictures, batch, scale, "cpu")
    picture = torch.rand(pictures, 1, height, width)
    padded = picture
    if tiling.padded is not None:
        padded = torch.full((pictures, 1, *tiling.padded), -1.0)
        tiling.pad(picture, padded)
        np.testing.assert_array_equal(padded[0, 0, :, 0], padded[0, 0, mirrored(height, tiling.padded[0]), 0])
    result = torch.zeros(pictures, 1, height * scale, width * scale)
    tiles = torch.zeros(batch, 1, 24, 24)
    for turn in range(tiling.rounds):
        tiling.cut(padded, turn, tiles)
        tiling.put(torch.nn.functional.interpolate(tiles, scale_factor=scale), turn, result)
    want = torch.nn.functional.interpolate(picture, scale_factor=scale)
    np.testing.assert_allclose(result, want, atol=1e-6)
