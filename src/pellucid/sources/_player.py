"""Plays the steps of an experiment on a core: moves, channels, exposures, shutters, and the waiting between.

The core is pycromanager's, in this process or behind its bridge: few calls, and names only in and out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from pellucid.errors import SourceError
from pellucid.metrics import now_ns
from pellucid.sources._experiment import Experiment
from pellucid.sources._mmcore import names_in, no_such, set_property, text
from pellucid.sources._steps import Focus, Step

__all__ = ["Player"]


class Player:
    """One experiment on one core.

    Parameters
    ----------
    core
        With snake_case names.
    experiment

    Attributes
    ----------
    stop : threading.Event
        When set, waiting ends and no further step is prepared.
    notice : callable or None
        Told in a line of a focus that was not found, and the experiment goes on without; None: that ends it.

    Notes
    -----
    `check`, then `play` in any one thread. It touches the core only, never its pictures: those are the caller's.
    """

    def __init__(self, core: Any, experiment: Experiment) -> None:
        self._core = core
        self._experiment = experiment
        self.stop = threading.Event()
        self.notice: Callable[[str], None] | None = None
        self._focus = str(core.get_focus_device())
        self._stage = str(core.get_xy_stage_device())
        self._moves: set[str] = set()
        self._start: dict[str, float] = {}
        self._here: dict[str, Any] = {}
        self._corrections: dict[int, float] = {}
        self._clock_ns = 0
        self._exposure_ms = self._own_exposure_ms = 0.0
        self._own_presets: dict[str, str] = {}
        self._touched: set[str] = set()
        self._auto_shutter = False
        self._held_open = False

    # ---------------------------------------------------------------- before

    def check(self) -> None:
        """Look whether the core has all that the experiment names, before anything moves.

        Raises
        ------
        SourceError
            One line: where, what was given, what there is.
        """
        core, experiment = self._core, self._experiment
        name = experiment.name
        groups: list[str] | None = None
        presets: dict[str, list[str]] = {}
        for channel in experiment.channels:
            if not channel.config:
                continue
            if groups is None:
                groups = names_in(core.get_available_config_groups())
            if channel.group not in groups:
                raise SourceError(
                    f'{name}: channel "{channel.config}": ' + no_such("config group", channel.group, groups)
                )
            if channel.group not in presets:
                presets[channel.group] = names_in(core.get_available_configs(channel.group))
            if channel.config not in presets[channel.group]:
                where = f'{name}: group "{channel.group}" has '
                raise SourceError(where + no_such("channel", channel.config, presets[channel.group]))
        moves, focuses, properties = self._wishes()
        self._moves = moves
        if "z" in moves and not self._focus:
            raise SourceError(f"{name} moves along z, but the configuration has no focus device. Leave out z")
        if moves & {"x", "y"} and not self._stage:
            raise SourceError(f"{name} moves in x and y, but the configuration has no XY stage. Leave x and y out")
        devices = names_in(core.get_loaded_devices()) if properties or focuses else []
        if focuses and not str(core.get_auto_focus_device()):
            raise SourceError(
                f"{name} has an autofocus_plan, but the configuration has no autofocus device. Leave it out"
            )
        for focus in focuses:
            if focus.device is not None and focus.device not in devices:
                raise SourceError(f"{name}: autofocus_plan: " + no_such("device", focus.device, devices))
        for device, key, _ in properties:
            if device not in devices:
                raise SourceError(f'{name}: property "{device}.{key}": ' + no_such("device", device, devices))
            keys = names_in(core.get_device_property_names(device))
            if key not in keys:
                raise SourceError(f'{name}: property "{device}.{key}": ' + no_such("property", key, keys))

    def _wishes(self) -> tuple[set[str], set[Focus], set[tuple[str, str, str]]]:
        moves: set[str] = set()
        focuses: set[Focus] = set()
        properties: set[tuple[str, str, str]] = set()
        for step in (self._experiment.setup, *self._experiment.steps()):
            moves |= {axis for axis in "xyz" if getattr(step, f"{axis}_um") is not None}
            focuses |= {step.focus} if step.focus is not None else set()
            properties |= set(step.properties)
        return moves, focuses, properties

    # ---------------------------------------------------------------- play

    def prepare(self) -> None:
        """Set what the whole experiment begins with; the camera's state is as in its first picture afterwards."""
        core, setup = self._core, self._experiment.setup
        self._own_exposure_ms = float(core.get_exposure())
        self._exposure_ms = setup.exposure_ms or self._own_exposure_ms
        groups = {channel.group for channel in self._experiment.channels if channel.config}
        self._own_presets = {group: str(core.get_current_config(group)) for group in sorted(groups)}
        self._experiment.positions.resolve(self._where())
        if setup.properties:
            devices = names_in(core.get_loaded_devices())
            for device, key, value in setup.properties:
                set_property(core, devices, f"{device}.{key}", value)
        roi = self._experiment.roi
        if roi is not None:
            self._do(f"ROI {roi}", lambda: core.set_roi(*roi))

    def play(self, take: Callable[[Step, int], None]) -> None:
        """Do all steps; ``take(step, count)`` acquires so many pictures, `count` of them one after the other.

        The k-th of them is that of ``step.later(k)``.

        Raises
        ------
        SourceError
            Where the core refuses something; the shutter is closed, and all goes back to the start, all the same.
        """
        self._auto_shutter = bool(self._core.get_auto_shutter())
        self._start = self._where()
        self._experiment.positions.resolve(self._start)
        self._clock_ns = now_ns()
        try:
            self._move(self._experiment.setup)
            for step, count in self._experiment.bursts():
                if not self._make_ready(step):
                    break
                take(step, count)
                self._close_shutter(step)
        finally:
            self._leave()

    def _where(self) -> dict[str, float]:
        """Return where the stages are, as far as there are any."""
        core, moves, here = self._core, self._moves, {}
        try:
            if self._focus:
                here["z"] = float(core.get_position(self._focus))
            if self._stage:
                here["x"] = float(core.get_x_position(self._stage))
                here["y"] = float(core.get_y_position(self._stage))
        except Exception as error:
            # A stage that cannot say where it is does no harm to an experiment that leaves it alone.
            if moves & ({"z"} if "z" not in here and self._focus else {"x", "y"}):
                what = f"{self._experiment.name}: where the stages are: Micro-Manager refuses"
                raise SourceError(f"{what}: {text(error)}") from None
        return here

    def _make_ready(self, step: Step) -> bool:
        """Go where a step wants to be; False where the run was stopped on the way."""
        if step.new_clock:
            self._clock_ns = now_ns()
        wait_s = (step.start_s or 0.0) - (now_ns() - self._clock_ns) * 1e-9
        if self.stop.wait(wait_s) if wait_s > 0 else self.stop.is_set():
            return False
        self._move(step)
        self._set_channel(step)
        if step.focus is not None:
            self._find_focus(step, step.focus)
        if step.keep_open and self._auto_shutter and not self._held_open:
            self._do("the shutter", lambda: (self._core.set_auto_shutter(False), self._core.set_shutter_open(True)))
            self._held_open = True
        return not self.stop.is_set()

    def _move(self, step: Step) -> None:
        core = self._core
        x, y, z = (self._target(step, axis) for axis in "xyz")
        if x is not None or y is not None:
            x = self._here.get("x", self._start["x"]) if x is None else x
            y = self._here.get("y", self._start["y"]) if y is None else y
            if (x, y) != (self._here.get("x"), self._here.get("y")):
                at = f"x = {x:g}, y = {y:g}"
                self._touched.add("xy")
                self._do(at, lambda: core.set_xy_position(self._stage, x, y))
                self._do(at, lambda: core.wait_for_device(self._stage))
                self._here.update(x=x, y=y)
        if z is not None and z != self._here.get("z"):
            self._touched.add("z")
            self._do(f"z = {z:g}", lambda: core.set_position(self._focus, z))
            self._do(f"z = {z:g}", lambda: core.wait_for_device(self._focus))
            self._here["z"] = z

    def _target(self, step: Step, axis: str) -> float | None:
        um: float | None = getattr(step, f"{axis}_um")
        if um is None:
            return None
        if axis in step.from_start:
            um += self._start[axis]
        return um + self._corrections.get(step.axes.get("p", 0), 0.0) if axis == "z" else um

    def _set_channel(self, step: Step) -> None:
        core = self._core
        channel = self._experiment.channels[step.channel]
        if channel.config and self._here.get("channel") != channel:
            what = f'channel "{channel.config}"'
            self._touched.add(channel.group)
            self._do(what, lambda: core.set_config(channel.group, channel.config))
            self._do(what, lambda: core.wait_for_config(channel.group, channel.config))
            self._here["channel"] = channel
            self._here.pop("exposure", None)
        for device, key, value in step.properties:
            what = f'property "{device}.{key}" = "{value}"'
            self._do(what, partial(core.set_property, device, key, value))
            self._do(what, partial(core.wait_for_device, device))
        exposure_ms = step.exposure_ms or channel.exposure_ms or self._exposure_ms
        if exposure_ms != self._here.get("exposure"):
            self._touched.add("exposure")
            self._do(f"exposure {exposure_ms:g} ms", lambda: core.set_exposure(exposure_ms))
            self._here["exposure"] = exposure_ms

    def _find_focus(self, step: Step, focus: Focus) -> None:
        """Let the device find the focus, and keep how far that was for later planes at this position."""
        core = self._core
        if focus.offset is not None:
            what = f"autofocus offset {focus.offset:g}"
            if focus.device is None:
                self._do(what, lambda: core.set_auto_focus_offset(focus.offset))
            else:
                self._do(what, lambda: core.set_position(focus.device, focus.offset))
                self._do(what, lambda: core.wait_for_device(focus.device))
        before = float(core.get_position(self._focus)) if self._focus else 0.0
        fault = self._full_focus(focus.tries)
        if fault and self.notice is None:
            raise SourceError(f"{self._experiment.name}: autofocus failed {focus.tries} times: {fault}")
        if fault and self.notice is not None:
            # Pictures a little out of focus are worth more than a night without any.
            self.notice(f"autofocus failed {focus.tries} times: {fault}")
            return
        if self._focus:
            at = step.axes.get("p", 0)
            after = float(core.get_position(self._focus))
            self._corrections[at] = self._corrections.get(at, 0.0) + after - before
            self._here["z"] = after
            self._move(step)

    def _full_focus(self, tries: int) -> str:
        """Return what the core said of the last try, or nothing."""
        fault = ""
        for _ in range(tries):
            try:
                self._core.full_focus()
                return ""
            except Exception as error:
                fault = text(error)
        return fault

    def _close_shutter(self, step: Step) -> None:
        if self._held_open and not step.keep_open:
            self._do("the shutter", lambda: (self._core.set_shutter_open(False), self._core.set_auto_shutter(True)))
            self._held_open = False

    def _leave(self) -> None:
        """Leave Micro-Manager as it was: its shutter closed and as automatic, and all that was moved where it was."""
        if self._held_open:
            self._held_open = False
            try:
                self._core.set_shutter_open(False)
                self._core.set_auto_shutter(True)
            except Exception:
                pass  # what the core could not do before was said; a shutter that is gone needs no closing
        self._go_back()

    def _go_back(self) -> None:
        """Put the stages, presets and exposure back, so that the next experiment starts from where this one did.

        Each is tried, also after an error; what cannot be put back is told in one line.
        """
        core, start, touched = self._core, self._start, self._touched
        ways: list[tuple[str, Callable[[], Any]]] = []
        if "xy" in touched and "x" in start:
            ways.append(("the XY stage", lambda: core.set_xy_position(self._stage, start["x"], start["y"])))
            ways.append(("the XY stage", lambda: core.wait_for_device(self._stage)))
        if "z" in touched and "z" in start:
            ways.append(("the focus", lambda: core.set_position(self._focus, start["z"])))
            ways.append(("the focus", lambda: core.wait_for_device(self._focus)))
        for group, preset in self._own_presets.items():
            if preset and group in touched:
                ways.append((f"{group} = {preset}", partial(core.set_config, group, preset)))
                ways.append((f"{group} = {preset}", partial(core.wait_for_config, group, preset)))
        if "exposure" in touched:
            ways.append(("the exposure", lambda: core.set_exposure(self._own_exposure_ms)))
        faults: dict[str, str] = {}
        for what, call in ways:
            try:
                if what not in faults:
                    call()
            except Exception as error:
                faults[what] = f"{what} ({text(error)})"
        touched.clear()
        self._here.clear()
        if faults and self.notice is not None:
            self.notice(f"not put back after the experiment: {', '.join(faults.values())}")

    def _do(self, what: str, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:
            raise SourceError(f"{self._experiment.name}: {what}: Micro-Manager refuses: {text(error)}") from None
