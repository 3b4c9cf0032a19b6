"""Every number that a method is made of, and the sets of them that were measured.

The algorithm behind all methods, for a picture ``y`` in units of its mean, the OTF ``H``, a back projector ``B``
and ``c``, which is `noise_constant` times the variance of the noise over the mean::

    v    <- e, extrapolated along its last change                     `acceleration`
    g    <- clip( B (y + c) / (H v + c), lowest, highest )
    g    <- g / (1 - tv div(grad v / |grad v|))                       `tv`
    e    <- max( v g, floor )

Richardson 1972 and Lucy 1974 (``B = conj(H)``, all else off), Snyder et al. 1993 (``c``: the camera's noise in the
Poisson model), Biggs and Andrews 1997 (extrapolation by a factor from two steps), Wang and Miller 2014 (extrapolation
of the logarithm), Dey et al. 2006 (total variation), Guo et al. 2020 (``B``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["Recipe"]

Method = Literal["wiener-butterworth", "richardson-lucy", "gaussian", "butterworth", "wiener"]
Acceleration = Literal["none", "momentum", "biggs-andrews"]
Start = Literal["flat", "blurred", "image"]
Measure = Literal["contrast", "bands"]
Preset = Literal["tuned", "fast", "published"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that a deconvolution does, but for the PSF.

    Parameters
    ----------
    method
        The back projector; ``"wiener"``: no iteration, only its linear filter.
    iterations
        Each costs two transforms there and back, the first from a flat start one. None: from the picture's own
        noise, ``auto[0] * clarity ** auto[1]`` within ``auto[2:]``. Fractions are the way between two results, so
        that a film does not flicker.
    clarity
        What `pellucid.deconvolution.noise` measures for it.
    stop_change
        End where the residual ``|y - H v|`` changes by less than this part of itself in a step; 0: never.
    start
        First estimate: 1 everywhere, the picture blurred once more, or the picture. From 1 everywhere the first step
        is a filter of the picture and is bound by `start_lowest` and `start_highest` instead.
    acceleration, momentum, most
        Of the estimate before each step; `momentum` is the exponent of ``e / e_before``, which is kept between
        ``1 / most`` and `most`.
    alpha, beta, order, epsilon, resolution_px, smooth_px
        Of the back projector: see `pellucid.optics.projectors`.
    smooth_from
        For `order` 0: noise (one over the clarity) below which nothing is smoothed, in full by `smooth_px` at ten times
        as much; 0: always in full.
    noise_constant, lowest, highest, tv
        See the module.
    floor
        Of the estimate, in units of the mean. From 1e-6 to 1e-2 the results are the same within 0.01 dB.
    pads
        Pixels added on each side, the last axis last, where the edge pixel is repeated.
    fades
        What is repeated goes over into the mean of the picture.
    trust, trusted_steps
        Part to which the padding counts after so many steps: the ratio there is taken as ``1 + trust (g - 1)``. The
        repeated edge is a good start, but nobody has seen what lies outside: from then on the estimate there should
        rather follow from the light that it sends into the picture (2 dB better at the border of deep stacks, 1 to 3
        within).
    """

    method: Method
    iterations: float | None
    auto: tuple[float, float, float, float] = (1.0, 0.0, 1.0, 1.0)
    clarity: Measure = "contrast"
    stop_change: float = 0.0
    start: Start = "flat"
    start_lowest: float = 0.0
    start_highest: float = 1e6
    acceleration: Acceleration = "none"
    momentum: float = 0.75
    most: float = 10.0
    alpha: float = 0.01
    beta: float | Literal["auto"] = "auto"
    order: int = 4
    epsilon: Literal["theory", "authors"] = "theory"
    resolution_px: float | None = None
    smooth_px: float = 0.0
    smooth_from: float = 0.0
    noise_constant: float = 0.0
    lowest: float = 0.0
    highest: float = 1e6
    tv: float = 0.0
    floor: float = 1e-4
    pads: tuple[int, ...] = (8, 8)
    fades: bool = False
    trust: float = 1.0
    trusted_steps: int = 6

    @property
    def most_iterations(self) -> int:
        """The greatest number of steps that it can come to."""
        if self.method == "wiener":
            return 0
        return -int(-(self.auto[3] if self.iterations is None else self.iterations) // 1)

    @property
    def follows_noise(self) -> bool:
        """The back projector depends on the picture."""
        return self.smooth_from > 0 and self.smooth_px > 0

    @property
    def is_linear(self) -> bool:
        """One filter of the picture, no iteration."""
        return self.method == "wiener"

    @property
    def looks_at_noise(self) -> bool:
        """The picture's noise has a part in it."""
        return not self.is_linear and (self.noise_constant > 0 or self.iterations is None or self.follows_noise)

    @property
    def decides(self) -> bool:
        """How much there is to do depends on the picture."""
        return not self.is_linear and (self.iterations is None or self.stop_change > 0 or self.follows_noise)

    @classmethod
    def of(cls, method: Method, ndim: int, preset: Preset = "tuned") -> Recipe:
        """Return the measured recipe of a method for planes (`ndim` 2) or stacks (3).

        ``"tuned"``: the best picture; ``"fast"``: three iterations, in stacks half as many; ``"published"``: as its
        authors have it, with the light that it gains.
        """
        pads, fades = ((8, 8), False) if ndim == 2 else ((16, 16, 16), True)
        if method == "wiener":
            return cls(
                method=method, iterations=None, alpha=0.03 if ndim == 2 else 0.01, order=0, pads=pads, fades=fades
            )
        if method != "wiener-butterworth":
            if preset == "published":
                return cls(method=method, iterations=20, start="image", pads=pads, fades=fades)
            slower = {"richardson-lucy": 2.0, "gaussian": 1.5, "butterworth": 1.5}[method]
            measured = _PLANES if ndim == 2 else _STACKS
            factor, power, least, most = measured.auto
            return cls(
                method=method,
                iterations=None if preset == "tuned" else round(3 * slower),
                auto=(factor * slower, power, least, most * slower),
                clarity=measured.clarity,
                acceleration="momentum",
                noise_constant=1.5,
                pads=pads,
                fades=fades,
                trust=measured.trust,
            )
        if preset == "published":
            return cls(
                method=method,
                iterations=2,
                start="image",
                alpha=0.001,
                order=10,
                epsilon="authors",
                pads=pads,
                fades=fades,
            )
        recipe = _PLANES if ndim == 2 else _STACKS
        if preset == "fast":
            recipe = _FAST_PLANES if ndim == 2 else _FAST_STACKS
        return recipe


# From a flat start the first step would be gone on with as if it had been a change: a bright bead on haze becomes a
# ring.
_PLANES = Recipe(
    method="wiener-butterworth",
    iterations=None,
    auto=(2.6, 0.21, 2, 8),
    start="blurred",
    acceleration="momentum",
    alpha=0.02,
    noise_constant=1.5,
    lowest=0.02,
    highest=10,
)
_FAST_PLANES = replace(_PLANES, iterations=3)
# Far from the limit of the Wiener filter, and without the Butterworth filter: what undoes more of the blur in a step
# draws stripes where the PSF is not quite the microscope's.
_STACKS = Recipe(
    method="wiener-butterworth",
    iterations=None,
    auto=(2.07, 0.219, 4, 28),
    clarity="bands",
    start_lowest=0.02,
    acceleration="momentum",
    momentum=0.8,
    most=4.0,
    alpha=0.5,
    order=0,
    smooth_px=0.6,
    smooth_from=2e-6,
    noise_constant=0.75,
    lowest=0.2,
    highest=5,
    pads=(16, 16, 16),
    fades=True,
    trust=0.1,
)
_FAST_STACKS = replace(_STACKS, auto=(1.04, 0.219, 3, 14))
