"""The real core of Micro-Manager with its DemoCamera, in this process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pellucid.config import Config
from pellucid.errors import MissingExtra, PellucidError, SourceError
from pellucid.metrics import now_ns
from pellucid.sources.micromanager import MicroManager
from pellucid.testing import LocalRing, Told, check_source

pytest.importorskip("pycromanager", reason="pycromanager is not installed: pip install pellucid[micromanager]")
adapters = pytest.importorskip(
    "mm_test_adapters", reason="mm-test-adapters is not installed: pip install pellucid[demo]"
)

PATIENCE_S = 40.0
SMALL = {"Camera.Binning": 4}
"""128 x 128 pixels: 32 kB a frame as uint16."""
TWO_CAMERAS = """Device,Left,DemoCamera,DCam
Device,Right,DemoCamera,DCam
Device,Both,Utilities,Multi Camera
Device,Z,DemoCamera,DStage
Property,Core,Initialize,1
Property,Both,Physical Camera 1,Left
Property,Both,Physical Camera 2,Right
"""


class Run:
    """A source between ``open`` and ``close``, with a ring and an account."""

    def __init__(self, source: MicroManager, slots: int = 4) -> None:
        self.source = source
        self.account = Told()
        (self.stream,) = source.open()
        self.ring = LocalRing(self.stream, slots)
        self.infos: list = []
        self.planes: list[np.ndarray] = []

    def start(self, *, offer: bool = True) -> Run:
        self.source.start([self.ring], self.account)
        if offer:
            self.offer_all()
        return self

    def offer_all(self) -> None:
        for slot in self.ring.slots:
            self.source.offer(slot)

    def take(self, frames: int | None = None) -> None:
        """Read so many more frames, or all."""
        until, goal = time.monotonic() + PATIENCE_S, None if frames is None else len(self.infos) + frames
        while not self.source.finished and (goal is None or len(self.infos) < goal):
            assert time.monotonic() < until, f"{len(self.infos)} frames within {PATIENCE_S:g} s"
            slot = self.source.read(0.05)
            if slot is not None:
                self.infos.append(slot.info)
                self.planes.append(slot.planes["raw"].copy())
                self.source.offer(slot)

    def finish(self) -> None:
        """Stop, read to the end, and see that every number has one end."""
        self.source.stop()
        self.take()
        self.explained()

    def explained(self) -> None:
        came, gone = [info.seq for info in self.infos], self.account.numbers()
        assert came == sorted(came)
        assert sorted(came + gone) == list(range(len(came) + len(gone)))
        assert self.account.produced == len(came) + len(gone)

    def places(self) -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        for _, count, state, where in self.account.missed:
            found[state, where] = found.get((state, where), 0) + count
        return found

    def close(self) -> None:
        self.source.close()
        self.ring.close()


@pytest.fixture
def runs():
    made: list[Run] = []

    def make(*, slots: int = 4, **keys) -> Run:
        made.append(Run(demo(**keys), slots))
        return made[-1]

    yield make
    for run in made:
        run.close()


def demo(**keys) -> MicroManager:
    return MicroManager(**{"config": "demo", "exposure_ms": 5.0, "buffer_mb": 32, **keys})


def snap_and_repeat(core) -> np.ndarray:
    """Snap a picture with something in it, and let the camera repeat it, so that pixels can be compared."""
    core.snap_image()
    snapped = core.get_image().copy()
    assert np.ptp(snapped) > 0
    core.set_property("Camera", "FastImage", "1")
    return snapped


def alone(code: str) -> str:
    """Run code in a process of its own, since a fault of a driver would end this one."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def refused(keys: dict) -> str:
    source = demo(**keys)
    with pytest.raises(SourceError) as caught:
        source.open()
    source.close()
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


# -------------------------------------------------------------------- frames


def test_a_finite_sequence_keeps_the_contract_and_gives_every_frame():
    seen = check_source(lambda: demo(frames=9), frames=100)
    assert [info.seq for info in seen.infos] == list(range(9))
    assert [info.camera_number for info in seen.infos] == list(range(9))
    assert seen.account.missed == []
    assert seen.account.produced == 9
    assert seen.streams[0].frames == 9


