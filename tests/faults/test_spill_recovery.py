"""What still waited in a spill file when something died: taken where it belongs, kept where it cannot be taken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pellucid.errors import SinkError
from pellucid.recording.disk import Disk
from pellucid.recording.recover import recover
from pellucid.recording.spill import read_spill
from pellucid.recording.verify import verify
from tests.faults.frames_told import Run, found
from tests.faults.test_disk_faults import Faulty, until

FRAMES = 40


class TwoDisks(Faulty):
    """Only the recording's stands still."""

    def __init__(self) -> None:
        super().__init__()
        self.others: set[int] = set()

    def _create(self, path: Path) -> int:
        handle = super()._create(path)
        if path.suffix == ".spill":
            self.others.add(handle)
        return handle

    def _write(self, handle: int, data, at: int) -> int:
        return Disk._write(self, handle, data, at) if handle in self.others else super()._write(handle, data, at)


@pytest.fixture(scope="module")
def died(tmp_path_factory) -> tuple[Path, Path]:
    """A recording as a kill leaves it while its disk stands still, and its spill file."""
    place = tmp_path_factory.mktemp("spill")
    (place / "other disk").mkdir()
    spill = str(place / "other disk")
    run = Run(place / "rec", disk := TwoDisks(), buffer_mb=0.1, spill=spill, when_full="drop", commit_every_s=0.05)
    run.give(10)
    until(lambda: run.ledger.recorded == 10)
    kept: dict[int, int] = {}
    run.recorder._intake._hold = lambda slot: kept.setdefault(id(slot), 0)  # slots that are held, as in a session
    disk.go.clear()
    run.give(FRAMES - 10)
    (file,) = (place / "other disk").iterdir()
    shutil.copytree(place / "rec", place / "left", ignore=shutil.ignore_patterns(".lock"))
    shutil.copy(file, place / "left.spill")
    # The name under which it was made, as recording.json has it.
    told = json.loads((place / "left/recording.json").read_text())
    assert Path(told["spill"]).name == file.name
    disk.go.set()
    run.end()
    assert len(found(place / "rec")["raw"]) == FRAMES
    assert not file.exists()
    return place / "left", place / "left.spill"


@pytest.fixture
def copy(died, tmp_path) -> tuple[Path, Path]:
    shutil.copytree(died[0], tmp_path / "rec")
    return tmp_path / "rec", Path(shutil.copy(died[1], tmp_path / "moved.spill"))


def there(folder: Path) -> set[int]:
    seen = found(folder)
    assert all(all(right.values()) for right in seen.values())
    return set(seen["raw"])


def test_all_that_waited_is_taken_and_the_file_goes(copy):
    folder, spill = copy
    with pytest.raises(SinkError, match="say where the file is now"):
        recover(folder)
    told = recover(folder, spill=spill)
    assert told.spilled > 20
    assert not told.spill_left
    assert not spill.exists()
    assert there(folder) >= set(range(10)) | {FRAMES - 1}
    assert not verify(folder).faults


@pytest.mark.parametrize("what", ["a config", "another recording's", "nothing"])
def test_a_file_that_is_none_of_this_recording_changes_nothing(what, copy, tmp_path):
    folder, spill = copy
    wrong = tmp_path / "base.toml"
    wrong.write_bytes(b"# mine\n" * 500 if what == "a config" else b"")
    if what == "another recording's":
        (told := json.loads((folder / "recording.json").read_text()))["spill"] = "/else/where/other-7.spill"
        (folder / "recording.json").write_text(json.dumps(told))
        shutil.copy(spill, wrong)
    before = wrong.read_bytes()
    with pytest.raises(SinkError, match="Nothing was changed") as error:
        recover(folder, spill=wrong)
    assert len(str(error.value).splitlines()) == 1
    assert wrong.read_bytes() == before
    assert json.loads((folder / "recording.json").read_text())["state"] == "recording"


@pytest.mark.parametrize("at", ["the first magic", "a header", "pixels"])
def test_a_damaged_piece_costs_itself_alone_and_the_file_is_kept(at, copy):
    folder, spill = copy
    pieces = list(read_spill(spill))
    data = bytearray(spill.read_bytes())
    second = data.index(b"pell\x01spl", 1)
    data[{"the first magic": 0, "a header": second + 10, "pixels": second - 100}[at]] ^= 1
    spill.write_bytes(bytes(data))
    told = recover(folder, spill=spill)
    assert told.spill_damaged >= 1
    planes = sum(len(about["planes"]) for about, _ in pieces)
    assert planes - 2 <= told.spilled + len([1 for about, _ in pieces if not about["planes"]]) <= planes
    assert spill.exists()
    assert any("the file is kept" in line for line in told.lines())
    assert not any("frames are there, whole" in line for line in told.lines())
    there(folder)
    assert not verify(folder).faults
    report = json.loads((folder / "report.json").read_text())["recording"]
    assert report["spill_left"] == str(spill)
    assert report["spill_damaged"] == told.spill_damaged


def test_what_is_given_up_is_told(copy):
    folder, _ = copy
    told = recover(folder, without_spill=True)
    assert any("was given up" in line for line in told.lines())
    assert json.loads((folder / "report.json").read_text())["recording"]["given_up"].endswith(".spill")
    assert set(range(10)) <= there(folder)


def test_a_journal_that_is_damaged_is_told_with_what_was_put_aside(copy):
    folder, spill = copy
    lines = (folder / "journal").read_bytes().splitlines(keepends=True)
    for i in (3, 5):
        lines[i] = lines[i].replace(b'"', b"'", 1)
    (folder / "journal").write_bytes(b"".join(lines))
    told = recover(folder, spill=spill)
    assert told.damaged == 2
    assert any("2 lines of the journal were damaged" in line for line in told.lines())
