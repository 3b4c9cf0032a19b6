"""``pellucid report``: the page parsed as a browser would, and its numbers held against ``frames.jsonl``."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pellucid.config import Config
from pellucid.errors import SinkError
from pellucid.live import make_session
from pellucid.recording.recover import recover
from pellucid.report_page import write_report

PARTS = (Path(__file__).parents[1] / "parts.py").as_posix()
DROPPING = 'kind = "counting"\nframes = 300\ncameras = 2\nlive = true\nevery_s = 0.001'
EXPERIMENT = 'kind = "experiment"\nsizes = { t = 3, p = 2, c = 2, z = 3 }\nlost = [7, 8, 20]'
SLOW = '[[stages]]\nkind = "scale"\nslow_s = 0.004'
SIMULATED = 'kind = "simulated"\nshape = [64, 96]\nfps = 500\non_full = "wait"\nframes = 40\npixel_um = 0.2'
_VOID = {"meta", "br", "img", "link", "col"}


def record(folder: Path, source: str, stages: str = "", session: str = "", **recorder) -> Path:
    keys = "\n".join(f"{k} = {json.dumps(v)}" for k, v in {"path": folder.as_posix(), **recorder}.items())
    text = f'plugins = ["{PARTS}"]\n[source]\n{source}\n{stages}\n[[sinks]]\nkind = "recorder"\n{keys}\n'
    made = make_session(Config.parse(f"{text}[session]\nthreads = 1\nslots = 4\n{session}"), tell=lambda line: None)
    try:
        made.open()
        made.run()
    finally:
        made.close()
    return folder


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]


class Page(HTMLParser):
    """What a page holds; a tag that is not closed where it must be fails."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text("utf-8")
        self.tables: dict[str, list[list[str]]] = {}
        self.words: list[str] = []
        self.refers: list[str] = []
        self.ids: list[str] = []
        self._open: list[str] = []
        self._rows: list[list[str]] = []
        self._caption = ""
        self.feed(self.text)
        self.close()
        assert self._open == []
        self.charts = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", self.text, re.S)]

    def handle_starttag(self, tag, attrs):
        told = dict(attrs)
        self.refers += [told[key] for key in ("src", "href") if told.get(key)]
        self.ids += [told["id"]] if "id" in told else []
        assert tag != "script"
        assert not [key for key in told if key.startswith("on")]
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag == "table":
            self.tables.setdefault(self._caption, []).extend(self._rows[1:])

    def handle_data(self, data):
        if "style" in self._open:
            return
        self.words.append(data)
        if self._open and self._open[-1] == "caption":
            self._caption += data
        elif self._rows and self._rows[-1] and {"td", "th"} & set(self._open):
            self._rows[-1][-1] += data

    def tile(self, name: str) -> str:
        return re.search(rf"<dt>{name}</dt><dd>([^<]*)", self.text)[1]

    def chart(self, title: str) -> ET.Element:
        return next(c for c in self.charts if c.findtext("title").startswith(title))


