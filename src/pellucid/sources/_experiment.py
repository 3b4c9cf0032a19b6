"""An experiment: a useq-schema ``MDASequence``, read, checked, and put into steps that a core can do.

useq-schema resolves time points, positions, grids, channels and z-planes into events. What it leaves open is decided
here: a key that it does not know is an error (it would leave it out and say nothing), a relative z-plan or grid
whose position has no z or no x and y is meant from where the stage is at the start (useq counts from 0), the fields
of a grid are as large as the camera's picture, and the places along ``c`` are the experiment's channels, also where
a position has channels of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from pellucid.errors import SourceError
from pellucid.sources._positions import Positions, numbered
from pellucid.sources._sequence_file import read_table, to_sequence
from pellucid.sources._steps import Channel, Focus, Step

__all__ = ["Experiment"]

AUTOFOCUS = "hardware_autofocus"


class Experiment:
    """A sequence that has been read.

    Parameters
    ----------
    table
        As in a file, or inline.
    name
        For errors: the path, or ``"sequence"``.
    field_um
        Width and height of one picture in the specimen, where it is known.

    Attributes
    ----------
    sizes : dict of str to int
        Places along each axis that the experiment has, those of one place too; the slowest first. Of a ragged
        experiment the largest.
    names : dict of str to list of str
        Of the places along ``c`` and ``p``.
    channels : list of Channel
        At least one; a preset that comes twice is two, with a number in the second one's name.
    counts : list of int
        Pictures of each channel.
    z_step_um : float or None
        Between two planes, where they are evenly spaced.
    positions : Positions
        Where pictures are taken.
    setup : Step
        What to set before the first picture.
    roi : tuple of int or None
        Offsets, width and height, to be set before the first picture.

    Raises
    ------
    SourceError
        One line: what useq-schema does not accept, and what cannot be played.
    """

    def __init__(
        self, table: Mapping[str, Any], name: str = "sequence", field_um: tuple[float, float] | None = None
    ) -> None:
        self.name = name
        self._table = table
        self._sequence, self._lacks_field = to_sequence(table, name, field_um)
        self._positions = list(self._sequence.stage_positions)
        try:
            self._take_stock()
        except SourceError:
            raise
        except Exception as error:
            raise SourceError(f"{name}: useq-schema cannot resolve it: {' '.join(str(error).split())}") from None

    @classmethod
    def load(cls, given: str | Path | Mapping[str, Any]) -> Experiment:
        """Read a YAML or JSON file, or take a table.

        Raises
        ------
        SourceError
            Where there is no such file, or it holds no such sequence.
        """
        if isinstance(given, Mapping):
            return cls(given)
        return cls(*read_table(Path(given)))

    def with_field(self, field_um: tuple[float, float] | None) -> Experiment:
        """Return the experiment for a camera whose picture is so large, where a grid depends on it.

        Raises
        ------
        SourceError
            Where it does, and nobody knows.
        """
        if not self._lacks_field:
            return self
        if field_um is None:
            raise SourceError(
                f"{self.name}: the grid_plan needs the size of a field, and the size of a pixel is not known. "
                "Set pixel_um in the config, or fov_width and fov_height in the grid_plan"
            )
        return Experiment(self._table, self.name, field_um)

    @property
    def pictures(self) -> int:
        """How many steps there are."""
        return sum(self.counts)

    # ---------------------------------------------------------------- steps

    def steps(self) -> Iterator[Step]:
        """Go through the experiment; of a burst that is known as one only the first picture comes."""
        focus: Focus | None = None
        for event in self._events:
            action = event.action
            if action.type == AUTOFOCUS:
                focus = Focus(action.autofocus_device_name, action.autofocus_motor_offset, max(1, action.max_retries))
                continue
            channel = self._channel_of(event)
            index = dict(event.index)
            yield Step(
                axes={axis: channel if axis == "c" else int(index.get(axis, 0)) for axis in self.sizes},
                channel=channel,
                x_um=event.x_pos,
                y_um=event.y_pos,
                z_um=event.z_pos,
                from_start=self._from_start(event),
                exposure_ms=event.exposure,
                start_s=event.min_start_time,
                new_clock=bool(event.reset_event_timer),
                properties=_properties(event),
                keep_open=bool(event.keep_shutter_open),
                focus=focus,
            )
            focus = None

    def bursts(self) -> Iterator[tuple[Step, int]]:
        """Go through it: a picture, and how many there are from it on that follow one another without a pause."""
        if self._burst > 1:
            for step in self.steps():
                yield step, self._burst
            return
        first = last = None
        count = 0
        for step in self.steps():
            if last is None or first is None or not step.follows(last):
                if first is not None:
                    yield first, count
                first, count = step, 0
            last = step
            count += 1
        if first is not None:
            yield first, count

    # ---------------------------------------------------------------- reading

    def _take_stock(self) -> None:
        sequence = self._sequence
        self._burst = self._find_burst()
        # One event stands for a burst: to go through a hundred thousand of them takes useq seconds.
        self._events = sequence.replace(time_plan={"interval": 0, "loops": 1}) if self._burst > 1 else sequence
        self.channels = [Channel(c.config, c.group, c.exposure) for c in sequence.channels]
        self.positions = Positions()
        largest: dict[str, int] = {}
        count: dict[int, int] = {}
        positions: dict[int, str] = {}
        for event in self._events:
            if event.action.type == AUTOFOCUS:
                continue
            channel = self._channel_of(event)
            count[channel] = count.get(channel, 0) + self._burst
            place = self._place_of(event)
            own_z_um, from_start = getattr(place, "z", None), self._from_start(event)
            self.positions.note(event, channel, own_z_um=own_z_um, from_start=from_start, planes=self._burst)
            for axis, at in event.index.items():
                largest[str(axis)] = max(largest.get(str(axis), 0), int(at) + 1)
            if "p" in event.index:
                positions.setdefault(int(event.index["p"]), event.pos_name or "")
        if self._burst > 1:
            largest["t"] = self._burst
        if not count:
            raise SourceError(
                f"{self.name}: there is nothing to acquire. Give a time_plan, channels, a z_plan or stage_positions"
            )
        # A channel of the whole that no position uses, since each has its own, is none.
        self.channels = [channel for i, channel in enumerate(self.channels) if i in count] or [Channel()]
        names = numbered([channel.config for channel in self.channels])
        self.channels = [replace(channel, name=name) for channel, name in zip(self.channels, names, strict=True)]
        self.positions.resolve({})
        self.counts = [count[i] for i in sorted(count)]
        order = [str(axis) for axis in sequence.axis_order]
        order += [axis for axis in "tpgcz" if axis not in order]
        if any(channel.config for channel in self.channels):
            largest["c"] = len(self.channels)
        self.sizes = {axis: largest[axis] for axis in order if axis in largest}
        self.names: dict[str, list[str]] = {}
        if "c" in self.sizes:
            self.names["c"] = [channel.name for channel in self.channels]
        if any(positions.values()):
            self.names["p"] = [positions.get(i, "") or f"p{i}" for i in range(self.sizes["p"])]
        plans = [plan for plan in (sequence.z_plan, *(s.z_plan for s in self._subsequences())) if plan]
        self.z_step_um = _even_step(plans[0]) if plans else None
        self.setup = Step({})
        self.roi: tuple[int, int, int, int] | None = None
        setup = getattr(sequence, "setup", None)
        if setup is not None:
            self._take_setup(setup)

    def _take_setup(self, setup: Any) -> None:
        if getattr(setup.action, "name", "") != "setup":
            raise SourceError(
                f'{self.name}: setup has the action "{getattr(setup.action, "name", "") or setup.action.type}", '
                "which cannot be played. Leave it out"
            )
        if setup.slm_image is not None:
            raise SourceError(f"{self.name}: setup has an slm_image, which cannot be played. Leave it out")
        self.setup = Step(
            {}, x_um=setup.x_pos, y_um=setup.y_pos, z_um=setup.z_pos, exposure_ms=setup.exposure,
            properties=_properties(setup),
        )  # fmt: skip
        if setup.roi is not None:
            self.roi = (setup.roi.offset_x, setup.roi.offset_y, setup.roi.width, setup.roi.height)

    def _find_burst(self) -> int:
        """Return how many time points follow one another without a pause and are what varies fastest, else 1."""
        sequence = self._sequence
        plan = sequence.time_plan
        simple = (
            plan is not None
            and sequence.used_axes.endswith("t")
            and sequence.autofocus_plan is None
            and getattr(plan, "interval", None) == timedelta(0)
            and all(channel.acquire_every == 1 for channel in sequence.channels)
            and all(place.sequence is None and not place.properties for place in self._positions)
            and "t" not in sequence.keep_shutter_open_across
        )
        return int(plan.loops) if simple else 1

    def _subsequences(self) -> list[Any]:
        return [place.sequence for place in self._positions if place.sequence is not None]

    def _channel_of(self, event: Any) -> int:
        """Return a picture's place along c; a position's own channels are among those of the experiment."""
        if event.channel is None:
            return 0
        wanted = (event.channel.config, event.channel.group)
        # A preset that comes twice is two channels: the first of its list is the first of all, the second the second.
        inner = getattr(self._place_of(event), "sequence", None)
        before = (getattr(inner, "channels", None) or self._sequence.channels)[: event.index.get("c", 0)]
        earlier = sum((channel.config, channel.group) == wanted for channel in before)
        same = [i for i, channel in enumerate(self.channels) if (channel.config, channel.group) == wanted]
        if earlier < len(same):
            return same[earlier]
        self.channels.append(Channel(*wanted, event.exposure))
        return len(self.channels) - 1

    def _place_of(self, event: Any) -> Any:
        return self._positions[event.index["p"]] if "p" in event.index else None

    def _from_start(self, event: Any) -> str:
        """Return which coordinates of an event are relative, with nothing that they are relative to."""
        place = self._place_of(event)
        inner = getattr(place, "sequence", None)
        z_plan = getattr(inner, "z_plan", None) or self._sequence.z_plan
        grid = getattr(inner, "grid_plan", None) or self._sequence.grid_plan
        axes = ""
        if grid is not None and grid.is_relative and "g" in event.index:
            axes += "".join(a for a in "xy" if getattr(place, a, None) is None)
        if z_plan is not None and z_plan.is_relative and "z" in event.index and getattr(place, "z", None) is None:
            axes += "z"
        return axes


def _properties(event: Any) -> tuple[tuple[str, str, str], ...]:
    return tuple((str(d), str(p), str(v)) for d, p, v in event.properties or ())


def _even_step(plan: Any) -> float | None:
    """Return the distance between two planes, where it is one."""
    places = sorted(float(z) for z in plan)
    gaps = [b - a for a, b in pairwise(places)]
    if not gaps or min(gaps) <= 0 or max(gaps) - min(gaps) > 1e-6 * max(gaps):
        return None
    return round(sum(gaps) / len(gaps), 9)
