"""A session's ledger as metrics of Prometheus.

Nothing is counted here: at each question the ledger's numbers are read, which its own threads go on writing. Times
are in seconds, sizes in bytes, as Prometheus has them. The sums of all states of a stream are what it produced, except
for frames that are within the session at that moment.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import psutil
from prometheus_client.core import CounterMetricFamily as Counter
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.core import HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from pellucid.ledger import Ends, Ledger
from pellucid.metrics import Histogram, now_ns

if TYPE_CHECKING:
    from pellucid.runtime.session import Session

__all__ = ["BOUNDS_MS", "SessionMetrics"]

BOUNDS_MS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1e3, 2e3, 5e3, 1e4, 6e4)
"""Upper bounds of the latency histograms, in ms."""

_STREAM = ("stream", "camera", "channel")


class SessionMetrics(Collector):
    """What Prometheus reads of one session, from before its ``open`` to after its end.

    Parameters
    ----------
    session
    facts
        Labels of ``pellucid_info``: version, config ...
    """

    def __init__(self, session: Session, facts: Mapping[str, str]) -> None:
        self._session = session
        self._facts = dict(facts)
        self._names: dict[int, tuple[str, str, str]] = {}
        self._restored = _Rate()

    def describe(self) -> Iterable[Metric]:
        """Return nothing: this registry has no other collector whose names could be the same."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics as they are now."""
        ledger = self._session.ledger
        yield InfoMetricFamily("pellucid", "What runs.", {**self._facts, "device": self._session.device})
        yield from self._frames(ledger)
        yield from _latency(ledger)
        yield from self._of_streams(ledger)
        yield from self._queues()
        yield from self._recorders(ledger)
        yield from _process(self._session.device)

    # ---------------------------------------------------------------- frames

    def _frames(self, ledger: Ledger) -> Iterable[Metric]:
        came = Counter("pellucid_frames_received", "Frames that came into the session.", labels=_STREAM)
        done = Counter("pellucid_frames_processed", "Frames that went through all stages.", labels=_STREAM)
        counted = {
            state: Counter(f"pellucid_frames_{state}", text, labels=(*_STREAM, "reason"))
            for state, text in (
                ("raw_only", "Frames that came and were not restored."),
                ("dropped", "Frames that a policy left out before they came."),
                ("lost", "Frames that nobody meant to lose."),
                ("not_recorded", "Frames that came and that a recorder could not keep."),
            )
        }
        for index, ends in sorted(dict(ledger.streams).items()):  # copied: a stream may begin meanwhile
            labels = self._labels(index, ends)
            came.add_metric(labels, ends.received)
            done.add_metric(labels, ends.processed)
            for state, family in counted.items():
                for reason, n in dict(getattr(ends, state)).items():
                    family.add_metric((*labels, reason), n)
        yield came
        yield done
        yield from counted.values()
        yield Counter("pellucid_frames_recorded", "Frames whose planes a recorder has all taken.", ledger.recorded)
        yield Counter("pellucid_frames_displayed", "Frames drawn in a window.", ledger.displayed)
        yield Counter("pellucid_received_bytes", "Pixels that came.", ledger.received_bytes)
        ignored = Counter("pellucid_messages_ignored", "What came and was no frame of this run.", labels=("reason",))
        for reason, n in dict(ledger.ignored).items():
            ignored.add_metric((reason,), n)
        yield ignored
        # Read first what is counted last, so that a frame that ends in between is not one too few.
        ended = ledger.processed + ledger.raw_only.total()
        yield Gauge(
            "pellucid_frames_in_session", "Frames that came and have not ended.", max(ledger.received - ended, 0)
        )
        yield Gauge(
            "pellucid_restored_frames_per_second",
            "Frames restored a second, over the last seconds.",
            self._restored.per_s(ledger.processed),
        )

    def _of_streams(self, ledger: Ledger) -> Iterable[Metric]:
        """Yield the latency of each stream; that of a run is their sum, under a name of its own."""
        text = "From the camera until a mark, of one stream."
        family = HistogramMetricFamily("pellucid_stream_latency_seconds", text, labels=(*_STREAM, "until"))
        unsure = Gauge(
            "pellucid_clock_unsure_seconds",
            "By how much the clock of the camera's computer, and so each latency, may be off.",
            labels=_STREAM,
        )
        for index, marks in sorted(ledger.marks.copy().items()):  # copied: a stream may begin meanwhile
            labels = self._labels(index, ledger.streams.get(index) or Ends())
            for mark, histogram in marks.named():
                if histogram.count:
                    family.add_metric((*labels, mark), _buckets(histogram), histogram.sum_ns * 1e-9)
            if marks.unsure_ns:
                unsure.add_metric(labels, marks.unsure_ns * 1e-9)
        yield family
        yield unsure

    def _labels(self, index: int, ends: Ends) -> tuple[str, str, str]:
        """Return the labels of a stream; those of one that is gone stay what they were."""
        if index < 0:
            return ("unknown", "", "")
        for lane in list(self._session.lanes):
            stream = lane.stream
            self._names[stream.index] = (str(stream.index), stream.camera, stream.channel)
        return self._names.get(index, (str(index), ends.camera, ""))

    # ---------------------------------------------------------------- queues, recorders

    def _queues(self) -> Iterable[Metric]:
        depth = Gauge("pellucid_queue_frames", "Frames that wait.", labels=("queue",))
        for name, n in self._session.queues().items():
            depth.add_metric((name,), n)
        yield depth
        slots = Gauge("pellucid_slots", "Frame memories of a stream.", labels=("stream", "state"))
        for lane in list(self._session.lanes):
            for state, n in zip(("held", "all"), lane.held(), strict=True):
                slots.add_metric((str(lane.stream.index), state), n)
        yield slots

    def _recorders(self, ledger: Ledger) -> Iterable[Metric]:
        gauges = {
            key: Gauge(f"pellucid_recorder_{key}", text, labels=("folder",))
            for key, text in (
                ("on", "1 while frames are recorded."),
                ("failed", "1 where it has given up."),
                ("frames", "Frames taken since it was started."),
                ("bytes", "Pixels taken since it was started."),
                ("space_left_seconds", "Until the disk is full, at the present rate."),
                ("space_left_bytes", "Free on its disk."),
            )
        }
        for folder, now in list(ledger.recordings.items()):
            told: dict[str, float | None] = {
                "on": now.on,
                "failed": now.failed,
                "frames": now.frames,
                "bytes": now.nbytes,
                "space_left_seconds": now.left_s,
                "space_left_bytes": _free_bytes(folder),
            }
            for key, value in told.items():
                if value is not None:
                    gauges[key].add_metric((folder,), float(value))
        yield from gauges.values()
        planes = Gauge("pellucid_recorder_waiting_planes", "Planes that wait for the disk.", labels=("recorder",))
        nbytes = Gauge("pellucid_recorder_waiting_bytes", "Copied, and waiting for the disk.", labels=("recorder",))
        for name, sink in self._session.sinks.items():
            waiting: tuple[int, int] | None = getattr(sink, "waiting", None)
            if waiting is not None:
                planes.add_metric((name,), waiting[0])
                nbytes.add_metric((name,), waiting[1])
        yield planes
        yield nbytes


