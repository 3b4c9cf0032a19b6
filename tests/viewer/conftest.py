"""The real window, fed as the runtime would."""

from __future__ import annotations

import pytest


@pytest.fixture
def session():
    from real_window import Session

    opened: list[Session] = []

    def make(*args, **keys) -> Session:
        opened.append(Session(*args, **keys))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
