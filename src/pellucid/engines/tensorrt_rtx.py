"""TensorRT for RTX: plans are built ahead of time, on any computer, for GPUs that need not be there.

A plan holds the network for GPUs of given compute capabilities; its kernels are made for the very GPU when it opens,
which takes seconds, and are kept in the cache as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from pellucid.engines.base import Running, Tell, device_facts
from pellucid.engines.cache import Cache, Entry, key_of
from pellucid.engines.fidelity import probe_shape
from pellucid.engines.tensorrt import Loaded, TensorRT, quiet_log
from pellucid.errors import StageError
from pellucid.models import Model

__all__ = ["CAPABILITIES", "TensorRTRTX"]

CAPABILITIES = ((8, 6), (8, 9), (12, 0))
"""GeForce RTX 30, 40 and 50."""


@dataclass(config=ConfigDict(extra="forbid"), kw_only=True)
class TensorRTRTX(TensorRT):
    """Run a network with TensorRT for RTX; keys as of `pellucid.engines.tensorrt.TensorRT`."""

    kind: ClassVar[str] = "tensorrt-rtx"
    module: ClassVar[str] = "tensorrt_rtx"
    extra: ClassVar[str] = "tensorrt-rtx"

    def ahead(
        self,
        model: Model,
        shape: tuple[int, ...],
        capabilities: Sequence[tuple[int, int]] = CAPABILITIES,
        tell: Tell | None = None,
    ) -> list[Entry]:
        """Build plans for GPUs that are not here, and put each into the cache where `open` on such a GPU looks.

        Parameters
        ----------
        model
        shape
            Of what will go in; with ``precision = "auto"`` the plan is of float16.
        capabilities
            Compute capabilities: ``(8, 6)``, ``(8, 9)``, ``(12, 0)``.
        tell

        Returns
        -------
        list of pellucid.engines.cache.Entry
            One for each capability.

        Raises
        ------
        pellucid.errors.StageError
            An operator that it does not know, or a capability for which it cannot build.
        """
        self._vendor()
        say: Tell = tell or (lambda line: None)
        precision = "float16" if self.precision == "auto" else self.precision
        probe, cache, out = probe_shape(model, shape), Cache(), []
        for capability in capabilities:
            facts = self._facts_for(model, shape, probe, precision, capability)

            def make(capability: tuple[int, int] = capability) -> bytes:
                return self.plan(model, probe, shape, precision, [capability], say)

            entry, _ = cache.fetch(key_of(facts), make, {**facts, "name": model.name}, say)
            self.look(entry.data)
            out.append(entry)
        return out

    def plan(
        self,
        model: Model,
        least: Sequence[int],
        most: Sequence[int],
        precision: str,
        capabilities: Sequence[tuple[int, int]],
        tell: Tell | None = None,
    ) -> bytes:
        """Return one plan for several compute capabilities, for shapes between two."""
        return self._compile(model, least, most, precision, tell or (lambda line: None), list(capabilities))

    def look(self, data: bytes) -> None:
        """Refuse what is no whole plan of this version, as far as that can be seen without a GPU.

        Raises
        ------
        pellucid.errors.StageError
            Empty, truncated, or something else.
        """
        trt = self._vendor()
        # The plan's own header has its length; TensorRT itself looks at the rest when it loads it.
        if len(data) < _HEAD or data[:4] != _MAGIC:
            raise StageError(f"{self.where}: {len(data)} bytes that are no plan of {self._library()}")
        length = int.from_bytes(data[_LENGTH], "little")
        if length != len(data):
            raise StageError(f"{self.where}: a plan of {length} bytes of which {len(data)} are there")
        found = int(trt.Runtime(quiet_log(trt)).get_engine_validity(data)[1])
        reasons = trt.EngineInvalidityDiagnostics
        for name, text in _REASONS.items():
            if found & int(getattr(reasons, name)):
                raise StageError(f"{self.where}: its plan cannot be used: {text}")

    def _facts(
        self, model: Model, shape: Sequence[int], probe: Sequence[int], device: str, precision: str
    ) -> dict[str, Any]:
        major, minor = device_facts(device)["capability"].split(".")
        return self._facts_for(model, shape, probe, precision, (int(major), int(minor)))

    def _facts_for(
        self, model: Model, shape: Sequence[int], probe: Sequence[int], precision: str, capability: tuple[int, int]
    ) -> dict[str, Any]:
        """Return what a plan depends on: the kind of GPU, neither the very GPU nor its driver."""
        return {
            "kind": self.kind,
            "model": model.sha256,
            "precision": precision,
            "library": self._library(),
            "profile": self._profile(model, shape, probe),
            "capability": ".".join(map(str, capability)),
        }

    def _device(self, device: str) -> str:
        if why := super()._device(device):
            return why
        capability = device_facts(device)["capability"]
        if f"SM{capability.replace('.', '')}" in self._vendor().ComputeCapability.__members__:
            return ""
        return f'does not know GPUs of compute capability {capability}. Type: engine = "tensorrt"'

    def _aim(self, trt: Any, config: Any, gpus: Any) -> None:
        known = trt.ComputeCapability.__members__
        names = [f"SM{major}{minor}" for major, minor in gpus] or ["CURRENT"]
        for name in names:
            if name not in known:
                have = ", ".join(f"{n[2:-1]}.{n[-1]}" for n in known if n.startswith("SM"))
                raise StageError(f"{self.where}: no compute capability {name[2:-1]}.{name[-1]}. It builds for: {have}")
        config.num_compute_capabilities = len(names)
        for i, name in enumerate(names):
            config.set_compute_capability(known[name], i)

    def _deserialize(self, trt: Any, log: Any, data: bytes) -> Any:
        self.look(data)
        return super()._deserialize(trt, log, data)

    def _context(self, trt: Any, engine: Any, model: Model, device: str) -> Any:
        """Make the kernels now, not while frames come, with those that are kept from before."""
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        kernels = config.create_runtime_cache()
        if kept := Cache().read(self._kernel_key(model, device)):
            kernels.deserialize(kept.data)  # it refuses what another driver or GPU left
        config.set_runtime_cache(kernels)
        return engine.create_execution_context(config)

    def _kernel_key(self, model: Model, device: str) -> str:
        return key_of({"kind": self.kind, "kernels": model.sha256, "library": self._library(), **device_facts(device)})

    def _load(
        self, data: bytes, model: Model, shape: tuple[int, ...], device: str, precision: str, say: Tell
    ) -> Running:
        running = super()._load(data, model, shape, device, precision, say)
        assert isinstance(running, Loaded)
        made = bytes(running.context.get_runtime_config().get_runtime_cache().serialize())
        key, cache = self._kernel_key(model, device), Cache()
        kept = cache.read(key)
        if made and (kept is None or len(kept.data) < len(made)):
            try:
                facts = {"kind": self.kind, "name": model.name, "of": "kernels", **device_facts(device)}
                cache.write(key, made, {**facts, "library": self._library()})
            except OSError as error:
                say(f"engine cache: {cache.folder} cannot be written ({error.strerror}); the kernels are not kept")
        return running


_MAGIC = b"vtrt"
_HEAD = 64
_LENGTH = slice(16, 24)
_REASONS = {
    "MALFORMED_ENGINE": "it is damaged",
    "VERSION_MISMATCH": "it is of another version",
    "UNSUPPORTED_CC": "it is for other GPUs",
    "OLD_CUDA_DRIVER": "the driver of the GPU is too old",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old",
    "INSUFFICIENT_GPU_MEMORY": "the GPU has too little memory",
}
