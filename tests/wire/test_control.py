"""A session that is spoken to from other processes: real sockets, real processes, and what strangers say."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.errors import SinkError, WireError
from pellucid.metrics import now_ns
from pellucid.wire.control import ControlServer, reachable
from pellucid.wire.control_client import ControlClient
from pellucid.wire.control_file import Running, running_sessions, runtime_folder
from pellucid.wire.control_message import ANSWER_LIMIT, REQUEST_LIMIT

SESSION = """
import sys, threading
from pellucid.wire.control import ControlServer

asked = []

def count(given):
    asked.append(given)
    return {"text": str(len(asked))}

with ControlServer({"count": count}, config=sys.argv[1]):
    print("open", flush=True)
    sys.stdin.read()
"""
ASKING = """
import json, sys
from pellucid.wire.control_client import ControlClient

with ControlClient.find(sys.argv[2] if len(sys.argv) > 2 else None) as session:
    print(json.dumps(session.ask(sys.argv[1], {"from": "another process"})))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "run"
    monkeypatch.setenv("PELLUCID_RUNTIME", str(path))
    return path


@contextmanager
def other_session(config: str = "other.toml") -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-c", SESSION, config], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "open\n"
        yield child
    finally:
        child.stdin.close()
        child.wait(20)
        child.stdout.close()


