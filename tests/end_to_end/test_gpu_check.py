"""``tools/gpu_check.py`` on a computer without a GPU: it says so, and its rehearsal runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TOOL = Path(__file__).parents[2] / "tools/gpu_check.py"


def run(*arguments):
    command = [sys.executable, str(TOOL), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so():
    out = run()
    assert (out.returncode, "sees no CUDA device here" in out.stdout) == (2, True)


def test_the_rehearsal_runs_and_says_what_it_could_not(tmp_path):
    out = run("--rehearse", "--only", "deconvolution", "--only", "tensorrt-rtx", "--json", str(tmp_path / "f.json"))
    assert out.returncode == 0, out
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["rehearsal"] is True
    assert figures["deconvolution"][0]["difference"] == 0
    assert "not_run" in figures["tensorrt-rtx"][0]
    assert "not run:" in out.stdout
