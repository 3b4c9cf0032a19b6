"""As much of the application (``org.micromanager.Studio``) as pictures need to be pushed back into it.

Names and signatures are facts from micro-manager's Studio.java, SnapLiveManager.java and data/DataManager.java.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from numpy.typing import NDArray

from pellucid.testing.bridge.core import TaggedImage
from pellucid.testing.bridge.images import Coords, CoordsBuilder, Image, Metadata, MetadataBuilder
from pellucid.testing.bridge.java import Face
from pellucid.testing.bridge.values import Vector

__all__ = ["Application", "Studio"]

_DATA = "org.micromanager.data"
_CREATE = f"java.lang.Object, int, int, int, int, {_DATA}.Coords, {_DATA}.Metadata"


class Application(Protocol):
    """What the studio does things with: the server."""

    remote: Any
    """The core, for clients."""

    @property
    def live(self) -> bool:
        """Whether live mode is on."""
        ...

    def set_live(self, on: bool) -> None:
        """Turn live mode on or off."""
        ...

    def show(self, picture: NDArray[Any]) -> None:
        """Keep a picture that was displayed."""
        ...


class DataManager:
    """``studio.data()``: makes images."""

    face: ClassVar[Face] = Face(
        f"{_DATA}.internal.DefaultDataManager",
        f"{_DATA}.Image createImage({_CREATE})",
        f"{_DATA}.Image wrapImage({_CREATE})",
        f"{_DATA}.Image convertTaggedImage(mmcorej.TaggedImage)",
        f"{_DATA}.Image convertTaggedImage(mmcorej.TaggedImage, {_DATA}.Coords, {_DATA}.Metadata)",
        f"{_DATA}.Coords.Builder coordsBuilder()",
        f"{_DATA}.Coords.Builder getCoordsBuilder()",
        f"{_DATA}.Metadata.Builder metadataBuilder()",
        f"{_DATA}.Metadata.Builder getMetadataBuilder()",
        interfaces=(f"{_DATA}.DataManager",),
    )

    def createImage(self, *arguments: Any) -> Image:
        """Return an image with pixels of its own."""
        return Image(*arguments)

    def convertTaggedImage(
        self, tagged: TaggedImage, coords: Coords | None = None, metadata: Metadata | None = None
    ) -> Image:
        """Return the image of a frame of the core."""
        tags = tagged.all_tags
        size, components = {"GRAY8": (1, 1), "GRAY16": (2, 1), "RGB32": (4, 3)}.get(tags["PixelType"], (0, 0))
        return Image(tagged.pix, tags["Width"], tags["Height"], size, components, coords, metadata)

    def coordsBuilder(self) -> CoordsBuilder:
        """Return an empty builder."""
        return CoordsBuilder()

    def metadataBuilder(self) -> MetadataBuilder:
        """Return an empty builder."""
        return MetadataBuilder()

    wrapImage, getCoordsBuilder, getMetadataBuilder = createImage, coordsBuilder, metadataBuilder


class SnapLive:
    """``studio.live()``: live mode, and the window that shows it."""

    face: ClassVar[Face] = Face(
        "org.micromanager.internal.SnapLiveManager",
        "boolean isLiveModeOn()",
        "boolean getIsLiveModeOn()",
        "void setLiveModeOn(boolean)",
        "void setLiveMode(boolean)",
        "void setSuspended(boolean)",
        f"void displayImage({_DATA}.Image)",
        "java.util.List snap(boolean)",
        interfaces=("org.micromanager.SnapLiveManager",),
    )

    def __init__(self, application: Application) -> None:
        self._application = application
        self._suspended = False

    def isLiveModeOn(self) -> bool:
        """Return whether it is on, also where it is suspended."""
        return self._application.live or self._suspended

    def setLiveModeOn(self, on: bool) -> None:
        """Turn it on or off."""
        self._suspended = False
        self._application.set_live(on)

    def setSuspended(self, suspend: bool) -> None:
        """Halt it for a moment, or go on if it was on."""
        if suspend != self._suspended and (self._application.live or self._suspended):
            self._application.set_live(not suspend)
            self._suspended = suspend

    def displayImage(self, image: Image) -> None:
        """Show an image in the window."""
        self._application.show(image.picture)

    def snap(self, display: bool) -> Vector:
        """Return what one exposure gives, or the newest images of live mode."""
        core = self._application.remote
        if not self._application.live:
            core.snapImage()
        take = core.getLastTaggedImage if self._application.live else core.getTaggedImage
        images = [DataManager().convertTaggedImage(take(c)) for c in range(core.getNumberOfCameraChannels())]
        for image in images if display else ():
            self.displayImage(image)
        return Vector("java.util.ArrayList", images)

    getIsLiveModeOn, setLiveMode = isLiveModeOn, setLiveModeOn


class Studio:
    """The application.

    Parameters
    ----------
    application
        The server.
    """

    face: ClassVar[Face] = Face(
        "org.micromanager.internal.MMStudio",
        "mmcorej.CMMCore core()",
        "mmcorej.CMMCore getCMMCore()",
        "org.micromanager.SnapLiveManager live()",
        "org.micromanager.SnapLiveManager getSnapLiveManager()",
        f"{_DATA}.DataManager data()",
        f"{_DATA}.DataManager getDataManager()",
        interfaces=("org.micromanager.Studio",),
    )

    def __init__(self, application: Application) -> None:
        self._application = application
        self._live = SnapLive(application)
        self._data = DataManager()

    def core(self) -> Any:
        """Return the core."""
        return self._application.remote

    def live(self) -> SnapLive:
        """Return live mode."""
        return self._live

    def data(self) -> DataManager:
        """Return what makes images."""
        return self._data

    getCMMCore, getSnapLiveManager, getDataManager = core, live, data
