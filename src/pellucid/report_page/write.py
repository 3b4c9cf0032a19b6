"""The page put where the user wants it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from pellucid.errors import SinkError
from pellucid.report_page.page import make_page

__all__ = ["write_report"]


def write_report(folder: Path, to: Path | None = None, tell: Callable[[int], None] | None = None) -> Path:
    """Write the report of a recording.

    Parameters
    ----------
    folder
        Of a recording.
    to
        The file to write, or to replace; None: ``report.html`` in the folder.
    tell
        Takes now and then how many rows were read.

    Returns
    -------
    Path
        Of the file.

    Raises
    ------
    SinkError
        Where the folder is no recording, or the file cannot be written.
    """
    path = to if to is not None else folder / "report.html"
    if to is not None:
        if path.is_dir():
            raise SinkError(f"--to {path}: is a folder. Give a file: --to {path / 'report.html'}")
        if not path.absolute().parent.is_dir():
            raise SinkError(f"--to {path}: there is no folder {path.absolute().parent}")
    text = make_page(folder, tell)
    half = path.with_name(f"{path.name}.{os.getpid()}.part")  # a page that is open in a browser is never half of one
    try:
        half.write_text(text, encoding="utf-8", newline="\n")
        os.replace(half, path)
    except OSError as error:
        half.unlink(missing_ok=True)
        raise SinkError(
            f"{path} cannot be written: {error.strerror or error}. Give another file: --to report.html"
        ) from None
    return path
