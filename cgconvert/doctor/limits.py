"""What the machine can do at most, measured: the rate of its arithmetic and of its memory."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgconvert.engines.batches import free_memory
from cgconvert.engines.eager import exact_float32
from cgconvert.tensors.dtypes import DTYPES

REPEATS = 5


@dataclass(frozen=True)
class Limits:
    """The best of several runs: multiply-adds per second by precision, and bytes read and written per second.

    `copy_bytes` is None if the device is not measured.
    """

    macs: dict[str, float]
    copy_bytes: float | None

    def share(self, precision: str, macs_per_second: float) -> float | None:
        """Return a rate as a share of the arithmetic's limit, or None if that was not measured (int8)."""
        limit = self.macs.get(precision)
        return macs_per_second / limit if limit else None

    def memory_share(self, bytes_per_second: float) -> float | None:
        """Return a rate of `count_bytes` as a share of the memory's limit, or None if that was not measured.

        It is above 1 if an engine keeps values in caches, so that they never go through memory.
        """
        return bytes_per_second / self.copy_bytes if self.copy_bytes else None


def synchronise(device: torch.device) -> None:
    """Wait until a device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type != "cpu":
        torch.accelerator.synchronize(device)


def best_seconds(work: Callable[[], object], device: torch.device, repeats: int = REPEATS) -> float:
    """Return the seconds of the fastest of several runs, after two runs to warm up."""
    times = []
    for run in range(2 + repeats):
        synchronise(device)
        started = time.perf_counter()
        work()
        synchronise(device)
        if run >= 2:
            times.append(time.perf_counter() - started)
    return min(times)


def measure_limits(device: torch.device, precisions: tuple[str, ...]) -> Limits:
    """Measure a device by a 3x3 convolution of 256 channels, channels last, and by a copy.

    Precisions without a convolution in torch, such as int8, are left out.
    """
    macs = {name: _convolution_rate(device, DTYPES[name]) for name in precisions if name in DTYPES}
    return Limits(macs, _copy_rate(device))


def _convolution_rate(device: torch.device, dtype: torch.dtype) -> float:
    edge, batch = (64, 1) if device.type == "cpu" else (256, 8)
    images = torch.randn(batch, 256, edge, edge, device=device, dtype=dtype)
    weight = torch.randn(256, 256, 3, 3, device=device, dtype=dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    weight = weight.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), exact_float32(device):
        seconds = best_seconds(lambda: F.conv2d(images, weight, padding=1), device)
    return batch * edge * edge * 256 * 256 * 9 / seconds


def _copy_rate(device: torch.device) -> float:
    """Copy several times more than any cache holds, so that memory is measured."""
    size = 2**28 if device.type == "cpu" else min(2**31, free_memory(device) // 4)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / best_seconds(lambda: target.copy_(source), device)


def count_macs(generator: nn.Module, channels: int, height: int, width: int) -> int:
    """Count a generator's multiply-adds for one picture of an accepted size, without running it.

    A transposed convolution counts one for each input pixel and tap.
    """
    from torch.utils.flop_counter import FlopCounterMode

    ghost = copy.deepcopy(generator).to("meta")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        ghost(torch.zeros(1, channels, height, width, device="meta"))
    return counter.get_total_flops() // 2  # torch counts a multiplication and its addition as two


VALUE_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
"""The bytes of a value in each precision."""


def count_bytes(
    generator: nn.Module, channels: int, height: int, width: int, precision: str, batch: int = 1
) -> float:
    """Count the bytes that a generator's convolutions move for one picture of a batch, without running it.

    Each reads its input and weights and writes its output once, in values of `precision`. Norms, activations
    and paddings count as fused into them. A batch shares the weights.
    """

    values = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal values
        assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        values += batch * (inputs[0].numel() + output.numel()) + module.weight.numel()

    ghost = copy.deepcopy(generator).to("meta")
    for module in ghost.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(add)
    with torch.inference_mode():
        ghost(torch.zeros(1, channels, height, width, device="meta"))
    return VALUE_BYTES[precision] * values / batch
