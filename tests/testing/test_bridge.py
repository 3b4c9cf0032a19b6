"""The Micro-Manager without Java: an unmodified pycromanager against a real core."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import psutil
import pytest
import zmq

from pellucid.testing.bridge import BridgeServer

pycromanager = pytest.importorskip("pycromanager", reason="pycromanager is not installed")
pyjavaz = pytest.importorskip("pyjavaz", reason="pycromanager is not installed")
pytest.importorskip("mm_test_adapters", reason="mm-test-adapters is not installed")

# pyjavaz leaves its socket to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:[Uu]nclosed socket:ResourceWarning")

PATIENCE_S = 10.0


def let_go() -> None:
    """Close all objects that pyjavaz has open; with the last one of a port it closes its bridge.

    Left to the garbage collector, an object that an exception's traceback holds may be collected in the midst of a
    call, or after its bridge, and its end then waits for ever: for a lock, or for an answer.
    """
    for reference in list(pyjavaz.bridge.Bridge._cached_bridges_by_port.values()):
        bridge = reference()
        for each in list(bridge._java_objects) if bridge is not None else ():
            each._close()


@contextmanager
def serving(**options):
    with BridgeServer(**options) as server:
        gc.disable()
        gc.freeze()  # so that the collection below is quick
        try:
            yield server
        finally:
            let_go()
            gc.enable()
            gc.collect()  # their sockets, while the warning is not an error
            gc.unfreeze()


@pytest.fixture
def server():
    with serving(properties={"Camera.PixelType": "16bit", "Camera.Exposure": 1}) as server:
        yield server


def connect(server: BridgeServer, **options):
    return pycromanager.Core(port=server.port, **options)


def items(vector) -> list:
    return [vector.get(i) for i in range(vector.size())]


def wait_for(condition, what: str = "nothing happened") -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.002)


def number(tagged) -> tuple[str, int]:
    tags = tagged.tags
    return tags["Camera"], int(tags["ImageNumber"])


def two_cameras(core) -> None:
    core.loadDevice("Camera2", "DemoCamera", "DCam")
    core.setParentLabel("Camera2", "DHub")
    core.initializeDevice("Camera2")
    core.loadDevice("Both", "Utilities", "Multi Camera")
    core.initializeDevice("Both")
    for device in ("Camera", "Camera2"):
        core.setProperty(device, "PixelType", "16bit")
        core.setProperty(device, "BitDepth", "16")
    core.setProperty("Camera2", "Mode", "Noise")
    core.setProperty("Both", "Physical Camera 1", "Camera")
    core.setProperty("Both", "Physical Camera 2", "Camera2")
    core.setCameraDevice("Both")
    core.updateSystemStateCache()


class Raw:
    """A client without pyjavaz, for what pyjavaz would never send."""

    def __init__(self, port: int) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.REQ)
        self.socket.linger = 0
        self.socket.rcvtimeo = round(PATIENCE_S * 1000)
        self.socket.connect(f"tcp://127.0.0.1:{port}")

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.context.term()

    def send(self, *frames: bytes) -> dict:
        self.socket.send_multipart(frames)
        return json.loads(self.socket.recv_multipart()[0].decode("iso-8859-1"))

    def ask(self, **message) -> dict:
        return self.send(json.dumps(message).encode("iso-8859-1", "replace"))


# -------------------------------------------------------------------- the core


def test_devices_properties_and_groups(server):
    core, real = connect(server), server.core
    assert items(core.get_loaded_devices()) == list(real.getLoadedDevices())
    assert items(core.get_device_property_names("Camera")) == list(real.getDevicePropertyNames("Camera"))
    assert "16bit" in items(core.get_allowed_property_values("Camera", "PixelType"))
    assert core.get_property("Camera", "PixelType") == "16bit"
    core.set_property("Camera", "Gain", 3)
    core.set_property("Camera", "Offset", "7")
    assert (real.getProperty("Camera", "Gain"), real.getProperty("Camera", "Offset")) == ("3", "7")
    assert core.has_property("Camera", "Gain")
    assert not core.has_property("Camera", "Pain")
    assert core.get_property_upper_limit("Camera", "Gain") == real.getPropertyUpperLimit("Camera", "Gain")

    groups = items(core.get_available_config_groups())
    assert groups == list(real.getAvailableConfigGroups())
    assert items(core.get_available_configs("Channel")) == list(real.getAvailableConfigs("Channel"))
    core.set_config("Channel", "FITC")
    core.wait_for_system()
    assert core.get_current_config("Channel") == real.getCurrentConfig("Channel") == "FITC"
    data = core.get_config_data("Channel", "FITC")
    assert data.size() == 4
    assert data.get_setting("Dichroic", "Label").get_property_value() == "Q505LP"

    iterator = core.get_available_configs("Channel").iterator()
    walked = []
    while iterator.has_next():
        walked.append(iterator.next())
    assert walked == list(real.getAvailableConfigs("Channel"))


def test_roi_stages_and_enumerations(server):
    core, real = connect(server), server.core
    core.set_roi(16, 8, 128, 64)
    roi = core.get_roi()
    assert [roi.x, roi.y, roi.width, roi.height] == real.getROI() == [16, 8, 128, 64]
    assert roi.get_width() == 128.0
    roi.width = 99  # set-field changes the object, not the camera
    assert roi.width == 99
    assert real.getROI()[2] == 128
    core.clear_roi()
    core.set_xy_position(10.0, 20)
    core.wait_for_device("XY")
    there = core.get_xy_stage_position()
    assert (there.x, there.y) == tuple(real.getXYPosition())
    core.set_exposure(12.5)
    assert core.get_exposure() == 12.5
    kind = core.get_device_type("Camera")
    assert (kind.swig_value(), kind.to_string()) == (2, "CameraDevice")
    assert items(core.get_loaded_devices_of_type(kind)) == ["Camera"]
    assert core.get_pixel_size_um() == core.get_pixel_size_um(True) == real.getPixelSizeUm()
    assert items(core.get_pixel_size_affine()) == list(real.getPixelSizeAffine())


@pytest.mark.parametrize(
    ("pixels", "dtype", "name", "channels"),
    [
        ("8bit", "uint8", "GRAY8", 1),
        ("16bit", "uint16", "GRAY16", 1),
        ("32bit", "float32", "GRAY32", 1),
        ("32bitRGB", "uint8", "RGB32", 4),
        ("64bitRGB", "uint16", "RGB64", 4),
    ],
)
def test_snapped_pixels_are_the_cores(server, pixels, dtype, name, channels):
    core = connect(server)
    core.set_property("Camera", "PixelType", pixels)
    core.set_roi(0, 0, 96, 64)
    core.snap_image()
    tagged = core.get_tagged_image()
    real = server.core.getImage()
    assert tagged.pix.dtype == dtype
    assert tagged.pix.shape == (96 * 64 * channels,)
    assert tagged.pix.tobytes() == core.get_image().tobytes() == real.tobytes()
    assert real.any()
    tags = tagged.tags
    assert (tags["Width"], tags["Height"], tags["PixelType"], tags["ROI"]) == (96, 64, name, "0-0-96-64")
    assert (tags["BitDepth"], tags["PixelSizeUm"]) == (server.core.getImageBitDepth(), server.core.getPixelSizeUm())
    assert (tags["Binning"], tags["Channel"], tags["ChannelIndex"]) == ("1", server.core.getCurrentConfig("Channel"), 0)
    assert tags["CameraChannelIndex"] == 0
    assert tags["Camera-PixelType"] == pixels  # every property comes with every image...
    core.set_include_system_state_cache(False)
    assert "Camera-PixelType" not in core.get_tagged_image(0).tags  # ... unless one does without


def test_a_finite_sequence(server):
    core, real = connect(server), server.core
    core.start_sequence_acquisition(5, 0, True)
    wait_for(lambda: not core.is_sequence_running())
    assert core.get_remaining_image_count() == 5
    metadata = server._pymmcore.Metadata()
    expected = [real.getNBeforeLastImageMD(4 - i, metadata) for i in range(5)]
    for i, picture in enumerate(expected):
        assert core.get_last_tagged_image().pix.tobytes() == expected[-1].tobytes()  # looking takes nothing out
        tagged = core.pop_next_tagged_image(0) if i % 2 else core.pop_next_tagged_image()
        assert number(tagged) == ("Camera", i)
        assert tagged.pix.tobytes() == picture.tobytes()
        assert {"ElapsedTime-ms", "TimeReceivedByCore"} <= set(tagged.tags)
    assert len({p.tobytes() for p in expected}) == 5
    with pytest.raises(Exception, match=r"^java.lang.Exception: Circular buffer is empty"):
        core.pop_next_tagged_image()


def test_a_sequence_without_end(server):
    core = connect(server)
    core.start_continuous_sequence_acquisition(0)
    seen = []
    while len(seen) < 20:
        if core.get_remaining_image_count():
            seen.append(number(core.pop_next_tagged_image())[1])
    assert core.is_sequence_running()
    core.stop_sequence_acquisition()
    assert seen == list(range(20))
    assert not core.is_sequence_running()
    assert number(core.get_n_before_last_tagged_image(0))[1] >= 19 if core.get_remaining_image_count() else True


def test_pixels_into_a_metadata_object(server):
    core = connect(server)
    core.start_sequence_acquisition(1, 0, True)
    wait_for(lambda: not core.is_sequence_running())
    metadata = pyjavaz.JavaObject("mmcorej.Metadata", port=server.port)
    expected = server.core.getLastImage()
    assert core.pop_next_image_md(metadata).tobytes() == expected.tobytes()
    assert metadata.get_single_tag("ImageNumber").get_value() == "0"
    assert "Camera" in items(metadata.get_keys())


def test_several_cameras(server):
    two_cameras(server.core)
    core = connect(server)
    assert core.get_number_of_camera_channels() == 2
    assert [core.get_camera_channel_name(i) for i in range(2)] == ["Camera", "Camera2"]
    core.snap_image()
    for i, name in enumerate(("Camera", "Camera2")):
        tagged = core.get_tagged_image(i)
        tags = tagged.tags
        assert (tags["Camera"], tags["Channel"], tags["CameraChannelIndex"]) == (name, name, i)
        assert tagged.pix.tobytes() == server.core.getImage(i).tobytes()
    core.start_sequence_acquisition(4, 0, True)
    wait_for(lambda: not core.is_sequence_running())
    came = [number(core.pop_next_tagged_image()) for _ in range(8)]
    for name in ("Camera", "Camera2"):
        assert [n for camera, n in came if camera == name] == [0, 1, 2, 3]


# -------------------------------------------------------------------- exceptions


def test_exceptions_carry_the_cores_text(server):
    core = connect(server)
    with pytest.raises(Exception, match=r'^java.lang.Exception: Cannot set property "PixelType" to "blue"\n\tat '):
        core.set_property("Camera", "PixelType", "blue")
    with pytest.raises(Exception, match='No device with label "Nobody"'):
        core.get_property("Nobody", "Home")
    with pytest.raises(Exception, match="Incorrect arguments"):
        core.set_exposure("long")
    with pytest.raises(Exception, match="IndexOutOfBounds"):
        core.get_loaded_devices().get(1000)
    with pytest.raises(Exception, match="Class not found"):
        pyjavaz.JavaObject("org.example.Nothing", port=server.port)
    assert core.get_camera_device() == "Camera"


@pytest.mark.parametrize("first", ["Mode", "PixelType"])
def test_beads_in_colour_are_refused(server, first):
    values = {"Mode": "Fluorescent Beads", "PixelType": "32bitRGB"}
    second = next(name for name in values if name != first)
    core, real = connect(server), server.core
    core.set_property("Camera", first, values[first])
    with pytest.raises(Exception, match="refused"):
        core.set_property("Camera", second, values[second])
    real.defineConfig("Trap", "shut", "Camera", second, values[second])
    with pytest.raises(Exception, match="refused"):
        core.set_config("Trap", "shut")
    real.setProperty("Camera", second, values[second])  # behind the server's back
    for start in (core.snap_image, lambda: core.start_sequence_acquisition(1, 0, True)):
        with pytest.raises(Exception, match="refused"):
            start()
    with pytest.raises(Exception, match="refused"):
        pycromanager.Studio(port=server.port).live().set_live_mode_on(True)


# -------------------------------------------------------------------- sockets


def test_further_sockets(server):
    core = connect(server)
    second = connect(server, new_socket=True)
    third = connect(server, new_socket=True)
    assert [c._creation_port - server.port for c in (core, second, third)] == [0, 1, 2]
    sleeper = threading.Thread(target=second.sleep, args=(400.0,))
    sleeper.start()
    began = time.monotonic()
    assert third.get_camera_device() == core.get_camera_device() == "Camera"
    assert time.monotonic() - began < 0.3, "a call on one socket held up the others"
    sleeper.join()
    second._close()
    wait_for(lambda: server.port + 1 not in server._sockets, "a socket outlived its last object")
    fourth = connect(server, new_socket=True)  # the lowest free one again
    assert fourth._creation_port == server.port + 1

    # A static method; its result, kept by one socket, is an argument on another.
    kinds = pycromanager.JavaClass("mmcorej.DeviceType", port=server.port, new_socket=True)
    stage = kinds.swig_to_enum(5)
    assert (kinds._creation_port, stage.to_string()) == (server.port + 3, "StageDevice")
    assert items(core.get_loaded_devices_of_type(stage)) == ["Z"]


def test_the_handshake_tells_the_version(server):
    with Raw(server.port) as raw:
        assert raw.ask(command="connect", debug=False) == {"type": "none", "version": "5.1.0"}
    with serving(version="4.0.0") as other, Raw(other.port) as raw:
        assert raw.ask(command="connect", debug=False)["version"] == "4.0.0"


def test_a_restart(server):
    core = connect(server)
    core.set_property("Camera", "Gain", 5)
    old, port = server.core, server.port
    let_go()
    server.stop()
    server.stop()
    with pytest.raises(RuntimeError, match="stopped"):
        _ = server.core
    with socket.socket() as probe:
        if os.name != "nt":  # a connection that the server closed first may linger; a listener is refused all the same
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
    server.start()
    assert server.port == port
    assert server.core is not old
    assert not old.getLoadedDevices()[:-1]  # all but the core itself
    core = connect(server)
    assert core.get_property("Camera", "Gain") == "0"
    assert core.get_property("Camera", "PixelType") == "16bit"


def test_a_port_that_is_taken(server):
    with pytest.raises(OSError, match=f"port = {server.port}"):
        BridgeServer(port=server.port).start()


# -------------------------------------------------------------------- the application


def picture(shape, dtype) -> np.ndarray:
    return (np.arange(int(np.prod(shape))) * 37 % 60000).astype(dtype).reshape(shape)


def show(studio, pixels, pixel_bytes=1, components=1) -> None:
    data = studio.data()
    coords = data.coords_builder().time(3).c(1).build()
    assert (coords.get_t(), coords.get_channel(), coords.get_index("z")) == (3, 1, 0)
    metadata = data.metadata_builder().camera("pellucid").exposure_ms(4.0).build()
    assert metadata.get_camera() == "pellucid"
    height, width = pixels.shape[:2]
    if pixel_bytes == 2:  # as short[], with the bytes in the order of Java
        pixels = pixels.byteswap().view(np.int16)
    image = data.create_image(pixels.ravel(), width, height, pixel_bytes, components, coords, metadata)
    assert (image.get_width(), image.get_height(), image.get_bytes_per_pixel()) == (width, height, pixel_bytes)
    studio.live().display_image(image)


def test_pictures_are_pushed_back(server):
    studio = pycromanager.Studio(port=server.port)
    grey, deep, colour = picture((5, 7), "uint8"), picture((6, 4), "uint16"), picture((3, 4, 4), "uint8")
    show(studio, grey)
    show(studio, deep, 2)
    show(studio, colour, 4, 3)
    for was, shown in zip((grey, deep, colour), server.displayed, strict=True):
        assert shown.dtype == was.dtype
        assert np.array_equal(shown, was)
    with pytest.raises(Exception, match="IllegalArgumentException"):
        show(studio, deep.astype(np.float32), 4)
    data = studio.data()
    ends = data.coords_builder().build(), data.metadata_builder().build()
    with pytest.raises(Exception, match="too few"):
        data.create_image(grey.ravel(), 8, 8, 1, 1, *ends)
    with pytest.raises(Exception, match="Pixel type is not supported"):
        data.create_image(deep.ravel(), 4, 6, 2, 1, *ends)  # pyjavaz makes char[] of uint16
    for _ in range(20):
        show(studio, grey)
    assert len(server.displayed) == 16


def test_the_bytes_of_a_short_array_are_swapped_as_in_java(server):
    studio = pycromanager.Studio(port=server.port)
    data = studio.data()
    image = data.create_image(
        np.array([1, 256], np.int16), 2, 1, 2, 1, data.coords_builder().build(), data.metadata_builder().build()
    )
    assert image.get_raw_pixels().tolist() == ([256, 1] if sys.byteorder == "little" else [1, 256])


def test_frames_of_the_core_are_displayed(server):
    studio, core = pycromanager.Studio(port=server.port), connect(server)
    core.snap_image()
    studio.live().display_image(studio.data().convert_tagged_image(core.get_tagged_image()))
    assert np.array_equal(server.displayed[0], server.core.getImage())
    assert studio.live().snap(True).size() == 1
    assert np.array_equal(server.displayed[1], server.core.getImage())


def test_live_mode(server):
    studio, core = pycromanager.Studio(port=server.port), connect(server)
    live = studio.live()
    assert not live.is_live_mode_on()
    live.set_live_mode_on(True)
    assert live.is_live_mode_on()
    assert live.get_is_live_mode_on()
    assert core.is_sequence_running()
    wait_for(lambda: core.get_remaining_image_count() > 10)
    seen = {number(core.get_last_tagged_image()) for _ in range(10)}
    assert len(seen) > 1
    assert server.preview_errors == 0
    live.set_suspended(True)
    assert live.is_live_mode_on()
    assert not core.is_sequence_running()
    live.set_suspended(False)
    assert core.is_sequence_running()
    live.set_live_mode_on(False)
    assert not core.is_sequence_running()
    assert server.preview_errors == 0


def test_who_pops_all_frames_starves_the_preview():
    with serving(properties={"Camera.Exposure": 200}, live=True) as server:
        core = connect(server)
        wait_for(lambda: core.get_remaining_image_count() > 0)
        time.sleep(0.1)  # the preview has seen one
        core.clear_circular_buffer()
        wait_for(lambda: server.preview_errors > 0)


# -------------------------------------------------------------------- garbage


def test_garbage_is_answered_and_survived(server):
    rng = random.Random(7)
    with Raw(server.port) as raw:
        made = raw.ask(command="constructor", classpath="mmcorej.CMMCore", **nothing())
        number = made["hash-code"]
        assert made["port"] == server.port
        good = [
            {"command": "connect", "debug": False},
            {"command": "get-constructors", "classpath": "mmcorej.StrVector"},
            {"command": "get-class", "classpath": "mmcorej.DeviceType"},
            {"command": "constructor", "classpath": "mmcorej.Metadata", **nothing()},
            {"command": "constructor", "classpath": "org.micromanager.Studio", "new-port": True, **nothing()},
            call(number, "getImageWidth"),
            call(number, "getROI"),
            call(number, "getCameraChannelName", (0, "int")),
            call(number, "getProperty", ("Camera", "java.lang.String"), ("Gain", "java.lang.String")),
            call(number, "getLoadedDevicesOfType", ({"hash-code": number}, "mmcorej.DeviceType")),
            {"command": "get-field", "hash-code": number, "name": "pix"},
            {"command": "set-field", "hash-code": number, "name": "pix", "value": "@5_2"},
            {"command": "destructor", "hash-code": "nothing"},
        ]
        refused = 0
        for i in range(3000):
            message = mutated(rng, json.loads(json.dumps(rng.choice(good)))) if i % 3 else rng.choice(good)
            text = json.dumps(message).encode("iso-8859-1", "replace")
            if i % 3 == 1:
                text = flipped(rng, text)
            frames = [text] if rng.random() < 0.8 else [text, *(rng.randbytes(rng.choice([0, 4, 9])) for _ in range(2))]
            refused += raw.send(*frames)["type"] == "exception"
        for _ in range(500):
            frames = [rng.randbytes(rng.randrange(60)) for _ in range(rng.randrange(1, 5))]
            refused += raw.send(*frames)["type"] == "exception"
        for text in (b"[]", b"null", b"{}", b"1e999", b'"' * 9, b"[" * 100_000, b"9" * 5000, b'{"command": {}}'):
            assert raw.send(text)["type"] == "exception"
        assert refused > 1500
        with_array = {"command": "connect", "debug": False, "name": "a@b"}
        answer = raw.send(json.dumps(with_array).encode(), b"\0\0\0\1", b"")
        assert "NumberFormatException" in answer["value"]
    for noise in (
        b"GET / HTTP/1.1\r\n\r\n",
        *(rng.randbytes(1000) for _ in range(20)),
        b"\xff" + bytes(8) + b"\x01\x7f",
    ):
        with socket.create_connection(("127.0.0.1", server.port)) as tcp:
            tcp.sendall(noise)
    dealer = zmq.Context.instance().socket(zmq.DEALER)  # no REQ: what it sends has no way back
    dealer.linger = 0
    dealer.connect(f"tcp://127.0.0.1:{server.port}")
    for i in range(20):
        dealer.send_multipart([rng.randbytes(9)] * (i % 4 + 1))
    core = connect(server)
    core.snap_image()
    assert core.get_tagged_image().pix.tobytes() == server.core.getImage().tobytes()
    dealer.close()


def nothing() -> dict:
    return {"argument-types": [], "argument-deserialization-types": [], "arguments": []}


def call(number: str, name: str, *arguments: tuple) -> dict:
    kinds = [kind for _, kind in arguments]
    return {
        "command": "run-method",
        "static": False,
        "hash-code": number,
        "java_class_name": "mmcorej.CMMCore",
        "name": name,
        "argument-types": kinds,
        "argument-deserialization-types": kinds,
        "arguments": [value for value, _ in arguments],
    }


def mutated(rng: random.Random, message: dict) -> dict:
    values = [None, True, -1, 2**70, 1e300, "", "x@y", "\ud800", [], {}, [[]], {"hash-code": 1}, [{"hash-code": "x"}]]
    for key in rng.sample(sorted(message), rng.randrange(1, 3)):
        if rng.random() < 0.3:
            del message[key]
        else:
            message[key] = rng.choice(values)
    return message


def flipped(rng: random.Random, text: bytes) -> bytes:
    data = bytearray(text)
    for _ in range(rng.randrange(1, 4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data[: rng.randrange(1, len(data) + 1)]) if rng.random() < 0.3 else bytes(data)


# -------------------------------------------------------------------- life


def test_nothing_is_left_behind():
    before = {t.name for t in threading.enumerate()}
    files = psutil.Process().num_fds() if hasattr(psutil.Process(), "num_fds") else None
    for _ in range(2):
        with serving(live=True) as server:
            held = [connect(server, new_socket=i > 0) for i in range(3)]
            core = server.core
            assert all(h.get_camera_device() == "Camera" for h in held)
        assert not [d for d in core.getLoadedDevices() if d != "Core"]
    wait_for(lambda: {t.name for t in threading.enumerate()} <= before, "threads")
    if files is not None:
        assert psutil.Process().num_fds() <= files + 2


def test_as_a_process_of_its_own():
    command = [sys.executable, "-m", "pellucid.testing.bridge", "--port", "0", "--live", "--set"]
    process = subprocess.Popen([*command, "Camera.PixelType=16bit"], stdout=subprocess.PIPE, text=True)
    try:
        head, _, port = process.stdout.readline().strip().rpartition(":")
        assert head == "listening on 127.0.0.1"
        core = pycromanager.Core(port=int(port))
        assert core.get_property("Camera", "PixelType") == "16bit"
        while core.get_remaining_image_count() < 3:
            time.sleep(0.002)
        assert core.get_last_tagged_image().pix.dtype == np.uint16
        let_go()
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=PATIENCE_S)[0] == "preview errors: 0\n"
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
