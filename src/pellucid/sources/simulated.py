"""A specimen that nobody has to prepare, with its truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from pellucid.errors import SourceError
from pellucid.metrics import now_ns
from pellucid.protocols import Account, FrameInfo, Ring, Slot, Spec, Stream
from pellucid.sources._pace import Pace
from pellucid.sources._paths import from_folder
from pellucid.sources._specimen import Specimen

__all__ = ["Simulated"]

NOISE_SEED = 1
STRIDE = 7919
"""Prime: by this much the noise table is entered further on for each frame."""


@dataclass(config=ConfigDict(extra="forbid"))
class Simulated:
    """A simulated camera over a simulated specimen: drifting filaments and spots, blurred and noisy.

    This is a simulation, and says so in ``stream.details``. What is simplified:

    - the specimen drifts rigidly in two layers (filaments and spots), in quarters of a pixel; nothing grows,
      bleaches or moves in depth, and it returns after it has crossed the field (64 pixels more than a frame);
    - the PSF is a Gaussian in the plane, without out-of-focus light;
    - photon noise is Gaussian with the variance of the signal, which is poor below about 5 photons, and read
      noise is added to it; both come from one table of normal numbers, four times as long as a frame and
      entered at another place for each frame, so noise is white within a frame while frames far apart share
      (shifted) noise: do not average hundreds of frames to measure it.

    The same `seed` gives the same frames.

    Parameters
    ----------
    shape
        ``(y, x)`` in pixels.
    fps
        Frames each second; None for as fast as slots are offered.
    frames
        How many; None for no end.
    on_full
        ``"wait"`` or ``"drop"``, as in `pellucid.sources.replay.Replay`.
    seed
        Of specimen and noise.
    photons
        Photo-electrons in the bright parts of the *sharp* specimen.
    background
        Photo-electrons everywhere.
    psf_fwhm_px
        Width of the PSF; 0 for none.
    speed_px
        Drift of the filaments, in pixels a frame; the spots move at 0.6 of it along the other diagonal.
    read_noise
        Standard deviation in photo-electrons.
    gain
        Counts for one photo-electron.
    offset
        Counts without light.
    bit_depth
        Of the camera; up to 8 gives uint8, else uint16. Brighter pixels saturate.
    pixel_um
        Told to the stages; nothing here depends on it.
    truth_path
        A .npy file to write the sharp specimen of every frame to (float32, as `truth`) before the first one is
        given; needs `frames`.
    """

    shape: tuple[Annotated[int, Field(ge=16, le=8192)], Annotated[int, Field(ge=16, le=8192)]] = (512, 512)
    fps: float | None = Field(default=50.0, ge=1e-4, le=1e6, allow_inf_nan=False)
    frames: int | None = Field(default=None, gt=0)
    on_full: Literal["wait", "drop"] | None = None
    seed: int = Field(default=0, ge=0)
    photons: float = Field(default=200.0, gt=0, allow_inf_nan=False)
    background: float = Field(default=2.0, ge=0, allow_inf_nan=False)
    psf_fwhm_px: float = Field(default=3.5, ge=0, le=100)
    speed_px: float = Field(default=0.5, ge=0, le=1000)
    read_noise: float = Field(default=1.6, ge=0, allow_inf_nan=False)
    gain: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    offset: float = Field(default=100.0, ge=0, allow_inf_nan=False)
    bit_depth: int = Field(default=16, ge=1, le=16)
    pixel_um: float | None = Field(default=0.1, gt=0, allow_inf_nan=False)
    truth_path: Path | None = None
    passive: ClassVar[bool] = True
    """``open`` touches nothing, so `pellucid check` may call it to learn the shape."""

    @field_validator("truth_path")
    @classmethod
    def _place(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is None:
            return None
        path = from_folder(path, info)
        if path.suffix != ".npy":
            raise ValueError(f"{path.name} must end in .npy")
        if not path.parent.is_dir():
            raise ValueError(f"the folder {path.parent} does not exist")
        return path

    def __post_init__(self) -> None:
        if self.on_full == "drop" and self.fps is None:
            raise ValueError('on_full = "drop" needs fps: without a clock no frame is ever too late')
        if self.truth_path is not None and self.frames is None:
            raise ValueError("truth_path needs frames: a file without an end cannot be written")
        self.live = (self.on_full or ("drop" if self.fps else "wait")) == "drop"
        self.shares_memory = False
        self.finished = False
        self._specimen: Specimen | None = None

    def open(self) -> tuple[Stream, ...]:
        """Draw the specimen and its noise; return one stream."""
        self.finished = False
        self._draw()
        n = self.shape[0] * self.shape[1]
        # Four frames long, and one more to read on from the last entrance.
        self._noise = np.random.default_rng((self.seed, NOISE_SEED)).standard_normal(5 * n, np.float32)
        self._light, self._scratch = (np.empty(self.shape, np.float32) for _ in range(2))
        dtype = "uint8" if self.bit_depth <= 8 else "uint16"
        self._top = float(2**self.bit_depth - 1)
        self._pace = Pace(self.fps, self.live, self.frames, lambda seq: 0)
        details = {
            "simulated": True,
            "seed": self.seed,
            "psf_fwhm_px": self.psf_fwhm_px,
            "photons": self.photons,
            "read_noise": self.read_noise,
            "gain": self.gain,
            "offset": self.offset,
        }
        exposure_ms = 1e3 / self.fps if self.fps else None
        spec = Spec(tuple(self.shape), dtype)
        stream = Stream(
            spec,
            camera="simulated",
            channel="simulated",
            pixel_um=self.pixel_um,
            exposure_ms=exposure_ms,
            bit_depth=self.bit_depth,
            frames=self.frames,
            details=details,
        )
        return (stream,)

    def _draw(self) -> Specimen:
        if self._specimen is None:
            rng = np.random.default_rng((self.seed, 0))
            self._specimen = Specimen(self.shape, rng, self.psf_fwhm_px, self.speed_px)
        return self._specimen

    def _write_truth(self) -> None:
        assert self.truth_path is not None
        assert self.frames is not None
        try:
            file = np.lib.format.open_memmap(self.truth_path, "w+", np.float32, (self.frames, *self.shape))
            for seq in range(self.frames):
                file[seq] = self.truth(seq)
            file.flush()
        except OSError as error:
            raise SourceError(f"the truth cannot be written to {self.truth_path}: {error}") from None

    def truth(self, seq: int) -> NDArray[np.float32]:
        """Return the sharp specimen of frame `seq` without noise.

        Parameters
        ----------
        seq
            Sequence number of the frame.

        Returns
        -------
        numpy.ndarray
            ``shape``, float32, in counts above `offset` and `background`: what a perfect deconvolution gives.
        """
        return self._draw().sharp(seq) * np.float32(self.photons * self.gain)

    def start(self, rings: Sequence[Ring], account: Account) -> None:
        """Write the truth where it was asked for, and begin; the clock starts with the first ``read``.

        Raises
        ------
        SourceError
            Where the truth cannot be written.
        """
        if self.truth_path is not None:
            self._write_truth()
        self._pace.start(len(rings), account)

    def offer(self, slot: Slot) -> None:
        """Hand over a free slot."""
        self._pace.offer(slot)

    def read(self, timeout_s: float) -> Slot | None:
        """Expose the frame that is due; ``camera_ns`` is its due time (when it was taken, if it waits)."""
        due = self._pace.take(timeout_s)
        if due is None:
            self.finished = self._pace.finished
            return None
        seq, slot, camera_ns = due
        self._expose(seq, slot.planes["raw"])
        slot.info = FrameInfo(seq, 0, seq, camera_ns, 0, now_ns(), axes={"t": seq})
        self.finished = self._pace.finished
        return slot

    def _expose(self, seq: int, plane: NDArray[Any]) -> None:
        """Hot: photons, their noise, the camera's noise, counts."""
        light, scratch = self._light, self._scratch
        specimen = self._specimen
        assert specimen is not None
        specimen.blurred(seq, light, scratch)
        light *= self.photons
        light += self.background
        np.add(light, self.read_noise**2, out=scratch)
        np.sqrt(scratch, out=scratch)
        at = seq * (light.size + STRIDE) % (4 * light.size)
        scratch *= self._noise[at : at + light.size].reshape(light.shape)
        light += scratch
        light *= self.gain
        light += self.offset + 0.5  # the cast below cuts off: round
        np.clip(light, 0, self._top, out=light)
        np.copyto(plane, light, casting="unsafe")

    def stop(self) -> None:
        """Give no further frame."""
        if hasattr(self, "_pace"):
            self._pace.stop()
        self.finished = True

    def close(self) -> None:
        """Let go of the specimen; `truth` draws it again when it is asked."""
        self._specimen = None
        self._noise = np.empty(0, np.float32)
