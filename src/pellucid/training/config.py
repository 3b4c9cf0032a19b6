"""A training as a TOML file: network, data, how long, and what the package that comes out says of itself."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tomlkit
import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked
from tomlkit.exceptions import TOMLKitError
from torch import nn

from pellucid.config import apply_set, build_checked
from pellucid.errors import ConfigError, did_you_mean
from pellucid.training.clean import Clean
from pellucid.training.crappify import Blur, Crappified, Crappifier, Photons, ReadNoise, Step, crappifier
from pellucid.training.frames import Frames
from pellucid.training.images import read_movie, read_planes
from pellucid.training.loop import Settings
from pellucid.training.noise import Camera
from pellucid.training.noise2void import Noise2Void
from pellucid.training.pairs import Pairs
from pellucid.training.patches import Patches
from pellucid.training.repeats import Repeats
from pellucid.training.rln import RLN
from pellucid.training.unet import UNet

__all__ = ["Export", "TrainingConfig", "Validate"]

Share = Annotated[float, Field(gt=0, le=1000)]
Zoom = tuple[Annotated[float, Field(gt=0.1, lt=10)], Annotated[float, Field(gt=0.1, lt=10)]]
_STRICT = ConfigDict(extra="forbid")
_PICTURES = (".png", ".tif", ".tiff")


@checked(config=_STRICT, kw_only=True)
class _UNetKeys:
    channels: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = (48, 96, 128)
    scale: Literal[1, 2, 4] = 1
    fold: Literal[1, 2, 4] = 2
    frames: Annotated[int, Field(ge=1, le=64)] = 1
    bias: bool = False

    def make(self) -> nn.Module:
        return UNet(self.channels, scale=self.scale, fold=self.fold, frames=self.frames, bias=self.bias)


@checked(config=_STRICT, kw_only=True)
class _RLNKeys:
    width: Annotated[int, Field(ge=1, le=256)] = 19

    def make(self) -> nn.Module:
        return RLN(self.width)


@checked(config=_STRICT, kw_only=True)
class _CameraKeys:
    photons: tuple[float, float] = (3.0, 2000.0)
    read: tuple[float, float] = (0.001, 0.05)
    background: tuple[float, float] = (0.0, 0.25)
    gamma: tuple[float, float] = (0.6, 1.6)
    correlated: Annotated[float, Field(ge=0, le=1)] = 0.25
    reach_px: tuple[float, float] = (0.3, 0.9)
    grey_values: Annotated[float, Field(ge=0, le=1)] = 0.5

    def make(self) -> Camera:
        return Camera(**{name: getattr(self, name) for name in Camera.__dataclass_fields__})


@checked(config=_STRICT, kw_only=True)
class _RepeatsKeys:
    path: str
    leave_out: tuple[str, ...] = ()
    zoom: Zoom = (0.5, 1.7)
    mean_of_two: Annotated[float, Field(ge=0, le=1)] = 0.15
    more_noise: Annotated[float, Field(ge=0, le=1)] = 0.5
    share: Share = 1.0

    def make(self, root: Path, scale: int, frames: int, where: str) -> Patches:
        made = Repeats.read(
            _folder(root, self.path, where),
            leave_out=self.leave_out,
            zoom=self.zoom,
            mean_of_two=self.mean_of_two,
            more_noise=self.more_noise,
            scale=scale,
        )
        if not len(made):
            raise ConfigError(
                f"{where}.path: {root / self.path} has no repeated captures; name them FIELD_1.tif, FIELD_2.tif ..."
            )
        return made


@checked(config=_STRICT, kw_only=True)
class _SimulatedKeys:
    count: Annotated[int, Field(ge=1, le=100_000)] = 300
    side: Annotated[int, Field(ge=64, le=4096)] = 384
    seed: int = 7
    camera: _CameraKeys = Field(default_factory=_CameraKeys)
    zoom: Zoom = (0.6, 1.6)
    share: Share = 1.0

    def make(self, root: Path, scale: int, frames: int, where: str) -> Patches:
        return Clean.simulated(self.count, self.side, self.seed, self.camera.make(), zoom=self.zoom, scale=scale)


@checked(config=_STRICT, kw_only=True)
class _ImagesKeys:
    files: tuple[str, ...]
    reduce: Annotated[int, Field(ge=1, le=8)] = 2
    camera: _CameraKeys = Field(default_factory=_CameraKeys)
    zoom: Zoom = (0.6, 1.6)
    share: Share = 1.0

    def make(self, root: Path, scale: int, frames: int, where: str) -> Patches:
        files = _files(root, self.files, where)
        return Clean.read(files, self.camera.make(), reduce=self.reduce, zoom=self.zoom, scale=scale)


@checked(config=_STRICT, kw_only=True)
class _CrappifyKeys:
    files: tuple[str, ...]
    crappifier: Literal["em", "fluorescence", "none"] = "fluorescence"
    blur_px: tuple[float, float] | None = None
    photons: tuple[float, float] | None = None
    read: tuple[float, float] | None = None
    zoom: Zoom = (0.6, 1.6)
    share: Share = 1.0

    def make(self, root: Path, scale: int, frames: int, where: str) -> Patches:
        if self.photons and not 0 < self.photons[0] <= self.photons[1]:
            raise ConfigError(
                f"{where}.photons = {list(self.photons)}: two numbers above 0 are needed, the least first"
            )
        base = Crappifier((), scale=scale) if self.crappifier == "none" else crappifier(self.crappifier, scale)
        # In the order of what happens to the light: lens, photons, what the paper adds, readout.
        first: list[Step] = []
        if self.blur_px:
            first.append(Blur(self.blur_px))
        if self.photons:
            first.append(Photons(self.photons))
        last: list[Step] = [ReadNoise(self.read)] if self.read else []
        steps = (*first, *base.steps, *last)
        if not steps and scale == 1:
            raise ConfigError(f'{where}: crappifier = "none" without blur_px, photons or read changes nothing')
        return Crappified.read(_files(root, self.files, where), replace(base, steps=steps), zoom=self.zoom)


@checked(config=_STRICT, kw_only=True)
class _Noise2VoidKeys:
    files: tuple[str, ...]
    share: Share = 1.0

    def make(self, root: Path, scale: int, frames: int, where: str) -> Patches:
        if scale != 1:
            raise ConfigError(f"{where}: noise2void learns no new pixels; network.scale = 1 is needed, given {scale}")
        return Noise2Void(_planes(root, self.files, where))


@checked(config=_STRICT, kw_only=True)
class _PairsKeys:
    given: str
    target: str
    share: Share = 1.0

    def make(self, root: Path, scale: int, frames: int, where: str) -> Patches:
        return Pairs.read(_folder(root, self.given, where), _folder(root, self.target, where), scale=scale)


@checked(config=_STRICT, kw_only=True)
class _FramesKeys:
    files: tuple[str, ...]
    zoom: Zoom = (0.8, 1.3)
    share: Share = 1.0

    def make(self, root: Path, scale: int, frames: int, where: str) -> Patches:
        if scale != 1:
            raise ConfigError(f"{where}: frames learns no new pixels; network.scale = 1 is needed, given {scale}")
        return Frames([read_movie(file) for file in _files(root, self.files, where)], frames=frames, zoom=self.zoom)


_NETWORKS: dict[str, Any] = {"unet": _UNetKeys, "rln": _RLNKeys}
_DATA: dict[str, Any] = {
    "repeats": _RepeatsKeys,
    "simulated": _SimulatedKeys,
    "images": _ImagesKeys,
    "crappify": _CrappifyKeys,
    "noise2void": _Noise2VoidKeys,
    "pairs": _PairsKeys,
    "frames": _FramesKeys,
}


@checked(config=_STRICT, kw_only=True)
class _TrainingKeys:
    steps: Annotated[int, Field(ge=1)] = 20_000
    batch: Annotated[int, Field(ge=1, le=1024)] = 8
    side_px: Annotated[int, Field(ge=16, le=2048)] = 128
    rate: Annotated[float, Field(gt=0, le=1)] = 1.5e-3
    decay: Annotated[float, Field(ge=0, le=1)] = 1e-4
    average: Annotated[float, Field(ge=0, lt=1)] = 0.999
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    seed: int = 1
    save_every: Annotated[int, Field(ge=1)] = 500
    validate_every: Annotated[int, Field(ge=1)] = 1000


@checked(config=_STRICT, kw_only=True)
class Validate:
    """Pictures by which a training is judged, and never trained with.

    Parameters
    ----------
    given
        Folder of noisy pictures.
    truth
        Folder of clean ones of the same names; left out: only a picture is made, no figure.
    files
        Which of them, as patterns.
    """

    given: str
    truth: str | None = None
    files: tuple[str, ...] = ("*",)


@checked(config=_STRICT, kw_only=True)
class Export:
    """What the card of the package says; see `pellucid.training.export.Facts`."""

    name: str = "my-network"
    description: str = "A network trained with pellucid"
    authors: tuple[str, ...] = ("unknown",)
    licence: str = "BSD-3-Clause"
    cite: tuple[dict[str, str], ...] = ()
    tags: tuple[str, ...] = ()
    documentation: str | None = None


@dataclass
class TrainingConfig:
    """A checked config; nothing is read or made yet.

    Attributes
    ----------
    text : str
        TOML as it will run, overrides included.
    root : pathlib.Path
        From which paths of data are seen.
    """

    text: str
    root: Path
    settings: Settings
    validate: Validate | None
    export: Export
    _network: Any
    _data: list[tuple[str, Any]]

    @classmethod
    def load(cls, path: Path, sets: Sequence[str] = ()) -> TrainingConfig:
        """Read a file and check all of it.

        Raises
        ------
        ConfigError
            One line: where, what was given, what is allowed.
        """
        try:
            document = tomlkit.parse(path.read_text(encoding="utf-8-sig"))
        except TOMLKitError as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from None
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
            raise ConfigError(f"cannot read the config {path}: {reason}") from None
        for change in sets:
            apply_set(document, change)
        tree: dict[str, Any] = tomllib.loads(tomlkit.dumps(document))
        allowed = ("root", "network", "data", "training", "validate", "export")
        for key in tree:
            if key not in allowed:
                raise ConfigError(
                    f"{path}: no such part {key}.{did_you_mean(key, allowed)} Allowed: {', '.join(allowed)}"
                )
        folder = path.resolve().parent
        rows = tree.get("data")
        if not isinstance(rows, list) or not rows:
            raise ConfigError(f"{path}: no [[data]]; at least one is needed, of kind {', '.join(_DATA)}")
        root = tree.get("root", ".")
        if not isinstance(root, str):
            raise ConfigError(f"{path}: root = {root!r}: the folder of the data is needed")
        # What is typed is seen from where it is typed, what is in the file from the file.
        seen = Path.cwd() if any(change.split("=", 1)[0].strip() == "root" for change in sets) else folder
        settings = build_checked(_TrainingKeys, tree.get("training", {}), "training", folder)
        return cls(
            text=tomlkit.dumps(document),
            root=(seen / Path(root).expanduser()),
            settings=Settings(**{name: getattr(settings, name) for name in Settings.__dataclass_fields__}),
            validate=build_checked(Validate, tree["validate"], "validate", folder) if "validate" in tree else None,
            export=build_checked(Export, tree.get("export", {}), "export", folder),
            _network=_keys(_NETWORKS, {"kind": "unet"} | tree.get("network", {}), "network", folder),
            _data=[(f"data[{i}]", _keys(_DATA, row, f"data[{i}]", folder)) for i, row in enumerate(rows)],
        )

    @property
    def identity(self) -> str:
        """Of the network and its data: a training may be made longer, and saved or judged more often."""
        document = tomlkit.parse(self.text)
        for key in ("steps", "save_every", "validate_every"):
            document.get("training", {}).pop(key, None)
        for part in ("export", "validate"):
            document.pop(part, None)
        return hashlib.sha256(json.dumps(document.unwrap(), sort_keys=True, default=str).encode()).hexdigest()

    def make(self) -> tuple[nn.Module, list[tuple[Patches, float]]]:
        """Make the network and read the data, in this order and from the seed, so that the weights come out again.

        Raises
        ------
        ConfigError
            One line: data that are not there or do not fit.
        """
        torch.manual_seed(self.settings.seed)
        network: nn.Module = self._network.make()
        scale, frames = int(getattr(network, "scale", 1)), int(getattr(network, "frames", 1))
        sources = []
        for where, keys in self._data:
            if frames > 1 and not isinstance(keys, _FramesKeys):
                raise ConfigError(f'{where}: network.frames = {frames} is trained with kind = "frames" only')
            sources.append((keys.make(self.root, scale, frames, where), keys.share))
        return network, sources


def _keys(kinds: dict[str, Any], row: Any, where: str, folder: Path) -> Any:
    if not isinstance(row, dict) or not isinstance(row.get("kind"), str):
        raise ConfigError(f"{where}: kind is missing. Allowed: {', '.join(kinds)}")
    keys = dict(row)
    kind = keys.pop("kind")
    if kind not in kinds:
        raise ConfigError(
            f'{where}.kind = "{kind}": no such kind.{did_you_mean(kind, kinds)} Allowed: {", ".join(kinds)}'
        )
    return build_checked(kinds[kind], keys, where, folder)


def _folder(root: Path, given: str, where: str) -> Path:
    folder = root / given
    if not folder.is_dir():
        raise ConfigError(f'{where}: {folder} is no folder. Give root = "FOLDER" at the top, or --set root=FOLDER')
    return folder


def _files(root: Path, patterns: Sequence[str], where: str) -> list[Path]:
    found: list[Path] = []
    for pattern in patterns:
        at = [p for p in sorted(root.glob(pattern)) if p.suffix.lower() in _PICTURES]
        if not at:
            raise ConfigError(
                f'{where}.files: "{pattern}" is no PNG or TIFF in {root}. Give root = "FOLDER", or --set root=FOLDER'
            )
        found += at
    return found


def _planes(root: Path, patterns: Sequence[str], where: str) -> list[np.ndarray[Any, Any]]:
    return [plane for file in _files(root, patterns, where) for plane in read_planes(file)]
