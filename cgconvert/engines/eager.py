"""The reference engine: plain torch, layer by layer."""

from __future__ import annotations

import copy
from typing import ClassVar

import torch
from torch import Tensor, nn

from cgconvert.engines.base import Engine
from cgconvert.models.loading import Model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class EagerEngine(Engine):
    """The generator as it is, in float32 or converted to a half precision, in channels_last memory."""

    name: ClassVar[str] = "eager"

    def __init__(self, model: Model, device: torch.device, precision: str = "fp32") -> None:
        super().__init__(model, device, precision)
        self.dtype = DTYPES[precision]
        generator = copy.deepcopy(model.generator)
        self.generator: nn.Module | None = generator.to(device, self.dtype).to(
            memory_format=torch.channels_last  # type: ignore[call-overload]
        )

    def prepare(self, height: int, width: int, batch: int) -> None:
        """Nothing to build; one run warms up the allocator and the convolution library."""
        channels = self.model.card.in_channels
        self(torch.zeros(batch, channels, height, width, device=self.device))

    def __call__(self, images: Tensor) -> Tensor:
        assert self.generator is not None, "the engine is closed"
        with torch.inference_mode():
            images = images.to(self.dtype).contiguous(memory_format=torch.channels_last)
            return self.generator(images).float()

    def close(self) -> None:
        self.generator = None
