"""The vocabulary: what a frame is, and the kinds of part that a run is made of.

Every part has one rhythm: ``open`` makes all decisions, allocates and may raise; one hot verb runs
for each frame and does nothing but its work; ``close`` gives everything back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["Account", "FrameInfo", "Ring", "Sink", "Slot", "Source", "Spec", "Stage", "Stream"]

RAW = "raw"
RESTORED = "restored"
COLOURS = ("R", "G", "B")
"""Of a colour picture, in the order in which its planes lie."""

_AXES = {1: "x", 2: "yx", 3: "zyx", 4: "czyx"}
"""What the axes of a shape are, where nothing else is said."""


@dataclass(frozen=True, slots=True)
class Spec:
    """Shape and type of one plane.

    Parameters
    ----------
    shape
        ``(y, x)`` in pixels; ``(z, y, x)`` for a stack; ``(3, y, x)`` for red, green and blue.
    dtype
        Name of a numpy type: ``"uint8"``, ``"uint16"``, ``"uint32"``, ``"int16"`` or ``"float32"``.
    device
        Where its memory lies, as torch names it.
    axes
        One letter for each number of `shape`; empty for ``yx`` or ``zyx``, by their count. A colour picture
        is ``"cyx"``.
    facts
        Of a stage's result: what is worth keeping beside its pixels, such as the unit of its values; JSON types only.
    zoom
        Pixels along y and x for one of the raw plane: 2 after a stage that doubles them. A stage says how many it makes
        of one that it was given.
    """

    shape: tuple[int, ...]
    dtype: str
    device: str = "cpu"
    axes: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)
    zoom: int = 1

    def __post_init__(self) -> None:
        if not self.axes:
            object.__setattr__(self, "axes", _AXES.get(len(self.shape), "?" * len(self.shape)))

    @property
    def nbytes(self) -> int:
        """Bytes of one plane."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def is_colour(self) -> bool:
        """Three planes that are the red, green and blue of one picture."""
        return self.axes == "cyx"

    def __str__(self) -> str:
        size = "x".join(map(str, self.shape[1:] if self.is_colour else self.shape))
        return f"{size} {'RGB ' if self.is_colour else ''}{self.dtype}"


