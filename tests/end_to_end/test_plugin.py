"""The example plugin: a file that a config names, and a package that is really installed, in a process of its own."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from pellucid.protocols import Spec
from pellucid.testing import check_stage

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "plugins" / "pellucid-flatfield"
CONFIG = """
{plugins}
[source]
kind = "replay"
path = "frames.tif"
[[stages]]
kind = "flatfield"
flat = "flat.tif"
dark = 100
[[sinks]]
kind = "recorder"
path = "rec"
"""


@pytest.fixture
def folder(tmp_path):
    """Frames of an even specimen under an uneven lamp, and what is needed to undo it."""
    lamp = np.linspace(0.5, 1.5, 64) * np.ones((48, 1))
    tifffile.imwrite(tmp_path / "flat.tif", (lamp * 2000 + 100).astype("uint16"))
    frames = np.stack([lamp * level + 100 for level in (400, 800, 1200)]).astype("uint16")
    tifffile.imwrite(tmp_path / "frames.tif", frames, photometric="minisblack")
    return tmp_path


def pellucid(*args: str, cwd: Path, path: str = "") -> str:
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(part for part in (path, os.environ.get("PYTHONPATH", "")) if part)
    }
    out = subprocess.run(
        [sys.executable, "-m", "pellucid", *args],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert out.returncode == 0, out.stdout + out.stderr
    return out.stdout


def is_even(folder: Path) -> None:
    """Every restored frame has one value, that of its mean light."""
    restored = zarr.open_array(folder / "rec/restored.ome.zarr/0", mode="r")[:, 0]
    for frame, level in zip(restored, (400, 800, 1200), strict=True):
        assert frame == pytest.approx(np.full(frame.shape, level), rel=0.01)
    report = json.loads((folder / "rec/report.json").read_text())
    assert report["frames"]["processed"] == 3
    assert report["streams"][0]["stages"][0]["gain"] == pytest.approx([2 / 3, 2], rel=0.01)


def test_as_a_file_that_the_config_names(folder):
    file = (PACKAGE / "src/pellucid_flatfield/__init__.py").as_posix()
    (folder / "live.toml").write_text(CONFIG.format(plugins=f'plugins = ["{file}"]'))
    pellucid("run", "live.toml", "--headless", cwd=folder)
    is_even(folder)


def test_as_a_package_that_is_installed(folder):
    target = folder / "site"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(target),
    ]
    out = subprocess.run([*install, str(PACKAGE)], capture_output=True, text=True, timeout=110, check=False)
    assert out.returncode == 0, out.stderr
    assert "  flatfield  Undo uneven illumination" in pellucid("list", cwd=folder, path=str(target))
    (folder / "live.toml").write_text(CONFIG.format(plugins=""))
    pellucid("run", "live.toml", "--headless", cwd=folder, path=str(target))
    is_even(folder)


def test_the_stage_of_the_documentation_works(folder, monkeypatch):
    page = (ROOT / "docs/plugins.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[1].split("```")[0]
    (folder / "my_stage.py").write_text(code)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "my_stage", raising=False)
    my_stage = importlib.import_module("my_stage")
    check_stage(lambda: my_stage.Subtract(level=5), [Spec((64, 48), "uint16"), Spec((5, 7), "float32")])
    config = CONFIG.format(plugins='plugins = ["my_stage.py"]')
    (folder / "live.toml").write_text(
        config.replace('kind = "flatfield"\nflat = "flat.tif"\ndark = 100', 'kind = "subtract"\nlevel = 100')
    )
    pellucid("run", "live.toml", "--headless", cwd=folder)
    raw, restored = (zarr.open_array(folder / f"rec/{name}.ome.zarr/0", mode="r")[:] for name in ("raw", "restored"))
    assert np.array_equal(restored, raw.astype("float32") - 100)


def test_its_own_tests_pass():
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(PACKAGE / "src"), os.environ.get("PYTHONPATH", "")])}
    out = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"),
         "--rootdir", str(ROOT), str(PACKAGE / "tests")],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert out.returncode == 0, out.stdout + out.stderr
    assert "10 passed" in out.stdout
