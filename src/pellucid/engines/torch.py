"""torch itself: eager, in a CUDA graph, or compiled. In float32 on a CPU it is what the others are compared with."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from pellucid.engines.base import Bound, CachedEngine, CannotCompute, Precision, Running, Tell
from pellucid.engines.liveness import tensors_of
from pellucid.engines.torch_module import load_module
from pellucid.models import Form, Model

__all__ = ["Torch"]

_SCRATCH = 32 << 20
"""Of oneDNN."""
_WORKSPACE = 256 << 20
"""What cuDNN may take to choose its algorithms."""


@dataclass(config=ConfigDict(extra="forbid"), kw_only=True)
class Torch(CachedEngine):
    """Run a network in torch.

    Parameters
    ----------
    mode
        ``"eager"``: operator by operator; ``"graph"``: the same, captured in a CUDA graph with the stages beside it;
        ``"compile"``: `torch.compile`, which takes a minute and needs a C++ compiler on a CPU. ``"auto"``: graph on a
        GPU, eager on a CPU.
    precision
        ``"auto"``: on a GPU float16 where it stays within `bound`, else float32; on a CPU float32. Convolutions in
        float32 are not shortened to TF32.
    channels_last
        Channels of a pixel lie side by side, as tensor cores and oneDNN take them.
    bound
        Refuse beyond this largest difference from float32, as a part of the result's range.
    """

    mode: Literal["auto", "eager", "graph", "compile"] = "auto"
    precision: Precision = "auto"
    channels_last: bool = True
    bound: Bound = 0.01

    kind: ClassVar[str] = "torch"
    module: ClassVar[str] = "torch"
    takes: ClassVar[tuple[Form, ...]] = ("onnx", "exported", "torchscript")
    spans: ClassVar[bool] = True

    def needed(self, model: Model, shape: tuple[int, ...], device: str) -> int:
        """Return the bytes that it will take beside what goes in and comes out.

        Measured on a processor with a folded U-Net of 0.77M parameters at 512, 1024 and 2048 and a U-Net of 1.4M at
        512: 1.0 to 1.2 times what it took channels last in float32, 0.95 to 1.25 otherwise.
        """
        precision = self._precisions(device)[0] if self.precision == "auto" else self.precision
        size = 4 if precision == "float32" else 2
        tensors = tensors_of(model, shape, self.where)
        if device != "cpu":
            return size * (tensors.weights + tensors.alive) + _WORKSPACE
        # oneDNN lays weights out anew, and what is not channels last, for every convolution.
        again = 0 if self.channels_last else 0.55 * tensors.largest
        part = 1.1 if size == 4 else 1.3
        return int(size * (3 * tensors.weights + part * tensors.alive + again)) + _SCRATCH

    def _mode(self, device: str) -> str:
        return ("eager" if device == "cpu" else "graph") if self.mode == "auto" else self.mode

    def _device(self, device: str) -> str:
        if device == "cpu" and self.mode == "graph":
            return 'has mode = "graph", which needs an NVIDIA GPU. Type: mode = "eager"'
        if device != "cpu" and not torch.cuda.is_available():
            return f'finds no NVIDIA GPU for device = "{device}". Type: device = "cpu"'
        return ""

    def _library(self) -> str:
        return f"torch {torch.__version__}"

    def _precisions(self, device: str) -> list[str]:
        return ["float32"] if device == "cpu" else ["float16", "float32"]

    def _is_reference(self, precision: str, device: str) -> bool:
        return precision == "float32" and device == "cpu" and self._mode(device) == "eager"

    def _profile(self, model: Model, shape: Any, probe: Any) -> dict[str, Any]:
        return {"shape": list(probe)}  # nothing is built; what is kept is how exact it is

    def _beside(self, device: str) -> dict[str, Any]:
        facts = {"mode": "compile" if self._mode(device) == "compile" else "eager", "channels_last": self.channels_last}
        return {**facts, "processor": torch.backends.cpu.get_cpu_capability()} if device == "cpu" else facts

    def _build(self, *_: Any) -> bytes:
        return b""

    def _load(
        self, data: bytes, model: Model, shape: tuple[int, ...], device: str, precision: str, say: Tell
    ) -> Running:
        loaded = load_module(model, shape, precision, self.where, say)
        module: Any = loaded.module
        last = self.channels_last and len(shape) == 4
        module = module.to(device)
        if last and loaded.form != "torchscript":
            for part in module.modules():
                for weight in (*part._buffers.values(), *part._parameters.values()):
                    if weight is not None and weight.ndim == 4:
                        weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        elif last:
            module = module.to(memory_format=torch.channels_last)
        mode = self._mode(device)
        facts = {"mode": mode, "weights": loaded.form, "channels_last": last}
        if device == "cpu":
            facts["threads"] = torch.get_num_threads()
        running = _Run(module, loaded.result, mode != "eager" and device != "cpu", last, facts)
        if mode == "compile":
            say(f"{self.where}: compiles {model.name}")
            running.module = torch.compile(module, dynamic=False)
        try:
            given = torch.zeros(shape, dtype=getattr(torch, model.given.dtype), device=device)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                running(given, torch.zeros(loaded.result, dtype=getattr(torch, model.result.dtype), device=device))
        except Exception as error:
            what = f'mode = "{mode}", precision = "{precision}"'
            why = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise CannotCompute(f"{self.where}: {model.name} does not run with {what}: {why[:200]}") from None
        return running


class _Run:
    """A module and how it is called."""

    def __init__(
        self, module: Callable[[torch.Tensor], torch.Tensor], result: tuple[int, ...], captures: bool, last: bool,
        facts: dict[str, Any],
    ) -> None:  # fmt: skip
        self.module: Callable[[torch.Tensor], torch.Tensor] | None = module
        self.result, self.captures, self.facts, self._last = result, captures, facts, last

    def __call__(self, given: torch.Tensor, result: torch.Tensor) -> None:
        assert self.module is not None
        exact = _exact if given.is_cuda else contextlib.nullcontext
        with torch.inference_mode(), exact():
            if self._last:
                given = given.contiguous(memory_format=torch.channels_last)
            result.copy_(self.module(given))

    def close(self) -> None:
        self.module = None


def _exact() -> Any:
    """Let cuDNN measure its algorithms the first time, and not shorten float32 to TF32."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=False)