@contextmanager
def stranger(running: Running, key: str = "") -> Iterator[zmq.Socket[bytes]]:
    """Give a socket that says anything."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as raw:
        raw.linger = 0
        raw.curve_publickey, raw.curve_secretkey = zmq.curve_keypair()
        raw.curve_serverkey = (key or running.key).encode()
        raw.connect(running.address)
        yield raw


def hears(raw: zmq.Socket[bytes]) -> dict[str, object]:
    assert raw.poll(10_000)
    found = json.loads(raw.recv())
    assert isinstance(found, dict)
    return found


def is_line(answer: dict[str, object]) -> bool:
    error = answer.get("error")
    return set(answer) == {"error"} and isinstance(error, str) and 0 < len(error) < 3000 and error.isprintable()


def say(running: Running, **table: object) -> bytes:
    return json.dumps({"token": running.token, **table}).encode()


def in_thread(target) -> threading.Thread:
    thread = threading.Thread(target=target)
    thread.start()
    return thread


# ---------------------------------------------------------------- what it is for


def test_another_process_asks_and_is_answered():
    seen = []

    def start(given):
        seen.append((dict(given), threading.current_thread()))
        return {"text": "recording", "take": 2}

    with ControlServer({"record.start": start}, config="live.toml"):
        out = subprocess.run([sys.executable, "-c", ASKING, "record.start"], capture_output=True, text=True, timeout=60)
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout) == {"text": "recording", "take": 2}
    assert seen[0][0] == {"from": "another process"}
    assert seen[0][1] is not threading.main_thread()


def test_one_connection_asks_many_things_in_turn():
    with ControlServer({"twice": lambda given: {"n": 2 * given["n"]}}), ControlClient.find() as session:
        assert [session.ask("twice", {"n": n})["n"] for n in range(50)] == [2 * n for n in range(50)]
        assert session.ask("twice", {"n": "µ"})["n"] == "µµ"


def test_two_sessions_are_told_apart(tmp_path):
    config = tmp_path / "live.toml"
    config.write_text("")
    with ControlServer({"who": lambda _: {"text": "here"}}, config=str(config)) as here, other_session() as there:
        with pytest.raises(WireError, match="2 sessions run") as error:
            ControlClient.find()
        assert f"live.toml (pid {os.getpid()})" in str(error.value)
        assert f"other.toml (pid {there.pid})" in str(error.value)
        assert "--session" in str(error.value)
        for which in (str(os.getpid()), "live.toml", "live", str(config), os.path.relpath(config)):
            with ControlClient.find(which) as session:
                assert session.session == here.running, which
                assert session.ask("who") == {"text": "here"}
        with ControlClient.find(str(there.pid)) as session:
            assert session.ask("count") == {"text": "1"}
        with pytest.raises(WireError, match=r'"livee": no such session. Running: .*live.toml.* Type --session'):
            ControlClient.find("livee")
    with pytest.raises(WireError, match="Start one: pellucid run"):
        ControlClient.find()


def test_sessions_of_one_process_can_be_named_as_well():
    with ControlServer({}, config="a.toml") as one, ControlServer({"n": lambda _: {"n": 2}}, config="b.toml") as two:
        assert one.running.address != two.running.address
        with pytest.raises(WireError, match=r"2 sessions run: a.toml .*, b.toml .* Say which: --session b.toml$"):
            ControlClient.find()
        with ControlServer({}, config="b.toml"):
            with pytest.raises(WireError, match=r'"b": 2 sessions are called so: .*--session tcp://\S+$'):
                ControlClient.find("b")
            with ControlClient.find(two.running.address) as session:
                assert session.ask("n") == {"n": 2}


# ---------------------------------------------------------------- the file


def test_the_file_is_the_users_alone_and_goes_with_the_session(folder):
    with ControlServer({"a": dict}, config="x.toml") as server:
        (path,) = folder.iterdir()
        found = json.loads(path.read_text())
        assert {"pid", "born", "address", "token", "config", "began"} <= set(found)
        assert found["address"].startswith("tcp://127.0.0.1:")
        assert len(found["token"]) >= 32
        assert server.running.token not in repr(server.running)
        if sys.platform != "win32":
            assert path.stat().st_mode & 0o777 == 0o600
            assert folder.stat().st_mode & 0o777 == 0o700
        assert running_sessions() == [server.running]
    assert list(folder.iterdir()) == []
    server.close()


def test_a_killed_session_is_not_found_and_its_file_is_removed(folder):
    with other_session() as child:
        assert [session.pid for session in running_sessions()] == [child.pid]
        child.kill()
        # Not waited for: the process is a zombie then, which is as gone as can be.
        end = time.monotonic() + 20
        while running_sessions() and time.monotonic() < end:
            time.sleep(0.01)
        assert list(folder.iterdir()) == []
        with pytest.raises(WireError, match="no session of yours"):
            ControlClient.find(str(child.pid))


def test_a_process_number_given_again_is_another_session(folder):
    with ControlServer({}) as server:
        before = replace(server.running, born=server.running.born - 3600)
        stale = before.announce(folder)
        assert running_sessions() == [server.running]
        assert not stale.exists()


def test_a_clock_that_was_set_does_not_lose_a_session(monkeypatch):
    """Linux reckons from the boot, whose time of the clock moves when the clock is set."""
    if sys.platform != "linux":
        pytest.skip("elsewhere the system keeps the time at which a process began")
    with ControlServer({}) as server:
        boot, create = psutil.boot_time, psutil.Process.create_time
        monkeypatch.setattr(psutil, "boot_time", lambda: boot() + 7200)
        monkeypatch.setattr(psutil.Process, "create_time", lambda process: create(process) + 7200)
        assert running_sessions() == [server.running]


def test_what_lies_in_the_folder_is_left_alone_where_it_is_no_session_of_here(folder):
    with ControlServer({}) as server:
        good = json.loads(server.running.text())
        strange = {
            "empty": b"",
            "text": b"hello",
            "binary": os.urandom(500),
            "list": b"[1]",
            "deep": b"[" * 60_000,
            "large": b'{"a": "' + b"x" * 100_000 + b'"}',
            "version": json.dumps({**good, "pellucid": 2}).encode(),
            "more": json.dumps({**good, "more": 1}).encode(),
            "less": json.dumps({"pellucid": 1}).encode(),
            "pid": json.dumps({**good, "pid": 10**30}).encode(),
            "negative": json.dumps({**good, "pid": -1}).encode(),
            "born": json.dumps({**good, "born": 10**400}).encode(),
            "away": json.dumps({**good, "address": "tcp://192.168.0.1:5555"}).encode(),
            "key": json.dumps({**good, "key": "short"}).encode(),
            "commands": json.dumps({**good, "commands": "all"}).encode(),
            "elsewhere": json.dumps({**good, "host": "another computer", "pid": 1}).encode(),
        }
        for name, data in strange.items():
            (folder / f"{name}.json").write_bytes(data)
        (folder / "folder.json").mkdir()
        if sys.platform != "win32":
            os.mkfifo(folder / "pipe.json")
            (folder / "link.json").symlink_to(folder / "elsewhere.json")
        assert running_sessions() == [server.running]
        assert {path.stem for path in folder.iterdir()} >= set(strange)


@pytest.mark.skipif(sys.platform == "win32", reason="files have an owner that a program can give away on POSIX only")
def test_a_file_of_another_user_is_not_trusted(folder):
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    with ControlServer({}) as server:
        planted = server.running.announce(folder)
        os.chown(planted, 12345, 12345)
        assert running_sessions() == [server.running]
        assert planted.exists()


def test_a_file_that_was_swept_away_is_written_again(folder):
    with ControlServer({"a": dict}) as server:
        (path,) = folder.iterdir()
        path.unlink()
        with ControlClient(server.running) as session:
            session.ask("a")
        end = time.monotonic() + 10
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.01)
        assert running_sessions() == [server.running]
    assert list(folder.iterdir()) == []


def test_the_folder_is_the_users_own_where_none_is_named(monkeypatch):
    monkeypatch.delenv("PELLUCID_RUNTIME")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert runtime_folder().name == "pellucid"
    assert runtime_folder().is_absolute()


@pytest.mark.parametrize("given", ["here", "~no-such-user-anywhere/x"])
def test_a_folder_that_is_none_is_one_line(monkeypatch, given):
    monkeypatch.setenv("PELLUCID_RUNTIME", given)
    with pytest.raises(WireError, match="whole path"):
        ControlClient.find()
    with pytest.raises(WireError, match="whole path"):
        ControlServer({}).open()


# ---------------------------------------------------------------- strangers


def test_a_wrong_token_is_refused_and_counted():
    done = []
    with ControlServer({"a": lambda _: done.append(1) or {}}) as server:
        for token in ("", "x" * 43, "é", "\ud800", server.running.token[:-1], server.running.token + " "):
            with (
                ControlClient(replace(server.running, token=token)) as session,
                pytest.raises(WireError, match="token is not the one"),
            ):
                session.ask("a")
        assert server.refused == 6
        assert not done
        with stranger(server.running) as raw:
            for token in (None, 1, [], {}, True):
                raw.send(json.dumps({"token": token, "command": "a"}).encode())
                assert "token" in hears(raw)["error"]
        assert server.refused == 11
        with ControlClient(server.running) as session:
            assert session.ask("a") == {}


def test_who_has_not_read_the_file_is_not_heard_at_all():
    with ControlServer({"a": dict}) as server:
        with stranger(server.running, zmq.curve_keypair()[0].decode()) as raw:
            raw.send(say(server.running, command="a"))
            assert not raw.poll(300)
        with zmq.Context() as context, context.socket(zmq.DEALER) as plain:
            plain.linger = 0
            plain.connect(server.running.address)
            plain.send(say(server.running, command="a"))
            assert not plain.poll(300)
        port = int(server.running.address.rpartition(":")[2])
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 10_000, b"", secrets.token_bytes(1 << 20)):
            with socket.create_connection(("127.0.0.1", port)) as tcp:
                try:
                    tcp.sendall(data)
                except OSError:  # it hung up
                    pass
        with ControlClient.find() as session:
            assert session.ask("a") == {}


def test_any_bytes_are_answered_with_one_line():
    with ControlServer({"a": dict}) as server, stranger(server.running) as raw:

        @settings(max_examples=300, deadline=None)
        @given(st.lists(st.binary(max_size=200), min_size=1, max_size=3))
        def every(parts):
            raw.send_multipart(parts)
            assert is_line(hears(raw))

        every()
        for odd in (
            b"[" * 60_000,
            b'{"a":' * 10_000,
            b"NaN",
            b"9" * 60_000,
            b"\xff\xfe{\0}\0",
            b'{"token": NaN}',
            b"{}",
        ):
            raw.send(odd)
            assert is_line(hears(raw)), odd[:10]
        raw.send(say(server.running, command="a"))
        assert hears(raw) == {"ok": True}


def test_any_json_with_the_right_token_is_answered():
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )
    keys = st.sampled_from(["command", "given", "until_ns"]) | st.text(max_size=8)
    with ControlServer({"a": lambda given: {"given": given}}) as server, stranger(server.running) as raw:

        @settings(max_examples=300, deadline=None)
        @given(st.dictionaries(keys, values | st.just("a"), max_size=4))
        def every(table):
            raw.send(say(server.running, **{k: v for k, v in table.items() if k != "token"}))
            answer = hears(raw)
            assert is_line(answer) or (answer["ok"] is True and table["command"] == "a")

        every()
        assert server.refused == 0


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, "command is a text"),
        ({"command": "b"}, 'no command "b" in this session. Known: a'),
        ({"command": "aa"}, 'Did you mean "a"? Known: a'),
        ({"command": "record\n\x1b[2J"}, 'no command "record [2J" in'),
        ({"command": "a", "given": [1]}, "given an object"),
        ({"command": "a", "until_ns": "soon"}, "until_ns is a whole number"),
        ({"command": "a", "until_ns": True}, "until_ns is a whole number"),
        ({"command": "a", "until_ns": -5}, "waits no longer"),
        ({"command": "a", "more": 1}, '"more" is not known'),
    ],
)
def test_what_is_wrong_with_a_request_is_said(table, says):
    with ControlServer({"a": dict}) as server, stranger(server.running) as raw:
        raw.send(say(server.running, **table))
        answer = hears(raw)
        assert is_line(answer)
        assert says in answer["error"]


def test_a_request_that_is_too_large_is_refused_on_both_sides():
    with ControlServer({"a": dict}) as server:
        with stranger(server.running) as raw:
            raw.send(say(server.running, command="a", given={"x": "y" * REQUEST_LIMIT}))
            assert f"{REQUEST_LIMIT} are allowed" in hears(raw)["error"]
            raw.send(say(server.running, command="a"))
            assert hears(raw) == {"ok": True}
        with stranger(server.running) as raw:
            raw.send(b"x" * (ANSWER_LIMIT + 1))  # the connection is cut
            assert not raw.poll(300)
        with ControlClient.find() as session:
            with pytest.raises(WireError, match="cannot be sent: it has"):
                session.ask("a", {"x": "y" * REQUEST_LIMIT})
            with pytest.raises(WireError, match="cannot be said in JSON"):
                session.ask("a", {"x": Path("x")})
            assert session.ask("a") == {}


# ---------------------------------------------------------------- commands that fail, take long, are ended


def test_a_command_that_raises_is_one_line():
    def mistake(_):
        raise SinkError("already recording take 1:\n type pellucid record stop first")

    def fault(_):
        raise ZeroDivisionError("by\nzero")

    def leaves(_):
        raise SystemExit(3)

    commands = {
        "mistake": mistake,
        "fault": fault,
        "leaves": leaves,
        "path": lambda _: {"to": Path("x")},
        "large": lambda _: {"x": "y" * ANSWER_LIMIT},
        "none": lambda _: None,
        "well": lambda _: {"text": "fine", "error": "of old", "ok": False},
    }
    with ControlServer(commands), ControlClient.find() as session:
        for command, says in {
            "mistake": "^already recording take 1: type pellucid record stop first$",
            "fault": "^fault failed: ZeroDivisionError: by zero$",
            "leaves": "^leaves failed: SystemExit: 3$",
            "path": "was done, but its answer cannot be sent: it cannot be said in JSON",
            "large": "was done, but its answer cannot be sent: it has",
            "none": "^none was done, but returned no table$",
        }.items():
            with pytest.raises(WireError, match=says):
                session.ask(command)
        assert session.ask("well") == {"text": "fine", "error": "of old"}


def test_a_command_that_takes_long_is_told_of_and_what_waits_behind_it_is_not_begun_later():
    may_end = threading.Event()
    done = []

    def slow(_):
        may_end.wait(30)
        done.append("slow")
        return {}

    commands = {"slow": slow, "quick": lambda _: done.append("quick") or {"text": "quick"}}
    with ControlServer(commands, answer_s=0.3) as server:
        with ControlClient(server.running) as one, ControlClient(server.running) as two:
            with pytest.raises(WireError, match=r"slow is not done after 0\.\d s; it goes on"):
                one.ask("slow")
            with pytest.raises(WireError, match="quick was not begun: slow has not come to its end"):
                two.ask("quick")
            may_end.set()
            end = time.monotonic() + 20
            while not done and time.monotonic() < end:
                time.sleep(0.01)
            assert two.ask("quick") == {"text": "quick"}
        assert done == ["slow", "quick"]


def test_commands_run_one_at_a_time_and_no_more_wait_than_there_is_room_for():
    at_once = []
    inside = threading.Lock()
    may_end = threading.Event()

    def alone(given):
        at_once.append(inside.acquire(blocking=False))
        may_end.wait(30)
        inside.release()
        return {"n": given["n"]}

    with ControlServer({"alone": alone}) as server, stranger(server.running) as raw:
        for n in range(30):
            raw.send(say(server.running, command="alone", given={"n": n}))
        refused = [hears(raw) for _ in range(13)]
        assert all("16 others wait" in answer["error"] for answer in refused)
        may_end.set()
        assert [hears(raw)["n"] for _ in range(17)] == list(range(17))
    assert all(at_once)


def test_closing_lets_the_command_that_runs_end_and_answers_everybody():
    begun, may_end = threading.Event(), threading.Event()

    def slow(_):
        begun.set()
        may_end.wait(30)
        return {"text": "done"}

    server = ControlServer({"slow": slow, "late": dict}).open()
    answers: dict[str, object] = {}

    def ask(command):
        with ControlClient(server.running) as session:
            try:
                answers[command] = session.ask(command)
            except WireError as error:
                answers[command] = str(error)

    asking = in_thread(lambda: ask("slow"))
    assert begun.wait(20)
    behind = in_thread(lambda: ask("late"))
    with stranger(server.running) as raw:  # heard in turn: the one behind is in the queue when this is answered
        while not server._work._waiting:
            raw.send(b"{}")
            hears(raw)
    closing = in_thread(server.close)
    behind.join()
    assert answers["late"] == "late was not begun: the session is ending"
    assert closing.is_alive()
    assert running_sessions() == []
    may_end.set()
    for thread in (asking, closing):
        thread.join()
    assert answers["slow"] == {"text": "done"}


def test_closing_does_not_wait_for_ever_for_a_command():
    begun, may_end = threading.Event(), threading.Event()

    def stuck(_):
        begun.set()
        may_end.wait(60)
        return {}

    server = ControlServer({"stuck": stuck}, answer_s=0.5).open()
    with ControlClient(server.running) as session:
        told = []

        def ask():
            try:
                session.ask("stuck")
            except WireError as error:
                told.append(str(error))

        asking = in_thread(ask)
        assert begun.wait(20)
        server.close()
        asking.join()
    assert "stuck is not done" in told[0]
    assert not may_end.is_set()
    may_end.set()  # it comes back to a server that is closed


def test_a_session_that_stands_still_is_told_and_does_nothing_late():
    with other_session() as child, ControlClient.find() as session:
        assert session.ask("count") == {"text": "1"}
        process = psutil.Process(child.pid)
        process.suspend()
        while process.status() != psutil.STATUS_STOPPED:  # a busy computer takes its time
            time.sleep(0.01)
        try:
            with pytest.raises(WireError, match=r"did not answer count within 0.5 s.*terminal"):
                session.ask("count", timeout_s=0.5)
        finally:
            process.resume()
        assert session.ask("count") == {"text": "2"}


def test_a_session_that_dies_while_it_is_asked_is_noticed():
    with other_session() as child, ControlClient.find() as session:
        before = now_ns()
        child.kill()
        child.wait(20)
        with pytest.raises(WireError, match="ended before it answered"):
            session.ask("count", timeout_s=60)
        assert now_ns() - before < 30e9


# ---------------------------------------------------------------- a session that offers it


class Part:
    def __init__(self, **commands):
        self._commands = commands

    def commands(self):
        return self._commands


def test_the_commands_of_all_sinks_are_reachable_while_it_runs():
    notes: list[str] = []
    parts = {"null": object(), "a": Part(one=lambda _: {"n": 1}), "b": Part(two=lambda _: {"n": 2}, one=dict)}
    with reachable(parts, "live.toml", notes.append), ControlClient.find("live") as session:
        assert session.session.commands == ("one", "two")
        assert [session.ask(command)["n"] for command in ("one", "two")] == [1, 2]
    assert len(notes) == 1
    assert "b: another sink has a command one already" in notes[0]
    assert running_sessions() == []


def test_a_sink_that_fails_to_tell_its_commands_harms_nobody():
    class Broken:
        def commands(self):
            raise ZeroDivisionError

    notes: list[str] = []
    with reachable({"bad": Broken(), "good": Part(one=dict)}, "", notes.append), ControlClient.find() as session:
        assert session.ask("one") == {}
    assert "bad: its commands cannot be asked for: ZeroDivisionError" in notes[0]


def test_refused_requests_are_told_at_the_end():
    notes: list[str] = []
    with reachable({}, "", notes.append) as server, stranger(server.running) as raw:
        raw.send(b'{"token": "no"}')
        assert is_line(hears(raw))
    assert notes == ["requests of other processes that had a wrong token and were refused: 1"]


def test_a_session_runs_where_the_folder_cannot_be_written(folder):
    folder.write_text("a file where the folder should be")
    notes: list[str] = []
    ran = []
    with reachable({}, "live.toml", notes.append) as server:
        ran.append(server)
    assert ran == [None]
    assert len(notes) == 1
    assert "cannot be written" in notes[0]
    assert "PELLUCID_RUNTIME" in notes[0]


def test_only_this_computer_can_be_listened_to(unused_port):
    for address in ("tcp://*:5600", "tcp://0.0.0.0:5600", "tcp://192.168.0.1:5600", "ipc:///tmp/x", "5600"):
        with pytest.raises(WireError, match="only this computer"):
            ControlServer({}, address)
    with ControlServer({"a": dict}, f"tcp://127.0.0.1:{unused_port}"):
        with ControlClient.find() as session:
            assert session.ask("a") == {}
        with pytest.raises(WireError, match="nothing can listen at"):
            ControlServer({}, f"tcp://127.0.0.1:{unused_port}").open()
