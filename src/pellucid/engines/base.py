"""What all engines do alike: look, fetch or build, load, compare with float32, refuse what is beyond the bound."""

from __future__ import annotations

import importlib.util
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal, Protocol

import torch
from pydantic import Field

from pellucid.engines.cache import Cache, Entry, key_of
from pellucid.engines.fidelity import check_reference, compare, probe_shape
from pellucid.engines.own_test import check_own_test
from pellucid.errors import StageError, require
from pellucid.models import Fidelity, Form, Made, Model

__all__ = ["Bound", "CachedEngine", "CannotCompute", "Precision", "Running", "Tell", "device_facts"]

Tell = Callable[[str], None]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Bound = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class CannotCompute(StageError):
    """Not in this precision; another one may do."""


class Running(Protocol):
    """An engine that is loaded for one shape."""

    result: tuple[int, ...]
    captures: bool
    facts: dict[str, Any]

    def __call__(self, given: torch.Tensor, result: torch.Tensor) -> None:
        """Hot: fill `result`."""

    def close(self) -> None:
        """Give the memory back."""


class CachedEngine(ABC):
    """The life of an engine; a subclass says how one is built and how its bytes are loaded.

    Attributes
    ----------
    kind, module, extra
        In a config; the vendor's module; what brings it.
    takes
        Forms of weights, the best first.
    spans
        What is built for a shape serves the one of the comparison as well.
    """

    kind: ClassVar[str]
    module: ClassVar[str]
    extra: ClassVar[str] = ""
    takes: ClassVar[tuple[Form, ...]] = ("onnx",)
    spans: ClassVar[bool] = False
    bound: float
    precision: Precision

    def __post_init__(self) -> None:
        self.captures = False
        self.made = Made(self.kind, self.precision, "", "", None)
        self._running: Running | None = None

    @property
    def where(self) -> str:
        """Beginning of a message."""
        return f'engine "{self.kind}"'

    def missing(self, model: Model, device: str) -> str:
        """Return why it cannot run this model here (what to type included), ``""`` where it can."""
        if importlib.util.find_spec(self.module) is None:
            return f"{self.where} needs the package {self.module}. Type: pip install {self._install()}"
        if why := self._device(device):
            return f"{self.where} {why}"
        if "onnx" in model.weights and importlib.util.find_spec("onnx") is None:
            return (
                f"{self.where} needs the package onnx for {model.weights['onnx'].name}."
                ' Type: pip install "pellucid[models]"'
            )
        if not any(form in model.weights for form in self.takes):
            return (
                f"{self.where} takes {', '.join(self.takes)} and model {model.name} has {', '.join(model.weights)}."
                ' Type: engine = "torch"'
            )
        return ""

    def open(self, model: Model, shape: tuple[int, ...], device: str, tell: Tell | None = None) -> tuple[int, ...]:
        """Fetch from the cache or build, load, compare with float32; return the shape of the result.

        Raises
        ------
        pellucid.errors.StageError
            One line: an operator it cannot do, a file that is not what it should be, an error beyond its bound.
        pellucid.errors.MissingExtra
        """
        self.close()
        if importlib.util.find_spec(self.module) is None:
            require(self.module, self.extra, self.where)
        if why := self.missing(model, device):
            raise StageError(why)
        _check(model, shape, self.where)
        say: Tell = tell or (lambda line: None)
        check_own_test(model, self.where)
        probe = probe_shape(model, shape)
        check_reference(model, probe, self.where)
        tries = self._precisions(device) if self.precision == "auto" else [self.precision]
        for i, precision in enumerate(tries):
            try:
                running, entry, cached, fidelity = self._ready(model, shape, probe, device, precision, say)
            except CannotCompute as error:
                if i + 1 == len(tries):
                    raise
                say(f"{error}; tries {tries[i + 1]}")
                continue
            if fidelity is None or fidelity.largest <= self.bound:
                break
            running.close()
            far = f"{self.where}: in {precision} {_off(fidelity)}, above bound = {self.bound:g}"
            if i + 1 == len(tries):
                raise StageError(f"{far}. {self._advice(precision, fidelity)}")
            say(f"{far}: tries {tries[i + 1]}")
        self._running = running
        self.captures = running.captures
        self.made = Made(
            self.kind,
            precision,
            self._library(),
            device_facts(device)["device"],
            fidelity,
            cached,
            {**({"key": entry.key} if entry else {}), "shape": list(shape), **running.facts},
        )
        figure = f", {_off(fidelity)}" if fidelity else ", the reference itself"
        say(f"{self.where}: {precision} on {self.made.device} with {self.made.library}{figure}")
        return running.result

    def __call__(self, given: torch.Tensor, result: torch.Tensor) -> None:
        """Hot: fill `result` from `given`."""
        assert self._running is not None, "open the engine first"
        self._running(given, result)

    def close(self) -> None:
        """Give everything back; safe at any time and more than once."""
        running, self._running = self._running, None
        if running is not None:
            running.close()

    def build(self, model: Model, shape: tuple[int, ...], device: str, tell: Tell | None = None) -> Made:
        """Do all that `open` does and keep what it made for later: ``pellucid models build``."""
        try:
            self.open(model, shape, device, tell)
            return self.made
        finally:
            self.close()

    def _ready(
        self, model: Model, shape: tuple[int, ...], probe: tuple[int, ...], device: str, precision: str, say: Tell
    ) -> tuple[Running, Entry | None, bool, Fidelity | None]:
        """Return it loaded, what the cache has of it, whether it came from there, and how exact it is."""
        if self._is_reference(precision, device):
            return self._load(b"", model, shape, device, precision, say), None, False, None
        cache = Cache()
        entry, cached, running = self._fetched(cache, model, shape, probe, device, precision, say)
        try:
            fidelity = _known(entry)
            if fidelity is None:
                fidelity = self._compared(cache, entry, running, model, shape, probe, device, precision, say)
                entry = cache.note(entry, fidelity=_as_facts(fidelity), running=dict(running.facts))
        except BaseException:
            running.close()
            raise
        return running, entry, cached, fidelity

    def _fetched(
        self,
        cache: Cache,
        model: Model,
        shape: tuple[int, ...],
        probe: tuple[int, ...],
        device: str,
        precision: str,
        say: Tell,
    ) -> tuple[Entry, bool, Running]:
        facts = self._facts(model, shape, probe, device, precision)
        key = key_of(facts)

        def make() -> bytes:
            return self._build(model, shape, probe, device, precision, say)

        entry, cached = cache.fetch(key, make, {**facts, "name": model.name}, say)
        try:
            return entry, cached, self._load(entry.data, model, shape, device, precision, say)
        except StageError as error:
            if not cached:
                raise
            say(f"{error}; it is built again")
            cache.forget(key)
        entry, cached = cache.fetch(key, make, {**facts, "name": model.name}, say)
        return entry, cached, self._load(entry.data, model, shape, device, precision, say)

    def _compared(
        self,
        cache: Cache,
        entry: Entry,
        running: Running,
        model: Model,
        shape: tuple[int, ...],
        probe: tuple[int, ...],
        device: str,
        precision: str,
        say: Tell,
    ) -> Fidelity:
        """Compare at the shape of the probe, with an engine of its own where this one has another shape."""
        say(f"{self.where}: compares {precision} with float32 on real frames")
        if probe == shape:
            return compare(running, model, probe, running.result, device, self.where)
        if self.spans:
            other, small = entry, self._load(entry.data, model, probe, device, precision, say)
        else:
            other, _, small = self._fetched(cache, model, probe, probe, device, precision, say)
        try:
            if other is not entry and (known := _known(other)):
                return known
            fidelity = compare(small, model, probe, small.result, device, self.where)
        finally:
            small.close()
        if other is not entry:
            cache.note(other, fidelity=_as_facts(fidelity))
        return fidelity

    def _facts(
        self, model: Model, shape: Sequence[int], probe: Sequence[int], device: str, precision: str
    ) -> dict[str, Any]:
        """Return all that the engine's bytes depend on."""
        return {
            "kind": self.kind,
            "model": model.sha256,
            "precision": precision,
            "library": self._library(),
            "profile": self._profile(model, shape, probe),
            **device_facts(device),
            **self._beside(device),
        }

    def _profile(self, model: Model, shape: Sequence[int], probe: Sequence[int]) -> dict[str, Any]:
        """Return the shapes that it is built for: this one."""
        return {"shape": list(shape)}

    def _beside(self, device: str) -> dict[str, Any]:
        """Return what else the bytes depend on."""
        return {}

    def _device(self, device: str) -> str:
        """Return why it cannot use a device."""
        return ""

    def _is_reference(self, precision: str, device: str) -> bool:
        return False

    def _install(self) -> str:
        return f'"pellucid[{self.extra}]"' if self.extra else self.module

    def _advice(self, precision: str, fidelity: Fidelity) -> str:
        safer = 'precision = "float32", or ' if precision != "float32" else ""
        return (
            f"Type: {safer}bound = {fidelity.largest * 1.5:.1g}"
            if fidelity.largest < 1 / 1.5
            else ('Type: precision = "float32"' if safer else 'Type: engine = "torch"')
        )

    @abstractmethod
    def needed(self, model: Model, shape: tuple[int, ...], device: str) -> int:
        """Return the bytes that it will take beside what goes in and comes out."""

    @abstractmethod
    def _library(self) -> str: ...

    @abstractmethod
    def _precisions(self, device: str) -> list[str]:
        """Return what ``precision = "auto"`` tries, in order."""

    @abstractmethod
    def _build(
        self, model: Model, shape: tuple[int, ...], probe: tuple[int, ...], device: str, precision: str, say: Tell
    ) -> bytes:
        """Make what is worth keeping."""

    @abstractmethod
    def _load(
        self, data: bytes, model: Model, shape: tuple[int, ...], device: str, precision: str, say: Tell
    ) -> Running:
        """Make it ready for one shape."""