def test_an_endless_sequence_keeps_the_contract():
    seen = check_source(lambda: demo(), frames=10)
    assert len(seen.infos) >= 10
    assert seen.account.produced == len(seen.infos) + len(seen.account.numbers())


@pytest.mark.parametrize(
    ("pixel_type", "keys", "dtype", "bits"),
    [
        ("8bit", {}, "uint8", 8),
        ("16bit", {}, "uint16", 16),
        ("32bit", {}, "float32", 32),
        ("32bit", {"float32": False}, "uint32", 32),
    ],
)
def test_pixels_are_those_of_a_snap_in_every_grey_pixel_type(runs, pixel_type, keys, dtype, bits):
    run = runs(frames=3, properties={"Camera.PixelType": pixel_type}, **keys)
    assert (run.stream.spec.dtype, run.stream.bit_depth) == (dtype, bits)
    snapped = snap_and_repeat(run.source._core)
    run.start().take()
    assert len(run.planes) == 3
    for plane in run.planes:
        np.testing.assert_array_equal(plane.view(snapped.dtype), snapped)


def test_a_frame_that_is_not_square_keeps_its_rows(runs):
    run = runs(frames=2, properties={"Camera.OnCameraCCDXSize": 320, "Camera.OnCameraCCDYSize": 96})
    assert run.stream.spec.shape == (96, 320)
    snapped = snap_and_repeat(run.source._core)
    run.start().take()
    np.testing.assert_array_equal(run.planes[-1], snapped)


def test_the_stream_says_what_the_camera_is(runs):
    run = runs(exposure_ms=7.0, properties={"Camera.Binning": 2}, channel="DAPI", pixel_um=0.065)
    stream = run.stream
    assert (stream.camera, stream.channel, stream.frames) == ("Camera", "DAPI", None)
    assert (stream.exposure_ms, stream.pixel_um, stream.spec.shape) == (7.0, 0.065, (256, 256))
    assert stream.details["binning"] == "2"
    assert stream.details["device"] == "DemoCamera DCam"
    assert "MMCore" in stream.details["core"]


def test_the_focus_is_sent_where_the_config_says(runs):
    run = runs(focus_um=12.5)
    assert run.source._core.get_position() == pytest.approx(12.5, abs=0.05)


def test_camera_ns_is_when_the_core_had_the_frame(runs):
    run = runs(exposure_ms=10.0, properties=SMALL)
    before = now_ns()
    run.start()
    time.sleep(0.3)  # the first frames grow old in the core's buffer
    run.take(10)
    after = now_ns()
    run.finish()
    times = np.array([info.camera_ns for info in run.infos])
    # Two clocks are compared; they were read one after the other, on a machine that may be busy.
    assert before - 20e6 < times[0]
    assert times[9] <= after
    assert np.all(np.diff(times) > 0)
    assert all(info.received_ns >= info.camera_ns for info in run.infos)
    first = run.infos[0]
    assert first.received_ns - first.camera_ns > 150e6
    # Nothing can be faster than its exposure for long; slower it may be.
    assert np.mean(np.diff(times)) > 0.8 * 10e6


# -------------------------------------------------------------------- what does not arrive


def test_without_slots_frames_wait_in_the_cores_buffer_and_none_is_lost(runs):
    run = runs(frames=20, properties=SMALL)
    run.start(offer=False)
    until = time.monotonic() + PATIENCE_S
    while run.source._core.is_sequence_running():
        assert run.source.read(0.01) is None
        assert time.monotonic() < until
    run.offer_all()
    run.take()
    assert len(run.infos) == 20
    assert run.account.missed == []
    run.explained()


def test_without_slots_for_long_the_oldest_are_dropped_and_counted(runs):
    run = runs(buffer_mb=8, exposure_ms=10.0)  # 16 frames of 512 x 512
    capacity = run.source._core.get_buffer_total_capacity()
    run.start(offer=False)
    until = time.monotonic() + PATIENCE_S
    while run.places().get(("dropped", "ring"), 0) < 20:
        assert run.source.read(0.005) is None
        assert time.monotonic() < until
    run.offer_all()
    run.take(2 * capacity)
    run.finish()
    places = run.places()
    assert places.pop(("dropped", "ring")) >= 20
    # A machine so busy that even the dropping came late may have let the buffer overflow; then that is told too.
    assert set(places) <= {("lost", "camera buffer")}
    if not places:
        assert [info.camera_number for info in run.infos] == [info.seq for info in run.infos]


