"""The reference engine: plain torch, layer by layer."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cgconvert.engines.base import Engine
from cgconvert.engines.cpu import for_cpu
from cgconvert.engines.fuse import operate
from cgconvert.engines.streams import Streams, count_streams
from cgconvert.host.interrupts import Breakable
from cgconvert.models.loading import Model
from cgconvert.progress import Progress
from cgconvert.tensors.dtypes import DTYPES
from cgconvert.tensors.images import padded_size

SEEN_DEVICES = ("cpu", "cuda")
"""Kinds of devices on which float32 networks have been run and compared."""


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Float32 convolutions as such, and each time the same.

    cuDNN otherwise rounds their inputs to TF32's ten bits, and adds up transposed ones in the order in which
    threads come, so that a video that was interrupted would end as another one.
    """
    if device.type != "cuda":
        yield
        return
    with _exactness:
        yield


class _Exactness:
    """cuDNN's settings for all threads, which they share: set by the first, put back by the last."""

    def __init__(self) -> None:
        self.lock, self.users, self.settings = threading.Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self.lock:
            if self.users == 0:
                flags = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
                self.settings.enter_context(flags)
            self.users += 1

    def __exit__(self, *problem: object) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self.settings.close()


_exactness = _Exactness()


class EagerEngine(Engine):
    """The generator layer by layer, in channels_last memory.

    In float32 it is the network as it was trained, the reference for every other engine; in bf16 and fp16
    it is changed first where that is faster (`cgconvert.engines.fuse`, `cgconvert.engines.cpu`). On a CPU
    the pictures of a batch go through side by side (`cgconvert.engines.streams`).
    """

    name: ClassVar[str] = "eager"

    @classmethod
    def why_not(cls, device: torch.device, precision: str) -> str | None:
        if precision not in DTYPES:
            return f'eager has no {precision}; use `engine="openvino"`, or `precision="auto"`'
        if precision == "fp16" and device.type == "cpu":
            return 'fp16 is for GPUs: on a CPU use `precision="bf16"`, fp32 or auto'
        return None

    def __init__(self, model: Model, device: torch.device, precision: str = "fp32") -> None:
        super().__init__(model, device, precision)
        self.dtype = DTYPES[precision]
        # On other devices torch itself is compared: nobody has seen what it makes of these networks there.
        self.is_reference = precision == "fp32" and device.type in SEEN_DEVICES
        self.streams = count_streams(device)
        self.side_by_side: Streams | None = None
        self.generator: nn.Module | None = self._network()

    def _network(self) -> nn.Module:
        if self.precision == "bf16" and self.device.type == "cpu":
            return for_cpu(operate(self.model.generator))
        generator = (
            copy.deepcopy(self.model.generator) if self.precision == "fp32" else operate(self.model.generator)
        )
        return generator.to(self.device, self.dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def prepare(self, height: int, width: int, batch: int, progress: Progress | None = None) -> None:
        """Nothing is built; on a card one picture of at most 256x256 loads the convolution library."""
        if self.device.type == "cpu":
            return
        card = self.model.card
        height, width = padded_size(min(height, 256), min(width, 256), card)
        self(torch.zeros(1, card.network_channels, height, width, device=self.device))

    def __call__(self, images: Tensor) -> Tensor:
        assert self.generator is not None, "the engine is closed"
        if len(images) == 1 or self.streams == 1:
            return self._run(images)
        if self.side_by_side is None:
            self.side_by_side = Streams(self.streams)
        return self.side_by_side.run(self._run, images)

    def _run(self, images: Tensor) -> Tensor:
        assert self.generator is not None
        with Breakable(), torch.inference_mode(), exact_float32(self.device):
            images = images.to(self.dtype).contiguous(memory_format=torch.channels_last)
            return self.generator(images).float()

    def describe(self) -> dict[str, Any]:
        told = super().describe()
        if self.side_by_side is not None:
            told["streams"] = self.streams
        return told

    def close(self) -> None:
        if self.side_by_side is not None:
            self.side_by_side.close()
            self.side_by_side = None
        self.generator = None
