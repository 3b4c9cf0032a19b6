"""Contracts that every part keeps: for pellucid's own tests, and for authors of plugins.

::

    from pellucid.testing import check_source

    def test_contract():
        check_source(lambda: MyCamera(exposure_ms=5))
"""

from __future__ import annotations

from pellucid.testing.engine import check_engine
from pellucid.testing.sink import check_sink
from pellucid.testing.source import LocalRing, Observed, Told, check_source
from pellucid.testing.stage import check_stage

__all__ = ["LocalRing", "Observed", "Told", "check_engine", "check_sink", "check_source", "check_stage"]
