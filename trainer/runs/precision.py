"""Which device and number format a training runs in."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cgconvert.errors import UnavailableError
from trainer.config import RunConfig

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """A device and the type that convolutions are computed in; weights and losses stay float32."""

    device: torch.device
    name: str

    def autocast(self) -> torch.autocast:
        """The context for a forward pass."""
        return torch.autocast(self.device.type, DTYPES[self.name], enabled=self.name != "fp32")


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device asked for, `auto` the first that works. Raises `UnavailableError`."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UnavailableError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UnavailableError(f"no CUDA device works here, asked for {name!r}: use cpu")
        if device.index is None:
            device = torch.device("cuda", local_rank)
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise UnavailableError(f"no {device} here: there are {torch.cuda.device_count()} CUDA devices")
    return device


def choose_precision(config: RunConfig, local_rank: int = 0) -> Precision:
    """Device and precision as configured; `auto` is bf16 where the hardware multiplies it fast."""
    device = choose_device(config.device, local_rank)
    if config.precision != "auto":
        if config.precision == "fp16" and device.type == "cpu":
            raise UnavailableError(
                "fp16 training needs a GPU: use run.precision = 'bf16' or 'fp32' on the CPU"
            )
        return Precision(device, config.precision)
    if device.type == "cuda":
        return Precision(
            device, "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
        )
    # Without these instructions bf16 is emulated and slower than float32.
    fast = device.type == "cpu" and torch.backends.mkldnn.is_available() and _cpu_has_bf16()
    return Precision(device, "bf16" if fast else "fp32")


def _cpu_has_bf16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