def test_an_overflow_of_the_cores_buffer_is_told_and_the_sequence_goes_on(runs):
    run = runs(buffer_mb=8, exposure_ms=1.0, properties={"Camera.FastImage": 1})
    core = run.source._core
    capacity = core.get_buffer_total_capacity()
    run.start()
    until = time.monotonic() + PATIENCE_S
    while not core.is_buffer_overflowed():
        assert time.monotonic() < until, "the buffer never overflowed"
        time.sleep(0.01)
    run.take(capacity + 30)
    run.finish()
    assert run.places()["lost", "camera buffer"] >= 1
    # What was in the buffer is not thrown away, and the camera counts from 0 after it was started again.
    numbers = [info.camera_number for info in run.infos]
    assert numbers[:capacity] == list(range(capacity))
    assert 0 in numbers[capacity:]


def test_an_overflow_in_a_finite_sequence_still_gives_as_many_frames(runs):
    run = runs(frames=60, buffer_mb=8, exposure_ms=1.0, properties={"Camera.FastImage": 1})
    run.start()
    until = time.monotonic() + PATIENCE_S
    while not run.source._core.is_buffer_overflowed():
        assert time.monotonic() < until
        time.sleep(0.01)
    run.take()
    run.explained()
    assert len(run.infos) == 60
    assert set(run.places()) == {("lost", "camera buffer")}


def test_an_overflow_before_the_stop_is_told(runs):
    run = runs(buffer_mb=8, exposure_ms=1.0, properties={"Camera.FastImage": 1})
    run.start()
    until = time.monotonic() + PATIENCE_S
    while not run.source._core.is_buffer_overflowed():
        assert time.monotonic() < until
        time.sleep(0.01)
    run.finish()
    assert run.places() == {("lost", "camera buffer"): 1}


def test_a_gap_in_the_cameras_numbers_is_told(runs):
    run = runs(frames=12, properties=SMALL)
    run.start()
    run.take(4)
    core, thief = run.source._core, Thief(run.source._core, 3)
    run.source._core = thief
    run.take(1)
    run.source._core = core
    run.take()
    run.explained()
    assert run.account.missed == [(4, 3, "lost", "camera")]
    assert [info.camera_number for info in run.infos] == [0, 1, 2, 3, 7, 8, 9, 10, 11]
    assert [info.seq for info in run.infos] == [0, 1, 2, 3, 7, 8, 9, 10, 11]


def test_numbers_that_jump_back_make_the_totals_unsure(runs):
    run = runs(frames=3, properties=SMALL)
    run.start()
    run.source._expected = 2  # as if two frames had come before the camera's first number
    run.take()
    assert run.account.complete is False
    assert len(run.infos) == 3


class Thief:
    """A core from which somebody else has taken frames."""

    def __init__(self, core, count: int) -> None:
        self.core, self.count = core, count

    def __getattr__(self, name: str):
        return getattr(self.core, name)

    def pop_next_image_md(self, channel, piece, metadata):
        while self.count:
            if self.core.get_remaining_image_count():
                self.core.pop_next_image()
                self.count -= 1
        while not self.core.get_remaining_image_count():
            time.sleep(0.001)
        return self.core.pop_next_image_md(channel, piece, metadata)


def test_stop_ends_an_endless_sequence_and_what_was_acquired_can_be_read(runs):
    run = runs(properties=SMALL)
    run.start(offer=False)
    until = time.monotonic() + PATIENCE_S
    while run.source._core.get_remaining_image_count() < 5:
        assert time.monotonic() < until
        time.sleep(0.005)
    run.source.stop()
    waiting = run.source._core.get_remaining_image_count()
    assert not run.source.finished
    run.offer_all()
    run.take()
    assert len(run.infos) == waiting
    run.explained()


# -------------------------------------------------------------------- open and close