@dataclass(frozen=True, slots=True)
class Stream:
    """The frames of one camera and channel that share a shape and a type.

    Parameters
    ----------
    spec
        Of the raw plane.
    camera, channel
        Names, as the camera's side gives them.
    index
        Number of this stream within its source.
    pixel_um
        Size of a pixel in the specimen, in micrometres, where it is known.
    z_um
        Between two planes of a z-stack, where there is one.
    exposure_ms
        Where it is known.
    bit_depth
        Bits that the camera really fills, where it is known.
    frames
        How many frames there will be, where the source knows.
    sizes
        Of an experiment: places along each axis (``t``, ``p``, ``c``, ``z``, and ``g`` in a grid), the slowest first;
        as far as they are known, since all but ``p`` and ``g`` may grow. Every frame of it has all these in its
        ``axes``. Empty where frames just follow one another.
    names
        Of the places along ``c`` and ``p``, as far as they have any.
    replaces
        Index of the stream whose place this one takes from here on: the same camera and channel after its ROI,
        binning or pixel type changed. No frame of that one comes any more.
    details
        Anything else worth keeping beside the data; JSON types only.
    """

    spec: Spec
    camera: str = "camera"
    channel: str = "channel"
    index: int = 0
    pixel_um: float | None = None
    z_um: float | None = None
    exposure_ms: float | None = None
    bit_depth: int | None = None
    frames: int | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    replaces: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class FrameInfo:
    """What is known of one frame; filled on its way, one row of ``frames.jsonl`` at the end.

    All ``*_ns`` are on the clock of `pellucid.metrics.now_ns` of this process, 0 where a mark was not reached.

    Parameters
    ----------
    seq
        Number given where the frame was produced, over all streams of the source; gaps are frames
        that did not arrive, and the source tells the ledger of them.
    camera_number
        The camera's own number (ImageNumber of Micro-Manager), -1 where it has none.
    camera_ns
        When the camera's side had the frame: the start of every latency.
    sent_ns, received_ns
        Leaving the camera's process and arriving in the session.
    uploaded_ns
        The raw plane lies where the stages read it.
    stages, stages_ns
        Names of the stages that it went through, and the end of each; 0 where a GPU does not tell it.
    downloaded_ns
        The last stage's result lies in host memory.
    processed_ns
        The results were looked at, and go on to the sinks.
    recorded_ns
        The writer has accepted the last plane of this frame.
    displayed_ns
        Drawn in the window.
    index
        Place along the first axis of the recorded arrays, -1 where it was not recorded.
    place
        All of its place there, along p, t, c and z: what the recorder wrote raw to, the other planes follow.
    part
        Of the recording, where it has several.
    sums
        For each recorded plane the XXH3-64 of its pixels, as 16 digits; of a stack that of each slice.
    unrecorded
        Why planes of it are not in the recording; empty where all are, or none was wanted.
    pending
        Writes of the recorder that are still to be done.
    axes
        Index along named axes (``t``, ``c``, ``z``, ``p``), where the source knows them.
    planes
        Of a stack that the session put together: for each z the number (`seq`) of its plane, -1 where it is missing.
        `seq` and `camera_number` are those of the plane that came first, all times those of the last one: latency
        begins when the stack can be restored. Empty for a plane.
    began_ns
        Of a stack: when the camera's side had its first plane.
    notes
        Name of a stage -> what it noted of this frame, a number or a list of them for each name.
    unsure_ns
        The camera's clock is another computer's, and known to this: all latencies are off by as much at most.
    """

    seq: int
    stream: int = 0
    camera_number: int = -1
    camera_ns: int = 0
    sent_ns: int = 0
    received_ns: int = 0
    processed_ns: int = 0
    recorded_ns: int = 0
    displayed_ns: int = 0
    index: int = -1
    state: str = "received"
    where: str = ""
    axes: Mapping[str, int] | None = None
    place: tuple[int, ...] = ()
    part: int = 0
    sums: dict[str, str | list[str]] | None = None
    unrecorded: str = ""
    pending: int = 0
    planes: tuple[int, ...] = ()
    began_ns: int = 0
    notes: Mapping[str, Mapping[str, float | list[float]]] | None = None
    uploaded_ns: int = 0
    stages: tuple[str, ...] = ()
    stages_ns: tuple[int, ...] = ()
    downloaded_ns: int = 0
    unsure_ns: int = 0

    @property
    def count(self) -> int:
        """How many frames of the camera this is: one, or the planes of a stack that came."""
        return sum(number >= 0 for number in self.planes) if self.planes else 1

    @property
    def missing_z(self) -> tuple[int, ...]:
        """Places along z of a stack whose planes did not come."""
        return tuple(z for z, number in enumerate(self.planes) if number < 0)

    @property
    def last_seq(self) -> int:
        """Number of the last frame of the camera in it; in between those of other channels may lie."""
        return max(self.planes, default=self.seq)


class Slot:
    """Memory of one frame in a ring: all planes of one stream, allocated once and used again and again.

    Attributes
    ----------
    index : int
        Within its ring.
    stream : Stream
    planes : dict of str to numpy.ndarray
        Views of the ring's memory; ``planes["raw"]`` is what the source fills. A plane may be read
        by a sink while the chain writes another one, never the same one.
    info : FrameInfo
        Of the frame that lies here now.
    ready : tuple of str
        Names of the planes that hold this frame's data now.
    holders : int
        How many branches still need the slot; only the runtime touches it.
    """

    __slots__ = ("event", "holders", "index", "info", "planes", "ready", "stream")

    def __init__(self, index: int, stream: Stream, planes: dict[str, np.ndarray[Any, Any]]) -> None:
        self.index = index
        self.stream = stream
        self.planes = planes
        self.info = FrameInfo(seq=-1)
        self.ready: tuple[str, ...] = ()
        self.holders = 0
        self.event: Any = None


