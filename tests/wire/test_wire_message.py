"""Whatever comes in, a parser gives a message or a BadMessage, quickly and in little memory."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.errors import WireError
from pellucid.ledger import Ledger
from pellucid.protocols import Spec, Stream
from pellucid.wire import message
from pellucid.wire.feed import MAX_PLANE_BYTES, Feed
from pellucid.wire.handshake import Hello, Place, Welcome
from pellucid.wire.message import BadMessage, Beat, Missing, Totals
from pellucid.wire.numbering import Numbering

SPEC = Spec((24, 40), "uint16")
COLOUR = Spec((3, 24, 40), "uint8", axes="cyx")
READERS = [
    message.read_head,
    message.read_frame,
    lambda part: list(message.read_grants(part)),
    message.read_missing,
    message.read_beat,
    message.read_bye,
    Hello.read,
    lambda part: Welcome.read(part, 1),
]
whole = st.integers(-(2**63), 2**63 - 1)
HELLO = Hello(
    uid="a" * 32,
    attempt=3,
    name="rig 2",
    pid=4242,
    born=1.75e9,
    mode="live",
    next_seq=17,
    feeds=(
        Feed(
            Stream(
                SPEC,
                camera="cam",
                pixel_um=0.11,
                z_um=0.3,
                sizes={"t": 3, "c": 2, "z": 5},
                names={"c": ["DAPI", "FITC"]},
                details={"objective": "100x"},
            ),
            {"raw": SPEC},
            generation=4,
        ),
        Feed(Stream(COLOUR, camera="eye"), {"raw": COLOUR}),
    ),
    codec="lz4",
    run="b" * 32,
    held=((0, 3), (0, 1)),
)
PLACE = Place("psm_1", bytes(range(16)), 8, 4096, {"raw": 0})
WELCOME = Welcome(3, 99, "c" * 32, (PLACE, PLACE), ((0, 3),), 17, "lz4")


def good_messages() -> list[bytes]:
    return [
        HELLO.pack(),
        WELCOME.pack(),
        message.frame(9, 1, 2, 3, 4, 5, 6, 7, {"t": 1, "z": -2}),
        message.frame(9, 1, 2, 3, 4, -1, 6, 7, None),
        message.missing(9, Missing(5, 2, "lost", "camera")),
        message.missing(9, Missing(5, 2, "dropped", "camera buffer", 3)),
        message.beat(9, Beat(1, 2, 3, 4)),
        message.bye(9, Totals(3, 2, 1)),
        message.pack(message.GRANT, 9, message.GRANT_BODY.pack(0, 1, -1, 0) * 3),
        message.head(message.STOP, 9),
    ]


def parse_all(part: bytes) -> None:
    reasons: list[str] = []
    for read in READERS:
        try:
            read(part)
        except BadMessage as bad:
            reasons.append(str(bad))
    assert all(0 < len(why) < 40 for why in reasons)
    assert len(message.read_text(part)) <= 500


@given(st.binary(max_size=400))
def test_random_bytes(part):
    parse_all(part)


@given(st.integers(1, 14), st.integers(0, 2**64 - 1), st.binary(max_size=200))
def test_random_bodies_under_a_good_head(kind, session, body):
    part = message.pack(kind, session, body)
    assert message.read_head(part) == (kind, session)
    parse_all(part)


@given(st.sampled_from(good_messages()), st.data())
def test_truncated_extended_and_flipped(part, data):
    parse_all(part[: data.draw(st.integers(0, len(part)))])
    parse_all(part + data.draw(st.binary(max_size=20)))
    at = data.draw(st.integers(0, len(part) - 1))
    parse_all(part[:at] + bytes([part[at] ^ data.draw(st.integers(1, 255))]) + part[at + 1 :])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(sorted(json.loads(HELLO.pack()[12:]))), json_values)
def test_any_json_in_any_field_of_hello(key, value):
    body = json.loads(HELLO.pack()[12:]) | {key: value}
    parse_all(message.pack(message.HELLO, 0, json.dumps(body).encode()))


@given(st.sampled_from(sorted(json.loads(HELLO.pack()[12:])["feeds"][0])), json_values)
def test_any_json_in_any_field_of_a_feed(key, value):
    body = json.loads(HELLO.pack()[12:])
    body["feeds"][0][key] = value
    parse_all(message.pack(message.HELLO, 0, json.dumps(body).encode()))


@given(st.sampled_from(sorted(json.loads(WELCOME.pack()[12:]))), json_values)
def test_any_json_in_any_field_of_welcome(key, value):
    body = json.loads(WELCOME.pack()[12:]) | {key: value}
    parse_all(message.pack(message.WELCOME, 0, json.dumps(body).encode()))


@given(st.sampled_from(sorted(json.loads(WELCOME.pack()[12:])["places"][0])), json_values)
def test_any_json_in_any_field_of_a_place(key, value):
    body = json.loads(WELCOME.pack()[12:])
    body["places"][0][key] = value
    parse_all(message.pack(message.WELCOME, 0, json.dumps(body).encode()))


def test_what_is_packed_is_read():
    assert Hello.read(HELLO.pack()) == HELLO
    assert Welcome.read(WELCOME.pack(), 99) == WELCOME
    note = Missing(5, 2, "dropped", "camera buffer", 3)
    assert message.read_missing(message.missing(9, note)) == note
    assert message.read_missing(message.missing(9, Missing(5, 2, "lost", "camera"))) == (5, 2, "lost", "camera", 0xFFFF)


@given(
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**62 - 1),
    whole,
    whole,
    st.dictionaries(st.text("tcpz", min_size=1, max_size=8), whole, max_size=5),
)
def test_a_frame_is_read_as_it_was(feed, slot, seq, number, time_ns, axes):
    head = message.read_frame(message.frame(1, feed, slot, 1, seq, number, time_ns, time_ns, axes))
    assert head == (feed, slot, 1, seq, number, time_ns, time_ns, axes or None)


def hello_with(**planes) -> bytes:
    body = json.loads(HELLO.pack()[12:])
    body["feeds"][0]["planes"] = [
        ["raw", planes.get("shape", [8, 8]), planes.get("dtype", "uint16"), planes.get("axes", "yx")]
    ]
    return message.pack(message.HELLO, 0, json.dumps(body).encode())


@pytest.mark.parametrize("dtype", ["float64", "object", "O", "<u2", "U10", "datetime64", "", None, 3, ["uint8"]])
def test_types_that_are_no_pixels(dtype):
    with pytest.raises(BadMessage, match="dtype"):
        Hello.read(hello_with(dtype=dtype))


@pytest.mark.parametrize(
    "shape", [[], [8], [0, 8], [-1, 8], [2**21, 1], [2**20, 2**20], [8.0, 8], [True, 8], "88", [1] * 5, [2**64, 2]]
)
def test_shapes_that_are_none(shape):
    tracemalloc.start()
    with pytest.raises(BadMessage):
        Hello.read(hello_with(shape=shape))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    assert Spec((2**15, 2**14), "uint16").nbytes == MAX_PLANE_BYTES


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("names", [["c", ["x" * 201]]]),
        ("names", [["c", ["x"] * 5000]]),
        ("names", [["x" * 33, ["a"]]]),
        ("names", [["c", "DAPI"]]),
        ("names", [["c", ["new\nline"]]]),
        ("names", [["c", []]] * 17),
        ("names", {"c": ["DAPI"]}),
        ("sizes", [["c", 0]]),
        ("sizes", [["c", 2.0]]),
        ("sizes", [["c", 2**33]]),
        ("sizes", [["", 2]]),
        ("sizes", [["c"]]),
        ("sizes", [["c", 2]] * 17),
        ("z_um", "1"),
        ("z_um", 1e300),
        ("generation", -1),
        ("generation", None),
    ],
)
def test_axes_of_an_experiment_that_are_none(key, value):
    body = json.loads(HELLO.pack()[12:])
    body["feeds"][0][key] = value
    with pytest.raises(BadMessage, match=key):
        Hello.read(message.pack(message.HELLO, 0, json.dumps(body).encode()))


@pytest.mark.parametrize(("shape", "axes"), [([8, 8], "zyx"), ([4, 8, 8], "cyx"), ([8, 8], "xy"), ([8, 8], None)])
def test_axes_of_a_plane_that_are_none(shape, axes):
    with pytest.raises(BadMessage, match="axes"):
        Hello.read(hello_with(shape=shape, axes=axes))
    assert Hello.read(hello_with(shape=[3, 8, 8], axes="cyx", dtype="uint8")).feeds[0].planes["raw"].is_colour


def test_names_that_cannot_be_sent_as_they_are_are_made_plain():
    stream = Stream(SPEC, camera="cam\n1" + "x" * 300, channel="\x00", names={"c": ["a\tb"]})
    feed = Hello.read(replace(HELLO, feeds=(Feed(stream, {"raw": SPEC}),)).pack()).feeds[0]
    assert feed.stream.camera.startswith("cam?1xxx")
    assert len(feed.stream.camera) == 200
    assert (feed.stream.channel, feed.stream.names) == ("?", {"c": ["a?b"]})


def test_nested_too_deep_or_numbers_too_long():
    for body in (b"[" * 100_000, b'{"uid": ' + b"9" * 100_000 + b"}", b"\xff" * 50, b"NaN"):
        with pytest.raises(BadMessage):
            Hello.read(message.pack(message.HELLO, 0, body))
    with pytest.raises(BadMessage, match="size"):
        message.read_head(message.pack(message.HELLO, 0, bytes(message.MAX_CONTROL)))


def test_another_version_is_told_apart():
    part = bytearray(message.head(message.BEAT, 1))
    part[2] = 7
    with pytest.raises(BadMessage, match="version"):
        message.read_head(bytes(part))
    refusal = bytearray(message.pack(message.REFUSE, 0, b"you speak version 1"))
    refusal[2] = 7
    assert message.read_head(bytes(refusal))[0] == message.REFUSE


def test_details_that_are_no_json():
    for details in ({"x": object()}, {"x": "y" * message.MAX_CONTROL}):
        with pytest.raises(WireError, match="descri"):
            Hello("a" * 32, 1, "", 1, 1.0, "live", 0, (Feed(Stream(SPEC, details=details), {"raw": SPEC}),)).pack()


@given(
    st.lists(
        st.tuples(st.sampled_from(["frame", "missing", "told", "left", "join", "settle"]), st.integers(0, 60)),
        max_size=60,
    )
)
def test_whatever_a_sender_numbers_every_frame_has_one_end(steps):
    ledger = Ledger()
    numbering = Numbering(ledger, 10)
    numbers: list[int] = []
    reasons: set[str] = set()
    for what, n in steps:
        try:
            if what == "frame":
                number = numbering.check(n)
                numbering.arrived(number)
                numbers.append(number)
                ledger.received += 1
            elif what == "missing":
                numbering.missing(Missing(n, 1 + n % 5, "dropped", "sender"))
            elif what == "told":
                numbering.told(n)
            elif what == "left":
                numbering.left()
            elif what == "join":
                numbering.join(n)
            else:
                numbering.settle()
        except BadMessage as bad:
            reasons.add(str(bad))
    numbering.settle()
    assert reasons <= {"replayed"}
    assert numbers == sorted(set(numbers))
    assert ledger.produced == ledger.received + ledger.dropped.total() + ledger.lost.total()
    assert ledger.produced == numbering.expected


def test_a_jump_without_sense_is_ignored():
    numbering = Numbering(Ledger(), 0)
    with pytest.raises(BadMessage, match="absurd"):
        numbering.check(2**40)
    with pytest.raises(BadMessage, match="absurd"):
        numbering.missing(Missing(2**40, 1, "lost", "camera"))
    with pytest.raises(BadMessage, match="absurd"):
        numbering.told(2**40)
    assert numbering.expected == 0
