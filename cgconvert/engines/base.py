"""What every engine is: a generator made ready for a device and a precision."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from cgconvert.models.loading import Model
from cgconvert.progress import Progress

Samples = Callable[[int], Sequence[np.ndarray]]
"""Gives up to N pictures (H, W, 3), spread over a job."""


class Engine(ABC):
    """A generator made ready. Use: `prepare`, then call with batches, then `close`.

    An engine accepts any height and width that the card allows; a size that was not prepared is prepared at
    its first call. Images are float32 NCHW in [-1, 1] on `device`, results likewise, whatever the precision
    inside. An engine is used by one thread at a time. What a job knows of its engine, such as the
    batch, is an `EngineJob`'s.
    """

    name: ClassVar[str]
    builds: ClassVar[bool] = False
    """Whether `prepare` builds something, which takes seconds to minutes."""

    streams: int = 1
    """How many pictures it works on side by side; a batch of fewer leaves part of the device idle."""

    is_reference: bool = False
    """Whether it is the plain float32 network itself, to which others are compared."""

    def __init__(self, model: Model, device: torch.device, precision: str) -> None:
        self.model = model
        self.device = device
        self.precision = precision

    @classmethod
    def precisions(cls, device: torch.device) -> tuple[str, ...]:
        """The precisions that this kind of engine has on a kind of device; none if it does not run there."""
        if device.type == "mps":
            return ("fp32", "fp16")
        return ("fp32", "bf16") if device.type == "cpu" else ("fp32", "bf16", "fp16")

    @classmethod
    def why_not(cls, device: torch.device, precision: str) -> str | None:
        """Why this kind of engine cannot run here, with what would change it; None if it should.

        Looks at what is installed and at the device; nothing is built.
        """
        return None

    @abstractmethod
    def prepare(self, height: int, width: int, batch: int, progress: Progress | None = None) -> None:
        """Make ready for images of this padded size (pixels) and up to `batch` of them; may take minutes.

        `progress` is told what takes time. Raises `UnavailableError` where that is impossible here, and what
        torch raises where memory is short.
        """

    @property
    def full(self) -> bool:
        """Whether nothing is built for further sizes one by one."""
        return False

    @property
    def takes_any_size(self) -> bool:
        """Whether something is built that takes sizes for which nothing is built by itself."""
        return False

    def refuse_any_size(self, why: str) -> None:
        """Use nothing any more that is built for any size, because of this."""
        return

    def built_for(self, height: int, width: int) -> bool:
        """Whether something is built for this padded size alone, which has to be verified by itself then."""
        return False

    def forget(self, height: int, width: int, above: int = 0) -> None:
        """Drop what is built for this padded size and more than `above` pictures, with its memory."""
        return

    def refuse(self, height: int, width: int) -> None:
        """Use nothing built for this padded size any more: its pictures go through layer by layer."""
        self.forget(height, width)

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """Translate images (N, C, H, W); any N from 1 on."""

    def layer_by_layer(self, images: Tensor) -> Tensor:
        """The same without anything that is built for a size; nothing is built for it either."""
        return self(images)

    def build_function(
        self, network: nn.Module, terms: Sequence[Tensor]
    ) -> Callable[[Tensor, *tuple[Tensor, ...]], Tensor] | None:
        """Another network of images (N, C, H, W) of any size and of tensors shaped like `terms`.

        None where this kind of engine has nothing better than the network layer by layer.
        """
        return None

    def describe(self) -> dict[str, Any]:
        """What it is, for the report: engine, device, precision and what else was chosen."""
        return {"engine": self.name, "device": str(self.device), "precision": self.precision}

    @abstractmethod
    def close(self) -> None:
        """Give back memory; the engine cannot be called afterwards. Calling it twice is harmless."""
