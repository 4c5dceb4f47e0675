"""From what was asked for to an engine: the device, the precision and the engine that run a job."""

from __future__ import annotations

from pathlib import Path

import torch

from cgconvert.engines.base import Engine
from cgconvert.engines.eager import EagerEngine
from cgconvert.errors import UnavailableError, UsageError
from cgconvert.models.loading import Model

ENGINES = ("eager",)
PRECISIONS = ("fp32", "fp16", "bf16")


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
            raise UnavailableError(f"no device {text}: {count} CUDA devices are visible; use --device cpu or auto")
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
    """`auto` as the fastest precision the device has in hardware; a name as itself, or `UnavailableError`."""
    if text == "auto":
        if device.type == "cuda":
            return "fp16"
        return "bf16" if cpu_has_bf16() else "fp32"
    if text not in PRECISIONS:
        raise UsageError(f"unknown precision {text!r}: use auto, {', '.join(PRECISIONS)}")
    if text == "fp16" and device.type == "cpu":
        raise UnavailableError("fp16 is for GPUs: on a CPU use --precision bf16, fp32 or auto")
    return text


def create_engine(model: Model, device: str = "auto", engine: str = "auto", precision: str = "auto") -> Engine:
    """The engine for a model as asked, or as `auto` finds best. Raises `UsageError`, `UnavailableError`."""
    if engine not in ("auto", *ENGINES):
        raise UsageError(f"unknown engine {engine!r}: use auto, {', '.join(ENGINES)}")
    where = choose_device(device)
    return EagerEngine(model, where, choose_precision(precision, where))
