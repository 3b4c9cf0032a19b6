"""TensorRT 10 and 11 on NVIDIA GPUs.

Networks are strongly typed: TensorRT computes in the types that the ONNX graph has, so a lower precision is written
into the graph (`pellucid.engines.onnx_precision`). A plan is built for a range of shapes, from the one at which it is
compared with float32 to the one that was asked for, for which it is made best. Its memory is a tensor of torch, its
work goes to torch's current stream, and whether that can be captured in a CUDA graph is tried when it opens.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from pellucid.engines.base import Bound, CachedEngine, CannotCompute, Precision, Running, Tell
from pellucid.engines.cache import Cache, key_of
from pellucid.engines.fidelity import probe_shape
from pellucid.engines.liveness import tensors_of
from pellucid.engines.onnx_graph import load_onnx
from pellucid.engines.onnx_precision import HALVES, in_half
from pellucid.errors import StageError, require
from pellucid.models import Form, Model

__all__ = ["Loaded", "TensorRT", "quiet_log"]

_TELL_EVERY_S = 5.0
_SHORTEST_PLAN = 64


@dataclass(config=ConfigDict(extra="forbid"), kw_only=True)
class TensorRT(CachedEngine):
    """Run a network with TensorRT.

    Parameters
    ----------
    precision
        ``"auto"``: float16 where it stays within `bound`, else bfloat16, else float32 (without TF32).
    bound
        Refuse beyond this largest difference from float32, as a part of the result's range.
    """

    precision: Precision = "auto"
    bound: Bound = 0.01

    kind: ClassVar[str] = "tensorrt"
    module: ClassVar[str] = "tensorrt"
    extra: ClassVar[str] = "tensorrt"
    takes: ClassVar[tuple[Form, ...]] = ("onnx",)
    spans: ClassVar[bool] = True

    def needed(self, model: Model, shape: tuple[int, ...], device: str) -> int:
        """Return the bytes that it will take: what the plan says where it is built, else what its tensors take."""
        precision = self._precisions(device)[0] if self.precision == "auto" else self.precision
        size = 4 if precision == "float32" else 2
        tensors = tensors_of(model, shape, self.where)
        weights = size * tensors.weights
        with contextlib.suppress(Exception):  # no GPU or no package here: a prediction it is
            entry = Cache().read(key_of(self._facts(model, shape, probe_shape(model, shape), device, precision)))
            if entry and (known := entry.facts.get("running", {}).get("memory")):
                return weights + int(known)
        return weights + size * (tensors.alive + tensors.largest)

    def _vendor(self) -> Any:
        return require(self.module, self.extra, self.where)

    def _device(self, device: str) -> str:
        if not device.startswith("cuda"):
            return f'needs an NVIDIA GPU, not device = "{device}". Type: engine = "auto"'
        return "" if torch.cuda.is_available() else 'finds no NVIDIA GPU. Type: device = "cpu" and engine = "auto"'

    def _library(self) -> str:
        return f"{self.module} {self._vendor().__version__}"

    def _precisions(self, device: str) -> list[str]:
        return ["float16", "bfloat16", "float32"]

    def _profile(self, model: Model, shape: Sequence[int], probe: Sequence[int]) -> dict[str, Any]:
        return {"least": list(probe), "best": list(shape), "most": list(shape)}

    def _build(
        self, model: Model, shape: tuple[int, ...], probe: tuple[int, ...], device: str, precision: str, say: Tell
    ) -> bytes:
        with torch.cuda.device(device):
            return self._compile(model, probe, shape, precision, say)

    def _compile(
        self, model: Model, least: Sequence[int], most: Sequence[int], precision: str, say: Tell, gpus: Any = ()
    ) -> bytes:
        """Return a plan for shapes between two; `gpus`: see the subclass."""
        trt = self._vendor()
        onnx_model = load_onnx(model.weights["onnx"], self.where)
        if precision in HALVES:
            try:
                onnx_model = in_half(onnx_model, precision)
            except ValueError as error:
                raise CannotCompute(f"{self.where}: {model.name} cannot be computed in {precision}: {error}") from None
        log = quiet_log(trt)
        builder = trt.Builder(log)
        typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # the only way in later ones
        network = builder.create_network(0 if typed is None else 1 << int(typed))
        parser = trt.OnnxParser(network, log)
        if not parser.parse(onnx_model.SerializeToString()):
            raise StageError(f"{self.where}: cannot take {model.name}: {_parse_errors(parser)}")
        if network.num_inputs != 1 or network.num_outputs != 1:
            raise StageError(
                f"{self.where}: {model.name} has {network.num_inputs} inputs and {network.num_outputs} outputs;"
                " it takes one of each"
            )
        config = builder.create_builder_config()
        if hasattr(trt.BuilderFlag, "TF32"):
            config.clear_flag(trt.BuilderFlag.TF32)
        config.progress_monitor = _monitor(trt, f"{self.where}: builds {model.name} in {precision}", say)
        port = network.get_input(0)
        if any(n < 0 for n in port.shape):
            profile = builder.create_optimization_profile()
            profile.set_shape(port.name, tuple(least), tuple(most), tuple(most))
            config.add_optimization_profile(profile)
        elif tuple(port.shape) != tuple(most):
            raise StageError(
                f"{self.where}: {model.weights['onnx'].name} is for {_x(port.shape)} only, given {_x(most)}"
            )
        self._aim(trt, config, gpus)
        began = time.perf_counter()
        say(f"{self.where}: builds {model.name} in {precision} for {_x(least)} to {_x(most)}")
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise CannotCompute(
                f"{self.where}: cannot build {model.name} in {precision}: {log.last or 'no reason given'}"
            )
        say(f"{self.where}: built in {time.perf_counter() - began:.1f} s")
        return bytes(plan)

    def _aim(self, trt: Any, config: Any, gpus: Any) -> None:
        """Say for which GPUs it is built: the one at hand."""

    def _load(
        self, data: bytes, model: Model, shape: tuple[int, ...], device: str, precision: str, say: Tell
    ) -> Running:
        trt = self._vendor()
        log = quiet_log(trt)
        with torch.cuda.device(device):
            runtime, engine = self._deserialize(trt, log, data)
            context = self._context(trt, engine, model, device)
            run = Loaded(engine, context, shape, device, log, runtime)
            given = torch.zeros(shape, dtype=getattr(torch, model.given.dtype), device=device)
            result = torch.zeros(run.result, dtype=getattr(torch, model.result.dtype), device=device)
            run.captures = _captures(run, given, result)
            run.facts["graph"] = run.captures
            if not run.captures:
                say(f"{self.where}: {model.name} cannot be captured in a CUDA graph; it is enqueued frame by frame")
        return run

    def _deserialize(self, trt: Any, log: Any, data: bytes) -> Any:
        if len(data) < _SHORTEST_PLAN:
            raise StageError(f"{self.where}: a plan of {len(data)} bytes is empty or truncated")
        runtime = trt.Runtime(log)
        engine = runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise StageError(f"{self.where}: cannot load its plan: {log.last or 'no reason given'}")
        return runtime, engine

    def _context(self, trt: Any, engine: Any, model: Model, device: str) -> Any:
        return engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)


class Loaded:
    """A context with memory of torch, for one shape."""

    def __init__(self, engine: Any, context: Any, shape: tuple[int, ...], device: str, log: Any, runtime: Any) -> None:
        if context is None:
            raise StageError(f"TensorRT cannot make a context: {log.last}")
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        kinds = {name: str(engine.get_tensor_mode(name)).rpartition(".")[2] for name in names}
        self._given = next(name for name in names if kinds[name] == "INPUT")
        self._result = next(name for name in names if kinds[name] == "OUTPUT")
        if not context.set_input_shape(self._given, tuple(shape)):
            raise StageError(f"the plan is not for {_x(shape)}: {log.last}")
        self.result = tuple(int(n) for n in context.get_tensor_shape(self._result))
        size = max(int(context.update_device_memory_size_for_shapes()), 1)
        self._memory: torch.Tensor | None = torch.empty(size, dtype=torch.uint8, device=device)
        context.set_device_memory(self._memory.data_ptr(), size)
        self.context, self._engine, self._log, self._runtime = context, engine, log, runtime  # all must live on
        self.captures = False
        self.facts: dict[str, Any] = {"memory": size}
        self._at = (0, 0)

    def __call__(self, given: torch.Tensor, result: torch.Tensor) -> None:
        """Hot: enqueue on torch's current stream."""
        at = (given.data_ptr(), result.data_ptr())
        if at != self._at:
            self.context.set_tensor_address(self._given, at[0])
            self.context.set_tensor_address(self._result, at[1])
            self._at = at
        if not self.context.execute_async_v3(torch.cuda.current_stream(given.device).cuda_stream):
            raise RuntimeError(self._log.last or "TensorRT did not take the frame")

    def close(self) -> None:
        """Let go of the context, the plan and the memory."""
        self.context = None  # in this order
        self._engine = self._memory = None
        self._runtime = None


