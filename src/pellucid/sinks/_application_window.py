"""A window of a running Micro-Manager, into which pictures are put over its bridge.

Names are facts of Micro-Manager 2.0 (Studio, DataManager, DisplayManager, SnapLiveManager, RewritableDatastore).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pellucid.errors import SinkError
from pellucid.wire.bridge import Bridge
from pellucid.wire.bridge_message import Refused
from pellucid.wire.bridge_object import Pixels, RemoteObject

__all__ = ["ApplicationWindow", "Picture"]

_PROBE = 0x0102
"""A pixel that shows whether its two bytes were exchanged on the way."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What is shown: (y, x) of uint8 or uint16, or (y, x, 4) of uint8 as blue, green, red and nothing."""

    pixels: NDArray[Any]
    channel: int
    pixel_um: float | None


class ApplicationWindow:
    """Shows pictures, on one connection.

    Parameters
    ----------
    bridge
    own
        In a window of its own; else in that of snaps and live mode.
    title
        Of the own one.

    Raises
    ------
    SinkError
        Where there is no application, only a core.
    Refused
    """

    def __init__(self, bridge: Bridge, own: bool, title: str) -> None:
        self._bridge = bridge
        self._own = own
        self._title = title
        try:
            self._studio = RemoteObject.construct(bridge, "org.micromanager.Studio")
        except Refused as error:
            raise SinkError(f"Micro-Manager on port {bridge.port} has no window: {error}") from None
        self._data = self._studio.data()
        self._swaps = self._looks_swapped()
        self._store: RemoteObject | None = None
        self._display: RemoteObject | None = None
        self._kind: tuple[Any, ...] = ()

    def _looks_swapped(self) -> bool:
        """Find out whether 16-bit pixels arrive with their bytes exchanged, as they do where Java reads them so."""
        probe = self._image(Picture(np.full((1, 1), _PROBE, np.uint16), 0, None), swap=False)
        pixel = int(np.asarray(probe.get_raw_pixels())[0])
        probe.release()
        return pixel != _PROBE

    def show(self, picture: Picture) -> bool:
        """Show a picture; False where the user has closed the window.

        Raises
        ------
        Refused, Gone, Stopped
        """
        image = self._image(picture, swap=self._swaps)
        try:
            if not self._own:
                live = self._studio.live()
                live.display_image(image)
                live.release()
                return True
            kind = (picture.pixels.shape, picture.pixels.dtype)
            if self._display is not None and self._display.is_closed():
                return False
            if kind != self._kind:
                self._make_window()
                self._kind = kind
            assert self._store is not None
            self._store.put_image(image)
            if self._display is None:
                # After its first image: a window without any does not know how large it is to be.
                displays = self._studio.displays()
                self._display = displays.create_display(self._store)
                displays.release()
                self._display.set_custom_title(self._title)
            return True
        finally:
            image.release()

    def _make_window(self) -> None:
        """Begin anew: all images of one store have the same size and type."""
        if self._display is not None:
            self._display.close()
        for old in (self._display, self._store):
            if old is not None:
                old.release()
        self._display = None
        self._store = self._data.create_rewritable_ram_datastore()

    def _image(self, picture: Picture, *, swap: bool) -> RemoteObject:
        pixels = picture.pixels
        height, width = pixels.shape[:2]
        colours = pixels.ndim == 3
        kind = "short[]" if pixels.dtype.itemsize == 2 else "byte[]"
        if swap and kind == "short[]":
            pixels = pixels.byteswap()
        coords = self._built(self._data.coords_builder(), c=picture.channel)
        details = {} if picture.pixel_um is None else {"pixel_size_um": float(picture.pixel_um)}
        metadata = self._built(self._data.metadata_builder(), **details)
        image: RemoteObject = self._data.create_image(
            Pixels(kind, pixels),
            width,
            height,
            4 if colours else pixels.dtype.itemsize,
            3 if colours else 1,
            coords,
            metadata,
        )
        coords.release()
        metadata.release()
        return image

    def _built(self, builder: RemoteObject, **details: Any) -> RemoteObject:
        for name, value in details.items():
            getattr(builder, name)(value).release()
        built: RemoteObject = builder.build()
        builder.release()
        return built