class Ring(Protocol):
    """What a source sees of the slots of one of its streams.

    Attributes
    ----------
    memory : pellucid.wire.memory.SlotMemory
        The block behind the slots.
    """

    memory: Any

    @property
    def slots(self) -> Sequence[Slot]:
        """All slots, free or not."""


class Account(Protocol):
    """Where a source tells what did not arrive: the session's ledger, or the sender that forwards it there.

    Names of places, so that a report can be read: ``"camera"`` (a gap in its numbers), ``"camera buffer"`` (it
    overflowed), ``"camera restart"`` (its numbers went back), ``"ring"`` (the session had no free slot), ``"sender"``
    (no room over there), ``"wire"`` (lost between two processes).
    """

    def missing(self, first: int, count: int, state: str, where: str, stream: int = -1) -> None:
        """Frames ``first .. first + count - 1`` of a stream were ``"dropped"`` or ``"lost"`` at `where`.

        `stream` is its index; -1 where nobody knows of which.
        """

    def told(self, produced: int, complete: bool = True) -> None:
        """Note that the camera's side says it has produced so many frames in this run."""

    def ignore(self, why: str) -> None:
        """Something that was no frame of this run came in and was left alone."""

    def note(self, text: str) -> None:
        """Tell the user one line: in the terminal as soon as it comes, and in the report."""


@runtime_checkable
class Source(Protocol):
    """Gives frames.

    ``open`` -> ``start`` -> many ``offer`` and ``read`` -> ``stop`` -> ``read`` to the end -> ``close``.

    Attributes
    ----------
    shares_memory : bool
        The ring should be made in shared memory, since another process will fill it.
    live : bool
        Frames come whether or not there is room for them: without a free slot the source drops and tells
        the account (``"dropped"``, ``"ring"``). A source that is not live waits, and loses nothing.
    finished : bool
        No frame will come any more; true only after the last one was read.
    ended : str, optional
        Why it finished, where that was not its proper end; for the report.

    A source that can meet new streams during a run (a camera whose ROI changes, a channel nobody knew of) has
    two more members. ``fresh``, a list that lives as long as the source: it appends each new Stream, numbered on
    from those of ``open``, and keeps that stream's frames where they are until it is offered slots for it. And
    ``extend(rings)``, by which the session, having emptied `fresh`, hands over the rings of those streams, in order.
    Of a stream that another `replaces` the source forgets all slots at the moment when it appends that other one:
    the session takes them back, and frames of it that were read before still go their way.
    """

    shares_memory: bool
    live: bool
    finished: bool

    def open(self) -> tuple[Stream, ...]:
        """Find the camera, file or sender and say what it gives; may wait, may raise."""

    def start(self, rings: Sequence[Ring], account: Account) -> None:
        """Begin to acquire into the slots that will be offered; one ring for each stream, in order."""

    def offer(self, slot: Slot) -> None:
        """Hand over a free slot. The source owns it until ``read`` returns it."""

    def read(self, timeout_s: float) -> Slot | None:
        """Return a slot whose raw plane and ``info`` are filled, or None when the time is over.

        Hot. Frames that were dropped or lost on the way are told to the ledger here.
        """

    def stop(self) -> None:
        """Acquire nothing more; frames under way can still be read until `finished`."""

    def close(self) -> None:
        """Give everything back; safe at any time and more than once."""