def test_the_same_source_can_be_opened_again_and_counts_from_0(runs):
    source = demo(frames=3, properties=SMALL)
    for _ in range(3):
        run = Run(source)
        run.start().take()
        run.explained()
        assert [info.seq for info in run.infos] == [0, 1, 2]
        run.close()


def test_close_in_the_middle_of_a_sequence_gives_the_camera_back(runs):
    for _ in range(3):
        run = runs(properties=SMALL)
        run.start().take(2)
        run.close()
        assert run.source.read(0.01) is None


def test_each_run_gives_the_memory_of_the_cores_buffer_back():
    printed = alone(
        """
import time, psutil
from pellucid.sources.micromanager import MicroManager
from pellucid.testing import LocalRing, Told
for turn in range(5):
    source = MicroManager(config="demo", exposure_ms=1, buffer_mb=96, properties={"Camera.FastImage": 1})
    (stream,) = source.open()
    ring = LocalRing(stream, 2)
    source.start([ring], Told())
    while source._core.is_sequence_running():
        time.sleep(0.01)
    source.close()
    ring.close()
    print(psutil.Process().memory_info().rss >> 20)
"""
    )
    used = [int(line) for line in printed.split()]
    # What the allocator keeps for itself varies; five buffers that stay would be 480 MiB.
    assert used[-1] - used[0] < 2 * 96 + 64


def test_devices_that_refuse_to_be_unloaded_do_not_keep_the_next_session_out(monkeypatch):
    from mmpycorex import launcher

    run = Run(demo(frames=1, properties=SMALL))
    refusals: list[bool] = []

    def refuse(debug: bool = False) -> None:
        refusals.append(debug)
        raise RuntimeError("Cannot switch camera device while sequence acquisition is running")

    with monkeypatch.context() as patched:
        patched.setattr(launcher, "terminate_pymmcore_instances", refuse)
        run.close()
    assert refusals
    Run(demo(frames=1, properties=SMALL)).close()


def test_a_second_source_is_refused_while_one_is_open_and_does_it_no_harm(runs):
    run = runs(properties=SMALL)
    run.start().take(2)
    assert "runs in this process already" in refused({})
    run.take(3)
    run.finish()


def test_relative_paths_are_seen_from_the_folder_of_the_config(tmp_path):
    (tmp_path / "scope.cfg").write_text(TWO_CAMERAS)
    where = Path(adapters.device_adapter_path()).as_posix()
    config = Config.parse(
        f'[source]\nkind = "micromanager"\nconfig = "scope.cfg"\nadapters = "{where}"\ncamera = "Right"\n', tmp_path
    )
    run = Run(config.source)
    assert run.stream.camera == "Right"
    run.close()


def test_only_opening_it_starts_anything():
    assert MicroManager.passive is False
    assert demo(config="nowhere.cfg").finished is False


# -------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"config": "nowhere.cfg"}, ['config = "nowhere.cfg"', "no such file", '"demo"']),
        ({"adapters": "/nowhere"}, ["adapters = ", "no such folder"]),
        ({"camera": "Camra"}, ['no camera "Camra"', 'Did you mean "Camera"?']),
        ({"camera": "Z"}, ['no camera "Z"', "There are: Camera"]),
        ({"properties": {"PixelType": "16bit"}}, ['properties."PixelType"', "a device, a dot and a property"]),
        ({"properties": {"Camra.PixelType": "16bit"}}, ['no device "Camra"', 'Did you mean "Camera"?', "more"]),
        ({"properties": {"Camera.PixlType": "16bit"}}, ['no property "PixlType"', 'mean "PixelType"?', "more"]),
        (
            {"properties": {"Camera.PixelType": "16bits"}},
            ['properties."Camera.PixelType" = "16bits"', 'mean "16bit"?', "Allowed: 16bit, 32bit"],
        ),
        ({"properties": {"Camera.Gain": 99}}, ['"Camera.Gain" = "99"', "refuses", "Allowed: -5 to 8"]),
        ({"properties": {"Camera.CCDTemperature RO": 3}}, ["can only be read"]),
        ({"exposure_ms": 20000.0}, ["exposure_ms = 20000", "instead"]),
        ({"focus_um": 1e9}, ["focus_um", "refuses", "out of range"]),
        ({"properties": {"Camera.PixelType": "32bitRGB"}}, ["4 colours a pixel", "grey pixel type"]),
        (
            {"buffer_mb": 8, "properties": {"Camera.OnCameraCCDXSize": 2048, "Camera.OnCameraCCDYSize": 2048}},
            ["buffer_mb = 8", "Set buffer_mb = 32 or more"],
        ),
    ],
)
def test_mistakes_are_said_in_one_line(keys, says):
    text = refused(keys)
    for part in says:
        assert part in text
    # The refusal left no core behind.
    run = Run(demo(frames=1, properties=SMALL))
    run.close()


