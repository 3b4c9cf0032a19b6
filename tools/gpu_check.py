"""What only a GPU can prove: the suite's GPU marks and the GPU benchmarks, as a table and as JSON.

::

    python tools/gpu_check.py                     all of it; exit 1 where a test fails, 2 where there is no GPU
    python tools/gpu_check.py --only networks     tests, networks, deconvolution, tensorrt-rtx
    python tools/gpu_check.py --pack build/gpu    on a computer with a network: carry along what a bare one lacks
    python tools/gpu_check.py --rehearse          the same code on this CPU, small; its figures mean nothing

It needs torch with CUDA and numpy. All else it takes from where it is installed, or from the folder that ``--pack``
made (``build/gpu`` beside it is found by itself), and says what it could not run and why.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import traceback
import zipfile
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACK = ROOT / "build/gpu"
PACKAGES = (
    "pydantic", "pyzmq", "tomlkit", "rich", "psutil", "pyyaml", "platformdirs", "filelock", "onnx", "pillow",
    "tifffile", "typer", "pytest", "pytest-timeout",
)  # fmt: skip
"""What the checks import; their own needs come with them, torch and numpy do not."""
NOT_CARRIED = ("torch", "numpy", "nvidia", "triton", "networkx", "sympy", "mpmath", "jinja2", "setuptools", "cuda")
PLATFORMS = [f"manylinux_2_{n}_x86_64" for n in (28, 27, 17, 12, 5)] + ["manylinux2014_x86_64", "manylinux1_x86_64"]

Row = dict[str, Any]
ASKED: dict[str, Callable[[list[Row]], bool]] = {
    "at least 3x faster than eager torch in float32 at 2048x2048": lambda rows: _fastest(rows, "times_eager") >= 3,
    "the denoiser at 2048x2048 at 100 frames/s or more": lambda rows: _fastest(rows, "frames_per_s") >= 100,
    "p99 within 2x of p50 there": lambda rows: _fastest(rows, "frames_per_s", "p99_over_p50") <= 2,
    "the chain's overhead there under 100 us": lambda rows: _fastest(rows, "frames_per_s", "chain_overhead_us") < 100,
}


def main() -> int:
    """Run what there is to run."""
    given = _arguments()
    if given.pack:
        return pack(Path(given.pack), given.python)
    if PACK.is_dir():
        sys.path.append(str(PACK))  # behind what is installed
    if importlib.util.find_spec("pellucid") is None:
        sys.path += [str(ROOT / "src"), _described()]
    import torch

    device = "cpu" if given.rehearse else "cuda:0"
    if not given.rehearse and not torch.cuda.is_available():
        print(
            f"torch {torch.__version__} sees no CUDA device here; nothing was run. Type: --rehearse to try the program"
        )
        return 2
    parts = {"tests": tests, "networks": networks, "deconvolution": deconvolution, "tensorrt-rtx": tensorrt_rtx}
    figures: dict[str, Any] = {
        "date": date.today().isoformat(),
        "hardware": _hardware(device),
        "rehearsal": given.rehearse,
    }
    for name in given.only or parts:
        print(f"\n{name}", flush=True)
        rows: list[Row] = []
        try:
            for row in parts[name](device, given.rehearse):
                rows.append(row)
                print("  " + _line(row), flush=True)
        except Exception as error:
            rows.append({"case": name, "not_run": f"{type(error).__name__}: {error}"})
            print(f"  NOT RUN {name}: {type(error).__name__}: {error}", flush=True)
            if not isinstance(error, ImportError):
                traceback.print_exc()
        figures[name] = rows
    if "networks" in figures and not given.rehearse:
        figures["asked"] = {what: _told(holds, figures["networks"]) for what, holds in ASKED.items()}
        for what, told in figures["asked"].items():
            print(f"{told:12} {what}")
    missing = [
        f"{row['case']}: {row['not_run']}" for part in parts for row in figures.get(part, ()) if "not_run" in row
    ]
    print("\nnot run:" if missing else "\nall was run", *missing, sep="\n  ")
    text = json.dumps(figures, indent=1, default=str)
    if given.json:
        Path(given.json).write_text(text, encoding="utf-8")
    else:
        print(text)
    return 1 if any(row.get("failed") for row in figures.get("tests", ())) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=("tests", "networks", "deconvolution", "tensorrt-rtx"))
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, small")
    parser.add_argument(
        "--pack", metavar="FOLDER", help="download what a bare Linux computer needs beside torch, numpy"
    )
    parser.add_argument("--python", default=f"{sys.version_info[0]}.{sys.version_info[1]}", help="of that computer")
    return parser.parse_args()


def _described() -> str:
    """Return a folder that tells Python what pellucid is, as an installation would: version and entry points."""
    import tempfile
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder = Path(tempfile.mkdtemp(prefix="gpu-check-"))
    facts = folder / f"pellucid-{project['version']}.dist-info"
    facts.mkdir()
    head = f"Metadata-Version: 2.1\nName: pellucid\nVersion: {project['version']}\n"
    (facts / "METADATA").write_text(head, encoding="utf-8")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {where}" for name, where in points.items())]
    (facts / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    return str(folder)


# ---------------------------------------------------------------- what is run


def tests(device: str, small: bool) -> Iterator[Row]:
    """Run the suite's GPU marks in a process of its own."""
    if importlib.util.find_spec("pytest") is None:
        yield {"case": "tests", "not_run": "pytest is not here. Type: --pack, or pip install pytest pytest-timeout"}
        return
    import os

    path = os.pathsep.join(p for p in sys.path if p)
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-o", "addopts=", "-p", "no:cacheprovider", "-rA"]
    ran = subprocess.run(
        [*command, "tests/gpu"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    results = [line for line in ran.stdout.splitlines() if line.startswith(("PASSED", "FAILED", "ERROR", "SKIPPED"))]
    for line in results:
        word, _, what = line.partition(" ")
        yield {"case": what, "not_run": "skipped"} if word == "SKIPPED" else {"case": what, "failed": word != "PASSED"}
    if ran.returncode:
        print(ran.stdout[-6000:], ran.stderr[-2000:], sep="\n")
        if not any(line.startswith(("FAILED", "ERROR")) for line in results):
            yield {"case": "tests", "failed": True, "exit": ran.returncode}


def networks(device: str, small: bool) -> Iterator[Row]:
    """Measure the shipped denoiser: engines alone against eager torch, and live from host to host."""
    from pellucid.bench.gpu import measure_network
    from pellucid.bench.restore import measure_engines

    sides = (256,) if small else (512, 2048)
    for row in measure_engines(small, device, sides):
        yield {"case": f"alone, {row['engine']}, {row['side']}x{row['side']}", **row}
    for side in sides:
        for row in measure_network(side, device, small):
            yield {**row, "side": side}


def deconvolution(device: str, small: bool) -> Iterator[Row]:
    """Measure deconvolution on the GPU and on the CPU."""
    from pellucid.bench.gpu import CASES, measure_deconvolution_case

    for shape, method, iterations in [((96, 96), "wiener-butterworth", 2)] if small else CASES:
        yield measure_deconvolution_case(shape, method, iterations, device, small)


def tensorrt_rtx(device: str, small: bool) -> Iterator[Row]:
    """Tell what TensorRT for RTX says of this GPU."""
    import tensorrt_rtx as trt
    import torch

    from pellucid.engines.tensorrt_rtx import TensorRTRTX
    from pellucid.models import shelf

    if small:
        yield {"case": "tensorrt-rtx", "version": trt.__version__, "not_run": "a rehearsal has no GPU"}
        return
    major, minor = torch.cuda.get_device_capability(device)
    row: Row = {"case": "tensorrt-rtx", "version": trt.__version__, "capability": f"{major}.{minor}"}
    engine = TensorRTRTX()
    why = engine.missing(shelf.find("denoise"), device)
    yield {**row, "not_run": why} if why else {**row, "takes": "this GPU"}


# ---------------------------------------------------------------- what is told


def _line(row: Row) -> str:
    if "not_run" in row:
        return f"NOT RUN {row['case']}: {row['not_run']}"
    if "failed" in row:
        return f"{'FAILED' if row['failed'] else 'passed'}  {row['case']}"
    told = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items() if k != "case"]
    return f"{row['case']}: {', '.join(told)}"


def _fastest(rows: list[Row], by: str, key: str = "") -> float:
    """Return a figure of the fastest engine at 2048x2048."""
    row = max((row for row in rows if row.get("side") == 2048 and by in row), key=lambda row: float(row[by]))
    return float(row[key or by])


def _told(holds: Callable[[list[Row]], bool], rows: list[Row]) -> str:
    try:
        return "reached" if holds(rows) else "NOT REACHED"
    except ValueError:
        return "NOT RUN"


def _hardware(device: str) -> dict[str, Any]:
    try:
        from pellucid.runtime.report import hardware

        return hardware(device)
    except ImportError as error:
        return {"unknown": str(error)}


# ---------------------------------------------------------------- what is carried


def pack(folder: Path, python: str) -> int:
    """Download the packages that the checks need, for 64-bit Linux, and unpack them side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    wheels = folder / "wheels"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--only-binary=:all:",
        "--python-version",
        python,
        "-d",
        str(wheels),
    ]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    names = sorted(needed(PACKAGES))
    code = subprocess.run([*command, "--no-deps", *names], cwd=ROOT, check=False).returncode
    if code:
        return code
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(folder)
        wheel.unlink()
    wheels.rmdir()
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6
    print(f"{folder}: {len(names)} packages for Python {python}, {size:.0f} MB: {', '.join(names)}")
    return 0


def needed(packages: tuple[str, ...]) -> set[str]:
    """Return packages and all that they need, as what is installed here says."""
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.markers import default_environment
    from packaging.requirements import Requirement

    found: set[str] = set()
    wanted = list(packages)
    while wanted:
        name = wanted.pop().lower().replace("_", "-")
        if name in found or name.startswith(NOT_CARRIED):
            continue
        found.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        for line in lines:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({**default_environment(), "extra": ""}):
                wanted.append(requirement.name)
    return found


if __name__ == "__main__":
    sys.exit(main())
