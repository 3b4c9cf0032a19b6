"""The steps of an experiment: what to do before a picture, in words of the microscope and not of a file format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

__all__ = ["Channel", "Focus", "Step"]


@dataclass(frozen=True, slots=True)
class Channel:
    """A preset of a config group.

    Parameters
    ----------
    config, group
        Names of the preset and of its group; both empty where the experiment names no channel.
    exposure_ms
        None: as the camera has it.
    name
        As it is called in what is recorded: a preset that comes twice is numbered.
    """

    config: str = ""
    group: str = ""
    exposure_ms: float | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Focus:
    """Let the autofocus device find the focus.

    Parameters
    ----------
    device
        Whose position is set to `offset` first; None: the autofocus device's own offset.
    offset
        None: as it is.
    tries
        How often it may fail.
    """

    device: str | None
    offset: float | None
    tries: int


@dataclass(frozen=True, slots=True)
class Step:
    """One picture, and what to do before it.

    Parameters
    ----------
    axes
        Place along each axis of the experiment.
    channel
        Place in `Experiment.channels`.
    x_um, y_um, z_um
        Where to go; None: stay.
    from_start
        Which of ``"x"``, ``"y"``, ``"z"`` are meant from where the stage is at the start of the experiment.
    exposure_ms
        None: as the camera had it at the start.
    start_s
        Not before, since the clock began; None: at once.
    new_clock
        The clock begins with this step.
    properties
        ``(device, property, value)``, to be set in this order.
    keep_open
        Leave the shutter open after it.
    focus
    """

    axes: Mapping[str, int]
    channel: int = 0
    x_um: float | None = None
    y_um: float | None = None
    z_um: float | None = None
    from_start: str = ""
    exposure_ms: float | None = None
    start_s: float | None = None
    new_clock: bool = False
    properties: tuple[tuple[str, str, str], ...] = ()
    keep_open: bool = False
    focus: Focus | None = None

    def later(self, pictures: int) -> Step:
        """Return the same so many time points later."""
        return replace(self, axes={**self.axes, "t": self.axes["t"] + pictures}) if pictures else self

    def follows(self, other: Step) -> bool:
        """Tell whether this is `other` at the next time point, with nothing to do and nothing to wait for between."""
        return (
            self.axes.get("t", 0) == other.axes.get("t", 0) + 1
            and not self.new_clock
            and not self.properties
            and self.focus is None
            and (self.start_s or 0.0) <= (other.start_s or 0.0)
            and replace(self, axes={**self.axes, "t": 0}, start_s=None)
            == replace(other, axes={**other.axes, "t": 0}, start_s=None, new_clock=False, properties=(), focus=None)
        )
