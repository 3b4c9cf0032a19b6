"""An objective and what lies between it and the specimen: immersion, coverslip, mounting medium."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Lens"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Lens:
    """An objective with the layers it was designed for and those it meets.

    Parameters
    ----------
    na
        Numerical aperture, below `index`.
    index, index_design
        Refractive index of the immersion, as it is and as the lens was made for (None: the same).
    immersion_um
        Thickness of the immersion that the lens was made for, its working distance.
    index_coverslip, index_coverslip_design, coverslip_um, coverslip_design_um
        Of the glass, likewise; thickness 0 of both: a dipping lens.
    index_sample
        Of the medium round the light source; None: that of the immersion.
    depth_um
        Distance of the light source from the coverslip.
    """

    na: float
    index: float
    index_design: float | None = None
    immersion_um: float = 150.0
    index_coverslip: float = 1.5255
    index_coverslip_design: float | None = None
    coverslip_um: float = 170.0
    coverslip_design_um: float = 170.0
    index_sample: float | None = None
    depth_um: float = 0.0

    @property
    def sample(self) -> float:
        """Index round the light source."""
        return self.index if self.index_sample is None else self.index_sample

    @property
    def layers(self) -> tuple[tuple[float, float], ...]:
        """``(thickness_um, index)`` of all that the light meets, those of the design with a negative thickness.

        The thickness of the immersion is the one that puts the source into the paraxial focus: on the axis the
        layers then differ from the design by a constant only (Gibson and Lanni 1992, J. Opt. Soc. Am. A 9, 154).
        """
        glass = self.index_coverslip if self.index_coverslip_design is None else self.index_coverslip_design
        liquid = self.index if self.index_design is None else self.index_design
        immersion_um = self.index * (
            self.coverslip_design_um / glass
            - self.coverslip_um / self.index_coverslip
            + self.immersion_um / liquid
            - self.depth_um / self.sample
        )
        return (
            (self.depth_um, self.sample),
            (self.coverslip_um, self.index_coverslip),
            (-self.coverslip_design_um, glass),
            (immersion_um, self.index),
            (-self.immersion_um, liquid),
        )

    def detour_um(self, s: Array) -> Array:
        """Return how much longer than designed the way of a ray is, optically, at the paraxial focus.

        Parameters
        ----------
        s
            Sine of the ray's angle times the index of its medium, 0 to `na`; the same in all layers.

        Returns
        -------
        numpy.ndarray
            complex128, less its value on the axis; above 0 in the imaginary part where the ray is evanescent.
        """
        out = np.zeros(np.shape(s), np.complex128)
        if self.is_as_designed:
            return out
        for thickness_um, index in self.layers:
            out += thickness_um * (np.sqrt(index**2 - np.asarray(s, np.complex128) ** 2) - index)
        return out

    @property
    def is_as_designed(self) -> bool:
        """No layer differs from the design, so that there is no aberration; whole layers cancel one another."""
        left: dict[float, float] = {}
        for thickness_um, index in self.layers:
            left[index] = left.get(index, 0.0) + thickness_um
        return all(abs(thickness_um) < 1e-9 for thickness_um in left.values())

    def foci_um(self, rays: int = 64) -> tuple[float, float]:
        """Return between which refocusings, from the paraxial focus, the rays of all angles meet the axis.

        Positive is deeper in the specimen.
        """
        if self.is_as_designed:
            return 0.0, 0.0
        lowest = min(index for thickness_um, index in self.layers if thickness_um)
        s = np.linspace(0, 0.98 * min(self.na, lowest), rays)
        own = np.sqrt(self.index**2 - s**2)
        foci = sum(thickness_um * own / np.sqrt(index**2 - s**2) for thickness_um, index in self.layers)
        return float(np.min(foci)), float(np.max(foci))
