"""Recorded data for the tests, and the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

import pellucid
from pellucid.process import process_recorded

PARTS = (Path(__file__).parent / "process_parts.py").as_posix()
RUN_PARTS = (Path(__file__).parents[1] / "parts.py").as_posix()


class Bench:
    """A folder with what a test needs, and the ways to run it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []

    def config(self, *stages: str, name: str = "process.toml", **session) -> Path:
        lines = [f'plugins = ["{PARTS}"]']
        lines += [f"[[stages]]\n{stage}" for stage in stages or ('kind = "soften"',)]
        lines += ["[session]", *(f"{k} = {json.dumps(v)}" for k, v in ({"threads": 1} | session).items())]
        path = self.folder / name
        path.write_text("\n".join(lines))
        return path

    def tiff(self, name: str, pixels: np.ndarray, **options) -> Path:
        tifffile.imwrite(self.folder / name, pixels, **({"photometric": "minisblack"} | options))
        return self.folder / name

    def process(self, given, config, out: str = "out", **options) -> Path:
        process_recorded(self.folder / given, self.folder / out, config, say=self.said.append, **options)
        return self.folder / out

    def start(self, given, config, out: str = "out", *options: str) -> subprocess.Popen[str]:
        words = ["process", str(self.folder / given), str(self.folder / out), str(config), *options]
        return subprocess.Popen(
            [sys.executable, "-m", "pellucid", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )

    def record(self, text: str, out: str = "rec", shard_frames: int | None = None) -> Path:
        """Make a recording as a user does; `shard_frames` 1: each plane is a file."""
        path = self.folder / f"{out}.toml"
        recorder = f'[[sinks]]\nkind = "recorder"\npath = "{(self.folder / out).as_posix()}"\n'
        recorder += f"shard_frames = {shard_frames}\n" if shard_frames else ""
        path.write_text(f'plugins = ["{PARTS}", "{RUN_PARTS}"]\n{text}\n{recorder}')
        with pellucid.open(path) as session:
            for _ in session:
                pass
        return self.folder / out


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def pixels(out: Path, image: str = "restored.ome.zarr") -> np.ndarray:
    """Return an image of OUT as another reader sees it: t, c, z where there is one, y, x."""
    return np.asarray(zarr.open_array(str(out / image / "0"), mode="r")[:])


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]


def report(out: Path) -> dict:
    return json.loads((out / "report.json").read_text())


def files(out: Path) -> dict[str, bytes]:
    """Return every file of the images."""
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.glob("*.ome.zarr/**/*") if p.is_file()}
