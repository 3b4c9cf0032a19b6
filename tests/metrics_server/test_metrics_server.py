"""Metrics as Prometheus reads them: scraped over HTTP from sessions that run, and compared with what they report."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.live import make_session
from pellucid.metrics import Histogram
from pellucid.metrics_server import MetricsServer
from pellucid.metrics_server.session_metrics import BOUNDS_MS, SessionMetrics

PARTS = (Path(__file__).parents[1] / "parts.py").as_posix()


def scrape(url: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Return name -> labels -> value."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def total(found, name: str, **labels: str) -> float:
    return sum(value for key, value in found[name].items() if labels.items() <= dict(key).items())


def session_of(tmp_path: Path, source: str, stages: str = ""):
    return make_session(
        Config.parse(
            f"""
            plugins = ["{PARTS}"]
            {source}
            {stages}
            [[sinks]]
            kind = "recorder"
            path = "{(tmp_path / "rec").as_posix()}"
            [session]
            threads = 1
            restore = "every"
            """
        ),
        tell=lambda line: None,
    )


def test_what_is_scraped_is_what_the_report_says(tmp_path):
    """Two cameras, one of which has no room for some frames, and a stage that breaks on the way."""
    session = session_of(
        tmp_path,
        '[source]\nkind = "counting"\nframes = 60\ncameras = 2\nlive = true\nevery_s = 0.002',
        '[[stages]]\nkind = "scale"\nraise_at = 20',
    )
    with MetricsServer([SessionMetrics(session, {"version": "1.2", "config": "x.toml"})], 0) as server:
        assert total(scrape(server.url), "pellucid_received_bytes_total") == 0  # before it is open
        try:
            session.open()
            session.run()
            found = scrape(server.url)
        finally:
            session.close()
        closed = scrape(server.url)
    report = session.report
    frames = report["frames"]
    assert total(found, "pellucid_frames_received_total") == frames["received"] > 0
    assert total(found, "pellucid_frames_processed_total") == frames["processed"] > 0
    assert total(found, "pellucid_frames_raw_only_total") == sum(frames["raw_only"].values()) > 0
    for camera in ("cam0", "cam1"):
        ends = report["cameras"][camera]
        assert total(found, "pellucid_frames_received_total", camera=camera) == ends["received"]
        for state in ("raw_only", "dropped", "lost"):
            for reason, n in ends[state].items():
                assert total(found, f"pellucid_frames_{state}_total", camera=camera, reason=reason) == n
    for index, stream in enumerate(report["streams"]):
        for mark, row in stream["latency_ms"].items():
            of = {"stream": str(index), "camera": stream["camera"], "until": mark}
            assert total(found, "pellucid_stream_latency_seconds_count", **of) == row["n"] > 0
    assert "pellucid_clock_unsure_seconds" not in found  # its own clock
    assert total(found, "pellucid_frames_recorded_total") == frames["recorded"]
    assert total(found, "pellucid_frames_in_session") == 0
    assert total(found, "pellucid_received_bytes_total") == frames["received"] * 64 * 48 * 2
    assert total(found, "pellucid_info", version="1.2", config="x.toml", device="cpu") == 1
    # Labels of streams stay what they were when the session has given its lanes back.
    assert closed["pellucid_frames_received_total"] == found["pellucid_frames_received_total"]


def test_latency_is_a_histogram_that_agrees_with_the_percentiles(tmp_path):
    session = session_of(
        tmp_path, '[source]\nkind = "counting"\nframes = 80\nevery_s = 0.001', '[[stages]]\nkind = "scale"'
    )
    with MetricsServer([SessionMetrics(session, {})], 0) as server:
        try:
            session.open()
            session.run()
            found = scrape(server.url)
        finally:
            session.close()
    told = session.report["latency_ms"]
    for mark in ("received", "scale", "disk"):
        assert total(found, "pellucid_latency_seconds_count", until=mark) == told[mark]["n"] == 80
        buckets = {
            dict(key)["le"]: n for key, n in found["pellucid_latency_seconds_bucket"].items() if ("until", mark) in key
        }
        numbers = [buckets[le] for le in sorted(buckets, key=float)]
        assert numbers == sorted(numbers)
        above = [float(le) for le, n in buckets.items() if n >= 40]
        below = [float(le) for le, n in buckets.items() if n < 40]
        assert max(below, default=0) * 0.98 <= told[mark]["p50"] * 1e-3 <= min(above) * 1.02
        assert total(found, "pellucid_latency_max_seconds", until=mark) == pytest.approx(
            told[mark]["max"] * 1e-3, abs=1e-6
        )
        mean = total(found, "pellucid_latency_seconds_sum", until=mark) / 80
        assert 0 <= mean <= told[mark]["max"] * 1e-3
    assert total(found, "pellucid_duration_seconds_count", part="scale") == 80


def test_a_scrape_in_the_middle_sees_queues_recorder_and_memory(tmp_path):
    session = session_of(
        tmp_path,
        '[source]\nkind = "counting"\nframes = 100000\nevery_s = 0.001',
        '[[stages]]\nkind = "scale"\nslow_s = 0.02',
    )
    with MetricsServer([SessionMetrics(session, {})], 0) as server:
        session.open()
        thread = threading.Thread(target=session.run)
        thread.start()
        try:
            end = time.monotonic() + 30
            while session.ledger.processed < 25 and time.monotonic() < end:
                time.sleep(0.05)
            scrape(server.url)
            time.sleep(2.2)
            found = scrape(server.url)
        finally:
            session.stop()
            thread.join()
            session.close()
    folder = str(tmp_path / "rec")
    assert set(found["pellucid_queue_frames"]) >= {(("queue", "recorder"),), (("queue", "chain"),)}
    assert total(found, "pellucid_slots", state="all") == 16
    assert 1 <= total(found, "pellucid_slots", state="held") <= 16
    assert 1 <= total(found, "pellucid_frames_in_session") <= 17
    assert total(found, "pellucid_recorder_on", folder=folder) == 1
    assert total(found, "pellucid_recorder_failed", folder=folder) == 0
    assert total(found, "pellucid_recorder_frames", folder=folder) > 10
    assert total(found, "pellucid_recorder_bytes", folder=folder) > 10 * 64 * 48 * 2
    assert total(found, "pellucid_recorder_space_left_bytes", folder=folder) > 1e6
    assert (("recorder", "recorder"),) in found["pellucid_recorder_waiting_planes"]
    # The stage takes 20 ms and a little: 50 frames a second at most, on a busy computer fewer.
    assert 3 < total(found, "pellucid_restored_frames_per_second") < 51
    assert total(found, "process_resident_memory_bytes") > 5e7
    assert total(found, "process_threads") >= 3
    assert total(found, "process_open_fds") > 3


def test_only_this_computer_unless_somebody_says_otherwise():
    with MetricsServer([], 0) as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", server.url)
        assert not server.open_to_others
    with pytest.raises(urllib.error.URLError):
        scrape(server.url)
    with MetricsServer([], 0, "0.0.0.0") as server:
        assert server.open_to_others


def test_two_sessions_of_one_process_do_not_mix(tmp_path):
    one, two = (
        session_of(tmp_path / name, f'[source]\nkind = "counting"\nframes = {n}') for name, n in (("a", 3), ("b", 5))
    )
    with MetricsServer([SessionMetrics(one, {})], 0) as a, MetricsServer([SessionMetrics(two, {})], 0) as b:
        for session in (one, two):
            session.open()
            session.run()
        counts = [total(scrape(server.url), "pellucid_frames_received_total") for server in (a, b)]
        for session in (one, two):
            session.close()
    assert counts == [3, 5]


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("127.0.0.1", "--metrics-port {port}: another program uses this port of 127.0.0.1. Give another"),
        ("203.0.113.7", "--metrics-host 203.0.113.7: not an address of this computer"),
        ("no such host", "--metrics-host no such host: no such address"),
        ("a" * 80, "no such address"),
    ],
)
def test_what_cannot_be_listened_at_is_one_line(host, says):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError) as error:
            MetricsServer([], port, host)
    assert says.format(port=port) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_reader_that_hangs_keeps_no_other_waiting():
    with MetricsServer([], 0) as server:
        port = int(server.url.rsplit(":", 1)[1].split("/")[0])
        with socket.create_connection(("127.0.0.1", port)):
            assert scrape(server.url) == {}


def test_the_buckets_are_those_of_the_histogram():
    histogram = Histogram()
    for ms in (0.05, 0.4, 3.0, 3.0, 800.0, 2e6):
        histogram.add(round(ms * 1e6))
    counts = dict(zip(BOUNDS_MS, histogram.cumulative(BOUNDS_MS), strict=False))
    assert [counts[b] for b in (0.1, 0.2, 0.5, 2, 5, 500, 1e3, 6e4)] == [1, 1, 2, 2, 4, 4, 5, 5]
    assert histogram.cumulative(BOUNDS_MS)[-1] == 6


def test_pellucid_run_answers_at_its_port_and_says_where(tmp_path, unused_port):
    config = tmp_path / "run.toml"
    config.write_text(
        f"""
        [source]
        kind = "simulated"
        shape = [64, 64]
        fps = 50
        [[sinks]]
        kind = "recorder"
        path = "{(tmp_path / "rec").as_posix()}"
        """
    )
    line = [sys.executable, "-m", "pellucid", "run", str(config), "--metrics-port", str(unused_port)]
    process = subprocess.Popen([*line, "--seconds", "90"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{unused_port}/metrics"
        found: dict = {}
        end = time.monotonic() + 60
        while time.monotonic() < end and not any(found.get("pellucid_frames_received_total", {}).values()):
            time.sleep(0.2)
            try:
                found = scrape(url)
            except OSError:
                assert process.poll() is None, process.communicate()
        assert total(found, "pellucid_frames_received_total", camera="simulated") > 0
        second = subprocess.run(
            [*line, "--set", f"sinks.0.path={tmp_path / 'two'}"],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    finally:
        process.terminate()
        out, err = process.communicate(timeout=100)
    if sys.platform != "win32":  # where that is no signal, but a kill
        assert process.returncode == 0, err
        assert f"metrics  {url}" in out
        assert json.loads((tmp_path / "rec/report.json").read_text())["frames"]["unaccounted"] == 0
    assert second.returncode == 2
    assert second.stderr.startswith(f"pellucid: --metrics-port {unused_port}: another program uses this port")
    assert len(second.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "two").exists()
