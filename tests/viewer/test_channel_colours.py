"""The colours of channels that lie over each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.viewer.channels import BLUE, CYAN, GRAY, GREEN, MAGENTA, RED, YELLOW, colours_of


@pytest.mark.parametrize(
    ("name", "colour"),
    [
        ("DAPI", BLUE), ("Hoechst 33342", BLUE), ("FITC", GREEN), ("Alexa Fluor 488", GREEN), ("EGFP-H2B", GREEN),
        ("Cy3", RED), ("mCherry", RED), ("TxRed", RED), ("561 nm", RED), ("Cy5", MAGENTA), ("AF647", MAGENTA),
        ("CFP", CYAN), ("YFP", YELLOW), ("525/50", GREEN), ("Brightfield", GRAY), ("DIC", GRAY), ("beads", MAGENTA),
    ],
)  # fmt: skip
def test_a_dye_has_the_colour_that_it_has_in_the_eyepiece(name, colour):
    assert colours_of([name]) == [colour]


def test_names_inside_other_words_do_not_count():
    assert colours_of(["hatred"]) == [MAGENTA]
    assert colours_of(["disrupted"]) == [MAGENTA]


def test_two_unknown_channels_are_magenta_and_green():
    assert colours_of(["a", "b"]) == [MAGENTA, GREEN]


@given(st.lists(st.text(max_size=12), max_size=7))
def test_no_two_of_seven_have_the_same(names):
    assert len(set(colours_of(names))) == len(names)


def test_the_name_that_says_nothing_leaves_the_colour_to_the_one_that_says_it():
    assert colours_of(["a", "FITC"]) == [MAGENTA, GREEN]
    assert colours_of(["a", "Cy5"]) == [GREEN, MAGENTA]
    assert colours_of(["GFP", "GFP low"])[0] == GREEN
