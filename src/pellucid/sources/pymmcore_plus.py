"""Frames of an acquisition that pymmcore-plus runs in this program."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from pellucid.errors import SourceError
from pellucid.metrics import now_ns
from pellucid.protocols import Account, Ring, Slot, Stream
from pellucid.sources._mda_intake import Intake

__all__ = ["PymmcorePlus"]

LOOK_S = 0.02
"""Between two looks whether an acquisition has ended."""


@dataclass(config=ConfigDict(extra="forbid"))
class PymmcorePlus:
    """Frames of ``run_mda``, as the core of pymmcore-plus signals them (``frameReady``).

    ::

        import pellucid

        with pellucid.open("live.toml").follow(mmc) as session:
            mmc.run_mda(sequence, block=True)
        print(session.report["frames"])

    A stream for each camera and channel; what the sequence says before its first frame (sizes, names, distances) is
    known to the stages and the recorder then. A later ``run_mda`` of the same kind goes on along ``t``; one with other
    axes or channels opens streams of its own. Frames that a sequence has and that never came, and gaps in the
    camera's numbers in a hardware sequence, are counted as lost (``"camera"``).

    Nothing here goes wrong for the acquisition: a session that fails lets its frames pass, and says so at the end of
    the ``with``.

    Parameters
    ----------
    on_full
        Where the session has no free slot: ``"wait"``: the acquisition waits, and nothing is lost; ``"drop"``: the
        frame is left out, and counted (``"ring"``).
    wait_s
        The acquisition waits at most so long: for the session to open, for a stream that is new, for a slot. Then the
        frame is left out, and counted.
    pixel_um
        Size of a pixel in the specimen; None: as the core says, if it does.
    float32
        The camera's 32-bit pixels are floating point; None: they are if it is a DemoCamera.

    Raises
    ------
    SourceError
        From ``open`` where nothing is followed, or no acquisition came; from ``read`` where a frame cannot be taken.
    """

    on_full: Literal["wait", "drop"] = "wait"
    wait_s: Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)] = 60.0
    pixel_um: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    float32: bool | None = None
    passive: ClassVar[bool] = False
    """``open`` waits for an acquisition, so `pellucid check` leaves it alone."""

    def __post_init__(self) -> None:
        self.shares_memory = False
        self.live = self.on_full == "drop"
        self.finished = False
        self.fresh: list[Stream] = []
        self._intake: Intake | None = None
        self._account: Account | None = None
        self._told = False

    # ---------------------------------------------------------------- what the program that acquires calls

    def follow(self, core: Any) -> None:
        """Listen to a core's acquisitions from now on; frames are taken from ``open`` on.

        Parameters
        ----------
        core
            A ``CMMCorePlus``; also its ``mda`` or ``mda.events``, though signals alone cannot be asked whether an
            acquisition runs.

        Raises
        ------
        SourceError
            Where it has no such signals.
        """
        self.leave()
        self._intake = Intake(core, drops=self.live, wait_s=self.wait_s, pixel_um=self.pixel_um, floats=self.float32)

    def wait(self, alive: Callable[[], bool]) -> None:
        """Wait until no acquisition runs any more, or `alive` says that nobody takes its frames.

        ``run_mda`` returns before its thread has begun to acquire, so "none runs" has to be true for a while.
        """
        intake = self._intake
        pause = threading.Event()
        since = now_ns()
        while intake is not None and alive():
            calm = intake.calm
            patience_s = 2.0 if calm is None else 0.2 if intake.sequences or intake.signals.running is not None else 1.0
            if calm is False:
                since = now_ns()
            elif (now_ns() - since) * 1e-9 > patience_s:
                return
            pause.wait(LOOK_S)

    @property
    def listening(self) -> bool:
        """A session waits for the acquisition, or takes its frames."""
        return self._intake is not None and self._intake.listening.is_set()

    @property
    def ended(self) -> str:
        """How the acquisition ended, where it did not come to its end."""
        how = self._intake.signals.ended if self._intake is not None else ""
        return {"canceled": "the acquisition was cancelled", "errored": "the acquisition broke off"}.get(how, "")

    @property
    def caught_up(self) -> bool:
        """An acquisition has ended, and none runs."""
        return self._intake is not None and self._intake.sequences > 0 and self._intake.calm is not False

    @property
    def given(self) -> int:
        """Frames that were read."""
        return 0 if self._intake is None else self._intake.given

    @property
    def untaken(self) -> int:
        """Frames that came before the session took any, or after its end."""
        return 0 if self._intake is None else self._intake.untaken

    def leave(self) -> None:
        """Listen no more."""
        intake = self._intake
        if intake is not None:
            intake.stop()
            intake.leave()

    # ---------------------------------------------------------------- verbs

    def open(self) -> tuple[Stream, ...]:
        """Wait for an acquisition, and return the streams that it begins with."""
        if self._intake is None:
            raise SourceError(
                'source "pymmcore-plus" gets its frames from a Python program that acquires. In that program: '
                'with pellucid.open("live.toml").follow(mmc): mmc.run_mda(sequence)'
            )
        self.finished = self._told = False
        self.fresh.clear()
        return self._intake.open()

    def start(self, rings: Sequence[Ring], account: Account) -> None:
        """Let the acquisition begin."""
        assert self._intake is not None
        self._account = account
        self._intake.start()

    def extend(self, rings: Sequence[Ring]) -> None:
        """Nothing to do: the slots of new streams come as all others do."""

    def offer(self, slot: Slot) -> None:
        """Take a free slot."""
        assert self._intake is not None
        self._intake.offer(slot)

    def read(self, timeout_s: float) -> Slot | None:
        """Return the next frame's slot. Hot."""
        intake, account = self._intake, self._account
        if intake is None or account is None or self.finished:
            return None
        whole = False
        try:
            slot = intake.read(timeout_s, self.fresh, account)
            whole = True
            return slot
        finally:
            self.finished = intake.finished
            if self.finished and not self._told:
                self._told = True
                account.told(intake.produced, complete=whole)

    def stop(self) -> None:
        """Take no more frames; the acquisition goes on without the session."""
        if self._intake is not None:
            self._intake.stop()

    def close(self) -> None:
        """Let go of the slots. The core is followed until `leave`, which counts what nobody took."""
        self.finished = True
        if self._intake is not None:
            self._intake.close()
