"""Sessions, senders and camera processes that are closed after the test, whatever it did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from wire_parts import Camera, Pair, Session


@pytest.fixture
def sessions() -> Iterator[Callable[..., Session]]:
    made: list[Session] = []

    def make(*args: Any, **options: Any) -> Session:
        made.append(Session(*args, **options))
        return made[-1]

    yield make
    for session in made:
        session.close()


@pytest.fixture
def pairs(sessions: Callable[..., Session]) -> Iterator[Callable[..., Pair]]:
    made: list[Pair] = []

    def make(session: Session | None = None, **options: Any) -> Pair:
        made.append(Pair(session if session is not None else sessions(), **options))
        return made[-1]

    yield make
    for pair in made:
        pair.sender.close(0)


@pytest.fixture
def cameras() -> Iterator[Callable[..., Camera]]:
    made: list[Camera] = []

    def make(endpoint: str, **options: Any) -> Camera:
        made.append(Camera(endpoint, **options))
        return made[-1]

    yield make
    for camera in made:
        camera.close()
