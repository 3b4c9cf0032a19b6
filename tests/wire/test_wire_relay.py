"""A source over there, a whole session here: streams that begin and change on the camera's side."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pellucid.config import Config
from pellucid.live import make_session
from pellucid.runtime.relay import relay
from pellucid.wire.sender import Sender
from tests.parts import Changing

PARTS = Path(__file__).parents[1] / "parts.py"
STEPS: list[tuple[str, str, int, int, str, int]] = [
    ("cam", "GFP", 32, 48, "uint16", 20),
    ("cam", "GFP", 16, 64, "uint16", 20),
    ("cam", "DAPI", 16, 64, "uint16", 7),
    ("cam", "GFP", 16, 64, "uint16", 3),
    ("second", "GFP", 20, 20, "rgb", 5),
    ("cam", "DAPI", 32, 48, "uint8", 9),
    ("cam", "GFP", 16, 64, "uint16", 6),
]


class Relayed:
    """`relay` in a thread, as ``pellucid send`` runs it."""

    def __init__(self, endpoint: str, source: Any, **options: Any) -> None:
        self.lines: list[str] = []
        self.stop = threading.Event()
        self.sender: Sender | None = None
        self.error: BaseException | None = None
        options = {"mode": "lossless", "heartbeat_s": 0.1} | options

        def go() -> None:
            try:
                self.sender = relay(
                    source,
                    lambda feeds: Sender(endpoint, feeds, **options),
                    self.stop,
                    wait_s=20,
                    tell=self.lines.append,
                )
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=go)
        self.thread.start()

    def end(self) -> Sender:
        self.thread.join(30)
        assert not self.thread.is_alive()
        assert self.error is None, self.error
        assert self.sender is not None
        return self.sender


def run(source: Any, sinks: str = '[[sinks]]\nkind = "keep"', slots: int = 4, **options: Any):
    config = Config.parse(
        f"""
        plugins = ["{PARTS.as_posix()}"]
        [source]
        kind = "wire"
        bind = "tcp://127.0.0.1:*"
        [[stages]]
        kind = "scale"
        {sinks}
        [session]
        slots = {slots}
        restore = "every"
        """
    )
    relayed = Relayed(config.source.listen(), source, **options)
    session = make_session(config)
    try:
        session.open()
        session.run()
    finally:
        session.close()
        relayed.stop.set()
    return config, session, relayed


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "in band"])
def test_every_change_of_the_cameras_reaches_the_session(shared):
    config, session, relayed = run(Changing(STEPS), shared=shared)
    sender = relayed.end()
    total = sum(step[-1] for step in STEPS)
    report = session.report
    assert (sender.produced, sender.sent, sender.dropped) == (total, total, 0)
    assert sender.attached == shared
    assert report["frames"]["produced"] == report["frames"]["processed"] == total
    assert report["frames"]["unaccounted"] == 0
    assert report["frames"]["totals_confirmed"]
    assert [(row["camera"], row["replaces"]) for row in report["streams"]] == [
        ("cam", None),
        ("cam", 0),
        ("cam", None),
        ("second", None),
        ("cam", 2),
    ]
    got = config.sinks["keep"].got
    assert sorted(seq for seq, _ in got) == list(range(total))  # each stream has a chain of its own
    for seq, planes in got:
        raw = planes["raw"].copy()
        if raw.ndim == 3:
            raw[1] -= 50
        assert (raw == seq + 1).all()
    assert sum("instead of what it gave before" in line for line in relayed.lines) == 2


def test_a_recording_of_frames_that_change_over_there(tmp_path):
    sinks = f'[[sinks]]\nkind = "recorder"\npath = "{tmp_path.as_posix()}/rec"'
    _, session, relayed = run(Changing(STEPS[:2]), sinks)
    relayed.end()
    assert session.report["frames"]["recorded"] == 40
    import zarr

    second = zarr.open_array(tmp_path / "rec/raw-cam-1.ome.zarr/0", mode="r")
    np.testing.assert_array_equal(second[:, 0, 0, 0], np.arange(21, 41))
