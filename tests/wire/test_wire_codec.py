"""Pixels packed on their way: the same on the other side, and nothing that comes in can do harm."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys

import numpy as np
import pytest
from cable import Cable
from hypothesis import given, settings
from hypothesis import strategies as st

from pellucid.errors import MissingExtra, WireError
from pellucid.protocols import Spec, Stream
from pellucid.wire import codec
from pellucid.wire.message import BadMessage
from pellucid.wire.sender import Feed, Sender

LARGE = Spec((200, 300), "uint16")
CODECS = ("lz4", "zstd")


@pytest.fixture(autouse=True)
def loaded():
    codec.load("lz4", "a test")


def noise(spec: Spec, photons: float = 100.0) -> np.ndarray:
    return np.random.default_rng(5).poisson(photons, spec.shape).astype(spec.dtype)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int16", "float32"])
def test_what_is_packed_is_unpacked(name, dtype):
    for shape in [(1, 1), (24, 40), (3, 5, 7), (700, 900)]:
        for plane in (noise(Spec(shape, dtype)), np.zeros(shape, dtype)):
            part = memoryview(codec.pack(plane, name))
            assert codec.is_packed(part, plane.nbytes)
            flat = np.empty(plane.nbytes, np.uint8)
            codec.unpack(part, flat)
            np.testing.assert_array_equal(flat.view(dtype).reshape(shape), plane)


@pytest.mark.parametrize("name", CODECS)
def test_pixels_that_do_not_shrink_hardly_grow(name):
    plane = np.random.default_rng(1).integers(0, 2**16, (300, 300)).astype(np.uint16)
    part = codec.pack(plane, name)
    assert len(part) <= plane.nbytes + 16
    assert codec.is_packed(memoryview(part), plane.nbytes)


@given(st.binary(min_size=0, max_size=60), st.integers(0, 4000))
def test_random_bytes_are_not_packed_or_damaged(part, nbytes):
    view = memoryview(part)
    if codec.is_packed(view, nbytes):
        flat = np.empty(nbytes, np.uint8)
        with contextlib.suppress(BadMessage):
            codec.unpack(view, flat)


@settings(max_examples=300)
@given(st.data())
def test_mutated_blocks_stay_within_their_slot(data):
    """The bytes around the slot's plane are watched."""
    spec = data.draw(st.sampled_from([Spec((24, 40), "uint16"), Spec((90, 90), "float32"), Spec((64, 64), "uint8")]))
    good = codec.pack(noise(spec), data.draw(st.sampled_from(CODECS)))
    bad = bytearray(good[: data.draw(st.integers(17, len(good)))])
    for _ in range(data.draw(st.integers(1, 8))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    struct.pack_into("<I", bad, 4, spec.nbytes)
    struct.pack_into("<I", bad, 12, len(bad))
    fence = np.full(spec.nbytes + 8192, 0x5A, np.uint8)
    assert codec.is_packed(memoryview(bytes(bad)), spec.nbytes)
    with contextlib.suppress(BadMessage):
        codec.unpack(memoryview(bytes(bad)), fence[4096:-4096])
    assert (fence[:4096] == 0x5A).all()
    assert (fence[-4096:] == 0x5A).all()


@pytest.mark.parametrize("name", CODECS)
def test_frames_go_packed_in_band(sessions, pairs, name):
    session = sessions()
    with Cable(session.receiver.endpoint) as cable:
        pair = pairs(session, endpoint=cable.endpoint, shared=False, compress=name, spec=LARGE)
        assert pair.sender.codec == name
        for _ in range(20):
            assert pair.send()
        pair.both(lambda: len(session.seen) == 20)
        assert cable.carried < 20 * LARGE.nbytes / 2
        assert pair.close()
    assert session.wrong == []
    assert session.ledger.unaccounted == 0


def test_shared_memory_is_never_packed(pairs):
    pair = pairs(compress="lz4")
    assert pair.sender.attached
    assert pair.sender.codec == ""
    assert pair.send()
    assert pair.close()
    assert pair.session.wrong == []


def test_a_receiver_that_cannot_unpack_gets_pixels_as_they_are(pairs, monkeypatch):
    monkeypatch.setattr("pellucid.wire.reception.can_unpack", lambda codec: not codec)
    pair = pairs(compress="zstd", shared=False)
    assert pair.sender.codec == ""
    for _ in range(6):
        pair.send()
    assert pair.close()
    assert pair.session.wrong == []
    from pellucid.runtime.relay import _way

    assert "the session cannot unpack zstd" in _way(pair.sender)
    assert "pip install" in _way(pair.sender)


def test_without_the_library_the_sender_names_its_extra():
    script = (
        "import sys; sys.modules['numcodecs'] = None\n"
        "from pellucid.wire.codec import can_unpack, load\n"
        "assert not can_unpack('lz4') and can_unpack('')\n"
        "from pellucid.wire.sender import Sender\n"
        "from pellucid.errors import MissingExtra\n"
        "try: Sender('tcp://127.0.0.1:5599', [], compress='lz4')\n"
        "except MissingExtra as error: print(error)\n"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert 'compress = "lz4" needs the package numcodecs' in out.stdout, out.stderr
    assert f"pellucid[{codec.EXTRA}]" in out.stdout


def test_a_codec_that_does_not_exist():
    with pytest.raises(WireError, match="Allowed: lz4, zstd"):
        Sender("tcp://127.0.0.1:5599", [Feed(Stream(LARGE), {"raw": LARGE})], compress="zip")
    assert not issubclass(WireError, MissingExtra)


@pytest.mark.parametrize("mode", ["live", "lossless"])
def test_damaged_pixels_are_one_counted_loss(pairs, monkeypatch, mode):
    pair = pairs(compress="lz4", shared=False, spec=LARGE, mode=mode)
    session = pair.session
    for _ in range(3):
        pair.send()

    def damaged(plane, name):
        part = bytearray(codec.pack(plane, name))
        part[16:] = bytes([255]) * (len(part) - 16)
        return bytes(part)

    with monkeypatch.context() as patch:
        patch.setattr("pellucid.wire.sender.pack", damaged)
        pair.send()
    for _ in range(3 * session.slots):
        assert pair.send()
    assert pair.close()
    assert session.ledger.ignored["damaged pixels"] == 1
    assert session.ledger.lost == {"wire": 1}
    assert [info.seq for info in session.seen] == [0, 1, 2, *range(4, 4 + 3 * session.slots)]
    assert session.wrong == []
    assert session.ledger.unaccounted == 0


@pytest.mark.parametrize(
    "claim",
    [
        lambda part, n: struct.pack_into("<I", part, 4, 2**31 - 1),  # a bomb
        lambda part, n: struct.pack_into("<I", part, 4, n - 2),
        lambda part, n: struct.pack_into("<I", part, 12, 2**31 - 1),
        lambda part, n: struct.pack_into("<I", part, 12, 16),
    ],
    ids=["bomb", "too few", "packed too long", "packed too short"],
)
def test_a_block_that_claims_another_size_is_not_even_tried(claim):
    plane = noise(LARGE)
    part = bytearray(codec.pack(plane, "lz4"))
    claim(part, plane.nbytes)
    assert not codec.is_packed(memoryview(bytes(part)), plane.nbytes)