def device_facts(device: str) -> dict[str, Any]:
    """Return what tells one device from another, with ``device`` as its name."""
    if device.startswith("cuda"):
        facts = torch.cuda.get_device_properties(device)
        driver = getattr(torch._C, "_cuda_getDriverVersion", lambda: 0)()
        return {"device": facts.name, "capability": f"{facts.major}.{facts.minor}", "driver": driver}
    return {"device": "cpu", "machine": f"{platform.system()} {platform.machine()}"}


def _check(model: Model, shape: Sequence[int], where: str) -> None:
    port = model.given
    if len(shape) != len(port.axes) or any(n < 1 for n in shape):
        raise StageError(f"{where}: model {model.name} takes axes {port.axes}, given {'x'.join(map(str, shape))}")
    sides = dict(zip([a for a in port.axes if a in "zyx"], port.sides, strict=True))
    for axis, n in zip(port.axes, shape, strict=True):
        if axis == "c" and n != port.channels:
            raise StageError(f"{where}: model {model.name} takes {port.channels} channels, given {n}")
        if axis in sides and not sides[axis].takes(n):
            side = sides[axis]
            allowed = f"{side.least}" + (f" + n * {side.step}" if side.step else "")
            raise StageError(f"{where}: model {model.name} takes {allowed} along {axis}, given {n}")


def _known(entry: Entry) -> Fidelity | None:
    facts = entry.facts.get("fidelity")
    return Fidelity(**facts) if isinstance(facts, dict) else None


def _as_facts(f: Fidelity) -> dict[str, Any]:
    return {"largest": f.largest, "rms": f.rms, "reference": f.reference, "frames": f.frames}


def _off(f: Fidelity) -> str:
    if not f.largest < float("inf"):
        return f"it gives NaN or infinity where {f.reference} does not"
    return f"largest difference {f.largest:.2g} of the range (rms {f.rms:.1g}) from {f.reference}"