def _captures(run: Loaded, given: torch.Tensor, result: torch.Tensor) -> bool:
    """Try it: a network that asks the GPU something while it is enqueued cannot be captured."""
    stream = torch.cuda.Stream(given.device)
    stream.wait_stream(torch.cuda.current_stream(given.device))
    with torch.cuda.stream(stream):
        for _ in range(2):
            run(given, result)
    stream.synchronize()
    asked = getattr(run.context, "is_stream_capturable", None)
    if asked is not None and not asked(stream.cuda_stream):
        return False
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream):
            run(given, result)
        graph.replay()
        torch.cuda.synchronize(given.device)
    except RuntimeError:
        torch.cuda.synchronize(given.device)
        return False
    return True


def quiet_log(trt: Any) -> Any:
    """Return a logger that keeps the last error and prints nothing."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, text: str) -> None:
            """Take a line of TensorRT."""
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.last = " ".join(text.split())[:300]

    return Log()


def _monitor(trt: Any, what: str, say: Tell) -> Any:
    """Return what tells now and then how far a build is."""

    class Progress(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}
            self.told = time.monotonic()
            self.lock = threading.Lock()  # it is called from several threads

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            """Note how many steps there will be."""
            with self.lock:
                self.steps[phase] = steps

        def phase_finish(self, phase: str) -> None:
            """Forget them."""
            with self.lock:
                self.steps.pop(phase, None)

        def step_complete(self, phase: str, step: int) -> bool:
            """Tell, where some time went by; true: go on."""
            with self.lock:
                now = time.monotonic()
                if now - self.told >= _TELL_EVERY_S:
                    self.told = now
                    say(f"{what}: {phase}, step {step + 1} of {self.steps.get(phase, step + 1)}")
            return True

    return Progress()


def _parse_errors(parser: Any) -> str:
    """Return the operators that the parser does not know, or its first error."""
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    names = sorted({e.node_operator() for e in errors if e.node_operator()})
    first = " ".join(errors[0].desc().split())[:200] if errors else "no reason given"
    return f"operators {', '.join(names)}: {first}" if names else first


def _x(shape: Sequence[int]) -> str:
    return "x".join(str(int(n)) for n in shape)