def test_a_buffer_as_large_as_the_message_says_is_enough(runs):
    run = runs(
        frames=2,
        buffer_mb=32,
        properties={"Camera.OnCameraCCDXSize": 2048, "Camera.OnCameraCCDYSize": 2048, "Camera.FastImage": 1},
    )
    run.start().take()
    run.explained()


def test_a_damaged_configuration_is_said_in_one_line(tmp_path):
    where = Path(adapters.device_adapter_path())
    garbage = tmp_path / "garbage.cfg"
    garbage.write_bytes(bytes(range(256)) * 4)
    unknown = tmp_path / "unknown.cfg"
    unknown.write_text("Device,Camera,NoSuchAdapter,Cam\n")
    for file in (garbage, unknown):
        text = refused({"config": str(file), "adapters": where})
        assert file.name in text


def test_a_configuration_without_a_camera_names_what_to_give(tmp_path):
    where = Path(adapters.device_adapter_path())
    (tmp_path / "two.cfg").write_text(TWO_CAMERAS + "Property,Core,Camera,\n")
    text = refused({"config": str(tmp_path / "two.cfg"), "adapters": where})
    assert 'names no camera. Its cameras: Left, Right, Both. Say which one: camera = "Left"' in text
    (tmp_path / "none.cfg").write_text("Device,Z,DemoCamera,DStage\nProperty,Core,Initialize,1\n")
    assert "names no camera. Its cameras: none" in refused({"config": str(tmp_path / "none.cfg"), "adapters": where})


def test_several_cameras_in_one_device_are_refused_with_their_names(tmp_path):
    file = tmp_path / "two.cfg"
    file.write_text(TWO_CAMERAS + "Property,Core,Camera,Both\n")
    text = refused({"config": str(file), "adapters": Path(adapters.device_adapter_path())})
    assert "2 cameras in one (Left, Right)" in text


