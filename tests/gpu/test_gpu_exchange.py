"""Stages that are exchanged between two frames on CUDA: the graph is captured anew, in the same buffers."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from pellucid.bench.gpu import deconvolve, pictures
from pellucid.bench.lane import Lane
from pellucid.protocols import Spec, Stream
from pellucid.runtime.off import Off

SHAPE = (512, 512)


@pytest.mark.parametrize("iterations", [(3, 6), (3, None), (None, 3)], ids=["captured", "no more", "from now on"])
def test_frames_before_are_the_old_ones_and_frames_after_the_new(iterations, gpu):
    stream = Stream(Spec(SHAPE, "uint16"), pixel_um=0.1)
    old, new = (Lane(deconvolve("wiener-butterworth", n), stream, gpu) for n in iterations)
    lane = Lane(deconvolve("wiener-butterworth", iterations[0]), stream, gpu)
    images = pictures(SHAPE, 6)
    ready = {}

    def prepare() -> None:
        (stage,) = deconvolve("wiener-butterworth", iterations[1]).values()
        ready.update(lane.chain.prepare({0: stage}))

    preparing = threading.Thread(target=prepare)
    preparing.start()
    while preparing.is_alive():  # frames flow meanwhile, and are the old ones
        assert_same(lane, old, 0, images[0])
    preparing.join()
    for stage in lane.chain.swap(ready):
        stage.close()
    for i in range(1, 6):
        assert_same(lane, new, i, images[i])
    assert lane.chain.describe()[0]["captured"] == (iterations[1] is not None)
    off = lane.chain.prepare(
        {0: Off(next(iter(deconvolve("wiener-butterworth", 3).values())), lane.chain.made(name(lane)))}
    )
    lane.chain.swap(off)
    lane.chain.submit(lane.fill(0, images[2]))
    assert lane.chain.finish(lane.slots[0]) is None
    background = float(lane.chain.made(name(lane)).facts["background"])
    np.testing.assert_array_equal(lane.slots[0].planes["restored"], images[2].astype(np.float32) - background)
    assert lane.chain.describe()[0]["captured"]
    for each in (old, new, lane):
        each.close()


def name(lane):
    return lane.chain.names[0]


def assert_same(lane, other, i, image):
    for each in (lane, other):
        each.chain.submit(each.fill(i, image))
        assert each.chain.finish(each.slots[i]) is None
    np.testing.assert_array_equal(lane.slots[i].planes["restored"], other.slots[i].planes["restored"])