@runtime_checkable
class Stage(Protocol):
    """Computes planes from planes on one device; bound to one stream by ``open``.

    Attributes
    ----------
    reads, writes : str or None
        Name of the plane it reads and of the plane it writes; None lets the chain connect it to the
        stage before (the first reads ``raw``, the last writes ``restored``).
    captures : bool
        After ``open``: may the hot verb be captured in a CUDA graph?

    A stage whose result is of an integer type also has `witness`, a tensor of one float that it fills in
    every call and that is not finite if any pixel of its result was not before it was rounded.

    A stage may say in `black` what it means when all of a result is 0; the user is told once.

    A stage may note numbers of each frame, for its row in ``frames.jsonl``: `noted`, their names, and `notes`, a tensor
    of one row for each name, on the device, which it fills in every call.

    A stage that looks back over frames says in `history` over how many. One that goes on with what it measured has a
    method ``forget()``, which is called after the chain was tried out with frames of zeros, and an attribute `adapts`,
    which is set to False before ``open`` where every frame has to be taken by itself (``pellucid process``).

    While a session runs another one of its kind, with other arguments, may take a stage's place between two frames. Of
    what says how its result is to be read, or what is kept over frames, a stage names the arguments in `fixed`: they
    need a restart.

    A stage that may take long to open has an attribute `tell`, which is set to what takes a line for the user. What a
    method ``describe()`` returns (JSON types) stands beside the stage in the report. `needed` says after ``open`` how
    much memory it takes (`pellucid.memory.Needed`), and `tile` in which tiles it cuts frames, None for whole ones.

    A stage that has to know which frame it is given (a volume that every plane updates needs its z) has a method
    ``at(info: FrameInfo) -> None``, which is called in the same thread before the hot verb of that frame. What it
    notes must not change what is computed within a captured graph: such a stage has ``captures = False``. It is not
    called for the frames of zeros with which a chain is tried out, nor for frames that stay raw only.
    """

    reads: str | None
    writes: str | None
    captures: bool

    def open(self, stream: Stream, given: Spec, device: str) -> Spec:
        """Decide, allocate and compile for planes of `given`; return the Spec of the result.

        Raises
        ------
        StageError
            Where the stage cannot work on such planes.
        """

    def __call__(self, given: torch.Tensor, result: torch.Tensor) -> None:
        """Hot: fill `result` from `given`. The caller owns both; nothing is allocated, nothing waits."""

    def close(self) -> None:
        """Give everything back."""


@runtime_checkable
class Sink(Protocol):
    """Takes frames away: to the disk, to a window, to nowhere. It runs in a thread of its own.

    Attributes
    ----------
    policy : str
        ``"block"``: every frame, in order; ``"latest"``: the newest only, older ones are skipped and counted.
    early : bool
        Wants the raw plane as soon as it is there, before any stage, and the other planes when they are ready:
        two calls of ``write`` a frame. Else one call with all planes.

    A sink that takes frames and leaves some out by itself counts them in `skipped`, and in `lost` those that it could
    not keep. One that works in threads of its own holds slots (see `open`), and says in `busy_since_ns` since when it
    has been at one piece of work, 0 while it is not. What others may ask of it while it runs it offers by
    ``commands() -> Mapping[str, Callable]``: a function of a table that returns one, or raises a PellucidError.
    One with a method ``missed(slot, names)`` is told of planes that came, or waited, after its ``write`` had raised.

    Sources and sinks may have a method ``ready``, which raises what ``open`` would as far as it can be known
    beforehand, and makes nothing.
    A sink that can take streams which begin during the run has ``extend(stream, planes)``; it is called before the
    first frame of that stream, in another thread than ``write``. One without gets no frames of them.
    """

    policy: str
    early: bool

    def open(self, streams: Sequence[Stream], planes: Sequence[Mapping[str, Spec]], run: Mapping[str, Any]) -> None:
        """Make ready for these streams; may raise.

        Parameters
        ----------
        streams
            In order of their index.
        planes
            For each stream the planes that it will have, ``raw`` first.
        run
            ``config`` (TOML text as run), ``config_sha256``, ``version``, ``ledger``. Of a session also ``live``: the
            source does not wait; ``slots`` of each stream; ``hold(slot)``, after which the slot stays as it is until
            ``release(slot)``, from any thread; ``tell(text)``, a line for the user and the report; ``stages()``, what
            the report says of each stream's stages.
        """

    def write(self, slot: Slot, names: tuple[str, ...]) -> None:
        """Hot: take the planes in `names`; when it returns, the slot may be used again."""

    def finish(self) -> None:
        """After the last frame: everything taken is where it belongs when this returns; may raise."""

    def close(self, report: Mapping[str, Any] | None) -> None:
        """Give everything back; `report` is the run's ``report.json``, None where the run did not begin.

        It may come while a ``write`` stands still.
        """
