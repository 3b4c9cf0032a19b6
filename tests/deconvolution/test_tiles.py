"""Pictures larger than the memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid.deconvolution import Deconvolver, Recipe
from pellucid.deconvolution.memory import choose_tile, overlap_for, peak_bytes
from pellucid.deconvolution.tiles import cover
from pellucid.optics import specimen


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(20, 150), st.integers(0, 9)), min_size=1, max_size=3),
)
def test_cores_cover_everything_once_and_windows_are_alike(axes):
    shape, tile, overlap = zip(*axes, strict=True)
    seen = np.zeros(shape, np.uint8) if np.prod(shape) < 2e6 else None
    tiles = cover(shape, tile, overlap)
    for t in tiles:
        for n, side, shared, window, core, within in zip(shape, tile, overlap, t.window, t.core, t.within, strict=True):
            assert 0 <= window.start <= core.start < core.stop <= window.stop <= n
            assert window.stop - window.start == min(n, side)
            assert (core.start - window.start, core.stop - window.start) == (within.start, within.stop)
            assert core.start in (0, *range(window.start + shared, window.stop))
            assert core.stop in (n, *range(window.start, window.stop - shared + 1))
        if seen is not None:
            seen[t.core] += 1
    if seen is not None:
        assert (seen == 1).all()


def test_a_tile_without_a_core_is_refused():
    with pytest.raises(ValueError, match="no core"):
        cover((100,), (20,), (10,))


@pytest.mark.parametrize("output", ["float32", "uint16"])
@pytest.mark.parametrize("method", ["wiener-butterworth", "richardson-lucy", "wiener"])
def test_tiled_is_untiled_away_from_the_borders(method, output):
    psf = specimen.thin_psf(33)
    image, _ = specimen.case((320, 300), psf, np.random.default_rng(8))
    recipe = Recipe.of(method, 2)
    results = []
    for tile in (None, (190, 180)):
        deconvolver = Deconvolver(
            image.shape, "float32", psf, recipe, "cpu", output=output, scale=20, tile=tile, overlap=(40, 40)
        )
        result = torch.zeros(image.shape, dtype=getattr(torch, output))
        deconvolver(torch.from_numpy(image), result)
        results.append(result.numpy().astype(np.float64))
    whole, tiled = results
    inside = (slice(40, -40), slice(40, -40))
    assert abs(whole - tiled)[inside].max() < 1e-3 * whole.max()
    assert tiled.sum() == pytest.approx(whole.sum(), rel=2e-3 if output == "uint16" else 1e-5)


@pytest.mark.parametrize("shape", [(2048, 2048), (64, 2048, 2048), (200, 300, 5000)])
@pytest.mark.parametrize("allowed", [4e9, 1e9, 3e8])
def test_tiles_stay_within_what_is_allowed(shape, allowed):
    recipe = Recipe.of("wiener-butterworth", len(shape))
    psf_shape = (33, 33, 33)[: len(shape)]
    tile, overlap = choose_tile(shape, psf_shape, recipe, "float32", "cpu", int(allowed))
    assert tile is not None
    assert peak_bytes(shape, tile, recipe, "float32", "cpu") <= allowed
    assert cover(shape, tile, overlap)
    assert overlap == overlap_for(psf_shape, recipe)


def test_where_nothing_fits_it_is_said():
    recipe = Recipe.of("wiener-butterworth", 3)
    assert choose_tile((64, 512, 512), (33, 65, 65), recipe, "float32", "cpu", 1_000_000)[0] is None


MEASURE = """
from dataclasses import replace
import re, sys, numpy as np, torch
from pathlib import Path
from pellucid.deconvolution import Deconvolver, Recipe
from pellucid.deconvolution.memory import peak_bytes
torch.set_num_threads(1)
shape, method = tuple(map(int, sys.argv[1].split("x"))), sys.argv[2]
recipe = replace(Recipe.of(method, len(shape)), iterations=2)
psf = np.zeros((9,) * len(shape)); psf[(4,) * len(shape)] = 1; psf += 0.01; psf /= psf.sum()
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
def work(shape):
    given = torch.from_numpy(np.random.default_rng(0).integers(0, 40, shape, np.uint16))
    result = torch.ones(shape)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew; ru_maxrss would be that of the parent
    before = peak()
    deconvolver = Deconvolver(shape, "uint16", psf, recipe, "cpu")
    with torch.inference_mode():
        deconvolver(given, result)
    return peak() - before
work((40,) * len(shape))
print(work(shape) * 1024 / peak_bytes(shape, shape, recipe, "float32", "cpu"))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc")
@pytest.mark.parametrize(
    ("shape", "method"),
    [
        ("3000x3000", "wiener-butterworth"),
        ("3000x3000", "wiener"),
        ("40x500x500", "wiener-butterworth"),
        ("40x500x500", "richardson-lucy"),
    ],
)
def test_memory_is_what_was_predicted(shape, method):
    done = subprocess.run([sys.executable, "-c", MEASURE, shape, method], capture_output=True, text=True, check=True)
    assert 0.85 < float(done.stdout) < 1.15
