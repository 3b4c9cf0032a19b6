"""Where models and what is known of them lie on this computer."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

__all__ = ["SHIPPED", "cache_folder", "imported_folder"]

SHIPPED = Path(__file__).parent / "shipped"
"""Of the models that come with the package, one folder each."""


def imported_folder() -> Path:
    """Return the folder of imported models: ``PELLUCID_MODELS``, else that of the user's data."""
    given = os.environ.get("PELLUCID_MODELS")
    return Path(given).expanduser() if given else platformdirs.user_data_path("pellucid", appauthor=False) / "models"


def cache_folder() -> Path:
    """Return the folder of what can be made again: ``PELLUCID_CACHE``, else that of the user's caches."""
    given = os.environ.get("PELLUCID_CACHE")
    return Path(given).expanduser() if given else platformdirs.user_cache_path("pellucid", appauthor=False)
