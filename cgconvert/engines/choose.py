"""From what was asked for to an engine: the device, the precision and the engine that run a job."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from cgconvert.engines.base import Engine
from cgconvert.errors import UnavailableError, UsageError
from cgconvert.models.loading import Model

CLASSES = {
    "eager": "cgconvert.engines.eager:EagerEngine",
    "compile": "cgconvert.engines.compiled:CompileEngine",
    "tensorrt": "cgconvert.engines.tensorrt:TensorRTEngine",
    "openvino": "cgconvert.engines.openvino:OpenVINOEngine",
}
"""Every engine: where it is, imported when it is asked for, since each needs libraries of its own."""

ENGINES: tuple[str, ...] = tuple(CLASSES)
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
AUTO_ENGINES: dict[str, tuple[str, ...]] = {"cpu": ("openvino", "eager"), "cuda": ("compile", "eager")}
"""What `auto` tries, the fastest first (`docs/engines.md` has the measurements)."""


@dataclass(frozen=True)
class Candidate:
    """One way to run a model: an engine and a precision on a device."""

    engine: str
    precision: str
    device: torch.device

    def __str__(self) -> str:
        return f"{self.engine} {self.precision} on {self.device}"


def engine_class(name: str) -> type[Engine]:
    """The class of an engine by name; its optional library is not loaded yet."""
    module, _, attribute = CLASSES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def choose_device(text: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` as a device that is there. Raises `UnavailableError`."""
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(text)
    except RuntimeError:
        raise UsageError(f"unknown device {text!r}: use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UnavailableError(
                f"no device {text}: {count} CUDA devices are visible; use --device cpu or auto"
            )
    elif device.type != "cpu":
        raise UsageError(f"device {text!r} is not supported: use auto, cpu, cuda or cuda:N")
    return device


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware; without it bf16 is slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def choose_precision(text: str, device: torch.device) -> str:
    """`auto` as the fastest precision the device has in hardware; a name as itself, or `UsageError`.

    `auto` is never int8, whose loss can be seen.
    """
    if text == "auto":
        if device.type == "cuda":
            return "fp16"
        return "bf16" if cpu_has_bf16() else "fp32"
    if text not in PRECISIONS:
        raise UsageError(f"unknown precision {text!r}: use auto, {', '.join(PRECISIONS)}")
    return text


def candidates(model: Model, device: str, engine: str, precision: str) -> Iterator[Candidate]:
    """What may run the model as asked, the best first; more than one only where something is `auto`.

    Nothing of it has been tried. Raises `UsageError` for unknown names, `UnavailableError` for a device
    that is not there.
    """
    if engine not in ("auto", *ENGINES):
        raise UsageError(f"unknown engine {engine!r}: use auto, {', '.join(ENGINES)}")
    where = choose_device(device)
    if model.card.architecture == "identity":  # exact, or it would not show what the pipeline loses
        chosen = "fp32" if precision == "auto" else choose_precision(precision, where)
        yield Candidate("eager" if engine == "auto" else engine, chosen, where)
        return
    first = choose_precision(precision, where)
    precisions = dict.fromkeys([first, "fp32"] if precision == "auto" else [first])
    engines = AUTO_ENGINES[where.type] if engine == "auto" else (engine,)
    if precision == "int8" and engine == "auto":
        engines = ("openvino",)
    for chosen in precisions:
        for name in engines:
            yield Candidate(name, chosen, where)


def build(model: Model, candidate: Candidate) -> Engine:
    """The engine of a candidate, not yet prepared. Raises `UnavailableError`."""
    kind = engine_class(candidate.engine)
    reason = kind.why_not(candidate.device, candidate.precision)
    if reason:
        raise UnavailableError(reason)
    return kind(model, candidate.device, candidate.precision)


def create_engine(
    model: Model, device: str = "auto", engine: str = "auto", precision: str = "auto"
) -> Engine:
    """The first engine that fits what was asked for and works here, neither prepared nor verified.

    A job uses `cgconvert.engines.ready.create_verified_engine`. Raises `UsageError`, `UnavailableError`.
    """
    failure: UnavailableError | None = None
    for candidate in candidates(model, device, engine, precision):
        try:
            return build(model, candidate)
        except UnavailableError as error:
            failure = failure or error
    raise failure or UnavailableError(f"nothing here runs {model.card.name!r} as asked")
