"""Which device and number format a training runs in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cgconvert.engines import choose
from cgconvert.errors import UnavailableError, UsageError
from cgconvert.host.cpu import has_bf16
from cgconvert.tensors.dtypes import DTYPES
from trainer.config import RunConfig

HALF = ("bf16", "fp16")
"""Number formats that only convolutions are computed in."""


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
        return torch.float32 if self.name in HALF else DTYPES[self.name]

    def autocast(self) -> torch.autocast:
        """The context for a forward pass."""
        half = self.name in HALF
        return torch.autocast(self.device.type, DTYPES[self.name] if half else None, enabled=half)


def widened(values: Tensor) -> Tensor:
    """`values` in a type that sums may be taken in: half precision becomes float32, other types stay."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


CONVERSIONS_ONLY = {"gpu": "Intel", "xpu": "Intel", "mps": "Apple"}
"""Devices on which nothing is trained, and whose they are."""


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device asked for, `auto` the first that works; a card without a number is this process's own.

    Raises `UsageError` for one that is unknown, `UnavailableError` for one that is not there.
    """
    kind = name.strip().lower().partition(":")[0]
    if kind in CONVERSIONS_ONLY:
        maker = CONVERSIONS_ONLY[kind]
        raise UsageError(f"device {name!r} ({maker}) is for conversions only: use auto, cpu, cuda or cuda:N")
    if name in ("auto", "cuda") and torch.cuda.is_available():
        name = f"cuda:{local_rank}"
    return choose.choose_device(name)


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
    fast = device.type == "cpu" and torch.backends.mkldnn.is_available() and has_bf16()
    return Precision(device, "bf16" if fast else "fp32")