class _Rate:
    """Counts a second, over at least two seconds, however many read it and how often."""

    _LEAST_NS = 2_000_000_000

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._marks = [(now_ns(), 0)]

    def per_s(self, count: int) -> float:
        with self._lock:
            now = now_ns()
            self._marks.append((now, count))
            while len(self._marks) > 2 and self._marks[1][0] <= now - self._LEAST_NS:
                del self._marks[0]
            before, had = self._marks[0]
        return max(count - had, 0) / max((now - before) * 1e-9, 1e-3)


def _latency(ledger: Ledger) -> Iterable[Metric]:
    for name, text, label, some in (
        ("pellucid_latency_seconds", "From the camera until a mark.", "until", ledger.latency),
        ("pellucid_duration_seconds", "Within one part: a stage, a sink.", "part", ledger.duration),
    ):
        family = HistogramMetricFamily(name, text, labels=(label,))
        largest = Gauge(f"{name.removesuffix('_seconds')}_max_seconds", f"{text} The longest.", labels=(label,))
        for key, histogram in list(some.items()):
            family.add_metric((key,), _buckets(histogram), histogram.sum_ns * 1e-9)
            largest.add_metric((key,), histogram.max_ns * 1e-9)
        yield family
        yield largest


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    counts = histogram.cumulative(BOUNDS_MS)
    return [(le, float(n)) for le, n in zip([*(f"{b * 1e-3:g}" for b in BOUNDS_MS), "+Inf"], counts, strict=True)]


def _free_bytes(folder: str) -> float | None:
    try:
        return float(psutil.disk_usage(folder).free)
    except OSError:
        return None


def _process(device: str) -> Iterable[Metric]:
    """Yield what this process takes, by the names that dashboards know; psutil tells it on every system."""
    process = psutil.Process()
    with process.oneshot():
        times, memory = process.cpu_times(), process.memory_info()
        yield Gauge("process_resident_memory_bytes", "Memory of the session's process.", memory.rss)
        yield Gauge("process_virtual_memory_bytes", "Addresses of the session's process.", memory.vms)
        yield Counter("process_cpu_seconds", "Processor time of the session's process.", times.user + times.system)
        yield Gauge("process_start_time_seconds", "Since 1970.", process.create_time())
        yield Gauge("process_threads", "Threads of the session's process.", process.num_threads())
        handles: Any = getattr(process, "num_handles", None) or process.num_fds
        yield Gauge("process_open_fds", "Open files; on Windows all handles.", handles())
    if device.startswith("cuda"):
        import torch

        free, total = torch.cuda.mem_get_info(device)
        yield Gauge("pellucid_gpu_memory_free_bytes", "Free on the GPU, for all programs.", free)
        yield Gauge("pellucid_gpu_memory_bytes", "Of the GPU.", total)
        yield Gauge("pellucid_gpu_memory_reserved_bytes", "Held by the session.", torch.cuda.memory_reserved(device))
