"""Simulated planes without noise, of more kinds than any one experiment shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage

from pellucid.optics import specimen

__all__ = ["KINDS", "draw_plane"]

Plane = np.ndarray[Any, Any]


def _filaments(side: int, rng: np.random.Generator) -> Plane:
    return specimen.draw((side, side), rng, shells=bool(rng.random() < 0.5))


def _nuclei(side: int, rng: np.random.Generator) -> Plane:
    """Bodies with chromatin inside, some of them dim."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    plane: Plane = np.zeros((side, side), np.float32)
    texture = _clouds(side, rng, rng.uniform(1.0, 4.0))
    radius = rng.uniform(6, 45)
    for _ in range(max(2, int(rng.uniform(0.1, 0.5) * side * side / (4 * radius**2)))):
        cy, cx = rng.uniform(0, side, 2)
        a, b = radius * rng.uniform(0.6, 1.3, 2)
        turn = rng.uniform(0, np.pi)
        u = ((x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)) / a
        v = ((y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)) / b
        body = 1 / (1 + np.exp(np.clip((np.sqrt(u * u + v * v) - 1) * rng.uniform(8, 40), -30, 30)))
        plane = np.maximum(plane, body * rng.uniform(0.2, 1.0) * (1 - 0.6 * rng.random() * texture))
    return plane


def _membranes(side: int, rng: np.random.Generator) -> Plane:
    """Walls between cells: where the two nearest of scattered points are equally far."""
    count = max(4, int(side * side / rng.uniform(15, 60) ** 2))
    points = rng.uniform(0, side, (count, 2)).astype(np.float32)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    bend = 6 * _clouds(side, rng, 12.0)
    near = np.full((2, side, side), np.inf, np.float32)
    for py, px in points:
        far = np.hypot(y + bend - py, x - bend - px)
        near[1] = np.minimum(near[1], np.maximum(near[0], far))
        near[0] = np.minimum(near[0], far)
    wall: Plane = np.exp(-(((near[1] - near[0]) / rng.uniform(1.0, 4.0)) ** 2))
    return np.asarray(wall * (0.4 + 0.6 * _clouds(side, rng, 20.0)), np.float32)


def _clouds(side: int, rng: np.random.Generator, sigma: float) -> Plane:
    """Smooth texture between 0 and 1."""
    plane = ndimage.gaussian_filter(rng.standard_normal((side, side)).astype(np.float32), sigma, mode="wrap")
    low, high = np.percentile(plane, (1, 99))
    return np.asarray(np.clip((plane - low) / (high - low), 0, 1), np.float32)


def _texture(side: int, rng: np.random.Generator) -> Plane:
    """Cytoplasm: clouds of several sizes with holes and rims."""
    plane = _clouds(side, rng, rng.uniform(1.0, 3.0)) * _clouds(side, rng, rng.uniform(5, 25))
    return np.asarray(plane ** rng.uniform(0.7, 2.5), np.float32)


def _puncta(side: int, rng: np.random.Generator) -> Plane:
    """Spots of many brightnesses, as of FISH or vesicles, above a dim body."""
    plane: Plane = np.zeros((side, side), np.float32)
    count = int(10 ** rng.uniform(1.3, 3.2))
    at = rng.integers(0, side, (2, count))
    np.add.at(plane, tuple(at), rng.lognormal(0, 0.8, count).astype(np.float32))
    plane = ndimage.gaussian_filter(plane, rng.uniform(0.6, 2.0))
    return np.asarray(plane / plane.max() + rng.uniform(0, 0.4) * _clouds(side, rng, rng.uniform(8, 30)), np.float32)


def _stripes(side: int, rng: np.random.Generator) -> Plane:
    """Repeated fine structure: sarcomeres, stress fibres."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    turn = rng.uniform(0, np.pi) + 0.7 * _clouds(side, rng, 40.0)
    wave = np.cos(2 * np.pi * (x * np.cos(turn) + y * np.sin(turn)) / rng.uniform(4, 16))
    return np.asarray(np.maximum(wave, 0) ** rng.uniform(1, 4) * _clouds(side, rng, rng.uniform(10, 30)), np.float32)


KINDS: tuple[Callable[[int, np.random.Generator], Plane], ...] = (
    _filaments, _nuclei, _membranes, _texture, _puncta, _stripes,
)  # fmt: skip


def draw_plane(side: int, rng: np.random.Generator) -> Plane:
    """Draw one or two kinds of structure over each other, blurred as by a lens.

    Parameters
    ----------
    side
        Of the plane, in pixels.
    rng
        Where all chance comes from.

    Returns
    -------
    numpy.ndarray
        float32 ``(side, side)``; about 0 to 1, the 99.9th percentile is 1.
    """
    plane: Plane = np.zeros((side, side), np.float32)
    for _ in range(int(rng.integers(1, 3))):
        drawn = KINDS[int(rng.integers(len(KINDS)))](side, rng)
        plane += drawn / max(float(np.percentile(drawn, 99.9)), 1e-6) * rng.uniform(0.3, 1.0)
    if rng.random() < 0.4:  # light from out of focus
        plane += rng.uniform(0.1, 0.6) * ndimage.gaussian_filter(plane, rng.uniform(6, 25))
    plane = ndimage.gaussian_filter(plane, rng.uniform(0.3, 2.0))
    return np.asarray(plane / max(float(np.percentile(plane, 99.9)), 1e-6), np.float32)
