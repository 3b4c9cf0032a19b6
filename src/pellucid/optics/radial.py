"""PSFs of round lenses: their light along the radius by integrals over the pupil, then laid onto pixels.

Without astigmatism and coma, and with light sources that shine in all directions, a PSF depends on the distance from
the axis and on the defocus only, so that a few hundred integrals are all there is to compute. They are exact: there
is no grid whose edge the light of a defocused plane could come round.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import Any

import numpy as np

from pellucid.optics.bessel import j0_j1_j2
from pellucid.optics.lens import Lens

__all__ = ["axis_reach_um", "best_focus_um", "light", "on_pixels", "radii_um"]

Array = np.ndarray[Any, Any]

NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)
PHASE_OF_A_PANEL = 10.0
"""In radians: 16 nodes integrate a wave with so much phase to 1e-12."""
STEPS = 100
"""Of the radius in ``wavelength / na``; cubic interpolation between them is then good to 5e-6 of the peak."""
AT_ONCE = 2_000_000
"""Values of a Bessel function: bounds the memory to some 100 MB."""


def radii_um(reach_um: float, na: float, wavelength_um: float) -> Array:
    """Return radii from 0 to a little beyond `reach_um`, so dense that `on_pixels` may interpolate."""
    step = wavelength_um / na / STEPS
    return np.arange(math.ceil(reach_um / step) + 4) * step


def light(lens: Lens, wavelength_um: float, r_um: Array, z_um: Array, *, vectorial: bool) -> Array:
    """Return the intensity that a point makes, or, going the other way, that a focused plane wave has.

    Scalar: ``|sum A exp(i phase) J0(k s r) s ds|^2`` with a uniform pupil (Gibson and Lanni 1992,
    J. Opt. Soc. Am. A 9, 154; without aberration Born and Wolf, Principles of Optics, 8.8).

    Vectorial: ``|I0|^2 + 2 |I1|^2 + |I2|^2`` of Richards and Wolf 1959 (Proc. R. Soc. A 253, 358), the energy in
    the focus of unpolarised light; by reciprocity the same is the image of a dipole that takes all directions
    in turn. Apodisation ``sqrt(cos)`` of an aplanatic lens; Fresnel's transmission from the immersion through the
    coverslip into the sample (Torok et al. 1995, J. Opt. Soc. Am. A 12, 325; Aguet et al. 2009, Opt. Express 17, 6829).

    Parameters
    ----------
    lens
        With its layers; their phase is that of Gibson and Lanni in both models.
    wavelength_um
        In vacuum.
    r_um
        ``(n,)``, from the axis.
    z_um
        ``(m,)``, how much deeper than in the paraxial focus the lens is focused.

    Returns
    -------
    numpy.ndarray
        float64 ``(m, n)``; the planes have a common scale.
    """
    z_um, r_um = np.atleast_1d(z_um), np.asarray(r_um, np.float64)
    k = 2 * np.pi / wavelength_um
    angle, weight = _angles(lens, k, float(r_um.max(initial=0)), float(abs(z_um).max(initial=0)))
    s, cosine = lens.index * np.sin(angle), np.cos(angle)
    wave = np.exp(1j * k * lens.detour_um(s)) * weight * np.sin(angle)
    # The refocused lens is nearer, so that the way through the immersion is shorter.
    waves = np.exp(-1j * k * lens.index * (cosine - 1)[:, None] * z_um) * wave[:, None]
    if vectorial:
        factors = [(a[:, None] * np.sqrt(cosine)[:, None], share) for a, share in _dipoles(lens, s, cosine)]
    else:
        factors = [(cosine[:, None], 1.0)]
    out = np.empty((z_um.size, r_um.size))
    rows = max(1, AT_ONCE // s.size)
    for start in range(0, r_um.size, rows):
        part = slice(start, start + rows)
        orders = j0_j1_j2(k * r_um[part, None] * s)
        out[:, part] = sum(
            share * ((bessel @ (w := waves * a).real) ** 2 + (bessel @ w.imag) ** 2)
            for (a, share), bessel in zip(factors, orders, strict=False)
        ).T
    return out


def _angles(lens: Lens, k: float, r_um: float, z_um: float) -> tuple[Array, Array]:
    """Return angles in the immersion and their weights: panels of Gauss-Legendre, ending where a layer reflects."""
    critical = {index for thickness_um, index in lens.layers if thickness_um and index < lens.na}
    ends = [0.0, *sorted(math.asin(s / lens.index) for s in critical), math.asin(lens.na / lens.index)]
    angle, weight = [], []
    for left, right in itertools.pairwise(ends):
        ray = lens.index * np.sin(np.linspace(left, right, 65))
        detour = lens.detour_um(ray).real
        turn = lens.index * (math.cos(left) - math.cos(right))
        phase = k * (r_um * (ray[-1] - ray[0]) + z_um * turn + np.abs(np.diff(detour)).sum())
        edges = np.linspace(left, right, math.ceil(phase / PHASE_OF_A_PANEL) + 2)
        half = np.diff(edges)[:, None] / 2
        angle.append((edges[:-1, None] + half * (1 + NODES)).ravel())
        weight.append((half * WEIGHTS).ravel())
    return np.concatenate(angle), np.concatenate(weight)


def _dipoles(lens: Lens, s: Array, cosine: Array) -> tuple[tuple[Array, float], ...]:
    """Return the factors of J0, J1 and J2, and how much their squares count."""
    ts = tp = np.ones(s.shape, np.complex128)
    at, cos_at = lens.index, cosine.astype(np.complex128)
    for index in (lens.index_coverslip, lens.sample) if lens.coverslip_um else (lens.sample,):
        cos_next = np.sqrt(1 - (s / index).astype(np.complex128) ** 2)
        ts = ts * 2 * at * cos_at / (at * cos_at + index * cos_next)
        tp = tp * 2 * at * cos_at / (index * cos_at + at * cos_next)
        at, cos_at = index, cos_next
    return (ts + tp * cos_at, 1.0), (tp * s / at, 2.0), (ts - tp * cos_at, 1.0)


@lru_cache(64)
def best_focus_um(lens: Lens, wavelength_um: float, *, vectorial: bool) -> float:
    """Return the refocusing, from the paraxial focus, at which the axis is brightest."""
    if lens.is_as_designed:
        return 0.0
    near, far = lens.foci_um()
    depth_um = wavelength_um / (lens.index - math.sqrt(lens.index**2 - lens.na**2))  # peak to first zero
    count = math.ceil((far - near + 4 * depth_um) / (depth_um / 5))
    z = np.linspace(near - 2 * depth_um, far + 2 * depth_um, min(count, 8000) | 1)
    axis = light(lens, wavelength_um, np.zeros(1), z, vectorial=vectorial)[:, 0]
    i = int(np.clip(np.argmax(axis), 1, z.size - 2))
    before, here, after = axis[i - 1 : i + 2]
    return float(z[i] + 0.5 * (z[1] - z[0]) * (before - after) / (before - 2 * here + after))


def axis_reach_um(lens: Lens, wavelength_um: float, *, vectorial: bool, share: float = 0.02) -> float:
    """Return how far from the brightest plane the axis is still so bright: an aberrated lens has a long tail."""
    focus = best_focus_um(lens, wavelength_um, vectorial=vectorial)
    near, far = lens.foci_um()
    depth_um = wavelength_um / (lens.index - math.sqrt(lens.index**2 - lens.na**2))
    count = math.ceil((far - near + 6 * depth_um) / (depth_um / 4))
    z = np.linspace(near - 3 * depth_um, far + 3 * depth_um, min(count, 4000))
    axis = light(lens, wavelength_um, np.zeros(1), z, vectorial=vectorial)[:, 0]
    return float(abs(z[axis > share * axis.max()] - focus).max())


def on_pixels(profile: Array, step_um: float, size_px: int, pixel_um: float, fine: int = 1) -> Array:
    """Lay light along the radius onto square pixels.

    Parameters
    ----------
    profile
        ``(z, r)`` at radii 0, `step_um`, 2 `step_um`, ...; beyond the corner of the picture.
    size_px
        Odd side.
    fine
        Odd: each pixel is the sum of ``fine x fine`` points; 1: the light at its centre.

    Returns
    -------
    numpy.ndarray
        float64 ``(z, size_px, size_px)``.
    """
    half, points = size_px // 2, size_px * fine // 2
    at = np.arange(points + 1) * (pixel_um / fine / step_um)
    r = np.sqrt(at[:, None] ** 2 + at**2)
    i = np.clip(r.astype(np.int64), 1, profile.shape[1] - 3)
    t = r - i
    # Lagrange's cubic through the points i - 1 to i + 2.
    weights = [-t * (t - 1) * (t - 2) / 6, (t + 1) * (t - 1) * (t - 2) / 2, -(t + 1) * t * (t - 2) / 2]
    weights.append((t + 1) * t * (t - 1) / 6)
    # Row p counts how often a point at distance i from the axis lies in pixel p.
    counts = np.zeros((half + 1, points + 1))
    for offset in range(-(fine // 2), fine // 2 + 1):
        np.add.at(counts, (np.arange(half + 1), abs(np.arange(half + 1) * fine + offset)), 1.0)
    mirrored = abs(np.arange(-half, half + 1))
    out = np.empty((profile.shape[0], size_px, size_px))
    for plane, line in zip(out, profile, strict=True):
        quarter = sum(w * line[i + n] for n, w in enumerate(weights, start=-1))
        if fine > 1:
            quarter = counts @ quarter @ counts.T
        plane[:] = quarter[mirrored[:, None], mirrored]
    return np.maximum(out, 0)
