"""Everything here needs an NVIDIA GPU; ``tools/gpu_check.py`` runs it on a computer that has one."""

from __future__ import annotations

import pytest
import torch


def pytest_collection_modifyitems(items):
    for item in items:
        if "gpu" in item.path.parts:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """Return the device, with an engine cache of the test's own."""
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    monkeypatch.setenv("PELLUCID_CACHE", str(tmp_path / "cache"))
    yield "cuda:0"
    torch.cuda.empty_cache()
