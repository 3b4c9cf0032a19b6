"""The configs that come with pellucid: each says whom it is for, is found by name, checks and runs as it is."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.ready_made import HEADS, copy_config, find_config, ready_made

ROOT = Path(__file__).parents[2]
PATHS = sorted(ROOT.glob("configs/*.toml"))
WANTED = (
    "lowest-latency",
    "highest-throughput",
    "time-lapse",
    "denoise",
    "deconvolve-stack",
    "two-cameras",
    "wire",
    "replay",
)
each = pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)


def pellucid(*args: str, cwd: Path | None = None, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pellucid", *args],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=cwd,
        timeout=110,
        check=False,
        **more,
    )


def test_the_ones_that_people_ask_for_are_there():
    assert set(WANTED) <= {path.stem for path in PATHS}
    assert {name: config.path for name, config in ready_made().items()} == {path.stem: path for path in PATHS}


@each
def test_each_says_whom_it_is_for_what_it_costs_and_what_to_change_first(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    head = ready_made()[path.stem].head
    assert tuple(head) == HEADS
    assert all(len(text) > 10 for text in head.values()), head
    assert f"#   pellucid run configs/{path.name}" in "\n".join(lines), "how it is run"
    assert max(map(len, lines)) <= 135


@each
def test_keys_that_a_head_names_are_in_the_config(path):
    """Of what is to be changed first: what looks like a key of this config has to be one."""
    text = path.read_text(encoding="utf-8")
    for word in re.findall(r"\b[a-z]+_[a-z_]+\b", ready_made()[path.stem].head["Change first"]):
        assert re.search(rf"^#? ?.*\b{word} = ", text, re.MULTILINE), word


@each
def test_check_finds_no_fault(path, screen, tmp_path):
    out = pellucid("check", str(path), "--shape", "512x512", cwd=tmp_path)
    assert out.returncode == 0, out.stdout + out.stderr
    assert "this would not run" not in out.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(180)
@each
def test_each_runs_as_it_is(path, tmp_path):
    """By its name, in a folder of the user's; the one that waits for a sender gets the camera that its head names."""
    text = path.read_text(encoding="utf-8")
    # Frames and not seconds, which a busy computer may spend before the first one.
    sets = ["--set", f"session.frames={3 if path.stem == 'time-lapse' else 12}"]
    recorders = [i for i, sink in enumerate(re.findall(r"^kind = .(recorder|window|null)", text, re.MULTILINE))
                 if sink == "recorder"]  # fmt: skip
    if recorders:
        sets += ["--set", f"sinks.{recorders[0]}.path={(tmp_path / 'rec').as_posix()}"]
    camera = None
    if 'kind = "wire"' in text:
        port = free_port()
        sets += ["--set", f"source.bind=tcp://127.0.0.1:{port}"]
        camera = subprocess.Popen(
            [sys.executable, "-m", "pellucid", "send", "--cfg", "demo", "--to", f"tcp://127.0.0.1:{port}", "--once"],
            stdout=subprocess.DEVNULL,
        )
    out = pellucid("run", path.stem, "--headless", *sets, cwd=tmp_path)
    if camera is not None:
        assert camera.wait(30) == 0
    assert out.returncode == 0, out.stderr + out.stdout
    assert "raw only from here" not in out.stdout
    if not recorders:
        assert path.stem == "raw-only"
        return
    report = json.loads((tmp_path / "rec/report.json").read_text(encoding="utf-8"))
    frames = report["frames"]
    # A frame is a plane of the camera; of stacks there are fewer than twelve in that experiment.
    assert frames["recorded"] == (22 if 'unit = "stack"' in text else 3 if path.stem == "time-lapse" else 12)
    assert frames["unaccounted"] == 0
    assert frames["processed"] >= 1
    if 'restore = "every"' in text:
        assert frames["processed"] == frames["recorded"]
    if path.stem == "two-cameras":
        assert set(report["cameras"]) == {"Left", "Right"}
    assert pellucid("verify", str(tmp_path / "rec")).returncode == 0


