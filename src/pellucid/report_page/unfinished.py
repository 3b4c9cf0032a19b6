"""Pictures of a recording that was not ended: readers do not see all of it yet, its journal knows where they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from numpy.typing import NDArray

from pellucid.errors import SinkError
from pellucid.recording.contents import Contents
from pellucid.recording.disk import Disk
from pellucid.recording.formats import make_image
from pellucid.recording.image import At, Image, Where
from pellucid.recording.journal import NAME as JOURNAL
from pellucid.recording.journal import read_journal
from pellucid.recording.zarr_image import ZarrImage

__all__ = ["Unfinished"]


class Unfinished:
    """Reads planes by the lines of a journal; changes nothing.

    Parameters
    ----------
    contents
    wanted
        Image and place of all planes that may be asked for: the journal of a long run is not kept in memory.

    Raises
    ------
    SinkError
        Where the journal cannot be read.
    """

    def __init__(self, contents: Contents, wanted: Iterable[tuple[str, At]]) -> None:
        self._contents = contents
        self._images: dict[str, Image] = {}
        self._wheres: dict[tuple[str, At], Where] = {}
        some = set(wanted)
        try:
            for row in read_journal(contents.folder / JOURNAL):
                if "image" in row and (place := (row["image"], At(*row["at"]))) in some:
                    self._wheres[place] = Where(*row["in"])
        except OSError as error:
            raise SinkError(f"cannot be found: its journal cannot be read ({error.strerror or error})") from None

    def read(self, name: str, at: At) -> NDArray[Any]:
        """Return a (y, x) plane of an image.

        Raises
        ------
        SinkError
            Where it is not there.
        """
        where = self._wheres.get((name, at))
        if where is None:
            raise SinkError("is not in the journal")
        plane = self._image(name).read(at, where)
        if plane is None:
            raise SinkError("is not whole yet")
        return plane

    def _image(self, name: str) -> Image:
        """Return an image that was opened for reading alone: something may still write to it."""
        if name not in self._images:
            about, plan = self._contents.about, self._contents.plans[name]
            image = make_image(about.file_format, self._contents.folder, plan, Disk())
            if isinstance(image, ZarrImage):  # whose compression stands in its metadata
                try:
                    image.look()
                except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
                    raise SinkError(f"cannot be read: {image.path} has no readable metadata ({error})") from None
            self._images[name] = image
        return self._images[name]
