"""Why the session does not let a sender in, and what to type against it."""

from __future__ import annotations

from pellucid.wire.keys import Curve
from pellucid.wire.watch import BROKEN, DENIED, NO_KEYS, OPENED, VAGUE

__all__ = ["TRIES", "Knocks"]

TRIES = 3
"""So many handshakes in a row must fail before the keys are suspected: one may fail for any reason."""


class Knocks:
    """Handshakes of a sender that failed since the last that did not.

    Parameters
    ----------
    curve
        The sender's keys.

    Attributes
    ----------
    failed : int
        How many.
    """

    def __init__(self, curve: Curve | None) -> None:
        self.failed = 0
        self._curve = curve
        self._trouble = ""

    def heard(self, what: str) -> None:
        """Take what `pellucid.wire.watch` says."""
        if what == OPENED:
            self.failed, self._trouble = 0, ""
        elif what != BROKEN:
            self.failed += 1
            # Where one side has keys and the other none, only one of several tries says so.
            self._trouble = what if self._trouble in ("", VAGUE) else self._trouble

    @property
    def is_certain(self) -> bool:
        """The keys are at fault. Else a tunnel to a session that is not there yet breaks off in the same way."""
        return self._trouble not in ("", VAGUE)

    def why(self) -> str:
        """Return what is wrong with the keys, and what to type."""
        if self._curve is None:
            what = "the session" if self._trouble == NO_KEYS else "either this is no session, or it"
            return f"{what} has keys and this sender has none: give --keys. pellucid keys --help says how to make them"
        if self._trouble == DENIED:
            key = self._curve.public
            return f"this sender's key is not on the list there. Type there: pellucid keys session.keys --allow {key}"
        if self._trouble == NO_KEYS:
            return "this sender has keys and the session has none: give it keys as well (pellucid keys --help)"
        return (
            "the keys do not fit: either the session has none, or server = in this sender's keys is not the session's "
            "public key. Type there: pellucid keys session.keys, which prints it"
        )
