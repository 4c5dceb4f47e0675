"""Which device and number format a training runs in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cgconvert.errors import UnavailableError
from trainer.config import RunConfig

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """A device and the number format of a training.

    `fp32` and `fp64` compute everything in that type. `bf16` and `fp16` compute convolutions in that type and
    keep weights, images and losses in float32. `fp64` is the reference: its rounding errors are too small for
    a processor's kernels to matter, so a training gives the same figures everywhere.
    """

    device: torch.device
    name: str

    @property
    def dtype(self) -> torch.dtype:
        """The type of weights, images, losses and averages."""
        return torch.float64 if self.name == "fp64" else torch.float32

    def autocast(self) -> torch.autocast:
        """The context for a forward pass."""
        half = AUTOCAST_DTYPES.get(self.name)
        return torch.autocast(self.device.type, half, enabled=half is not None)


def widened(values: Tensor) -> Tensor:
    """`values` in a type that sums may be taken in: half precision becomes float32, other types stay."""
    return values.float() if values.dtype in AUTOCAST_DTYPES.values() else values


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
