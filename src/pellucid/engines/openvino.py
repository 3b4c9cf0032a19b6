"""OpenVINO: the engine of computers without an NVIDIA GPU.

It is built for one shape, works in the caller's memory, and computes in bfloat16 where the processor has it and the
result stays within the bound. What it compiled is kept, since opening that is several times quicker than compiling.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from pellucid.engines.base import Bound, CachedEngine, Precision, Running, Tell
from pellucid.engines.liveness import tensors_of
from pellucid.engines.torch_module import load_module
from pellucid.errors import PellucidError, StageError, require
from pellucid.models import Form, Model

__all__ = ["OpenVino"]

_HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_BESIDE = 8 << 20
_CAPABILITIES = {"bfloat16": "BF16", "float16": "FP16"}


@dataclass(config=ConfigDict(extra="forbid"), kw_only=True)
class OpenVino(CachedEngine):
    """Run a network with OpenVINO on the processor.

    ``[session] threads`` says how many threads it takes.

    Parameters
    ----------
    precision
        ``"auto"``: bfloat16 where the processor has it and the result stays within `bound`, else float32.
    bound
        Refuse beyond this largest difference from float32, as a part of the result's range.
    """

    precision: Precision = "auto"
    bound: Bound = 0.01

    kind: ClassVar[str] = "openvino"
    module: ClassVar[str] = "openvino"
    extra: ClassVar[str] = "openvino"
    takes: ClassVar[tuple[Form, ...]] = ("onnx", "exported", "torchscript")

    def needed(self, model: Model, shape: tuple[int, ...], device: str) -> int:
        """Return the bytes that it will take beside what goes in and comes out.

        Measured with a folded U-Net of 0.77M parameters at 512, 1024 and 2048 and a U-Net of 1.4M at 512, in float32
        and bfloat16: 1.0 to 1.2 times what it took. The comparison with float32, once, takes what `Torch` does at
        512x512.
        """
        precision = self._precisions(device)[0] if self.precision == "auto" else self.precision
        size = 4 if precision == "float32" else 2
        tensors = tensors_of(model, shape, self.where)
        return int(4 * 3 * tensors.weights + size * 1.05 * tensors.alive) + _BESIDE

    def _device(self, device: str) -> str:
        return "" if device == "cpu" else f'runs on the processor, not on {device}. Type: engine = "auto"'

    def _core(self) -> Any:
        return require("openvino", self.extra, self.where).Core()

    def _library(self) -> str:
        version: str = require("openvino", self.extra, self.where).__version__
        return f"openvino {version.partition('-')[0]}"

    def _capabilities(self) -> list[str]:
        return list(self._core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))

    def _precisions(self, device: str) -> list[str]:
        return (["bfloat16"] if "BF16" in self._capabilities() else []) + ["float32"]

    def _beside(self, device: str) -> dict[str, Any]:
        core = self._core()
        return {"processor": core.get_property("CPU", "FULL_DEVICE_NAME"), "can": sorted(self._capabilities())}

    def _options(self, precision: str) -> dict[str, Any]:
        return {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # the camera, the disk and the window share the cores; as fast on two of them
        }

    def _build(
        self, model: Model, shape: tuple[int, ...], probe: tuple[int, ...], device: str, precision: str, say: Tell
    ) -> bytes:
        if precision in _CAPABILITIES and _CAPABILITIES[precision] not in self._capabilities():
            raise StageError(
                f'{self.where}: precision = "{precision}" is not one of this processor. Type: precision = "auto"'
            )
        network = self._read(model, shape, say)
        try:
            network.reshape(list(shape))
            compiled = self._core().compile_model(network, "CPU", self._options(precision))
            data = compiled.export_model()
        except Exception as error:
            raise StageError(f"{self.where}: cannot compile {model.name} for {_x(shape)}: {_why(error)}") from None
        return data.getvalue() if isinstance(data, io.BytesIO) else bytes(data)

    def _read(self, model: Model, shape: tuple[int, ...], say: Tell) -> Any:
        """Return the network as OpenVINO has it, from whichever file there is."""
        form = next(f for f in self.takes if f in model.weights)
        path = model.weights[form]
        if not path.is_file() or not path.stat().st_size:
            raise StageError(f"{self.where}: {path} is {'empty' if path.is_file() else 'missing'}")
        library = require("openvino", self.extra, self.where)
        try:
            if form == "onnx":
                network = self._read_onnx(library, path, model, shape, say)
            else:
                network = _converted(library, path, form, model, shape)
        except PellucidError:
            raise
        except Exception as error:
            raise StageError(f"{self.where}: cannot read {path.name}: {_why(error)}") from None
        if len(network.inputs) != 1 or len(network.outputs) != 1:
            raise StageError(
                f"{self.where}: {path.name} has {len(network.inputs)} inputs and {len(network.outputs)} outputs;"
                " it takes one of each"
            )
        return network

    def _read_onnx(self, library: Any, path: Path, model: Model, shape: tuple[int, ...], say: Tell) -> Any:
        """Read the file, or, where OpenVINO cannot, the straight graph for this shape that torch makes of it."""
        try:
            return library.Core().read_model(path)
        except Exception as error:
            try:
                plain: Any = load_module(model, shape, "float32", self.where).module
            except PellucidError as cannot:
                raise StageError(f"{cannot}; nor can OpenVINO read it: {_why(error)}") from None
            say(f"{self.where}: cannot read {path.name} itself ({_why(error)}); takes it by way of torch")
            given = torch.zeros(shape, dtype=getattr(torch, model.given.dtype))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch about itself
                return library.convert_model(torch.export.export(plain, (given,)))

    def _load(
        self, data: bytes, model: Model, shape: tuple[int, ...], device: str, precision: str, say: Tell
    ) -> Running:
        library = require("openvino", self.extra, self.where)
        try:
            compiled = library.Core().import_model(data, "CPU", self._options(precision))
            return _Run(library, compiled, shape)
        except Exception as error:
            raise StageError(f"{self.where}: cannot load what was compiled: {_why(error)}") from None


def _converted(library: Any, path: Path, form: Form, model: Model, shape: tuple[int, ...]) -> Any:
    given = torch.zeros(shape, dtype=getattr(torch, model.given.dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        if form == "torchscript":
            return library.convert_model(torch.jit.load(path, map_location="cpu"), example_input=given)
        # For one shape, written anew: OpenVINO does not know the symbols of a program for many.
        return library.convert_model(torch.export.export(torch.export.load(path).module(), (given,)))


class _Run:
    """A request whose input and output lie in the caller's memory."""

    captures = False

    def __init__(self, library: Any, compiled: Any, shape: tuple[int, ...]) -> None:
        self._tensor, self._request = library.Tensor, compiled.create_infer_request()
        self.result = tuple(int(n) for n in compiled.output(0).shape)
        if tuple(int(n) for n in compiled.input(0).shape) != tuple(shape):
            raise ValueError(f"it was compiled for {_x(compiled.input(0).shape)}")
        self.facts: dict[str, Any] = {
            "threads": int(compiled.get_property("INFERENCE_NUM_THREADS")),
            "computes_in": str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()),
        }
        self._at = (0, 0)

    def __call__(self, given: torch.Tensor, result: torch.Tensor) -> None:
        at = (given.data_ptr(), result.data_ptr())
        if at != self._at:  # the same memory comes again and again
            self._request.set_input_tensor(self._tensor(given.numpy(), shared_memory=True))
            self._request.set_output_tensor(self._tensor(result.numpy(), shared_memory=True))
            self._at = at
        self._request.infer()

    def close(self) -> None:
        self._request = None


def _why(error: Exception) -> str:
    """Return what is worth reading of OpenVINO's many lines: the last one that says more than where."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '", "[ CPU ]", "While validating"))]
    return (told or lines or [type(error).__name__])[0][:240]


def _x(shape: Any) -> str:
    return "x".join(str(int(n)) for n in np.asarray(shape))
