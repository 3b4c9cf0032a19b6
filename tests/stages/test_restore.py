"""The stage "restore": frames of every kind through a small network, whole and in tiles, with and without a memory."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from pellucid.errors import StageError
from pellucid.models.model import Operation, Side
from pellucid.protocols import FrameInfo, Spec, Stream
from pellucid.runtime.chain import Chain
from pellucid.stages.restore import Restore
from pellucid.testing import LocalRing, check_stage
from tests.restoration.network_parts import (
    NETS,
    Eager,
    Newest,
    Small,
    model,
    one_thread,  # noqa: F401
    opened,
    real_frame,
    restored,
    run,
)

RNG = np.random.default_rng(8)
SPECS = [Spec((64, 48), "uint16"), Spec((41, 33), "uint8"), Spec((50, 50), "float32"), Spec((1, 1), "uint8")]
STACKS = [Spec((5, 20, 31), "uint16"), Spec((3, 16, 18), "uint8", axes="cyx")]


def shown(shape, dtype="uint16") -> np.ndarray:
    return RNG.poisson(RNG.gamma(2.0, 40.0, shape)).astype(dtype)


# The contract


@pytest.mark.parametrize("output", ["float32", "uint16"])
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"tile": (20, 24)},
        {"adapt_frames": 0},
        {"normalise": "none"},
        {"normalise": {"kind": "mean"}},
        {"normalise": {"kind": "fixed", "offset": 10, "scale": 100}, "tile": (20, 20), "batch": 2},
    ],
    ids=str,
)
def test_keeps_the_contract_of_a_stage(output, keys, monkeypatch):
    monkeypatch.setattr("pellucid.models.shelf.find", lambda name, folder=None: model())
    specs = SPECS + STACKS if "tile" not in keys else SPECS
    check_stage(lambda: Restore(model="small", engine=Eager(), output=output, **keys), specs)


def test_keeps_the_contract_with_twice_the_pixels_and_with_stacks(monkeypatch):
    monkeypatch.setattr("pellucid.models.shelf.find", lambda name, folder=None: model("twice", scale=2))
    check_stage(lambda: Restore(model="twice", engine=Eager()), SPECS + STACKS)
    deep = model("deep", axes="bczyx")
    monkeypatch.setattr("pellucid.models.shelf.find", lambda name, folder=None: deep)
    check_stage(lambda: Restore(model="deep", engine=Eager()), [STACKS[0], Spec((3, 9, 8), "float32")])


# Tiles


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize(
    "keys",
    [
        {"tile": (128, 128)},
        {"tile": (96, 200), "batch": 3},
        {"memory_gb": 0.012},
        {"tile": (64, 64), "output": "uint16"},
    ],
    ids=str,
)
def test_tiles_of_a_real_frame_leave_no_seam(scale, keys, monkeypatch):
    frame, net = real_frame()[:400, :462], model("tiled", scale=scale)
    keys = {"scale": 100.0} | keys if "output" in keys else keys
    whole = restored(net, frame, monkeypatch, **{k: v for k, v in keys.items() if k in ("output", "scale")})
    stage, out = opened(net, Spec(frame.shape, "uint8"), monkeypatch, **keys)
    assert stage.tile is not None
    tiled = run(stage, out, frame)
    difference = np.abs(tiled.astype(np.float64) - whole).max()
    assert difference <= (1e-3 * np.ptp(whole) if "output" not in keys else 1)
    assert difference / np.ptp(whole.astype(np.float64)) < 1e-3
    stage.close()


def test_a_network_of_one_side_is_tiled_without_a_seam(monkeypatch):
    frame = real_frame()
    whole = restored(model(), frame, monkeypatch)
    fixed = model("fixed", side=Side(64, 0))
    stage, out = opened(fixed, Spec(frame.shape, "uint8"), monkeypatch)
    assert stage.engine.shapes == [(1, 1, 64, 64)]
    tiled = run(stage, out, frame)
    assert np.abs(tiled - whole).max() < 1e-3 * np.ptp(whole)


def test_a_seam_would_be_seen(monkeypatch):
    """Without the halo the same tiles are off by more than the bound."""
    frame = real_frame()
    whole = restored(model(), frame, monkeypatch)
    monkeypatch.setattr("tests.restoration.network_parts.HALO", 0)
    tiled = restored(model("no halo"), frame, monkeypatch, tile=(64, 64))
    assert np.abs(tiled - whole).max() > 1e-3 * np.ptp(whole)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (8, 40), (131, 77)])
def test_frames_of_any_size(shape, monkeypatch):
    frame = real_frame()[100 : 100 + shape[0], 100 : 100 + shape[1]].copy()
    result = restored(model("wide", side=Side(16, 16)), frame, monkeypatch)
    assert result.shape == shape
    assert np.isfinite(result).all()
    # What is mirrored stays outside: the middle is that of a larger frame with the same counts.
    if min(shape) > 60:
        padded = np.pad(frame, [(0, -n % 16) for n in shape], mode="reflect")
        fixed = {"normalise": {"kind": "fixed", "scale": 50}}
        a = restored(model("wide", side=Side(16, 16)), frame, monkeypatch, **fixed)
        b = restored(model("wide", side=Side(16, 16)), padded, monkeypatch, **fixed)
        np.testing.assert_allclose(a, b[: shape[0], : shape[1]], rtol=1e-4, atol=1e-3)


def test_what_memory_allows_is_kept_and_told(monkeypatch):
    net, spec = model(), Spec((512, 512), "uint8")
    whole, _ = opened(net, spec, monkeypatch)
    assert whole.tile is None
    assert whole.needed.peak > 512 * 512 * 4 * 30
    small, _ = opened(net, spec, monkeypatch, memory_gb=whole.needed.peak / 4e9)
    assert small.tile is not None
    assert small.needed.peak <= whole.needed.peak / 4
    small.close()
    assert small.tile is None
    with pytest.raises(StageError, match=r"512x512 needs .* GB even in tiles of .* GB may be taken. Give memory_gb"):
        opened(net, spec, monkeypatch, memory_gb=1e-4)
    with pytest.raises(StageError, match="Leave out tile and batch"):
        opened(net, spec, monkeypatch, memory_gb=1e-3, tile=(256, 256))


# What comes out


def test_the_result_is_in_counts_and_so_for_twice_the_counts(monkeypatch):
    frame = real_frame()[:128, :128].astype(np.uint16)
    one, twice = (restored(model(), frame * k, monkeypatch) for k in (1, 2))
    np.testing.assert_allclose(twice, 2 * one, rtol=1e-3, atol=0.02)
    moved = restored(model(), frame + 1000, monkeypatch)
    np.testing.assert_allclose(moved, one + 1000, rtol=1e-4, atol=0.05)
    assert 0.3 * frame.mean() < one.mean() < 3 * frame.mean()


def test_the_network_is_what_is_run(monkeypatch):
    """Against the same steps by hand."""
    frame = real_frame()[:64, :80].astype(np.float32)
    low, high = np.percentile(frame, [0.1, 99.9])
    with torch.inference_mode():
        scaled = torch.from_numpy((frame - low) / (high - low + 1e-6)).to(torch.float32)[None, None]
        want = Small()(scaled)[0, 0].numpy() * (high - low + 1e-6) + low
    np.testing.assert_allclose(restored(model(), frame, monkeypatch), want, rtol=1e-4, atol=1e-3 * np.ptp(want))


def test_planes_of_a_stack_are_scaled_alike_and_colours_each_by_itself(monkeypatch):
    stack = shown((3, 40, 50))
    stack[1] *= 20
    planes = np.stack([restored(model(), p, monkeypatch) for p in stack])
    stage, out = opened(model(), Spec(stack.shape, "uint16"), monkeypatch)
    run(stage, out, stack)
    assert stage.notes.shape == (2, 1)
    colour, out = opened(model(), Spec(stack.shape, "uint16", axes="cyx"), monkeypatch)
    assert out.axes == "cyx"
    np.testing.assert_allclose(run(colour, out, stack), planes, rtol=1e-4, atol=1e-2)
    assert colour.notes.shape == (2, 3)
    scales = colour.notes[1].tolist()
    assert scales[1] > 10 * scales[0]


class Turned(torch.nn.Module):
    """`Small` in other axes."""

    def __init__(self, axes: str) -> None:
        super().__init__()
        self.net, self.axes = Small(), axes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        names = [a for a in "bcyx" if a in self.axes]
        usual = x.permute([self.axes.index(a) for a in names]).reshape(
            -1, 1, *(x.shape[self.axes.index(a)] for a in "yx")
        )
        out = self.net(usual)
        out = out[:, 0] if "c" not in names else out
        out = out[0] if "b" not in names else out
        return out.permute([names.index(a) for a in self.axes])


@pytest.mark.parametrize("tile", [None, (32, 32)])
@pytest.mark.parametrize("axes", ["byxc", "cyx", "yx", "byx", "bcxy", "xyc"])
def test_axes_may_lie_in_any_order(axes, tile, monkeypatch):
    frame = real_frame()[:64, :50]
    want = restored(model(), frame, monkeypatch)
    found = restored(model(axes, Turned(axes), axes=axes), frame, monkeypatch, tile=tile)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4 * np.ptp(want))
    stack = np.stack([frame, frame // 2])
    many, out = opened(model(axes, Turned(axes), axes=axes), Spec(stack.shape, "uint8"), monkeypatch, batch=2)
    alone = restored(model(), stack, monkeypatch)
    np.testing.assert_allclose(run(many, out, stack), alone, rtol=1e-4, atol=1e-4 * np.ptp(alone))


def test_a_network_of_three_colours_is_given_all(monkeypatch):
    net = model("rgb", channels=3, results=3)
    picture = shown((3, 32, 40), "uint8")
    result = restored(net, picture, monkeypatch, axes="cyx")
    assert result.shape == picture.shape
    other = picture.copy()
    other[0] = 0
    assert np.abs(restored(net, other, monkeypatch, axes="cyx")[2] - result[2]).max() > 0.5


def test_more_pixels_are_smaller(monkeypatch):
    net, spec = model("twice", scale=2), Spec((32, 24), "uint16")
    stage = Restore(model="twice", engine=Eager())
    monkeypatch.setattr("pellucid.models.shelf.find", lambda name, folder=None: net)
    again = Restore(model="twice", engine=Eager())
    chain = Chain({"one": stage, "two": again}, Stream(spec, pixel_um=0.2), "cpu")
    out = chain.open()["restored"]
    assert (out.shape, out.zoom) == ((128, 96), 4)
    assert out.facts["restored"] == "twice"
    chain.close()


def test_nan_shows_in_all_of_the_result_and_is_forgotten(monkeypatch):
    net = model("memory", Newest(), channels=3, frames=3)
    stage, out = opened(net, Spec((16, 16), "float32"), monkeypatch)
    frame = shown((16, 16), "float32")
    run(stage, out, frame)
    bad = frame.copy()
    bad[3, 4] = np.inf
    assert np.isnan(run(stage, out, bad)).all()
    assert np.isfinite(run(stage, out, frame)).all()


def test_halves_do_not_overflow(monkeypatch):
    """A dark frame with one hot pixel: 60,000 times its range."""
    frame = np.zeros((300, 300), np.uint16)
    frame[150, 150] = 60000
    stage, out = opened(model(), Spec(frame.shape, "uint16"), monkeypatch, engine=Eager(precision="float16"))
    seen = []
    monkeypatch.setattr(stage.engine, "_net", lambda x: seen.append(x.max().item()) or x)
    run(stage, out, frame)
    assert seen[0] <= 1000


# Statistics that follow, and frames before


def test_what_is_measured_follows_slowly_but_not_from_frames_of_zeros(monkeypatch):
    net, frame = model(), shown((40, 40))
    stage, out = opened(net, Spec(frame.shape, "uint16"), monkeypatch)
    run(stage, out, np.zeros_like(frame))
    stage.forget()
    run(stage, out, frame)
    first = stage.notes[1, 0].item()
    run(stage, out, frame * 3)
    assert stage.notes[1, 0].item() == pytest.approx(2 * first, rel=1e-3)  # the mean of 1 and 3
    alone, out = opened(net, Spec(frame.shape, "uint16"), monkeypatch, adapt_frames=0)
    run(alone, out, frame)
    run(alone, out, frame * 3)
    assert alone.notes[1, 0].item() == pytest.approx(3 * first, rel=1e-3)


def test_tiles_are_scaled_as_the_whole_frame_is(monkeypatch):
    frame = shown((64, 64))
    frame[:32] //= 8
    notes = []
    for keys in ({}, {"tile": (32, 32)}):
        stage, out = opened(model(), Spec(frame.shape, "uint16"), monkeypatch, **keys)
        run(stage, out, frame)
        notes.append(stage.notes.clone())
    assert torch.equal(*notes)


def numbered(n: int) -> np.ndarray:
    return np.full((8, 8), n, np.float32)


def test_the_last_frames_are_given_in_order_and_the_first_stands_for_those_before(monkeypatch):
    net = model("memory", Newest(), channels=3, frames=3, before=(), after=())
    stage, out = opened(net, Spec((8, 8), "float32"), monkeypatch)
    assert stage.history == 2
    for n, (older, old) in {1: (1, 1), 2: (1, 1), 3: (1, 2), 4: (2, 3), 5: (3, 4)}.items():
        assert run(stage, out, numbered(n))[0, 0] == pytest.approx(n + old / 1e3 + older / 1e6, abs=2e-6 * n)
    stage.forget()
    assert run(stage, out, numbered(7))[0, 0] == pytest.approx(7.007007, abs=1e-5)


def test_another_position_begins_anew(monkeypatch):
    net = model("memory", Newest(), channels=2, frames=2, before=(), after=())
    spec = Spec((8, 8), "float32")
    stage, out = opened(net, spec, monkeypatch, Stream(spec, sizes={"t": 3, "p": 2}))
    assert stage.captures is False
    got = []
    for n, p in ((1, 0), (2, 0), (3, 1), (4, 1), (5, 0)):
        stage.at(FrameInfo(n, axes={"t": n, "p": p}))
        got.append(round(float(run(stage, out, numbered(n))[0, 0]), 4))
    assert got == [1.001, 2.001, 3.003, 4.003, 5.005]


def test_frames_of_a_card_that_does_not_tell_them(monkeypatch):
    net = model("memory", Newest(), channels=2, before=(), after=())
    spec = Spec((8, 8), "float32")
    with pytest.raises(StageError, match=r"takes 2 channels .* given 1 frame of .* add frames = 2"):
        opened(net, spec, monkeypatch)
    stage, _ = opened(net, spec, monkeypatch, frames=2)
    assert stage.history == 1
    with pytest.raises(StageError, match="given 3 frames"):
        opened(net, spec, monkeypatch, frames=3)


# In a chain


def test_a_chain_notes_what_was_measured_and_tells_what_ran(monkeypatch):
    monkeypatch.setattr("pellucid.models.shelf.find", lambda name, folder=None: model())
    spec, lines = Spec((40, 50), "uint16"), []
    stage = Restore(model="small", engine=Eager())
    chain = Chain({"restore": stage}, Stream(spec), "cpu", lines.append)
    planes = {"raw": spec} | chain.open()
    assert lines == ["building small"]
    assert planes["restored"].facts["model"] == {
        "name": "small", "sha256": "5" * 64, "scale": 1, "licence": "BSD-3-Clause"
    }  # fmt: skip
    ring = LocalRing(Stream(spec), 1, planes)
    slot = ring.slots[0]
    chain.bind(ring.slots, ["restored"])
    slot.planes["raw"][:] = frame = shown((40, 50))
    slot.info = FrameInfo(0)
    chain.submit(slot)
    assert chain.finish(slot) is None
    low, high = np.percentile(frame, [0.1, 99.9])
    noted = slot.info.notes["restore"]
    # The frames of zeros of `bind` have no part in it.
    assert noted["offset"] == pytest.approx(low, abs=1e-3)
    assert noted["scale"] == pytest.approx(high - low, rel=1e-4)
    row = chain.describe()[0]
    assert row["engine"]["kind"] == "eager"
    assert row["tiles"] == {"tile": [40, 50], "of_each_picture": 1, "batch": 1, "halo": [0, 0]}
    assert row["normalise"]["adapt_frames"] == 100
    json.dumps(row)
    chain.close()


# Mistakes


@pytest.mark.parametrize(
    ("keys", "spec", "says"),
    [
        ({"channels": 2}, Spec((8, 8), "uint8"), r'model "wrong" takes 2 channels and gives 1.* add frames = 2'),
        ({"results": 2}, Spec((8, 8), "uint8"), "takes 1 channels and gives 2"),
        ({"axes": "bczyx"}, Spec((8, 8), "uint8"), r'takes stacks \(z, y, x\).*Set \[session\] unit = "stack"'),
        ({"axes": "bczyx"}, Spec((3, 8, 8), "uint8", axes="cyx"), "takes stacks"),
        ({}, Spec((2, 3, 8, 8), "uint8"), "given 2x3x8x8 uint8 with axes czyx"),
        ({}, Spec((8, 8), "complex64"), "it takes planes"),
        ({}, Spec((0, 8), "uint8"), "it takes planes"),
        ({"before": (Operation("warp"),)}, Spec((8, 8), "uint8"), 'its step "warp" is not known'),
        ({"net": Small(scale=2)}, Spec((8, 8), "uint8"), "gives 1x1x16x16 for 1x1x8x8, where its card has 1x1x8x8"),
    ],
)
def test_what_does_not_go_together_is_one_line(keys, spec, says, monkeypatch):
    with pytest.raises(StageError, match=says) as caught:
        opened(model("wrong", **keys), spec, monkeypatch)
    assert "\n" not in str(caught.value)


def test_a_tile_that_the_network_does_not_take_is_told_with_one_that_it_does(monkeypatch):
    net, spec = model("wide", side=Side(16, 8)), Spec((512, 512), "uint8")
    with pytest.raises(StageError, match=re.escape("tile = [100, 96]") + r".*" + re.escape("give [104, 96]")):
        opened(net, spec, monkeypatch, tile=(100, 96))
    with pytest.raises(StageError, match="for pictures of 2 axes"):
        opened(net, spec, monkeypatch, tile=(8, 96, 96))
    stage, _ = opened(net, spec, monkeypatch, tile=(512, 512))
    assert stage.tile is None


def test_an_engine_that_cannot_is_told(monkeypatch):
    stranger = model("stranger")
    monkeypatch.delitem(NETS, "stranger")
    with pytest.raises(StageError, match='engine "eager" does not know "stranger"'):
        opened(stranger, Spec((8, 8), "uint8"), monkeypatch)
    with pytest.raises(StageError, match="from Python give an engine itself"):
        opened(model(), Spec((8, 8), "uint8"), monkeypatch, engine="openvino")
