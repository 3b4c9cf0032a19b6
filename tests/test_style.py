"""What the tools say of the code: ruff, a strict type checker, and who may import whom."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "command",
    [
        ["-m", "ruff", "check", "."],
        ["-m", "ruff", "format", "--check", "."],
        ["-m", "mypy"],
        ["-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"],
    ],
    ids=["ruff", "format", "mypy", "imports"],
)
def test_tools_find_nothing(command):
    out = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stdout + out.stderr


def test_no_vendor_sdk_outside_its_file():
    """Each vendor's package is imported in the one file that speaks to it."""
    allowed = {
        "pycromanager": {"sources/micromanager.py", "bench/bridge.py"},  # there as what is compared with
        "mmpycorex": {"sources/micromanager.py", "sources/_mmcore.py"},
        "pymmcore": {"sources/micromanager.py"},
        "ome_writers": {"recording/zarr_image.py", "bench/writers.py"},
        "ndstorage": {"sources/_ndtiff.py", "recording/ndtiff_stack.py", "recording/opened.py"},
        "useq": {"sources/_sequence_file.py"},
        "tensorrt": set(),
        "openvino": set(),
    }
    src = ROOT / "src/pellucid"
    for path in src.rglob("*.py"):
        text = path.read_text()
        for module, files in allowed.items():
            if f"import {module}" in text or f"from {module}" in text:
                assert path.relative_to(src).as_posix() in files, (path, module)