def test_beads_in_colour_are_refused_before_they_crash_the_process():
    printed = alone(
        """
from pellucid.errors import SourceError
from pellucid.sources.micromanager import MicroManager
for kind in ("32bitRGB", "64bitRGB"):
    for order in (("Mode", "PixelType"), ("PixelType", "Mode")):
        values = {"Mode": "Fluorescent Beads", "PixelType": kind}
        source = MicroManager(config="demo", buffer_mb=32, properties={f"Camera.{n}": values[n] for n in order})
        try:
            source.open()
        except SourceError as error:
            print(error)
"""
    )
    lines = printed.splitlines()
    assert len(lines) == 4
    assert all("crash" in line and "16bit" in line for line in lines)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("core.set_roi(0, 0, 128, 128)", "stopped by itself"),
        ("core.set_circular_buffer_memory_footprint(16)", "stopped by itself"),
        ('core.stop_sequence_acquisition(); core.set_property("Camera", "Binning", "2")', "256x256"),
        ('core.stop_sequence_acquisition(); core.set_property("Camera", "Binning", "2"); begin()', "256x256"),
        ('core.stop_sequence_acquisition(); core.set_property("Camera", "Binning", "1"); begin()', "1024x1024"),
        ('core.stop_sequence_acquisition(); core.set_property("Camera", "PixelType", "8bit"); begin()', "of 1 bytes"),
        # As many bytes as before: only the tags of the frame tell.
        ('core.stop_sequence_acquisition(); core.set_property("Camera", "PixelType", "32bitRGB"); begin()', "RGB32"),
        ("core.stop_sequence_acquisition(); core.set_roi(0, 0, 256, 512)", "stopped by itself"),
        ("core.stop_sequence_acquisition(); turn(256, 1024); begin()", "256x1024"),
    ],
)
def test_a_change_of_the_camera_in_a_run_is_an_error_and_never_a_wrong_picture(change, says):
    pixel_type = "32bit" if "RGB" in change else "16bit"
    height = 1024 if '"1"' in change else 512
    binning = 2 if '"1"' in change else 1
    printed = alone(
        f"""
import numpy as np
from pellucid.errors import SourceError
from pellucid.sources.micromanager import MicroManager
from pellucid.testing import LocalRing, Told

source = MicroManager(config="demo", exposure_ms=2, buffer_mb=64, properties={{
    "Camera.OnCameraCCDXSize": {height}, "Camera.OnCameraCCDYSize": {height},
    "Camera.Binning": {binning}, "Camera.PixelType": "{pixel_type}"}})
(stream,) = source.open()
ring, account, core = LocalRing(stream, 4), Told(), source._core
core.snap_image()
snapped = core.get_image().copy()
assert snapped.max() > 0
core.set_property("Camera", "FastImage", "1")

def begin():
    core.start_sequence_acquisition(10**6, 0, True)

def turn(height, width):
    core.set_property("Camera", "OnCameraCCDYSize", str(height))
    core.set_property("Camera", "OnCameraCCDXSize", str(width))

source.start([ring], account)
for slot in ring.slots:
    source.offer(slot)
came = 0
def read():
    global came
    slot = source.read(0.05)
    if slot is not None:
        assert np.array_equal(slot.planes["raw"].view(snapped.dtype), snapped), "a wrong picture"
        came += 1
        source.offer(slot)
while came < 3:
    read()
{change}
try:
    for _ in range(1000):
        read()
except SourceError as error:
    print(error)
else:
    print("no error")
    source.stop()
    while not source.finished:
        read()
assert source.finished and source.read(0.01) is None
# Frames that the core threw away itself show as a gap in the numbers of the next one.
assert account.produced == came + len(account.numbers())
source.close()
ring.close()
"""
    )
    # Whether the camera survives another buffer depends on the moment at which it hands its next frame over.
    either = (says, "no error") if "footprint" in change else (says,)
    assert any(text in printed for text in either)
    assert len(printed.splitlines()) == 1


def test_a_larger_picture_set_meanwhile_does_not_end_the_process_where_frames_are_dropped():
    printed = alone(
        """
from pellucid.errors import SourceError
from pellucid.sources.micromanager import MicroManager
from pellucid.testing import LocalRing, Told
import time
source = MicroManager(config="demo", exposure_ms=1, buffer_mb=8, properties={"Camera.Binning": 4})
(stream,) = source.open()
ring, core = LocalRing(stream, 1), source._core
source.start([ring], Told())
while core.get_remaining_image_count() <= source._full:
    time.sleep(0.01)
core.stop_sequence_acquisition()
for name, value in (("Binning", "1"), ("OnCameraCCDXSize", "4000"), ("OnCameraCCDYSize", "4000")):
    core.set_property("Camera", name, value)
try:
    source.read(0.0)
except SourceError as error:
    print(error)
source.close()
"""
    )
    assert "4000x4000" in printed


def test_what_the_core_refuses_during_a_run_does_no_harm(runs):
    run = runs()
    run.start().take(3)
    for name, value in (("Binning", "2"), ("PixelType", "8bit")):
        with pytest.raises(RuntimeError):
            run.source._core.set_property("Camera", name, value)
    run.take(3)
    run.finish()


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycromanager", None)
    with pytest.raises(MissingExtra, match=r"pellucid\[micromanager\]"):
        demo().open()


@pytest.mark.parametrize("line", ["exposure_ms = 0", "frames = 0", "buffer_mb = 1", "pixel_um = -1", "exposure = 5"])
def test_keys_are_checked_before_anything_moves(line):
    with pytest.raises(PellucidError) as caught:
        Config.parse(f'[source]\nkind = "micromanager"\nconfig = "demo"\n{line}\n')
    assert line.split()[0] in str(caught.value)
    assert "\n" not in str(caught.value)
