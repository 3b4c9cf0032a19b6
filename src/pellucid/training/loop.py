"""Train a network: steps, checkpoints, going on after a kill, and a curve to look at."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pellucid.errors import ConfigError, RunError
from pellucid.training.patches import Batch, Patches

__all__ = ["Progress", "Settings", "Training"]

WARM_STEPS = 200
_LEAST_NOISE = 2e-5
"""Mean square below which a patch is not weighed any more."""


@dataclass(frozen=True)
class Settings:
    """How long and how.

    Parameters
    ----------
    steps
        Batches in all.
    batch, side_px
        Patches in a batch and their side, as given to the network.
    rate
        Learning rate of AdamW at its highest; it rises over the first 200 steps and falls as a cosine.
    decay
        Weight decay.
    average
        The weights that are kept are a mean over about ``1 / (1 - average)`` steps.
    precision
        ``"bfloat16"`` or ``"float16"`` for the forward pass where the device is quick at it; sums stay float32.
    seed
        Of the weights and of all chance in the patches.
    save_every, validate_every
        Steps.
    """

    steps: int = 20_000
    batch: int = 8
    side_px: int = 128
    rate: float = 1.5e-3
    decay: float = 1e-4
    average: float = 0.999
    precision: str = "bfloat16"
    seed: int = 1
    save_every: int = 500
    validate_every: int = 1000


@dataclass
class Progress:
    """Where a training is."""

    step: int = 0
    loss: float = math.nan
    seconds: float = 0.0
    quality: dict[str, float] = field(default_factory=dict)


class Training:
    """One network in training, in a folder of its own.

    Parameters
    ----------
    network
    sources
        Where patches come from, and in which shares of the steps.
    settings
    folder
        Gets ``last.pt`` (everything needed to go on), ``curve.csv``.
    device
    validate
        Judges the averaged network: name of a figure -> value; ``mean`` decides which weights are ``best.pt``.
    identity
        Of the config; a checkpoint of another one is not gone on with.
    """

    def __init__(
        self,
        network: nn.Module,
        sources: Sequence[tuple[Patches, float]],
        settings: Settings,
        folder: Path,
        device: str = "cpu",
        validate: Callable[[nn.Module], Mapping[str, float]] | None = None,
        identity: str = "",
    ) -> None:
        self.settings, self.folder, self.device = settings, folder, device
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = torch.optim.swa_utils.AveragedModel(
            self.network,
            multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(settings.average),
        )
        self.progress = Progress()
        self._sources = [source for source, _ in sources]
        self._shares = torch.tensor([share for _, share in sources], dtype=torch.float64)
        self._validate, self._identity = validate, identity
        self._best = -math.inf
        self._chance = torch.Generator().manual_seed(settings.seed)
        self._optimiser = torch.optim.AdamW(
            self.network.parameters(), settings.rate, betas=(0.9, 0.99), weight_decay=settings.decay
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimiser, self._rate_at)
        self._scaler = torch.amp.GradScaler(device.split(":", maxsplit=1)[0], enabled=settings.precision == "float16")

    @property
    def averaged_network(self) -> nn.Module:
        """The network with the mean of the last weights: what is kept."""
        network: nn.Module = self.averaged.module
        return network

    def _rate_at(self, step: int) -> float:
        if step < WARM_STEPS:
            return (step + 1) / WARM_STEPS
        part = (step - WARM_STEPS) / max(self.settings.steps - WARM_STEPS, 1)
        return 0.5 * (1 + math.cos(math.pi * min(part, 1.0))) + 1e-3

    def run(self, tell: Callable[[Progress], None] | None = None) -> nn.Module:
        """Train to the end, from the last checkpoint where there is one; return the averaged network.

        Raises
        ------
        RunError
            Where the loss is no number any more; the last checkpoint stays.
        ConfigError
            Where the checkpoint is of another config.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.resume()
        self._forget_rows_after(self.progress.step)
        try:
            self._steps(tell)
        except KeyboardInterrupt:
            self.save()
            raise
        return self.averaged_network

    def _steps(self, tell: Callable[[Progress], None] | None) -> None:
        began = time.monotonic() - self.progress.seconds
        smooth = self.progress.loss
        while self.progress.step < self.settings.steps:
            loss = self._step()
            if not math.isfinite(loss):
                raise RunError(
                    f"{self.folder}: the loss is {loss} at step {self.progress.step + 1}. The last checkpoint, if "
                    f"there is one, is from before. Try a training.rate below {self.settings.rate:g}, or look for "
                    "empty pictures"
                )
            smooth = loss if math.isnan(smooth) else 0.99 * smooth + 0.01 * loss
            self.progress.step += 1
            self.progress.loss, self.progress.seconds = smooth, time.monotonic() - began
            step = self.progress.step
            last = step == self.settings.steps
            if last or step % self.settings.validate_every == 0:
                if self._validate is not None:
                    self.progress.quality = dict(self._validate(self.averaged_network))
                    mean = self.progress.quality.get("mean", -math.inf)
                    if mean > self._best:
                        self._best = mean
                        self._write("best.pt")
                self._note()
            if last or step % self.settings.save_every == 0:
                self.save()
            if tell is not None:
                tell(self.progress)

    def _step(self) -> float:
        which = int(torch.multinomial(self._shares, 1, generator=self._chance))
        batch = self._sources[which].draw(self.settings.batch, self.settings.side_px, self._chance)
        loss = self._loss(batch)
        self._optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimiser)
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._schedule.step()
        self.averaged.update_parameters(self.network)
        return float(loss.detach())

    def _loss(self, batch: Batch) -> torch.Tensor:
        """Weigh each patch by its noise: quality is told in dB, where a tenth of the error counts as much anywhere."""
        given = batch.given.to(self.device, memory_format=torch.channels_last)
        target = batch.target.to(self.device)
        kind = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(self.settings.precision)
        with torch.autocast(self.device.split(":")[0], kind, enabled=kind is not None):
            result = self.network(given)
        error = (result.float() - target).square()
        if batch.mask is None:
            each = error.mean((1, 2, 3))
        else:
            mask = batch.mask.to(self.device)
            each = (error * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp_min(1)
        loss: torch.Tensor = (each / (batch.noise.to(self.device) + _LEAST_NOISE)).mean()
        return loss

    def save(self) -> None:
        """Write ``last.pt``, whole or not at all."""
        self._write("last.pt")

    def forget(self) -> None:
        """Remove the checkpoints and the curve, to begin anew."""
        for name in ("last.pt", "best.pt", "curve.csv"):
            (self.folder / name).unlink(missing_ok=True)

    def _write(self, name: str) -> None:
        state = {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
            "chance": self._chance.get_state(),
            "progress": vars(self.progress),
            "identity": self._identity,
            "best": self._best,
        }
        part = self.folder / f"{name}.part"
        torch.save(state, part)
        os.replace(part, self.folder / name)

    def resume(self) -> bool:
        """Take up ``last.pt`` where it is there; tell whether it was.

        Raises
        ------
        ConfigError
            Where it is of another config, or cannot be read.
        """
        path = self.folder / "last.pt"
        if not path.is_file():
            return False
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ConfigError(f"{path}: cannot be read ({type(error).__name__}). Type: --fresh to begin anew") from None
        if state.get("identity", self._identity) != self._identity:
            raise ConfigError(
                f"{self.folder}: was trained with another config. Type: --fresh to begin anew there, or --out FOLDER"
            )
        self._best = float(state.get("best", -math.inf))
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])
        self._scaler.load_state_dict(state["scaler"])
        self._chance.set_state(state["chance"])
        self.progress = Progress(**state["progress"])
        return True

    def _forget_rows_after(self, step: int) -> None:
        """Take out of the curve what was noted after the checkpoint; it comes again."""
        path = self.folder / "curve.csv"
        if path.exists():
            head, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [row for row in rows if row.split(",", 1)[0].isdecimal() and int(row.split(",", 1)[0]) <= step]
            path.write_text("".join([head, *kept]), encoding="utf-8")

    def _note(self) -> None:
        row = {"step": self.progress.step, "seconds": round(self.progress.seconds), "loss": self.progress.loss}
        row |= self.progress.quality
        path = self.folder / "curve.csv"
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
