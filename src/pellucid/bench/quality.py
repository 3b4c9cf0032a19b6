"""How near a restored picture is to a known truth: PSNR, SSIM, Fourier ring correlation and light."""

from __future__ import annotations

from typing import Any

import numpy as np

from pellucid.errors import require

__all__ = ["Truth", "correlation", "flux_error", "frc_px", "psnr_db"]

Image = np.ndarray[Any, Any]


class Truth:
    """Judge pictures against a truth that is normalised between its percentiles 0.1 and 99.9.

    Each is first fitted as ``a image + b``. The fit forgives scale and offset, so light that an algorithm invents does
    not show: see `flux_error`.

    Parameters
    ----------
    truth
        ``(y, x)`` or ``(z, y, x)``.

    Raises
    ------
    ValueError
        For a constant truth, against which nothing can be measured.
    """

    def __init__(self, truth: Image) -> None:
        low, high = map(float, np.percentile(truth, (0.1, 99.9)))
        if high <= low:  # a few bright pixels in the dark
            low, high = float(truth.min()), float(truth.max())
        if high <= low:
            raise ValueError("the truth is constant, so nothing can be measured against it")
        self._wanted = (truth.astype(np.float64) - low) / (high - low)
        self._mean = float(self._wanted.mean())

    def fitted(self, image: Image) -> Image:
        """Return ``a image + b`` with the least squared distance to the truth."""
        x = image.astype(np.float64)
        x -= x.mean()
        flat = x.ravel()
        x *= float(flat @ self._wanted.ravel()) / max(float(flat @ flat), 1e-30)
        x += self._mean
        return x

    def psnr_db(self, image: Image) -> float:
        """Return the peak signal-to-noise ratio after the fit, of a range of 1."""
        rest = self.fitted(image)
        rest -= self._wanted
        flat = rest.ravel()
        return float(-10 * np.log10(max(float(flat @ flat) / flat.size, 1e-30)))

    def ssim(self, image: Image) -> float:
        """Return the structural similarity after the fit: Gaussian window of sigma 1.5, range 1.

        Raises
        ------
        MissingExtra
            Without scikit-image.
        """
        metrics = require("skimage.metrics", "bench", "the SSIM of pellucid bench")
        return float(
            metrics.structural_similarity(
                self._wanted,
                self.fitted(image),
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=1.0,
            )
        )

    def frc_px(self, image: Image, threshold: float = 1 / 7) -> float:
        """Return the resolution by `frc_px` against the truth."""
        return frc_px(image, self._wanted, threshold)


def psnr_db(image: Image, truth: Image) -> float:
    """Return the PSNR of one picture: see `Truth`."""
    return Truth(truth).psnr_db(image)


def flux_error(image: Image, reference: Image) -> float:
    """Return how much more light there is in the picture than in the reference, as a part of it."""
    total = reference.sum(dtype=np.float64)
    return float((image.sum(dtype=np.float64) - total) / total)


def correlation(image: Image, other: Image) -> float:
    """Return Pearson's r of the pixels."""
    x, y = image.ravel().astype(np.float64), other.ravel().astype(np.float64)
    x -= x.mean()
    y -= y.mean()
    return float(x @ y) / max(float(np.sqrt((x @ x) * (y @ y))), 1e-300)


def frc_px(image: Image, other: Image, threshold: float = 1 / 7) -> float:
    """Return the period at which the Fourier ring correlation falls to the threshold.

    Tukey window of 0.25, means off; rings a frequency step wide, smoothed over three. In stacks the rings are those
    of the planes, summed over all.

    Returns
    -------
    float
        In pixels; 2 where the curve stays above the threshold up to the finest detail that pixels hold.
    """
    planes, others = image.reshape(-1, *image.shape[-2:]), other.reshape(-1, *image.shape[-2:])
    shape = planes.shape[-2:]
    window = np.outer(_tukey(shape[0]), _tukey(shape[1]))
    side = min(shape)
    ring = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])) * side
    ring = np.rint(ring).astype(np.int64).ravel()
    double = np.full(shape[1] // 2 + 1, 2.0)  # half of the spectrum stands for the whole
    double[0] = 1
    if shape[1] % 2 == 0:
        double[-1] = 1
    together, one, two = (np.zeros(int(ring.max()) + 1) for _ in range(3))

    def summed(power: Image) -> Image:
        return np.bincount(ring, (power * double).ravel(), together.size)

    for a, b in zip(planes, others, strict=True):
        fa, fb = (np.fft.rfft2((p - p.mean(dtype=np.float64)) * window) for p in (a, b))
        together += summed(fa.real * fb.real + fa.imag * fb.imag)
        one += summed(fa.real**2 + fa.imag**2)
        two += summed(fb.real**2 + fb.imag**2)
    curve = (together / np.sqrt(one * two + 1e-300))[1 : side // 2]
    smooth = np.convolve(np.pad(curve, 1, mode="edge"), np.ones(3) / 3, "valid")
    below = np.flatnonzero(smooth < threshold)
    return float(side / (below[0] + 1)) if below.size else 2.0


def _tukey(n: int, alpha: float = 0.25) -> Image:
    edge = max(int(alpha * (n - 1) / 2), 1)
    window = np.ones(n)
    ramp = 0.5 * (1 - np.cos(np.pi * np.arange(edge) / edge))
    window[:edge], window[n - edge :] = ramp, ramp[::-1]
    return window
