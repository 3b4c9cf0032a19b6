"""Bessel functions of the first kind, orders 0 to 2, without a package for them."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["j0_j1_j2"]

Array = np.ndarray[Any, Any]

# Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 9.4.1 and 9.4.3 (order 0), 9.4.4 and 9.4.6
# (order 1): up to 3 a series in (x / 3)^2; above, amplitude and phase in 3 / x. Lowest power first.
_LOW_0 = (1, -2.2499997, 1.2656208, -0.3163866, 0.0444479, -0.0039444, 0.0002100)
_AMPLITUDE_0 = (0.79788456, -0.00000077, -0.00552740, -0.00009512, 0.00137237, -0.00072805, 0.00014476)
_PHASE_0 = (-0.78539816, -0.04166397, -0.00003954, 0.00262573, -0.00054125, -0.00029333, 0.00013558)
_LOW_1 = (0.5, -0.56249985, 0.21093573, -0.03954289, 0.00443319, -0.00031761, 0.00001109)
_AMPLITUDE_1 = (0.79788456, 0.00000156, 0.01659667, 0.00017105, -0.00249511, 0.00113653, -0.00020033)
_PHASE_1 = (-2.35619449, 0.12499612, 0.00005650, -0.00637879, 0.00074348, 0.00079824, -0.00029166)


def _series(powers: tuple[float, ...], x: Array) -> Array:
    out = np.full_like(x, powers[-1])
    for power in powers[-2::-1]:
        out *= x
        out += power
    return out


def j0_j1_j2(x: Array) -> tuple[Array, Array, Array]:
    """Return ``J0(x)``, ``J1(x)`` and ``J2(x)``, each within 2e-7, for x of 0 and above.

    Parameters
    ----------
    x
        Any shape, 0 and above.

    Returns
    -------
    j0, j1, j2 : numpy.ndarray
        float64 of the same shape.
    """
    x = np.asarray(x, np.float64)
    low = np.minimum(x, 3.0) / 3
    low *= low
    far = np.maximum(x, 3.0)
    t, root = 3 / far, 1 / np.sqrt(far)
    near = x <= 3
    j0 = np.where(near, _series(_LOW_0, low), root * _series(_AMPLITUDE_0, t) * np.cos(far + _series(_PHASE_0, t)))
    j1_over_x = np.where(
        near, _series(_LOW_1, low), root / far * _series(_AMPLITUDE_1, t) * np.cos(far + _series(_PHASE_1, t))
    )
    return j0, j1_over_x * x, 2 * j1_over_x - j0
