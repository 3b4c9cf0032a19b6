"""What a receiver keeps while senders come and go, and what one of them asks for in between."""

from __future__ import annotations

from dataclasses import dataclass

from pellucid.protocols import Account
from pellucid.wire.feed import Feed
from pellucid.wire.handshake import Hello
from pellucid.wire.landing import Landing
from pellucid.wire.numbering import Numbering

__all__ = ["Run", "Turn"]


@dataclass
class Run:
    """What outlives a sender: the memory, the feeds that it is for, and the count of frames."""

    landing: Landing
    numbering: Numbering
    account: Account
    name: str
    feeds: list[Feed]


@dataclass(frozen=True)
class Turn:
    """A sender wants to go on with other feeds, and waits for memory for them.

    Parameters
    ----------
    hello
        What it says of itself and its feeds now.
    positions
        Of the feeds that are new, in order; those behind the last one known so far are further ones, the others
        take a feed's place.
    route
        By which it is addressed.
    """

    hello: Hello
    positions: tuple[int, ...]
    route: bytes
