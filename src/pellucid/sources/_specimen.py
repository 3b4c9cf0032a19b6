"""A drifting specimen with its truth: two layers on a torus, rendered once, cropped for each frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Specimen"]

Points = NDArray[np.float64]

PHASES = 4
"""Sub-pixel positions of each layer, in equal parts of a pixel along its path."""

MARGIN = 64
"""Pixels by which the torus is larger than the frame, so that opposite borders of a frame do not match."""


class Specimen:
    """Filaments that drift along one diagonal, and spots that drift along the other one at 0.6 of the speed.

    Each layer lives on a torus. Its drawing is sharp (Gaussian, sigma 0.7 px) and moved to each quarter of a
    pixel by a phase ramp in Fourier space; what that leaves below zero is cut off, and the light kept. The
    blurred one is the convolution of just this drawing with a Gaussian PSF, so a frame is two crops and a sum,
    without any interpolation, and the truth belongs to it exactly.

    Parameters
    ----------
    shape
        ``(y, x)`` of a frame.
    rng
        Draws the specimen.
    fwhm_px
        Of the PSF; 0 for none.
    speed_px
        Of the filaments, in pixels a frame.
    """

    def __init__(self, shape: tuple[int, int], rng: np.random.Generator, fwhm_px: float, speed_px: float) -> None:
        self.shape = shape
        self._field = (shape[0] + MARGIN, shape[1] + MARGIN)
        step = speed_px / np.sqrt(2) * PHASES
        self._moves = ((1, 1, step), (1, -1, 0.6 * step))
        self._ky = np.fft.fftfreq(self._field[0])[:, None]
        self._kx = np.fft.rfftfreq(self._field[1])[None, :]
        squared = self._ky**2 + self._kx**2
        sharpness = np.exp(-2 * (np.pi * 0.7) ** 2 * squared)
        self._sharp = [np.fft.rfft2(layer) * sharpness for layer in (self._filaments(rng), self._spots(rng))]
        peak = float(np.quantile(sum(np.fft.irfft2(one, self._field) for one in self._sharp), 0.999))
        self._sharp = [one / peak for one in self._sharp]
        self._psf = np.exp(-2 * (np.pi * fwhm_px / 2.3548) ** 2 * squared)
        self._blurred = [[self._lens(self._drawn(i, phase)) for phase in range(PHASES)] for i in range(2)]

    def _filaments(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """Draw smooth random walks, wrapped around the torus."""
        h, w = self._field
        count, length = max(6, h * w // 9000), int(1.2 * max(h, w))
        turn = np.cumsum(rng.normal(0, 0.03, (count, 2 * length)), axis=1)
        turn += rng.uniform(0, 2 * np.pi, (count, 1))
        y = rng.uniform(0, h, (count, 1)) + np.cumsum(0.5 * np.sin(turn), axis=1)
        x = rng.uniform(0, w, (count, 1)) + np.cumsum(0.5 * np.cos(turn), axis=1)
        weight = np.repeat(rng.uniform(0.3, 1.0, (count, 1)), 2 * length, axis=1)
        return self._splat(y, x, weight)

    def _spots(self, rng: np.random.Generator) -> NDArray[np.float32]:
        h, w = self._field
        count = max(8, h * w // 1500)
        return self._splat(rng.uniform(0, h, count), rng.uniform(0, w, count), rng.uniform(1.0, 5.0, count))

    def _splat(self, y: Points, x: Points, weight: Points) -> NDArray[np.float32]:
        """Spread each point over its four nearest pixels."""
        h, w = self._field
        field = np.zeros(h * w)
        iy, ix = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
        fy, fx = y - iy, x - ix
        for dy, sy in ((0, 1 - fy), (1, fy)):
            for dx, sx in ((0, 1 - fx), (1, fx)):
                at = ((iy + dy) % h) * w + (ix + dx) % w
                field += np.bincount(at.ravel(), (weight * sy * sx).ravel(), minlength=h * w)
        return field.reshape(h, w).astype(np.float32)

    def _drawn(self, layer: int, phase: int) -> NDArray[np.float32]:
        """Return a sharp layer, moved by `phase` steps of a fraction of a pixel along its path."""
        sy, sx, _ = self._moves[layer]
        ramp = np.exp(-2j * np.pi * phase / PHASES * (sy * self._ky + sx * self._kx))
        image = np.maximum(np.fft.irfft2(self._sharp[layer] * ramp, self._field), 0)
        image *= self._sharp[layer][0, 0].real / image.sum()
        return image.astype(np.float32)

    def _lens(self, drawn: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the PSF makes of a drawing."""
        image = np.fft.irfft2(np.fft.rfft2(drawn) * self._psf, self._field)
        return np.maximum(image, 0).astype(np.float32)

    def place(self, layer: int, number: int) -> tuple[int, int, int]:
        """Return phase and the pixel of the torus at which frame `number` begins."""
        sy, sx, step = self._moves[layer]
        whole, phase = divmod(round(number * step), PHASES)
        return phase, (-sy * whole) % self._field[0], (-sx * whole) % self._field[1]

    def blurred(self, number: int, out: NDArray[np.float32], scratch: NDArray[np.float32]) -> None:
        """Hot: fill `out` with what the lens shows; 1 is the bright end of the sharp specimen."""
        for layer, into in ((0, out), (1, scratch)):
            phase, y, x = self.place(layer, number)
            self._crop(self._blurred[layer][phase], y, x, into)
        np.add(out, scratch, out=out)

    def sharp(self, number: int) -> NDArray[np.float32]:
        """Return the specimen itself at frame `number`."""
        out = np.zeros(self.shape, np.float32)
        part = np.empty(self.shape, np.float32)
        for layer in range(2):
            phase, y, x = self.place(layer, number)
            self._crop(self._drawn(layer, phase), y, x, part)
            out += part
        return out

    def _crop(self, field: NDArray[np.float32], y: int, x: int, out: NDArray[np.float32]) -> None:
        """Copy a frame from the torus, beginning at ``(y, x)``: four blocks at most."""
        (h, w), (fh, fw) = self.shape, self._field
        top, left = min(h, fh - y), min(w, fw - x)
        out[:top, :left] = field[y : y + top, x : x + left]
        out[top:, :left] = field[: h - top, x : x + left]
        out[:top, left:] = field[y : y + top, : w - left]
        out[top:, left:] = field[: h - top, : w - left]
