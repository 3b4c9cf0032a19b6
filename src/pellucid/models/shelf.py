"""Models by name: those that come with the package, those a user has imported, and files."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from pellucid.errors import ConfigError, StageError, did_you_mean
from pellucid.models.model import Model
from pellucid.models.onnx_file import read_onnx
from pellucid.models.places import SHIPPED, imported_folder

__all__ = ["find", "import_model", "imported", "read", "shipped"]

_CARDS = ("rdf.yaml", "bioimageio.yaml")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def shipped() -> list[str]:
    """Return the names of the models that come with the package."""
    return _named(SHIPPED)


def imported() -> list[str]:
    """Return the names of the models that were imported here."""
    return _named(imported_folder())


def _named(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if _holds(p)) if folder.is_dir() else []


def _holds(folder: Path) -> bool:
    return folder.is_dir() and any((folder / card).is_file() for card in _CARDS)


def find(given: str, folder: Path | None = None) -> Model:
    """Return a model by name or from a file, looked into and in order.

    Parameters
    ----------
    given
        Name of an imported or shipped model (an imported one comes first), a path of a ``.onnx``, ``.pt``, ``.ts`` or
        ``.pt2`` file, of a bioimage.io package (zip, folder or its ``rdf.yaml``), or a package's nickname, DOI or URL.
    folder
        From which relative paths are seen; None: the working folder.

    Raises
    ------
    PellucidError
        One line: a name nobody knows, a file that is not there or not in order.
    """
    path = (folder or Path.cwd()) / Path(given).expanduser()
    # A folder that only happens to be called so, such as the one that results go to, is not meant.
    meant = path.is_file() or _holds(path)
    if _NAME.fullmatch(given) and not meant:
        for place in (imported_folder(), SHIPPED):
            if _holds(place / given):
                return read(place / given, given)
    if path.exists():
        return read(path)
    if re.match(r"(https?://|10\.\d{4,}/)", given) or re.fullmatch(r"[a-z]+(-[a-z]+)+(/[\d.]+)?", given):
        from pellucid.models.importing import fetch_package

        names = [*shipped(), *imported()]
        near = did_you_mean(given, names)
        return fetch_package(given, f"models here: {', '.join(names)}.{near}")
    known = [*imported(), *shipped()]
    raise ConfigError(
        f'model = "{given}": no such model or file.{did_you_mean(given, known)} Known here: {", ".join(known)}. '
        "Type: pellucid models list"
    )


def read(path: Path, name: str | None = None) -> Model:
    """Return the model in a file or package that is there.

    Raises
    ------
    PellucidError
        One line.
    """
    ends = path.suffix.lower()
    if path.is_dir() or ends in (".zip", ".yaml", ".yml", ".czann"):
        from pellucid.models.package import read_package

        if path.is_dir() and not _holds(path):
            beside = ", ".join(sorted(p.name for p in path.glob("*.onnx"))[:3])
            raise StageError(
                f"model {path}: a folder without {' or '.join(_CARDS)}."
                + (f" Give the file itself: {beside}" if beside else " Give a bioimage.io package or an ONNX file")
            )
        found = read_package(path)
    elif ends == ".onnx":
        found = read_onnx(path)
    elif ends in (".pt", ".ts", ".pth", ".pkl", ".pickle", ".ckpt"):
        from pellucid.models.torch_file import read_torchscript

        found = read_torchscript(path)
    elif ends == ".pt2":
        from pellucid.models.torch_file import read_exported

        found = read_exported(path)
    else:
        raise StageError(
            f"model {path}: not a kind of model that is known. Allowed: .onnx, .pt and .ts (TorchScript), .pt2 "
            "(torch.export), bioimage.io packages (.zip, a folder, rdf.yaml)"
        )
    if name is not None and found.name != name:
        from dataclasses import replace

        found = replace(found, name=name)
    return found


def import_model(source: str, name: str | None = None, tell: Callable[[str], None] | None = None) -> Model:
    """Copy a model to the shelf of this computer, once it is found to be in order; whole or not at all.

    Parameters
    ----------
    source
        As in `find`.
    name
        By which configs will call it; None: its own.
    tell
        Gets a line about what was done.

    Raises
    ------
    PellucidError
        One line: not in order, a name that cannot be one or is taken.
    """
    from pellucid.models.importing import write_package

    model = find(source)
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", model.name).strip("-.").lower()[:64]
    if not _NAME.fullmatch(name):
        raise ConfigError(f'--name "{name}": letters, digits, ".", "_" and "-" are allowed, at most 64')
    target = imported_folder() / name
    if target.exists():
        raise ConfigError(f'a model "{name}" is there already, in {target}. Give another --name, or remove that folder')
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".importing-", dir=target.parent))
    try:
        write_package(model, scratch, name, tell)
        read(scratch, name)
        scratch.rename(target)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return read(target, name)