def ms(text: str) -> float:
    """Read a duration as the page has it."""
    value, unit = text.split()
    return float(value) * {"µs": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def test_percentiles_are_those_of_the_rows(tmp_path):
    folder = record(tmp_path / "rec", DROPPING, SLOW, 'restore = "every"')
    page = Page(write_report(folder))
    rows = [row for row in rows_of(folder) if row["state"] == "processed"]
    told = page.tables["Percentiles of the whole run."]
    marks = ("received", "uploaded", "scale", "downloaded", "processed", "recorded")
    named = {"processed": "restored", "recorded": "written"}
    assert [row[0] for row in told] == [f"until {named.get(mark, mark)}" for mark in marks] * 2
    for stream in (0, 1):
        for row, mark in zip(told[6 * stream :], [f"{mark}_ms" for mark in marks], strict=False):
            values = np.sort([r[mark] for r in rows if r["stream"] == stream])
            assert row[6] == str(len(values))
            assert ms(row[4]) == pytest.approx(max(values[-1], 1e-3), rel=6e-3)
            assert ms(row[5]) == pytest.approx(values.mean(), rel=6e-3)
            for q, text in zip((0.5, 0.95, 0.99), row[1:4], strict=True):
                exact = max(values[math.ceil(q * len(values)) - 1], 1e-3)
                assert ms(text) == pytest.approx(exact, rel=0.016, abs=1e-5), (mark, q)


def test_the_parts_of_the_way_add_up_to_the_whole(tmp_path):
    folder = record(tmp_path / "rec", SIMULATED, SLOW)
    page = Page(write_report(folder))
    rows = rows_of(folder)
    parts = {
        row[0]: row for row in page.tables["The parts of the bars. A frame's parts add up, and so do their means."]
    }
    whole = np.mean([row["recorded_ms"] for row in rows])
    assert sum(ms(row[2]) for row in parts.values()) == pytest.approx(whole, rel=0.02)
    assert sum(float(row[3].rstrip("%")) for row in parts.values()) == pytest.approx(100, abs=3)
    took = [row["scale_ms"] - row["uploaded_ms"] for row in rows]
    assert ms(parts["stage scale"][2]) == pytest.approx(np.mean(took), rel=0.01)
    p50 = json.loads((folder / "report.json").read_text())["duration_ms"]["scale"]["p50"]
    assert ms(parts["stage scale"][4]) == pytest.approx(p50, rel=0.02)
    assert "scale → downloaded" not in parts  # it writes its result to where it is wanted
    assert ms(parts["camera → received"][2]) == pytest.approx(np.mean([r["received_ms"] for r in rows]), rel=0.01)
    bars = list(page.chart("Where the time goes").iter("rect"))
    widths = [float(rect.get("width")) for rect in bars]
    means = [ms(row[2]) for row in parts.values()]
    assert np.allclose(np.array(widths) / sum(widths), np.array(means) / sum(means), atol=0.01)


def test_losses_stand_on_the_time_axis_where_the_numbers_are(tmp_path):
    folder = record(tmp_path / "rec", DROPPING, SLOW, 'restore = "every"')
    rows = rows_of(folder)
    dropped = [row for row in rows if row["state"] == "dropped"]
    count = sum(row.get("to_seq", row["seq"]) - row["seq"] + 1 for row in dropped)
    assert count > 10
    page = Page(write_report(folder))
    (told,) = page.tables["Every frame that is not restored and recorded, by reason."]
    assert told[:3] == ["dropped", "ring", str(count)]
    assert told[4] == f"{dropped[0]['seq']} to {dropped[-1].get('to_seq', dropped[-1]['seq'])}"
    bars = [r for r in page.chart("Frames a second").iter("rect") if "is-dropped" in r.get("class")]
    assert sum(int(rect.findtext("title").split()[0]) for rect in bars) == count
    assert all(rect.findtext("title").endswith("dropped: ring") for rect in bars)
    # The mean number of the frames, as a time, is where the middle of the bars is.
    timed = sorted((row["seq"], row["camera_time"]) for row in rows if "camera_time" in row)
    begin, end = timed[0][1], timed[-1][1]
    at = np.interp(
        [n for row in dropped for n in range(row["seq"], row.get("to_seq", row["seq"]) + 1)], *zip(*timed, strict=True)
    )
    middle = np.average(
        [float(r.get("x")) + float(r.get("width")) / 2 for r in bars], weights=[float(r.get("height")) for r in bars]
    )
    assert (middle - 96) / (944 - 96) == pytest.approx((at.mean() - begin) / (end - begin), abs=0.05)
    assert page.tile("dropped or lost") == str(count)
    assert page.tile("frames") == "300"


def test_raw_only_frames_have_their_reason_and_a_way_of_their_own(tmp_path):
    folder = record(tmp_path / "rec", SIMULATED, '[[stages]]\nkind = "scale"\nraise_at = 25')
    page = Page(write_report(folder))
    rows = rows_of(folder)
    raw = [row for row in rows if row["state"] == "raw_only"]
    told = {row[1]: row[2] for row in page.tables["Every frame that is not restored and recorded, by reason."]}
    assert sum(map(int, told.values())) == len(raw) == 15
    assert any("the network is on fire" in why for why in told)
    parts = page.tables["The parts of the bars. A frame's parts add up, and so do their means."]
    mine = [ms(row[2]) for row in parts if row[1] == "raw only"]
    assert sum(mine) == pytest.approx(np.mean([row["recorded_ms"] for row in raw]), rel=0.02)
    assert page.tile("restored") == "25"
    assert "From here on it is raw only" in "".join(page.words)  # the ledger's note


def test_pictures_are_those_of_the_recording_at_one_contrast(tmp_path):
    folder = record(tmp_path / "rec", SIMULATED, '[[stages]]\nkind = "scale"\nfactor = 1.0')
    page = Page(write_report(folder))
    titles = ["simulated, simulated, frame 0", "simulated, simulated, frame 20", "simulated, simulated, frame 39"]
    assert re.findall(r"<h3>([^<]*frame \d+)</h3>", page.text) == titles
    zarr = pytest.importorskip("zarr")
    raw = zarr.open_array(str(folder / "raw.ome.zarr/0"), mode="r")
    for seq, title in zip((0, 20, 39), titles, strict=True):
        whole = [page.chart(f"{title}, {what}") for what in ("raw", "restored")]
        shown = [_picture(svg) for svg in whole]
        assert np.array_equal(*shown)  # what is the same looks the same
        low, high = np.percentile(raw[seq, 0], (0.1, 99.9))
        wanted = np.clip((raw[seq, 0].astype(float) - low) / (high - low), 0, 1) * 255
        assert np.abs(shown[0] - wanted).max() <= 1
        # 0.2 um a pixel, 96 pixels across: 5 um are 25 pixels.
        (bar,) = [r for r in whole[0].iter("rect") if r.get("class") == "bar"]
        (label,) = [t.text for t in whole[0].iter("text")]
        assert label == "5 µm"
        assert float(bar.get("width")) == pytest.approx(512 * 25 / 96, abs=0.01)


def _picture(svg: ET.Element) -> np.ndarray:
    head, data = svg.find("image").get("href").split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(float)


def test_ranges_that_differ_much_have_contrasts_of_their_own_and_it_is_said(tmp_path):
    folder = record(tmp_path / "rec", SIMULATED, '[[stages]]\nkind = "scale"\nfactor = 100.0')
    page = Page(write_report(folder))
    assert "Their ranges differ too much for one contrast" in page.text
    assert _picture(page.chart("simulated, simulated, frame 0, restored")).max() == 255
    assert _picture(page.chart("simulated, simulated, frame 0, raw")).max() == 255


def test_the_page_needs_nothing_beside_it_and_tells_what_ran(tmp_path):
    folder = record(tmp_path / "rec & co", SIMULATED + "\n# <b>bold</b> & so on", SLOW)
    page = Page(write_report(folder))
    assert not [r for r in page.refers if not r.startswith(("#", "data:image/png;base64,"))]
    assert {r[1:] for r in page.refers if r.startswith("#")} <= set(page.ids)
    assert "url(" not in page.text
    assert "<b>" not in page.text
    words = "".join(page.words)
    assert "rec & co" in words
    assert "rec & co" not in page.text  # it is escaped
    report = json.loads((folder / "report.json").read_text())
    assert report["config_sha256"] in words
    assert report["hardware"]["processor"] in words
    assert (folder / "config.toml").read_text().strip() in words
    for chart in page.charts:
        assert chart.get("role") == "img"
        assert chart.findtext("title")
    assert "prefers-color-scheme: dark" in page.text
    assert "@media print" in page.text


@pytest.mark.parametrize("compression", ["none", "blosc-lz4"])
def test_a_recording_that_was_killed_and_then_recovered(tmp_path, compression):
    """The page of what the rows told so far, with pictures by the journal; the recording stays as it was."""
    folder = tmp_path / "rec"
    text = f"""
        [source]
        kind = "simulated"
        shape = [64, 96]
        fps = 100
        [[stages]]
        kind = "deconvolve"
        psf = {{ kind = "gaussian", fwhm_px = 3 }}
        [[sinks]]
        kind = "recorder"
        path = "{folder.as_posix()}"
        compression = "{compression}"
        """
    (tmp_path / "run.toml").write_text(text)
    process = subprocess.Popen(
        [sys.executable, "-m", "pellucid", "run", str(tmp_path / "run.toml")], stdout=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end and not (_lines(folder) > 100):
            time.sleep(0.1)
        Page(write_report(folder, tmp_path / "while.html"))
    finally:
        process.kill()
        process.wait()
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    page = Page(write_report(folder, tmp_path / "killed.html"))
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    words = "".join(page.words)
    assert "not ended" in words
    assert f"pellucid recover {folder}" in words
    rows = [row for row in rows_of(folder) if row["state"] == "processed"]
    assert int(page.tile("restored")) == len(rows) > 50
    assert len([c for c in page.charts if c.get("class") == "picture"]) == 6
    recover(folder)
    page = Page(write_report(folder))
    assert "recovered after it died" in "".join(page.words)
    assert int(page.tile("frames").replace(",", "")) >= len(rows)
    assert len([c for c in page.charts if c.get("class") == "picture"]) == 6


def _lines(folder: Path) -> int:
    rows = folder / "frames.jsonl"
    return rows.read_bytes().count(b"\n") if rows.exists() else 0


def test_parts_are_named_on_the_time_axis_and_have_pictures(tmp_path):
    folder = record(tmp_path / "rec", SIMULATED, SLOW, part_frames=15)
    page = Page(write_report(folder))
    assert {t.text for t in page.chart("Latency over time").iter("text") if t.text.startswith("part ")} == {
        "part 2",
        "part 3",
    }
    assert len([c for c in page.charts if c.get("class") == "picture"]) == 6
    with pytest.raises(SinkError, match=r"is a part of a recording.*pellucid report .*rec$"):
        write_report(folder / "part-0002")


def test_an_experiment_with_lost_frames_and_stacks(tmp_path):
    folder = record(tmp_path / "rec", EXPERIMENT, SLOW, 'unit = "stack"\nrestore = "every"')
    page = Page(write_report(folder))
    assert page.tile("frames") == "36"
    assert page.tile("dropped or lost") == "3"
    assert "Brightest of 3 slices" in page.text
    told = page.tables["Every frame that is not restored and recorded, by reason."]
    assert sorted(row[0] for row in told) == ["lost", "raw only"]


@pytest.mark.parametrize("file_format", ["ome-tiff", "ndtiff"])
def test_other_formats_have_pictures_as_well(tmp_path, file_format):
    folder = record(tmp_path / "rec", SIMULATED, format=file_format)
    page = Page(write_report(folder))
    assert len([c for c in page.charts if c.get("class") == "picture"]) == 3
    assert "This frame has no restored picture" in page.text


def test_a_picture_that_is_not_what_arrived_is_not_shown(tmp_path):
    folder = record(tmp_path / "rec", SIMULATED)
    lines = rows_of(folder)
    for row in lines:
        row["xxh3"] = {"raw": "0" * 16}
    (folder / "frames.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    page = Page(write_report(folder))
    assert not [c for c in page.charts if "picture" in c.get("class")]
    assert "is not what arrived: its checksum differs" in page.text


def test_a_million_frames_make_a_small_page_in_little_memory(tmp_path):
    """As many rows as a test has time for, more than are ever held: memory and page do not grow with them."""
    folder = record(tmp_path / "rec", SIMULATED, SLOW)
    rows = rows_of(folder)
    begin = rows[0]["camera_time"]
    sizes = []
    for count in (10_000, 60_000):
        with (folder / "frames.jsonl").open("w") as file:
            for n in range(count):
                row = {**rows[n % 40], "seq": n, "camera_time": round(begin + n * 0.01, 6)}
                file.write(json.dumps({"seq": n, "state": "lost", "where": "wire"} if n % 997 == 5 else row) + "\n")
        script = (
            "import sys, tracemalloc; from pathlib import Path; from pellucid.report_page import page\n"
            "tracemalloc.start(); text = page.make_page(Path(sys.argv[1]))\n"
            "print(tracemalloc.get_traced_memory()[1], len(text))"
        )
        out = subprocess.run(
            [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True, timeout=100
        )
        sizes.append([int(n) for n in out.stdout.split()])
    assert sizes[1][0] < sizes[0][0] * 1.3 + 5e6
    assert sizes[1][1] < sizes[0][1] * 1.5
    page = Page(write_report(folder))
    assert page.tile("frames") == "60,000"
    assert page.tile("dropped or lost") == "61"
    assert len(page.chart("Latency over time").findall(".//rect")) < 5 * 260


def test_rows_without_times_damaged_lines_and_no_report(tmp_path):
    folder = record(tmp_path / "rec", SIMULATED, SLOW)
    rows = rows_of(folder)
    for row in rows:
        del row["camera_time"]
    rows[3]["recorded_ms"] = float("nan")
    rows[4]["recorded_ms"] = "soon"
    rows[5]["stream"] = [1]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "frames.jsonl").write_text(text + '{"seq": 1\nnonsense\n')
    (folder / "report.json").write_text("[1, 2")
    (folder / "config.toml").write_text("# another\n")
    page = Page(write_report(folder))
    words = "".join(page.words)
    assert "frame number" in words
    assert "3 lines of frames.jsonl are damaged" in words
    assert "report.json is damaged" in words
    assert "config.toml was changed after the run" in words
    assert page.tables["Percentiles of the whole run."][5][6] == "37"


def test_what_is_no_recording_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "processed").mkdir()
    (tmp_path / "processed/frames.jsonl").write_text("")
    folder = record(tmp_path / "rec", SIMULATED)
    cases = {
        "nothing": "does not exist",
        "file.txt": "is a file",
        "empty": "is no recording of pellucid: it has no recording.json",
        "processed": "was made by pellucid process",
        ".": f"is no recording, it holds 1. Type for the last: pellucid report {folder}",
    }
    for name, says in cases.items():
        with pytest.raises(SinkError) as error:
            write_report(tmp_path / name)
        assert says in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(SinkError, match=r"is a folder\. Give a file"):
        write_report(folder, tmp_path)
    with pytest.raises(SinkError, match="there is no folder"):
        write_report(folder, tmp_path / "no/where.html")
    assert not (folder / "report.html").exists()
    about = folder / "recording.json"
    about.write_text(about.read_text().replace('"index": 0', '"index": "x"'))
    shutil.copy(about, tmp_path / "kept.json")
    out = _typed("report", str(folder))
    assert out.returncode == 2, out
    assert len(out.stderr.strip().splitlines()) == 1, out.stderr


def test_as_it_is_typed(tmp_path):
    folder = record(tmp_path / "rec", SIMULATED)
    out = _typed("report", str(folder), "--to", str(tmp_path / "page.html"))
    assert (out.returncode, out.stdout) == (0, f"report  {tmp_path / 'page.html'}\n"), out
    Page(tmp_path / "page.html")
    assert not (folder / "report.html").exists()
    out = _typed("report", str(tmp_path))
    assert out.returncode == 2
    assert out.stderr.startswith(f"pellucid: {tmp_path} is no recording, it holds 1.")
    assert len(out.stderr.strip().splitlines()) == 1


def _typed(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pellucid", *args], capture_output=True, text=True, timeout=100, check=False
    )
