"""Percentiles, clocks and the ledger's sums."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.ledger import Ledger
from pellucid.metrics import Histogram, now_ns
from pellucid.protocols import FrameInfo


@given(st.lists(st.integers(2_000, 10**11), min_size=1, max_size=300))
def test_percentiles_are_within_one_percent(values):
    h = Histogram()
    for v in values:
        h.add(v)
    for q in (0.5, 0.95, 0.99):
        exact = np.sort(values)[max(int(np.ceil(q * len(values))) - 1, 0)]
        assert h.quantile_ms(q) == pytest.approx(exact * 1e-6, rel=0.011)
    assert h.max_ns == max(values)
    assert h.summary()["n"] == len(values)


def test_an_empty_histogram_and_odd_durations():
    h = Histogram()
    assert np.isnan(h.quantile_ms(0.5))
    assert h.summary() == {"n": 0}
    for ns in (-5, 0, 10**15):
        h.add(ns)
    assert h.count == 3
    assert h.max_ns == 10**15


def test_the_clock_is_the_same_in_another_process():
    before = now_ns()
    code = "from pellucid.metrics import now_ns; print(now_ns())"
    there = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert before < there < now_ns()


@given(
    st.lists(st.sampled_from(["processed", "raw_only"]), max_size=30),
    st.lists(st.tuples(st.sampled_from(["dropped", "lost"]), st.integers(1, 9)), max_size=10),
    st.integers(0, 5),
)
def test_what_was_produced_is_the_sum_of_what_became_of_it(ends, gaps, unexplained):
    ledger = Ledger()
    for i, state in enumerate(ends):
        info = FrameInfo(i, camera_ns=1, received_ns=2)
        ledger.arrived(info, 8)
        ledger.ended(info, state, "x")
    for state, count in gaps:
        ledger.missing(0, count, state, "here")
    known = len(ends) + sum(n for _, n in gaps)
    assert ledger.produced == known
    assert ledger.unaccounted == 0
    ledger.told(known + unexplained)
    assert ledger.unaccounted == unexplained
    ledger.sinks["recorder"] = __import__("collections").Counter(offered=5, written=3, skipped=0, lost=1)
    assert ledger.unaccounted == unexplained + 1
