"""What the hot code must not do, held as tests: grow, log, look up, wait for a collector."""

from __future__ import annotations

import ast
import gc
import logging
import threading
import tracemalloc
from multiprocessing import shared_memory
from pathlib import Path

import pytest

import pellucid
from pellucid.config import Config
from pellucid.live import make_session
from pellucid.wire import memory

SRC = Path(pellucid.__file__).parent
PARTS = Path(__file__).parents[1] / "parts.py"

HOT = {
    "runtime/session.py": ["_loop"],
    "runtime/lane.py": ["take", "_submit", "_finish", "_spread"],
    "runtime/ring.py": ["take", "hold", "release"],
    "runtime/chain.py": ["submit", "finish"],
    "runtime/fanout.py": ["put", "_run"],
    "sources/simulated.py": ["read"],
    "sources/replay.py": ["read"],
    "sources/wire.py": ["read"],
    "sources/micromanager.py": ["read"],
    "sources/_running.py": ["read", "_pop", "_give"],
    "sources/_lanes.py": ["of", "take"],
    "sources/_snapping.py": ["read"],
    "stages/deconvolve.py": ["__call__"],
    "stages/restore.py": ["__call__"],
    "restoration/network.py": ["__call__", "_load"],
    "restoration/tiles.py": ["pad", "cut", "put"],
    "restoration/history.py": ["__call__"],
    "sinks/null.py": ["write"],
    "sinks/window.py": ["write"],
    "sinks/_window_link.py": ["show"],
    "sinks/_window_pictures.py": ["wanted", "fill", "went"],
    "wire/sender.py": ["free", "commit"],
    "wire/receiver.py": ["receive", "_frame"],
}


@pytest.mark.parametrize(("file", "names"), HOT.items(), ids=HOT)
def test_hot_verbs_import_print_and_log_nothing(file, names):
    """Imports, prints, logging and environment look-ups have no place in a hot verb."""
    found = set()
    for node in ast.walk(ast.parse((SRC / file).read_text())):
        if isinstance(node, ast.FunctionDef) and node.name in names:
            found.add(node.name)
            for inner in ast.walk(node):
                assert not isinstance(inner, (ast.Import, ast.ImportFrom)), (file, node.name)
                if isinstance(inner, ast.Call):
                    called = ast.unparse(inner.func)
                    assert called.split(".")[0] not in ("print", "logging", "logger", "os", "json"), (file, called)
    assert found == set(names), f"{file} has no {set(names) - found}"


class Meter:
    """A sink that looks at the memory every 100 frames."""

    policy = "block"
    early = False

    def __init__(self) -> None:
        self.traced: list[int] = []
        self.objects: list[int] = []
        self.collected = gc.isenabled()

    def open(self, streams, planes, run) -> None:
        self.seen = 0

    def write(self, slot, names) -> None:
        self.seen += 1
        if self.seen % 100 == 0:
            self.traced.append(tracemalloc.get_traced_memory()[0])
            self.objects.append(len(gc.get_objects()))
            self.collected = gc.isenabled()

    def finish(self) -> None:
        pass

    def close(self, report) -> None:
        pass


@pytest.mark.parametrize("kind", ["counting", "simulated"])
def test_nothing_grows_in_steady_state(kind, caplog):
    source = {
        "counting": 'source = { kind = "counting", frames = 1200 }',
        "simulated": 'source = { kind = "simulated", frames = 1200, shape = [64, 64], fps = 4000, on_full = "wait" }',
    }[kind]
    config = Config.parse(
        f"""
        plugins = ["{PARTS.as_posix()}"]
        {source}
        stages = [{{ kind = "deconvolve", psf = {{ kind = "gaussian", fwhm_px = 3 }}, iterations = 1 }}]
        sinks = [{{ kind = "null" }}]
        """
    )
    meter = Meter()
    session = make_session(config, {"meter": meter})
    caplog.set_level(logging.DEBUG)
    session.open()
    tracemalloc.start()
    try:
        session.run()
    finally:
        tracemalloc.stop()
        session.close()
    assert session.report["frames"]["processed"] == 1200
    assert not meter.collected, "the collector ran by itself within the loop"
    # The first hundreds of frames fill caches; after them a frame may leave nothing behind.
    half = len(meter.traced) // 2
    growth = meter.traced[-1] - meter.traced[half]
    assert growth < 32 * 1024, f"{growth / (100 * (len(meter.traced) - half)):.0f} bytes a frame stay: {meter.traced}"
    assert max(meter.objects[3:]) - min(meter.objects[3:]) < 2000, meter.objects
    assert not caplog.records
    assert gc.isenabled()


def test_a_run_leaves_no_thread_and_no_shared_memory(monkeypatch):
    made, make = [], memory._Block.__init__

    def note(block, *args, **keys) -> None:
        make(block, *args, **keys)
        made.append(block.name)

    monkeypatch.setattr(memory._Block, "__init__", note)  # other tests, beside this one, have blocks as well
    before = set(threading.enumerate())
    config = Config.parse(f'plugins = ["{PARTS.as_posix()}"]\nsource = {{ kind = "counting", frames = 10 }}')
    config.source.shares_memory = True
    session = make_session(config)
    session.open()
    session.run()
    session.close()
    assert set(threading.enumerate()) <= before
    assert made
    for name in made:
        with pytest.raises(FileNotFoundError):
            shared_memory.SharedMemory(name)
