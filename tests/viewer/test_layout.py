"""Where panes lie."""

from __future__ import annotations

import itertools

import pytest

from pellucid.viewer.layout import BETWEEN, GAP, lay_out

CANVAS = (1280, 670)
SQUARE = (512, 512)


def zooms(size, streams) -> list[float]:
    return [
        min(width / wide, height / high)
        for planes, places in zip(streams, lay_out(size, streams), strict=True)
        for (wide, high), (_, _, width, height) in zip(planes, places, strict=True)
    ]


@pytest.mark.parametrize("size", [CANVAS, (320, 170), (1, 1), (500, 2000)])
@pytest.mark.parametrize("streams", [1, 2, 3, 4, 5, 8, 13])
@pytest.mark.parametrize("planes", [1, 2, 3])
def test_panes_fill_the_canvas_and_do_not_overlap(size, streams, planes):
    places = [place for row in lay_out(size, [[SQUARE] * planes] * streams) for place in row]
    assert len(places) == streams * planes
    for left, top, width, height in places:
        assert width >= 1
        assert height >= 1
        if size[0] >= 320:
            assert left >= 0
            assert top >= 0
            assert left + width <= size[0] + 1e-6
            assert top + height <= size[1] + 1e-6
    for (l1, t1, w1, h1), (l2, t2, w2, h2) in itertools.combinations(places, 2):
        beside = l1 + w1 <= l2 - GAP + 1e-6 or l2 + w2 <= l1 - GAP + 1e-6
        below = t1 + h1 <= t2 - GAP + 1e-6 or t2 + h2 <= t1 - GAP + 1e-6
        assert beside or below


def test_raw_and_restored_side_by_side_and_two_such_below_each_other():
    assert lay_out((1284, 674), [[SQUARE] * 2] * 2) == [
        [(0, 0, 640, 335), (644, 0, 640, 335)],
        [(0, 339, 640, 335), (644, 339, 640, 335)],
    ]


def test_two_cameras_without_a_restored_plane_lie_side_by_side():
    (first,), (second,) = lay_out(CANVAS, [[SQUARE]] * 2)
    assert first[1] == second[1] == 0
    assert second[0] == first[0] + first[2] + BETWEEN


def test_raw_lies_under_raw_where_some_streams_have_no_restored_plane():
    places = lay_out((700, 900), [[SQUARE], [SQUARE, SQUARE]])
    assert places[0][0][0] == places[1][0][0]
    assert places[0][0][2] == places[1][0][2]


def test_many_streams_stay_pictures():
    """Four channels of two cameras, raw and restored: below each other each would be 79 pixels high."""
    assert min(zooms(CANVAS, [[SQUARE] * 2] * 8)) * 512 > 200


def test_other_shapes_and_none():
    assert lay_out(CANVAS, []) == []
    tall = lay_out(CANVAS, [[(100, 2000)]] * 3)
    assert [row[0][1] for row in tall] == [0, 0, 0]
    wide = lay_out(CANVAS, [[(2000, 100)]] * 3)
    assert len({row[0][1] for row in wide}) == 3


def test_no_room_is_left_for_planes_that_no_stream_in_a_column_has():
    """DAPI stays raw, FITC is restored, of two cameras."""
    places = lay_out((1500, 820), [[SQUARE], [SQUARE] * 2] * 2)
    (left,), (middle, right) = places[:2]
    assert left[0] + left[2] + BETWEEN == middle[0]
    assert middle[0] + middle[2] + GAP == right[0]
    assert right[0] + right[2] == pytest.approx(1500)
    assert [[place[0] for place in row] for row in places[2:]] == [[left[0]], [middle[0], right[0]]]