# ---------------------------------------------------------------- by name


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("simulated") == ROOT / "configs/simulated.toml"
    Path("simulated").write_text("")
    assert find_config("simulated") == Path("simulated")
    assert find_config("nowhere/simulated") == Path("nowhere/simulated")
    assert find_config("simulated.toml") == Path("simulated.toml")


def test_names_work_from_python_as_well(tmp_path):
    config = Config.load("replay", [f"sinks.0.path={(tmp_path / 'r').as_posix()}"], headless=True)
    assert config.source.path == ROOT / "configs/sample/zebrafish.tif"


@pytest.mark.parametrize("command", [["run"], ["check"], ["process", "configs/sample/zebrafish.tif", "OUT"]])
def test_a_name_that_is_none_is_one_line_with_the_nearest(command, tmp_path):
    command = [str(ROOT / word) if word.startswith("configs/") else word for word in command]
    out = pellucid(*command, "lowest-latancy", cwd=tmp_path)
    assert out.returncode == 2
    assert len(out.stderr.strip().splitlines()) == 1, out.stderr
    assert '"lowest-latency"' in out.stderr
    assert "pellucid configs list" in out.stderr
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- copies


@each
def test_a_copy_holds_all_that_it_needs_and_checks_where_it_lies(path, tmp_path):
    made = copy_config(path.stem, tmp_path / "deep/mine.toml")
    assert made[0] == tmp_path / "deep/mine.toml"
    assert made[0].read_bytes() == path.read_bytes()
    Config.load(made[0], headless=True)
    for other in made[1:]:
        assert other.read_bytes() == (path.parent / other.relative_to(tmp_path / "deep")).read_bytes()
    if path.stem == "replay":
        assert [p.name for p in made[1:]] == ["LICENSE", "zebrafish.tif"]


def test_nothing_is_overwritten(tmp_path):
    copy_config("two-cameras", tmp_path)
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        copy_config("two-cameras", tmp_path)
    assert [p.name for p in copy_config("two-cameras", tmp_path / "again.toml")] == ["again.toml"]
    (tmp_path / "two-cameras.cfg").write_text("mine")
    with pytest.raises(ConfigError, match=r"two-cameras\.cfg"):
        copy_config("two-cameras", tmp_path / "third.toml")
    assert not (tmp_path / "third.toml").exists()
    assert (tmp_path / "two-cameras.cfg").read_text() == "mine"


def test_the_command_lists_shows_copies_and_refuses_in_one_line(tmp_path):
    out = pellucid("configs", "list", cwd=tmp_path)
    assert out.returncode == 0
    for name in ready_made():
        assert re.search(rf"^{name} ", out.stdout, re.MULTILINE)
    out = pellucid("configs", "show", "wire", cwd=tmp_path)
    assert out.stdout == (ROOT / "configs/wire.toml").read_text(encoding="utf-8")
    out = pellucid("configs", "copy", "wire", "mine.toml", cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    assert "made mine.toml" in out.stdout
    out = pellucid("configs", "copy", "wire", "mine.toml", cwd=tmp_path)
    assert (out.returncode, len(out.stderr.strip().splitlines())) == (2, 1)
    out = pellucid("configs", "copy", "wir", cwd=tmp_path)
    assert out.returncode == 2
    assert '"wire"' in out.stderr


# ---------------------------------------------------------------- installed


@pytest.mark.timeout(240)
def test_an_installed_pellucid_has_them(tmp_path):
    """In a wheel of this checkout, found by name by a child process that sees nothing else of it."""
    pytest.importorskip("hatchling", reason="needs hatchling: pip install hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    wheel = next(tmp_path.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    out = pellucid(
        "run", "replay", "--headless", "--frames", "3", "--set", "sinks=[]",
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
    )  # fmt: skip
    assert out.returncode == 0, out.stderr
    shown = pellucid("configs", "list", env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")}, cwd=tmp_path)
    for name in ready_made():
        assert f"\n{name} " in "\n" + shown.stdout
    assert (tmp_path / "installed/pellucid/ready_made_configs/sample/LICENSE").is_file()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
