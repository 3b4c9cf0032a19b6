"""The cache of engines: whole or absent, one builds and the other waits."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from pellucid.engines.cache import Cache, key_of

FACTS = {"kind": "openvino", "model": "abc", "shape": [1, 1, 8, 8]}


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "engines")


def test_what_is_made_is_found_again(cache):
    entry, cached = cache.fetch(key_of(FACTS), lambda: b"engine", FACTS)
    assert not cached
    assert entry.facts["took_s"] >= 0
    again, cached = cache.fetch(key_of(FACTS), lambda: pytest.fail("built again"), FACTS)
    assert cached
    assert (again.data, again.facts) == (b"engine", entry.facts)
    cache.note(again, fidelity={"largest": 0.001})
    assert cache.read(again.key).facts["fidelity"] == {"largest": 0.001}
    assert cache.read(again.key).data == b"engine"


def test_every_fact_is_in_the_key():
    assert key_of(FACTS) == key_of(dict(reversed(FACTS.items())))
    assert len({key_of({**FACTS, k: "other"}) for k in FACTS} | {key_of(FACTS)}) == len(FACTS) + 1


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda b: b"", "it is empty"),
        (lambda b: b[:-3], "3 bytes of 6"),
        (lambda b: b[:20], "not an engine of this format"),
        (lambda b: b[:40], "its head is damaged"),
        (lambda b: b[:-1] + b"?", "its checksum is wrong"),
        (lambda b: b"something else" * 9, "not an engine of this format"),
        (lambda b: b.replace(b"format 2", b"format 0"), "not an engine of this format"),
        (lambda b: b.replace(b'"key": "', b'"key": "0'), "the checksum of its head is wrong"),
        (lambda b: b.replace(b'"facts": {', b'"facts": {"x": 1, '), "the checksum of its head is wrong"),
    ],
)
def test_what_is_damaged_or_foreign_is_built_again_and_told(cache, damage, why):
    entry, _ = cache.fetch(key_of(FACTS), lambda: b"engine", FACTS)
    path = cache.path(entry.key)
    path.write_bytes(damage(path.read_bytes()))
    told: list[str] = []
    again, cached = cache.fetch(entry.key, lambda: b"new", FACTS, told.append)
    assert not cached
    assert again.data == b"new"
    assert [why in line and "built again" in line for line in told] == [True]
    assert cache.read(entry.key).data == b"new"


def test_a_build_that_fails_leaves_nothing(cache, monkeypatch):
    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        cache.fetch(key_of(FACTS), fail, FACTS)
    assert cache.entries() == []
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    told: list[str] = []
    entry, _ = cache.fetch(key_of(FACTS), lambda: b"engine", FACTS, told.append)
    assert entry.data == b"engine"
    assert "not kept" in told[0]
    assert list(cache.folder.glob("*.part")) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    told: list[str] = []
    entry, cached = Cache(tmp_path / "file/engines").fetch(key_of(FACTS), lambda: b"engine", FACTS, told.append)
    assert (entry.data, cached) == (b"engine", False)
    assert "the engine is not kept" in told[0]


BUILD = """
import sys, time
from pathlib import Path
from pellucid.engines.cache import Cache
folder, key = Path(sys.argv[1]), sys.argv[2]
def make():
    with open(folder.parent / "built", "a") as f: f.write("x")
    print("building", flush=True)
    while not (folder.parent / "go").exists(): time.sleep(0.01)
    return b"engine"
entry, cached = Cache(folder).fetch(key, make, {}, lambda line: print(line, flush=True))
assert entry.data == b"engine"
print("cached" if cached else "made", flush=True)
"""


def test_two_processes_build_once(cache):
    command = [sys.executable, "-c", BUILD, str(cache.folder), key_of(FACTS)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "building\n"
    second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert "another session builds this engine; waiting" in second.stdout.readline()
    (cache.folder.parent / "go").touch()
    out = [p.communicate(timeout=30)[0].strip() for p in (first, second)]
    assert out == ["made", "cached"]
    assert (cache.folder.parent / "built").read_text() == "x"


def test_listing_and_pruning(cache):
    old, _ = cache.fetch(key_of(FACTS), lambda: b"old", FACTS)
    new, _ = cache.fetch(key_of({**FACTS, "shape": 1}), lambda: b"newer", FACTS)
    long_ago = time.time() - 100 * 86400
    os.utime(cache.path(old.key), (long_ago, long_ago))
    damaged = cache.path("d" * 40)
    damaged.write_bytes(b"?")
    rows = cache.entries()
    assert {e.key for e, _ in rows} == {old.key, new.key, "d" * 40}
    assert all(e.data == b"" for e, _ in rows)
    assert next(e for e, _ in rows if e.key == "d" * 40).facts["damaged"]
    gone = cache.prune(older_than_days=90)
    assert {e.key for e in gone} == {old.key, "d" * 40}
    assert [e.key for e, _ in cache.entries()] == [new.key]
