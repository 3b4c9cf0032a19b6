"""The steps before and after a network: against numpy, and with frames that have no range."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError

from pellucid.errors import StageError
from pellucid.models.model import Operation
from pellucid.restoration.normalise import Fixed, Normalise, PercentileRange, steps
from pellucid.restoration.operations import After, Before
from pellucid.restoration.statistics import SAMPLE, Groups, Percentiles, Slowly
from tests.restoration.network_parts import BACK, RANGE, model

RNG = np.random.default_rng(3)
FRAME = RNG.gamma(2.0, 300.0, (1, 1, 70, 90)).astype(np.float32)


def before(operations, x, **keys) -> tuple[Before, np.ndarray]:
    made = Before(operations, x.shape, **{"shared": False, "adapt_frames": 0.0, "device": "cpu"} | keys)
    tensor = torch.from_numpy(x.copy())
    made(tensor)
    return made, tensor.numpy()


@pytest.mark.parametrize(
    ("operation", "want"),
    [
        (Operation("scale_range"), lambda x: (x - x.min()) / (np.ptp(x) + 1e-6)),
        (
            Operation("scale_range", {"min_percentile": 1, "max_percentile": 99.8, "axes": ["channel", "y", "x"]}),
            lambda x: (x - np.percentile(x, 1)) / (np.percentile(x, 99.8) - np.percentile(x, 1) + 1e-6),
        ),
        (Operation("zero_mean_unit_variance"), lambda x: (x - x.mean()) / (x.std() + 1e-6)),
        (Operation("fixed_zero_mean_unit_variance", {"mean": 100.0, "std": 50.0}), lambda x: (x - 100) / 50),
        (Operation("scale_linear", {"gain": 0.5, "offset": 3.0}), lambda x: x * 0.5 + 3),
        (Operation("scale_linear", {"gain": [0.5], "offset": [3.0], "axes": ["channel"]}), lambda x: x * 0.5 + 3),
        (Operation("clip", {"min": 10, "max": 200}), lambda x: x.clip(10, 200)),
        (Operation("sigmoid"), lambda x: 1 / (1 + np.exp(-x))),
        (Operation("binarize", {"threshold": 300}), lambda x: (x > 300).astype(np.float32)),
        (Operation("ensure_dtype", {"dtype": "float32"}), lambda x: x),
    ],
    ids=lambda value: value.name if isinstance(value, Operation) else "",
)
def test_a_step_is_what_bioimage_io_says(operation, want):
    _, found = before([operation], FRAME)
    np.testing.assert_allclose(found, want(FRAME.astype(np.float64)), rtol=2e-4, atol=2e-5)


def test_what_scales_is_undone_in_counts_whatever_its_order():
    operations = [RANGE, Operation("scale_linear", {"gain": 2.0, "offset": -1.0}), Operation("zero_mean_unit_variance")]
    made, scaled = before(operations, FRAME)
    assert abs(scaled.mean()) < 1e-3
    back = After([BACK], made, FRAME.shape, FRAME.shape, shared=False, device="cpu")
    tensor = torch.from_numpy(scaled.copy())
    back(tensor)
    np.testing.assert_allclose(tensor.numpy(), FRAME, rtol=1e-4, atol=0.05)
    offset, scale = made.notes[:, 0].tolist()
    np.testing.assert_allclose(scaled * scale + offset, FRAME, rtol=1e-4, atol=0.05)


def test_scale_mean_variance_gives_the_moments_of_what_was_given():
    made = Before([RANGE], FRAME.shape, shared=False, adapt_frames=0.0, device="cpu")
    after = After([Operation("scale_mean_variance", {"reference_tensor": "x"})], made, FRAME.shape, FRAME.shape,
                  shared=False, device="cpu")  # fmt: skip
    frame = torch.from_numpy(FRAME.copy())
    after.look(frame)
    made(frame)
    result = torch.randn(FRAME.shape) * 5 + 2
    after(result)
    assert result.mean().item() == pytest.approx(FRAME.mean(), rel=1e-4)
    assert result.std(correction=0).item() == pytest.approx(FRAME.std(), rel=1e-4)


def test_softmax_is_over_channels():
    x = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)
    _, found = before([Operation("softmax")], x)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("each", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_who_is_measured_together(each, shared):
    x = RNG.normal(size=(3, 2, 40, 50)).astype(np.float32) * np.arange(1, 7).reshape(3, 2, 1, 1)
    keys = {"axes": ["y", "x"]} if each else {}
    _, found = before([Operation("zero_mean_unit_variance", keys)], x, shared=shared)
    over = (*((0,) if shared else ()), *(() if each else (1,)), 2, 3)
    np.testing.assert_allclose(found.std(over), 1, rtol=1e-4)
    np.testing.assert_allclose(found.mean(over), 0, atol=1e-4)


@pytest.mark.parametrize("columns", [640, 512])
def test_percentiles_of_a_sample_see_stripes_as_they_are(columns):
    """Every second column bright: a sample of every n-th pixel would see one kind alone."""
    x = np.zeros((1, 1, 512, columns), np.float32)
    x[..., ::2] = 100
    x += RNG.normal(size=x.shape).astype(np.float32)
    assert x.size > SAMPLE
    groups = Groups(x.shape, shared=False, each_channel=False)
    low, width = Percentiles(groups, 25, 75, 0.0, 0.0, "cpu")(torch.from_numpy(x))
    assert low.item() == pytest.approx(np.percentile(x, 25), abs=0.05)
    assert width.item() == pytest.approx(np.percentile(x, 75) - np.percentile(x, 25), abs=0.1)


@pytest.mark.parametrize("value", [0, 7, 65535])
@pytest.mark.parametrize("operation", [RANGE, Operation("scale_range"), Operation("zero_mean_unit_variance")])
def test_a_frame_of_one_value_comes_back_as_it_was(value, operation):
    x = np.full((1, 1, 9, 5), value, np.float32)
    made, scaled = before([operation], x)
    assert np.isfinite(scaled).all()
    back = After([BACK], made, x.shape, x.shape, shared=False, device="cpu")
    tensor = torch.from_numpy(scaled.copy())
    back(tensor)
    np.testing.assert_allclose(tensor.numpy(), x, rtol=1e-6, atol=1e-6)


def test_a_statistic_follows_slowly():
    def of(offset, width=100.0):
        return torch.tensor([[offset], [width]])

    slowly = Slowly((2, 1), 10, "cpu")
    for i, value in enumerate([4.0, 8.0, 0.0]):  # the plain mean at first
        assert slowly(of(value))[0].item() == pytest.approx(np.mean([4.0, 8.0, 0.0][: i + 1]))
    for _ in range(100):
        slowly(of(0.0))
    assert slowly(of(90.0))[0].item() == pytest.approx(90 * (1 - np.exp(-0.1)), abs=0.1)
    slowly.forget()
    assert slowly(of(5.0))[0].item() == 5.0


@pytest.mark.parametrize(
    ("offset", "width", "anew"),
    [(0, 200, False), (0, 700, False), (0, 900, True), (0, 10, True), (90, 100, False), (-150, 100, True)],
)
def test_it_begins_anew_where_the_light_jumps(offset, width, anew):
    slowly = Slowly((2, 1), 10, "cpu")
    for _ in range(50):
        slowly(torch.tensor([[0.0], [100.0]]))
    now = torch.tensor([[float(offset)], [float(width)]])
    assert torch.equal(slowly(now), now) == anew


def test_a_few_bright_spots_in_the_dark_are_not_lost():
    """The percentiles of such a frame are the same number; halves would cut off what is a million times the width."""
    frame = torch.full((1, 1, 64, 64), 100.0)
    frame[..., 10, 10] = 2100.0
    step = Operation("scale_range", {"min_percentile": 0.1, "max_percentile": 99.9})
    before = Before([step], frame.shape, shared=False, adapt_frames=0, device="cpu", limit=1e3)
    given = frame.clone()
    before(given)
    assert given.max().item() == pytest.approx(1.0)
    noisy = frame + torch.rand(frame.shape)
    noisy[..., 20:22, 20] = 60_000.0
    given = noisy.clone()
    before(given)
    torch.testing.assert_close(given / before.gain + before.offset, noisy, rtol=1e-3, atol=0.1)


@pytest.mark.parametrize(
    ("operation", "says"),
    [
        (Operation("stardist_postprocessing"), 'its step "stardist_postprocessing" is not known here; known are'),
        (Operation("scale_linear", {"gain": 0.0}), "gain = 0"),
        (Operation("scale_linear", {"gain": [1.0, 2.0]}), "for 1 channels"),
        (Operation("clip"), "clip without min and max"),
        (Operation("binarize", {"threshold": [1, 2]}), "one threshold"),
    ],
)
def test_steps_that_cannot_be_done_are_told(operation, says):
    with pytest.raises(StageError, match=says):
        before([operation], FRAME)


# What a config says


def read(given):
    return TypeAdapter(Normalise, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(given)


def test_a_config_takes_the_place_of_what_scales_and_leaves_the_rest():
    card = model(before=(RANGE, Operation("clip", {"min": 0, "max": 1})), after=(Operation("sigmoid"),))
    first, last, counts = steps(card, read({"kind": "fixed", "offset": 100, "scale": 2000}))
    assert [o.name for o in first] == ["fixed_zero_mean_unit_variance", "clip"]
    assert first[0].keys == {"mean": 100.0, "std": 2000.0}
    assert [o.name for o in last] == ["as_given", "sigmoid"]
    assert counts
    first, last, counts = steps(card, "none")
    assert ([o.name for o in first], [o.name for o in last], counts) == (["clip"], ["sigmoid"], True)
    assert steps(card, None) == (card.before, card.after, False)
    assert steps(card, read({"kind": "percentiles", "undo": False}))[2] is False
    assert steps(model(), None)[2] is True


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("non", r'kind = "non" is no way to normalise. Did you mean "none"\? give "none", or a table'),
        ({"kind": "percentile"}, 'Did you mean "percentiles"'),
        ({"kind": "percentiles", "lo": 1}, r"lo: no such key. Did you mean .low.\? Allowed: low, high, undo"),
        ({"kind": "percentiles", "low": 50, "high": 2}, "low = 50 must be below high = 2"),
        ({"kind": "percentiles", "low": -1}, "low: input should be greater than or equal to 0"),
        ({"kind": "fixed"}, "scale: field required"),
        ({"kind": "fixed", "scale": 0}, "scale: input should be greater than 0"),
        (3, 'give "none", or a table'),
        ({}, 'kind = "None"'),
    ],
)
def test_what_is_wrong_with_a_table_is_one_line(given, says):
    with pytest.raises(ValidationError, match=says) as caught:
        read(given)
    assert caught.value.error_count() == 1


def test_a_name_alone_is_a_table():
    assert read("percentiles") == PercentileRange()
    assert read({"kind": "fixed", "scale": 3}) == Fixed(scale=3)
