"""The streams of an experiment: one for each of its channels and each camera."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pellucid.protocols import Stream
from pellucid.sources._camera import cameras_of, look, spec_of
from pellucid.sources._experiment import Experiment
from pellucid.sources._mmcore import refuse_crash

__all__ = ["experiment_streams"]


def experiment_streams(
    core: Any, experiment: Experiment, *, like: Stream, floats: bool
) -> tuple[tuple[Stream, ...], list[tuple[int, str]]]:
    """Return a stream for each channel and camera, and the place along ``c`` and the camera of each.

    The presets of channels that change the camera, or which camera it is, are set once to see what it gives.
    """
    streams: list[Stream] = []
    places: list[tuple[int, str]] = []
    for place, channel in enumerate(experiment.channels):
        if channel.config and _touches_camera(core, channel.group, channel.config):
            core.set_config(channel.group, channel.config)
            core.wait_for_config(channel.group, channel.config)
        now = look(core)
        for camera in cameras_of(core):
            refuse_crash(core, camera)
            places.append((place, camera))
            streams.append(
                replace(
                    like,
                    spec=spec_of(camera, now.kind, now.height, now.width, floats=floats),
                    camera=camera,
                    channel=channel.name or like.channel,
                    index=len(streams),
                    pixel_um=like.pixel_um and (core.get_pixel_size_um() or like.pixel_um),
                    z_um=experiment.z_step_um,
                    exposure_ms=channel.exposure_ms or like.exposure_ms,
                    bit_depth=now.bit_depth,
                    frames=experiment.counts[place],
                    sizes=experiment.sizes,
                    names=experiment.names,
                    details={
                        **like.details,
                        "binning": now.binning,
                        "roi": [*now.corner, now.width, now.height],
                        "channel_group": channel.group,
                    },
                )
            )
    positions = experiment.positions.details(len(streams))
    return tuple(replace(stream, details={**stream.details, **positions}) for stream in streams), places


def _touches_camera(core: Any, group: str, config: str) -> bool:
    devices = {core.get_camera_device(), *cameras_of(core), "Core"}
    settings = core.get_config_data(group, config)
    return any(settings.getSetting(i).getDeviceLabel() in devices for i in range(settings.size()))
