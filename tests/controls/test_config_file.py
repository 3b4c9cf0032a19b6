"""A config file that is edited while its session runs, and one that is written back into."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest

import pellucid
from pellucid.controls import file as config_file
from pellucid.errors import ConfigError
from tests.controls.runs import config, deconvolve, movie, plain

TEXT = """\
# A config that somebody wrote by hand.
source = {{ kind = "replay", path = "{movie}", fps = 100, on_full = "wait", loop = 0 }}

[[stages]]
kind = "deconvolve"   # the blur of the objective
psf = {{ kind = "gaussian", fwhm_px = 3.0 }}
iterations = 2        # enough for beads
# Dark counts of the camera:
background = 100.0

[session]
threads = 1
restore = "every"
slots = 8
"""


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(config_file.following.__wrapped__, "__kwdefaults__", {"headless": False, "look_s": 0.05})


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(TEXT.format(movie=movie(tmp_path).as_posix()))
    return path


def runs(path, steps, **keys):
    """Run a config; each step is called with the session until it returns true, then the next. Return all frames."""
    frames = {}
    left = list(steps)
    with pellucid.open(path, **keys) as session:
        for frame in session:
            frames[frame.info.seq] = frame["restored"]
            if not left:
                break
            if left[0](session):
                left.pop(0)
    assert not left
    return frames, session


def does(function):
    """A step that acts once."""
    return lambda session: function(session) or True


def noted(text, times=1):
    return lambda session: sum(text in note for note in session.session.ledger.notes) >= times


def changes(session):
    return session.session.ledger.changes


def changed(count):
    return lambda session: len(changes(session)) >= count


def edit(path, old, new):
    def act(_):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return does(act)


def test_an_edit_takes_effect_and_is_stamped(path, tmp_path):
    frames, session = runs(path, [edit(path, "iterations = 2 ", "iterations = 6 "), changed(1)])
    (row,) = session.report["changes"]
    assert (row["what"], row["from"], row["to"], row["by"]) == ("stages.0.iterations", 2, 6, "config file")
    before, after = plain(config(tmp_path, deconvolve())), plain(config(tmp_path, deconvolve(iterations=6)))
    for number, plane in frames.items():
        np.testing.assert_array_equal(plane, (before if number < row["frame"] else after)[number % 60])
    assert max(frames) >= row["frame"]


def test_an_editor_that_puts_another_file_in_its_place(path):
    def act(_):
        beside = path.with_name("run.toml~")
        beside.write_text(path.read_text().replace("background = 100.0", "background = 90.0"))
        path.unlink()
        time.sleep(0.12)  # for a while there is none
        os.replace(beside, path)

    _, session = runs(path, [does(act), changed(1)])
    assert session.report["changes"][0]["to"] == 90.0
    assert not [note for note in session.report["notes"] if "not used" in note]


def test_a_key_that_is_taken_out_is_its_default_again(path):
    _, session = runs(path, [edit(path, "background = 100.0", ""), changed(1)])
    (row,) = session.report["changes"]
    assert (row["what"], row["from"], row["to"]) == ("stages.0.background", 100.0, None)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("iterations = 2 ", "iterations = -2 ", "greater than or equal to 1"),
        ("iterations = 2 ", "iterations = = 2 ", "not valid TOML"),
        ("iterations = 2 ", "iteration = 2 ", 'Did you mean "iterations"'),
        ("slots = 8", "slots = 1", "session.slots = 1: input should be greater than or equal to 3"),
        ("fwhm_px = 3.0", "fwhm_px = 60.0", "larger than the frame"),
        ("[session]", '[[stages]]\nkind = "gone"\n[session]', "no such stage"),
    ],
)
def test_nonsense_leaves_the_old_one_running_and_is_told_once(old, new, says, path, tmp_path):
    wait = [0]

    def while_some_looks_pass(_):
        wait[0] += 1
        return wait[0] > 40

    frames, session = runs(
        path,
        [
            edit(path, old, new),
            noted("is not used"),
            while_some_looks_pass,
            edit(path, new, old),
            edit(path, "background = 100.0", "background = 80.0"),
            changed(1),
        ],
    )
    (note,) = [note for note in session.report["notes"] if "is not used" in note]
    assert says in note
    assert note.startswith("run.toml was changed and is not used: ")
    assert note.endswith("The run goes on as it was")
    assert "\n" not in note
    (row,) = session.report["changes"]  # what was good again was held against the last good one
    assert row["what"] == "stages.0.background"
    before = plain(config(tmp_path, deconvolve()))
    for number, plane in frames.items():
        if number < row["frame"]:
            np.testing.assert_array_equal(plane, before[number % 60])


def test_other_keys_need_a_restart_and_say_so_in_one_line(path):
    def act(_):
        text = path.read_text().replace("fps = 100", "fps = 50").replace("slots = 8", "slots = 9")
        path.write_text(text.replace("iterations = 2 ", "iterations = 3 "))

    _, session = runs(path, [does(act), changed(1), noted("restart")])
    (note,) = [note for note in session.report["notes"] if "restart" in note]
    assert note == "run.toml: source.fps, session.slots changed in the file, and need a restart"
    assert [row["to"] for row in session.report["changes"]] == [3]


def test_what_was_set_by_a_command_stays_when_another_key_is_edited(path):
    _, session = runs(
        path,
        [
            does(lambda session: session.set("stages.0.iterations=5")),
            changed(1),
            edit(path, "background = 100.0", "background = 80.0"),
            changed(2),
        ],
    )
    assert [(row["what"], row["to"]) for row in session.report["changes"]] == [
        ("stages.0.iterations", 5),
        ("stages.0.background", 80.0),
    ]


def test_saving_keeps_comments_and_order_and_changes_nothing_in_the_run(path):
    before = path.read_text()
    told, wait = [], [0]

    def while_some_looks_pass(_):
        wait[0] += 1
        return wait[0] > 40

    _, session = runs(
        path,
        [
            does(lambda session: session.set("stages.0.iterations=5", "stages.0.tv=0.002", "stages.0.on=false")),
            changed(3),
            does(lambda session: told.append(session.save())),
            while_some_looks_pass,
            does(lambda session: told.append(session.save())),
        ],
    )
    after = path.read_text()
    assert "iterations = 5        # enough for beads" in after
    assert 'kind = "deconvolve"   # the blur of the objective' in after
    assert "tv = 0.002" in after
    assert "on = false" in after
    assert [line for line in before.splitlines() if "iterations" not in line] == [
        line for line in after.splitlines() if "iterations" not in line and line not in ("tv = 0.002", "on = false")
    ]
    assert told[0].startswith("saved stages.0.iterations, stages.0.tv, stages.0.on to ")
    assert told[1] == "run.toml says what runs already"
    assert len(session.report["changes"]) == 3
    assert not [note for note in session.report["notes"] if "restart" in note or "not used" in note]
    assert [p.name for p in path.parent.iterdir() if "new" in p.name] == []
    _, again = runs(path, [lambda session: True])
    assert again.report["streams"][0]["stages"][0]["on"] is False


def test_saving_is_refused_where_the_file_says_something_else_by_now(path, monkeypatch):
    monkeypatch.setattr(config_file.following.__wrapped__, "__kwdefaults__", {"headless": False, "look_s": 60.0})
    caught = []

    def save(session):
        with pytest.raises(ConfigError) as error:
            session.save()
        caught.append(str(error.value))

    runs(
        path,
        [
            does(lambda session: session.set("stages.0.iterations=5")),
            edit(path, "iterations = 2 ", "iterations = 9 "),
            does(save),
            edit(path, "iterations = 9 ", "iterations = = 9 "),
            does(save),
        ],
    )
    assert caught[0].startswith("not saved: stages.0.iterations was changed in run.toml meanwhile, to 9; the run has 5")
    assert caught[1].startswith("not saved: run.toml is no config at present: ")
    assert "iterations = = 9 " in path.read_text()


def test_saving_keeps_the_ends_of_lines_and_the_mark_of_notepad(path):
    path.write_bytes(b"\xef\xbb\xbf" + path.read_text().replace("\n", "\r\n").encode())
    runs(
        path,
        [
            does(lambda session: session.set("stages.0.iterations=5", "stages.0.tv=0.001")),
            changed(2),
            does(lambda session: session.save()),
        ],
    )
    data = path.read_bytes()
    assert data.startswith(b"\xef\xbb\xbf# A config")
    assert data.count(b"\n") == data.count(b"\r\n")
    assert b"iterations = 5        # enough for beads\r\n" in data


def test_a_session_without_a_file_has_nowhere_to_save(tmp_path):
    session = pellucid.open(config(tmp_path, deconvolve()))
    with session, pytest.raises(ConfigError, match="without a config file"):
        session.save()


def test_an_override_of_the_start_is_saved_where_it_is_of_a_stage(path):
    told = []
    runs(path, [does(lambda session: told.append(session.save()))], sets=["stages.0.iterations=4", "session.slots=10"])
    assert told[0].startswith("saved stages.0.iterations to ")
    assert "iterations = 4        # enough" in path.read_text()
    assert "slots = 8" in path.read_text()


def test_no_thread_stays(path):
    runs(path, [lambda session: True])
    assert not [t for t in threading.enumerate() if t.name == "pellucid config file"]
