"""``pellucid view ADDRESS``: the door of a session, with real sockets and keys, and windows that are none of Qt's."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from slow_cable import SlowCable
from view_parts import Scope, accounted, make_keys, seen, until, write_config
from wire_parts import LONG_S

from pellucid.config import Config
from pellucid.errors import ConfigError, PellucidError
from pellucid.metrics import now_ns
from pellucid.viewer.newest import WHY, Newest
from pellucid.viewer.ways import Far
from pellucid.wire.keys import Curve
from pellucid.wire.receiver import Receiver
from pellucid.wire.view_client import ViewClient
from pellucid.wire.view_door import HELLO, ViewDoor

HERE = Path(__file__).parent
HOUR_NS = 3_600_000_000_000


@pytest.fixture
def address(unused_port) -> str:
    return f"tcp://127.0.0.1:{unused_port}"


@pytest.fixture
def scope(tmp_path, monkeypatch, address):
    monkeypatch.chdir(tmp_path)
    make_keys(tmp_path)
    made: list[Scope] = []

    def begin(**keys) -> Scope:
        made.append(Scope(write_config(tmp_path, address, **keys)))
        return made[-1].begun()

    yield begin
    for one in made:
        one.end()


@pytest.fixture
def looker(tmp_path, address):
    """A process that looks at the session; its clock may be another one."""
    made: list[subprocess.Popen] = []

    def begin(name: str = "seen", ahead_ns: int = 0, compress: str = "") -> Path:
        status = tmp_path / f"{name}.json"
        far = [str(HERE / "far.py"), str(ahead_ns), "0.0"] if ahead_ns else []
        line = [sys.executable, *far, str(HERE / "looker.py"), address, "laptop.keys", str(status), compress]
        made.append(subprocess.Popen(line, cwd=tmp_path))
        return status

    begin.processes = made
    yield begin
    for process in made:
        process.kill()
        process.wait()


def client(folder: Path, address: str) -> ViewClient:
    return ViewClient(address, Curve.load(folder / "laptop.keys"))


def ask(folder: Path, address: str, port: int) -> None:
    with client(folder, address) as asks:
        asks.ask("view.attach", {"port": port}, timeout_s=LONG_S)


# ------------------------------------------------------------------------------------------ frames


@pytest.mark.parametrize("compress", ["", "lz4"])
def test_frames_come_over_the_network_and_each_is_accounted_for(scope, looker, compress):
    session = scope()
    status = looker(compress=compress)
    until(lambda: seen(status)["frames"] > 10)
    told = seen(status)
    assert told["in_band"] is True
    assert told["sums"] > 0
    assert "a window on another computer (tcp://127.0.0.1:" in session.notes
    until(lambda: session.drawn() > 5)
    assert session.windows[0]._link._sender.codec == compress
    assert not session.windows[0]._link._sender.attached
    accounted(session.end())


def test_times_are_told_by_the_clock_of_the_window(scope, looker):
    session = scope()
    status = looker(ahead_ns=7 * HOUR_NS)
    until(lambda: seen(status)["frames"] > 30)
    told = seen(status)
    assert all(-1000 < age < 60_000 for age in told["age_ms"][10:])
    assert told["unsure_ms"] > 0
    accounted(session.end())


def test_the_next_run_at_the_address_is_shown_as_well(scope, looker):
    first = scope()
    status = looker()
    until(lambda: seen(status)["frames"] > 3)
    accounted(first.end())
    until(lambda: "nobody answers" in seen(status)["why"])
    second = scope()
    before = seen(status)["frames"]
    until(lambda: seen(status)["sessions"] == 2 and seen(status)["frames"] > before + 3)
    accounted(second.end())


def test_a_window_that_dies_is_noted_and_costs_nothing(scope, looker):
    session = scope()
    status = looker()
    until(lambda: seen(status)["frames"] > 3)
    looker.processes[0].kill()
    until(lambda: "is closed, or cannot be reached any more" in session.notes)
    until(lambda: not session.windows)
    accounted(session.end())


def test_a_slow_network_leaves_frames_out_and_nothing_waits(scope, tmp_path, address):
    session = scope()
    curve = Curve.load(tmp_path / "laptop.keys")
    mine = replace(curve, server=None, allowed=(curve.server,))
    receiver = Receiver("tcp://127.0.0.1:*", curve=mine, planes=("raw", "restored", WHY), turns=True)
    cable = SlowCable(receiver.endpoint, 0.4, 0.4)
    frames = 0
    try:
        port = int(cable.endpoint.rpartition(":")[2])
        asking = threading.Thread(target=ask, args=(tmp_path, address, port))
        asking.start()
        hello = until(lambda: receiver.accept(0.1))
        newest = Newest(receiver, hello)

        def look() -> int:
            nonlocal frames

            def show(position, planes, info) -> None:
                nonlocal frames
                frames += 1

            newest.look(show)
            newest.drawn(now_ns())
            return frames

        begun = session.session.ledger.received
        until(lambda: look() > 8)
        asking.join()
        taken = session.session.ledger.received - begun
        assert session.windows[0].skipped > 0
        assert taken > frames
    finally:
        cable.close()  # before who listens behind it
        receiver.close()
    newest.close()
    accounted(session.end())


# ------------------------------------------------------------------------------------- who may come


def test_who_may_not_come_is_told_why_in_a_line(scope, tmp_path, address):
    session = scope()
    laptop = Curve.load(tmp_path / "laptop.keys")
    stranger = Curve.make(tmp_path / "stranger.keys", laptop.server)
    with ViewClient(address, stranger) as asks, pytest.raises(PellucidError) as caught:
        asks.ask("view.about")
    assert f"is not on the list there. Type there: pellucid keys SESSION.keys --allow {stranger.public}" in str(
        caught.value
    )
    with ViewClient(address, replace(laptop, server=stranger.public)) as asks, pytest.raises(PellucidError) as caught:
        asks.ask("view.about")
    assert "the keys do not fit" in str(caught.value)
    assert "\n" not in str(caught.value)
    until(lambda: f"--allow {stranger.public}" in session.notes)
    with pytest.raises(PellucidError, match="does not say which session it goes to"):
        ViewClient(address, replace(laptop, server=None))
    accounted(session.end())


def test_where_no_session_is_it_says_so(tmp_path, address):
    make_keys(tmp_path)
    with pytest.raises(
        PellucidError, match=r"nobody answers\. Does the session run, with \[session\.view\] in its config"
    ):
        Far(address, tmp_path / "laptop.keys").first(None, 60)


def test_a_name_that_is_none_is_said_in_a_line(tmp_path):
    make_keys(tmp_path)
    for wrong in ("tcp://scope", "tcp://*:5610", "udp://scope:5610"):
        with pytest.raises(PellucidError, match="is no endpoint"):
            Far(wrong, tmp_path / "laptop.keys")
    with pytest.raises(PellucidError, match="cannot be read"):
        Far("tcp://127.0.0.1:5610", tmp_path / "none.keys")


def test_frames_go_to_the_computer_that_asked_and_to_no_other(scope, tmp_path, address, unused_port, monkeypatch):
    monkeypatch.setattr("pellucid.sinks.attached.FAR_CONNECT_S", 0.3)
    session = scope()
    with client(tmp_path, address) as asks:
        with pytest.raises(PellucidError, match="frames go back to the computer that asks for them"):
            asks.ask("view.attach", {"endpoint": "tcp://192.0.2.7:5611", "port": 5611})
        with pytest.raises(PellucidError) as caught:
            asks.ask("view.attach", {"port": unused_port, "#from": {"address": "192.0.2.7", "key": "x"}})
    assert f"cannot reach this computer at tcp://127.0.0.1:{unused_port}. Open port {unused_port}" in str(caught.value)
    assert "192.0.2.7" not in str(caught.value) + session.notes
    assert session.windows == []
    accounted(session.end())


def test_who_listens_there_with_another_key_gets_no_frame(scope, tmp_path, address, monkeypatch):
    """The one who asked is on the list; what listens at its port has other keys."""
    monkeypatch.setattr("pellucid.sinks.attached.FAR_CONNECT_S", 0.5)
    session = scope()
    other = Curve.make(tmp_path / "other.keys")
    receiver = Receiver("tcp://127.0.0.1:*", curve=other, planes=("raw", WHY), turns=True)
    with client(tmp_path, address) as asks, pytest.raises(PellucidError):
        asks.ask("view.attach", {"port": int(receiver.endpoint.rpartition(":")[2])})
    assert receiver.accept(0.1) is None
    receiver.close()
    assert session.windows == []
    accounted(session.end())


@pytest.mark.parametrize(
    "given",
    [{}, {"port": 0}, {"port": 70000}, {"port": "5611"}, {"port": True}, {"port": 5611, "compress": "gzip"},
     {"port": 5611, "max_fps": 0}, {"port": 5611, "stack": "all"}],
)  # fmt: skip
def test_a_wrong_request_is_refused_in_a_line(scope, tmp_path, address, given):
    scope()
    with client(tmp_path, address) as asks, pytest.raises(PellucidError, match=r"^view\.attach: ") as caught:
        asks.ask("view.attach", given)
    assert "\n" not in str(caught.value)


def test_too_many_windows_are_refused_in_a_line(scope, tmp_path, address, monkeypatch):
    scope()
    monkeypatch.setattr("pellucid.runtime.onlookers.MOST", 0)
    with pytest.raises(PellucidError, match="look at this session already"):
        Far(address, tmp_path / "laptop.keys").first(None, 60)


def test_a_port_that_is_taken_here_is_named(scope, tmp_path, address):
    scope()
    with contextlib.closing(Receiver("tcp://127.0.0.1:*")) as taken:
        port = int(taken.endpoint.rpartition(":")[2])
        with pytest.raises(PellucidError, match=f"port {port} is taken. Choose another: --port N"):
            Far(address, tmp_path / "laptop.keys", port).first(None, 60)


def test_another_version_is_named(tmp_path, address):
    make_keys(tmp_path)
    old = {HELLO: lambda _: {"now_ns": 0, "wire": 1}}
    door = ViewDoor(old, address, Curve.load(tmp_path / "scope.keys")).open()
    try:
        with client(tmp_path, address) as asks, pytest.raises(PellucidError, match="update the older pellucid"):
            asks.ask("view.about")
    finally:
        door.close()


# ----------------------------------------------------------------------------------------- controls


def test_who_looks_changes_nothing_where_the_config_does_not_say_so(scope, tmp_path, address):
    session = scope(recorder='start = "armed"')
    with client(tmp_path, address) as asks:
        assert asks.ask("view.about")["control"] is False
        for command in ("set", "set.list", "set.save", "snap", "record.start", "record.stop", "record.status"):
            with pytest.raises(PellucidError, match="only looked at; control = true"):
                asks.ask(command, {"changes": {"stages.0.on": False}})
    assert session.live.controls.config.stages[0].on
    assert not session.end()["changes"]


def test_who_may_change_does_what_a_window_does_and_names_no_file(scope, tmp_path, address):
    session = scope(control=True, recorder='start = "armed"')
    with client(tmp_path, address) as asks:
        assert asks.ask("view.about")["control"] is True
        assert any(knob["key"] == "stages.0.iterations" for knob in asks.ask("set.list")["knobs"])
        asks.ask("set", {"changes": {"stages.0.iterations": 3}, "by": "root"})
        asks.ask("set", {"changes": ["stages.0.on=false"]})
        for wrong in ({"stages.0.psf": {"path": "/etc/passwd"}}, {"stages.0.psf": "/etc/passwd"}, {"a": ["b"]}):
            with pytest.raises(PellucidError, match="texts are changed at the session's computer"):
                asks.ask("set", {"changes": wrong})
        with pytest.raises(PellucidError, match="no command"):
            asks.ask("set.save")
        outside = tmp_path.parent / "outside"
        files = [Path(path) for path in asks.ask("snap", {"to": str(outside)})["files"]]
        assert files
        assert all(path.is_file() and path.parent.parent == tmp_path for path in files)
        assert not outside.exists()
        asks.ask("record.start", {"name": "far"})
        until(
            lambda: (
                session.session.ledger.recordings
                and any(r.on and r.frames for r in session.session.ledger.recordings.values())
            )
        )
        asks.ask("record.stop")
    report = session.end()
    assert {row["by"] for row in report["changes"]} == {"window 127.0.0.1"}
    assert report["frames"]["unaccounted"] == 0
    assert report["frames"]["recorded"] > 0


def test_a_request_that_comes_too_late_is_not_begun(tmp_path, address):
    """By the session's clock, whatever the other computer's shows."""
    make_keys(tmp_path)
    done = []
    door = ViewDoor({"record.start": lambda _: done.append(1) or {}}, address, Curve.load(tmp_path / "scope.keys"))
    door.open()
    try:
        with client(tmp_path, address) as asks:
            asks.ask("record.start")
            asks._ahead_ns -= HOUR_NS
            with pytest.raises(PellucidError, match="waits no longer"):
                asks.ask("record.start")
    finally:
        door.close()
    assert done == [1]


# ------------------------------------------------------------------------------------------- config


def _forget_allowed(path: Path) -> None:
    path.write_text(replace(Curve.load(path), allowed=()).text())


def wrong_config(folder: Path, address: str, monkeypatch, old: str = "", new: str = "") -> str:
    monkeypatch.chdir(folder)
    path = write_config(folder, address)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ConfigError) as caught:
        Config.load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_wrong_keys_of_the_config_are_said_in_a_line(tmp_path, address, monkeypatch):
    assert "is no endpoint" in wrong_config(tmp_path, "scope:5610", monkeypatch)
    said = wrong_config(tmp_path, address, monkeypatch, "control", "contrl")
    assert said.startswith("session.view.contrl = ")
    assert "Allowed: keys, address, control" in said
    assert "keys is missing" in wrong_config(tmp_path, address, monkeypatch, 'keys = "scope.keys"\n')


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "scope.keys").unlink(), "cannot be read"),
        (lambda folder: (folder / "scope.keys").write_text("nonsense"), "holds no keys"),
        (lambda folder: _forget_allowed(folder / "scope.keys"), "names nobody who may look. Type: pellucid keys"),
    ],
    ids=["missing", "nonsense", "nobody"],
)
def test_a_session_whose_door_nobody_could_use_does_not_begin(tmp_path, address, monkeypatch, spoil, said):
    monkeypatch.chdir(tmp_path)
    make_keys(tmp_path)
    spoil(tmp_path)
    session = Scope(write_config(tmp_path, address))
    until(lambda: session.error)
    session.end()
    assert said in str(session.error)
    assert str(session.error).startswith("session.view")
    assert "\n" not in str(session.error)


def test_a_port_that_is_taken_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_keys(tmp_path)
    taken = Receiver("tcp://127.0.0.1:*")
    session = Scope(write_config(tmp_path, taken.endpoint))
    until(lambda: session.error)
    session.end()
    taken.close()
    assert "is taken by another program" in str(session.error)


def test_keys_of_a_config_are_beside_it(tmp_path, address):
    make_keys(tmp_path)
    config = Config.load(write_config(tmp_path, address))
    assert config.settings.view.keys == tmp_path / "scope.keys"
    assert json.dumps(str(tmp_path / "scope.keys")) in config.text  # so that its copy in a recording can be run


# ----------------------------------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["tcp://192.0.2.1:5610"], "is another computer, which needs keys"),
        (["--keys", "laptop.keys"], "are for a session on another computer"),
        (["live", "--port", "5611"], "are for a session on another computer"),
    ],
)
def test_what_is_typed_wrongly_is_said_in_a_line(args, said):
    from pellucid.view_command import _way

    keys = Path(args[args.index("--keys") + 1]) if "--keys" in args else None
    port = int(args[args.index("--port") + 1]) if "--port" in args else None
    with pytest.raises(ConfigError, match=said):
        _way(None if args[0].startswith("--") else args[0], keys, port, "")
