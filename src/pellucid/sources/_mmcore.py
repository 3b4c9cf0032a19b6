"""What is asked of a Micro-Manager core before a run, and how its refusals are put in one line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pellucid.errors import SourceError, did_you_mean, require

__all__ = [
    "DEMO",
    "end_core",
    "find_core",
    "listed",
    "names_in",
    "no_such",
    "refuse_crash",
    "set_property",
    "tag",
    "text",
]

DEMO = Path("demo")
"""Instead of a configuration, or of a folder of adapters: those of mm-test-adapters."""
NAMES_SHOWN = 12
"""Of a list of what is allowed."""
UNLOADS = 20
"""Tries, 50 ms apart, to unload the devices."""


def find_core(config: str, adapters: Path | None, mmpycorex: Any) -> tuple[Path, Path]:
    """Return the folder of the device adapters and the configuration file.

    Raises
    ------
    SourceError
        Where one of them does not exist, or no Micro-Manager is installed.
    """
    if adapters is not None and adapters != DEMO and not adapters.is_dir():
        raise SourceError(f'adapters = "{adapters}": there is no such folder')
    if config == str(DEMO):
        demo = _demo_adapters('config = "demo"')
        return demo if adapters in (None, DEMO) else adapters, demo / "MMConfig_demo.cfg"
    file = Path(config).absolute()
    if not file.is_file():
        raise SourceError(f'config = "{config}": there is no such file. Give a .cfg, or "demo"')
    if adapters == DEMO:
        return _demo_adapters('adapters = "demo"'), file
    if adapters is not None:
        return adapters.absolute(), file
    try:
        found = mmpycorex.find_existing_mm_install()
    except Exception:
        found = None  # it looks where installers put it, and fails where there is no such place
    if not found:
        raise SourceError(
            'adapters: no installed Micro-Manager was found. Give its folder, such as adapters = "C:/Program '
            'Files/Micro-Manager-2.0"'
        )
    return Path(found), file


def _demo_adapters(asked: str) -> Path:
    return Path(require("mm_test_adapters", "demo", asked).device_adapter_path())


def end_core() -> None:
    """Unload the core of this process, and no Java that somebody else started through mmpycorex."""
    from mmpycorex import launcher

    for _ in range(UNLOADS):
        try:
            launcher.terminate_pymmcore_instances()
            return
        except Exception:  # a camera thread that is just ending counts as a sequence that runs
            time.sleep(0.05)
    # One that cannot be unloaded stays until the process ends, but must not keep the next session from opening.
    launcher._PYMMCORES.clear()


def tag(metadata: Any, name: str) -> str:
    """Hot: return a tag of a frame, an empty text where it has none."""
    return str(metadata.GetSingleTag(name).GetValue()) if metadata.HasTag(name) else ""


def set_property(core: Any, devices: list[str], key: str, value: str) -> None:
    """Set ``device.property``; a refusal says what is allowed."""
    device, dot, name = key.partition(".")
    if not dot or not name:
        raise SourceError(f'properties."{key}": name a device, a dot and a property, such as "Camera.PixelType"')
    if device not in devices:
        raise SourceError(f'properties."{key}": ' + no_such("device", device, devices))
    names = list(core.get_device_property_names(device))
    if name not in names:
        raise SourceError(f'properties."{key}": ' + no_such("property", name, names))
    allowed = list(core.get_allowed_property_values(device, name))
    if allowed and value not in allowed:
        near = did_you_mean(value, allowed)
        raise SourceError(f'properties."{key}" = "{value}": no such value.{near} Allowed: {listed(allowed)}')
    if core.is_property_read_only(device, name):
        raise SourceError(f'properties."{key}" = "{value}": it can only be read. Leave it out')
    try:
        core.set_property(device, name, value)
    except Exception as error:
        limits = ""
        if core.has_property_limits(device, name):
            low, high = (f(device, name) for f in (core.get_property_lower_limit, core.get_property_upper_limit))
            limits = f". Allowed: {low:g} to {high:g}"
        raise SourceError(f'properties."{key}" = "{value}": Micro-Manager refuses: {text(error)}{limits}') from None


def refuse_crash(core: Any, camera: str) -> None:
    """DemoCamera draws beads into RGB pixels past its memory, which ends the process."""
    if core.get_device_library(camera) != "DemoCamera" or not core.has_property(camera, "Mode"):
        return
    if "Beads" in core.get_property(camera, "Mode") and "RGB" in core.get_property(camera, "PixelType"):
        raise SourceError(
            "DemoCamera's fluorescent beads with an RGB pixel type crash Micro-Manager. "
            'Set properties = { "Camera.PixelType" = "16bit" }'
        )


def no_such(what: str, given: str, allowed: list[str]) -> str:
    """Return what to say of a name that is not there."""
    return f'no {what} "{given}".{did_you_mean(given, allowed)} There are: {listed(allowed)}'


def names_in(vector: Any) -> list[str]:
    """Return the names that the core gives: a list or, over the bridge, a Java object with ``size`` and ``get``."""
    if hasattr(vector, "size") and hasattr(vector, "get"):
        return [str(vector.get(i)) for i in range(vector.size())]
    return [str(name) for name in vector]


def listed(names: list[str]) -> str:
    """Return the first names of a list; some devices have a hundred properties."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" ... and {more} more" if more > 0 else "") if names else "none"


def text(error: BaseException) -> str:
    """Return what the core says of an error, in one line."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
