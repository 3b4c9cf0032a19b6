"""Keys for two computers, as a biologist makes them; and frames that go through them."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

KEY = re.compile(r"public key:  (\S{40})")


def pellucid(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pellucid", *args], capture_output=True, text=True, cwd=cwd, timeout=60, check=False
    )


def key_of(out: subprocess.CompletedProcess[str]) -> str:
    assert out.returncode == 0, out.stderr
    found = KEY.search(out.stdout)
    assert found
    return found[1]


def fails(out: subprocess.CompletedProcess[str]) -> str:
    assert out.returncode == 2
    assert out.stdout == ""
    assert out.stderr.count("\n") == 1
    assert "Traceback" not in out.stderr
    return out.stderr


def test_three_steps_bring_two_computers_together(tmp_path):
    here, there = tmp_path / "session", tmp_path / "camera"
    here.mkdir()
    there.mkdir()
    first = pellucid("keys", "session.keys", cwd=here)
    session = key_of(first)
    assert f"pellucid keys camera.keys --session {session}" in first.stdout
    # What it says is typed as it stands, without quotes.
    typed = re.search(r"pellucid (keys camera\.keys .*)", first.stdout)[1].split()
    second = pellucid(*typed, cwd=there)
    camera = key_of(second)
    typed = re.search(r"pellucid (keys session\.keys .*)", second.stdout)[1].split()
    third = pellucid(*typed, cwd=here)
    assert key_of(third) == session
    assert f"may come (1):  {camera}" in third.stdout
    line = re.search(r"in the config:  (.*)", third.stdout)[1]
    assert 'keys = "session.keys"' in line
    if os.name == "posix":
        for path in (here / "session.keys", there / "camera.keys"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(path.name for path in here.iterdir()) == ["session.keys"]

    # And now for real, with pixels packed on their way.
    (here / "run.toml").write_text(
        line.replace("tcp://*:5599", "tcp://0.0.0.0:*") + "\n" + 'sinks = [{ kind = "null" }]\n'
    )
    from pellucid.config import Config
    from pellucid.live import make_session

    config = Config.load(here / "run.toml")
    port = config.source.listen().rpartition(":")[2]
    options = f"--to tcp://127.0.0.1:{port} --keys camera.keys --in-band --compress zstd --lossless"
    sending = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pellucid",
            "send",
            *options.split(),
            "--simulated",
            "--frames=20",
            "--set=shape=[64,64]",
        ],
        cwd=there,
        stdout=subprocess.PIPE,
        text=True,
    )
    made = make_session(config)
    try:
        made.open()
        report = made.run()
    finally:
        made.close()
        said = sending.communicate(timeout=30)[0]
    assert report["frames"]["received"] == 20
    assert report["frames"]["unaccounted"] == 0
    assert "packed with zstd" in said
    assert "produced 20, sent 20, dropped 0" in said


def test_a_file_that_exists_is_never_overwritten(tmp_path):
    key = key_of(pellucid("keys", "session.keys", cwd=tmp_path))
    before = (tmp_path / "session.keys").read_bytes()
    assert key_of(pellucid("keys", "session.keys", cwd=tmp_path)) == key  # it only says what is there
    other = key_of(pellucid("keys", "other.keys", cwd=tmp_path))
    line = fails(pellucid("keys", "session.keys", "--session", other, cwd=tmp_path))
    assert "not overwritten" in line
    assert (tmp_path / "session.keys").read_bytes() == before


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["none.keys", "--allow", "OTHER"], "Make it first: pellucid keys none.keys"),
        (["session.keys", "--allow", "short"], '--allow "short"'),
        (["new.keys", "--session", "#" * 40], "no CURVE key"),
        (["session.keys", "--allow", "SELF"], "the key of session.keys itself"),
        (["camera.keys", "--allow", "OTHER"], "camera.keys is a camera's"),
        (["session.keys", "--allow", "OTHER", "--session", "OTHER"], "give one of them"),
        (["nowhere/session.keys"], "cannot be written to nowhere"),
        (["bad.keys"], "holds no keys"),
        ([], "Missing argument"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, args, says, monkeypatch):
    from pellucid.errors import PellucidError
    from pellucid.wire.keyfile import tend_keys
    from pellucid.wire.keys import Curve

    mine, other = Curve.make(tmp_path / "session.keys").public, Curve.make(tmp_path / "other.keys").public
    Curve.make(tmp_path / "camera.keys", other)
    (tmp_path / "bad.keys").write_text("hello\n")
    args = [{"OTHER": other, "SELF": mine}.get(arg, arg) for arg in args]
    if not args:
        assert says in fails(pellucid("keys", cwd=tmp_path))
        return
    monkeypatch.chdir(tmp_path)
    options = dict(zip(args[1::2], args[2::2], strict=True))
    with pytest.raises(PellucidError, match=re.escape(says)) as caught:
        tend_keys(Path(args[0]), options.get("--session"), [options["--allow"]] if "--allow" in options else [])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new.keys").exists()


def test_several_cameras_may_come_and_twice_is_once(tmp_path):
    from pellucid.wire.keyfile import tend_keys
    from pellucid.wire.keys import Curve

    tend_keys(tmp_path / "session.keys", None, [])
    keys = [Curve.make(tmp_path / f"{i}.keys").public for i in range(3)]
    tend_keys(tmp_path / "session.keys", None, keys[:2])
    tend_keys(tmp_path / "session.keys", None, keys[1:])
    assert list(Curve.load(tmp_path / "session.keys").allowed) == keys


def test_the_secret_is_not_printed(tmp_path):
    from pellucid.wire.keyfile import tend_keys
    from pellucid.wire.keys import Curve

    lines = tend_keys(tmp_path / "session.keys", None, [])
    curve = Curve.load(tmp_path / "session.keys")
    assert curve.secret not in "".join(lines)
    assert curve.secret not in repr(curve)
