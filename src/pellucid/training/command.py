"""What ``tools/train.py`` does: train from a config, show how far it is, and leave a package behind."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image, ImageDraw
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from pellucid import __version__
from pellucid.errors import ConfigError, PellucidError, require
from pellucid.terminal import say
from pellucid.training.config import TrainingConfig, Validate
from pellucid.training.export import Facts, export, scaled
from pellucid.training.images import read_plane
from pellucid.training.loop import Progress as Reached
from pellucid.training.loop import Training

__all__ = ["main", "train"]

Picture = np.ndarray[Any, Any]


def main() -> None:
    """Run the command line; a mistake is one line and exit code 2."""
    typer.run(_command)


def _command(
    config: Annotated[Path, typer.Argument(help="The TOML file of the training, such as configs/train/denoise.toml.")],
    out: Annotated[Path | None, typer.Option(help="Folder of this training; left out: trained/NAME.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="key=value, such as root=FOLDER.")] = None,
    steps: Annotated[int | None, typer.Option(help="Instead of training.steps.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="On a CPU; left out: all.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew; what was trained there is replaced.")] = False,
    export_only: Annotated[
        bool, typer.Option("--export-only", help="Only write the package of what is there.")
    ] = False,
) -> None:
    changes = [*(sets or []), *([f"training.steps={steps}"] if steps else [])]
    try:
        loaded = TrainingConfig.load(config, changes)
        where = out or Path("trained") / loaded.export.name
        train(loaded, where, device=device, threads=threads, fresh=fresh, export_only=export_only)
    except PellucidError as error:
        say(str(error))
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        say("stopped; the same command goes on from the last checkpoint")
        raise typer.Exit(130) from None


def train(
    config: TrainingConfig,
    folder: Path,
    *,
    device: str = "auto",
    threads: int | None = None,
    fresh: bool = False,
    export_only: bool = False,
) -> Path:
    """Train, or go on, and export; return the package's folder.

    Raises
    ------
    PellucidError
        One line: data that do not fit, a folder of another training, a loss that is not a number.
    """
    for module in ("scipy", "onnx", "onnxscript", "onnxruntime"):
        require(module, "train", "training")
    if threads:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"--device {device}: torch {torch.__version__} sees no CUDA device here. Type: --device cpu")
    network, sources = config.make()
    for source, _ in sources:
        if warning := getattr(source, "warning", ""):
            say(f"careful: {warning}")
    pictures = _pictures(config.validate, config.root)

    def show(averaged: nn.Module) -> Mapping[str, float]:
        """Without pictures to judge by: draw a patch of the training itself, given, restored and its target."""
        batch = sources[0][0].draw(1, config.settings.side_px, torch.Generator().manual_seed(0))
        averaged.eval()
        with torch.inference_mode():
            restored = averaged(batch.given.to(device)).float().cpu()
        averaged.train()
        large = nn.functional.interpolate(batch.given[:, -1:], size=restored.shape[-2:])
        _strip([p[0, 0].numpy() for p in (large, restored, batch.target)], folder / "validation.png")
        return {}

    training = Training(
        network,
        sources,
        config.settings,
        folder,
        device,
        lambda averaged: _judge(averaged, pictures, folder, device) if pictures else show(averaged),
        identity=config.identity,
    )
    if fresh:
        training.forget()
    count = sum(p.numel() for p in network.parameters())
    say(f"{count} parameters on {device}, {config.settings.steps} steps, in {folder}")
    if export_only:
        if not training.resume():
            raise ConfigError(f"{folder}: has no checkpoint (last.pt); train first, without --export-only")
    else:
        _run(training, folder)
    return _export(config, training, folder, pictures)


def _run(training: Training, folder: Path) -> None:
    total = training.settings.steps
    columns = (
        TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns) as bar:
        task = bar.add_task("training", total=total, told="")

        def tell(reached: Reached) -> None:
            quality = ", ".join(f"{name} {value:+.2f}" for name, value in list(reached.quality.items())[-1:])
            told = f"loss {reached.loss:.4f}  {reached.step / max(reached.seconds, 1e-9):.1f} steps/s  {quality}"
            bar.update(task, completed=reached.step, told=told)

        training.run(tell)
    _curve(folder)


def _pictures(validate: Validate | None, root: Path) -> list[tuple[str, Picture, Picture | None]]:
    if validate is None:
        return []
    given = root / validate.given
    truth = root / validate.truth if validate.truth else None
    found = []
    for pattern in validate.files:
        for path in sorted(given.glob(pattern)):
            if path.suffix.lower() not in (".png", ".tif", ".tiff"):
                continue
            clean = truth / path.name if truth else None
            if clean is not None and not clean.is_file():
                raise ConfigError(f"validate.truth: {truth} has no {path.name}")
            found.append((path.stem, read_plane(path), read_plane(clean) if clean else None))
    if not found:
        raise ConfigError(f"validate.files: no PNG or TIFF in {given} is {', '.join(validate.files)}")
    return found


def _judge(
    network: nn.Module, pictures: Sequence[tuple[str, Picture, Picture | None]], folder: Path, device: str
) -> Mapping[str, float]:
    """Return by how many dB each picture is nearer to its truth than the raw one, and draw the first."""
    network.eval()
    figures: dict[str, float] = {}
    for i, (name, raw, truth) in enumerate(pictures):
        given, restored = restore(network, raw, device)
        if truth is not None:
            clean = truth[: restored.shape[0], : restored.shape[1]]
            figures[name] = round(psnr(restored, clean) - psnr(given, clean), 3)
        if i == 0:
            _strip([given, restored, *([truth] if truth is not None else [])], folder / "validation.png")
    if figures:
        figures["mean"] = round(float(np.mean(list(figures.values()))), 3)
    network.train()
    return figures


def restore(network: nn.Module, raw: Picture, device: str) -> tuple[Picture, Picture]:
    """Return a picture as it is given, enlarged for super-resolution, and what the network makes of it.

    For a network that makes more pixels the picture is binned first, so that its truth has as many.
    """
    scale, frames, multiple = (int(getattr(network, k, 1)) for k in ("scale", "frames", "multiple"))
    y, x = (n // (scale * multiple) * multiple for n in raw.shape)
    small = raw[: y * scale, : x * scale].reshape(y, scale, x, scale).mean((1, 3))
    given = torch.from_numpy(scaled(small))[None, None].expand(1, frames, -1, -1).contiguous()
    with torch.inference_mode():
        restored = network(given.to(device)).float().cpu()[0, 0].numpy()
        large = (
            nn.functional.interpolate(given[:, -1:], scale_factor=float(scale), mode="bicubic") if scale > 1 else given
        )
    return large[0, -1].numpy(), restored


def psnr(picture: Picture, truth: Picture) -> float:
    """Return the PSNR in dB after the affine fit, against the truth between its percentiles 0.1 and 99.9."""
    t = scaled(truth).astype(np.float64)
    x = picture.astype(np.float64) - picture.mean()
    slope = (x * (t - t.mean())).mean() / max((x * x).mean(), 1e-30)
    return float(-10 * np.log10(((slope * x + t.mean() - t) ** 2).mean()))


def _strip(pictures: Sequence[Picture], path: Path) -> None:
    side = min(512, *(min(p.shape) for p in pictures))
    shown = [np.clip(scaled(p), 0, 1)[:side, :side] ** 0.7 * 255 for p in pictures]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(shown, 1).astype(np.uint8)).save(path)


def _curve(folder: Path) -> None:
    """Draw loss and mean quality over the steps."""
    path = folder / "curve.csv"
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    image = Image.new("RGB", (640, 360), "white")
    pen = ImageDraw.Draw(image)
    for key, colour, at in (("loss", "#c04000", 10), ("mean", "#0060c0", 25)):
        points = [(float(r["step"]), float(r[key])) for r in rows if r.get(key) not in (None, "", "nan")]
        if not points:
            continue
        low, high = (f(v for _, v in points) for f in (min, max))
        last = points[-1][0]
        line = [(40 + 580 * s / last, 330 - 290 * (v - low) / max(high - low, 1e-12)) for s, v in points]
        pen.line(line, fill=colour, width=2)
        for x, y in line if len(line) < 30 else line[-1:]:
            pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
        pen.text((50, at), f"{key}: {low:.3g} to {high:.3g}, last {points[-1][1]:.3g}, {last:.0f} steps", fill=colour)
    image.save(folder / "curve.png")


def _export(
    config: TrainingConfig,
    training: Training,
    folder: Path,
    pictures: Sequence[tuple[str, Picture, Picture | None]],
) -> Path:
    e = config.export
    quality = training.progress.quality
    documentation = ""
    if e.documentation:
        path = config.root / e.documentation
        if not path.is_file():
            raise ConfigError(f"export.documentation: {path} is not there")
        documentation = path.read_text("utf-8")
    facts = Facts(
        name=e.name,
        description=e.description,
        authors=e.authors,
        licence=e.licence,
        cite=e.cite,
        tags=e.tags,
        documentation=documentation,
        trained={
            "steps": training.progress.step,
            "seconds": round(training.progress.seconds),
            "seed": config.settings.seed,
            "config_sha256": hashlib.sha256(config.text.encode()).hexdigest(),
            "pellucid": __version__,
            "torch": importlib.metadata.version("torch"),
            "quality": quality,
        },
        files={"training.toml": config.text},
    )
    raw = pictures[0][1] if pictures else np.random.default_rng(0).poisson(20, (256, 256)).astype(np.float32)
    scale = int(getattr(training.network, "scale", 1))
    side = min(256 // scale, *(n // scale for n in raw.shape))
    sample = raw[: side * scale, : side * scale].reshape(side, scale, side, scale).mean((1, 3))
    package = export(training.averaged_network, folder / e.name, facts, sample)
    for name, value in quality.items():
        say(f"{name}: {value:+.2f} dB against the raw picture")
    say(f"package: {package}")
    say(f'use it: pellucid models import {package}, then [[stages]] kind = "restore", model = "{e.name}"')
    return package
