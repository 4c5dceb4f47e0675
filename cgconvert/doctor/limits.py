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
    """Best of several runs: multiply-adds a second by precision, bytes read and written a second.

    `copy_bytes` is None where a device is not measured.
    """

    macs: dict[str, float]
    copy_bytes: float | None

    def share(self, precision: str, macs_per_second: float) -> float | None:
        """The part of the arithmetic's limit that a rate is; None where that was not measured (int8)."""
        limit = self.macs.get(precision)
        return macs_per_second / limit if limit else None

    def memory_share(self, bytes_per_second: float) -> float | None:
        """The part of the memory's limit that a rate of `count_bytes` is; None where that was not measured.

        What an engine fuses or keeps in the caches never goes through memory: then it is above 1.
        """
        return bytes_per_second / self.copy_bytes if self.copy_bytes else None


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def best_seconds(work: Callable[[], object], device: torch.device, repeats: int = REPEATS) -> float:
    """Seconds of the fastest of several runs, after two to warm up."""
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
    """Measure a device. The arithmetic is that of a 3x3 convolution of 256 channels, channels last.

    Precisions that torch has no convolution for, such as int8, are left out.
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
    """Several times larger than any cache, so that it is memory that is measured."""
    size = 2**28 if device.type == "cpu" else min(2**31, free_memory(device) // 4)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / best_seconds(lambda: target.copy_(source), device)


def count_macs(generator: nn.Module, channels: int, height: int, width: int) -> int:
    """Multiply-adds of a generator for one picture of an accepted size, counted by torch without running it.

    A transposed convolution is counted by the multiplications it makes: one for each input pixel and tap.
    """
    from torch.utils.flop_counter import FlopCounterMode

    ghost = copy.deepcopy(generator).to("meta")
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        ghost(torch.zeros(1, channels, height, width, device="meta"))
    return counter.get_total_flops() // 2  # torch counts a multiplication and its addition as two


VALUE_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
"""Bytes of a value in each precision."""


def count_bytes(
    generator: nn.Module, channels: int, height: int, width: int, precision: str, batch: int = 1
) -> float:
    """Bytes that a generator's convolutions read and write for one picture of a batch, without running it.

    Each reads its input and its weights and writes its output once, in the values of `precision`; norms,
    activations and paddings are taken to be fused into them. A batch shares the weights.
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
