"""What every engine is: a generator made ready for a device, a precision and a size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from cgconvert.models.loading import Model


class Engine(ABC):
    """A generator made ready. Use: `prepare`, then call with batches of up to `batch` images, then `close`.

    An engine accepts any height and width that the card allows; a size that was not prepared is prepared at
    its first call. Images are float32 NCHW in [-1, 1] on `device`, results likewise, whatever the precision
    inside. Engines are used by one thread at a time.
    """

    name: ClassVar[str]

    def __init__(self, model: Model, device: torch.device, precision: str) -> None:
        self.model = model
        self.device = device
        self.precision = precision

    @abstractmethod
    def prepare(self, height: int, width: int, batch: int) -> None:
        """Make ready for images of this padded size (pixels) and up to `batch` of them; may take minutes."""

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """Translate images (N, C, H, W); any N from 1 on."""

    def convert(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (N, H, W, 3), uint8 or uint16, to pixels of the same shape and type."""
        from cgconvert.transforms import images_to_pixels, pixels_to_images

        with torch.inference_mode():
            images, crop = pixels_to_images(pixels, self.model.card, self.device)
            return images_to_pixels(self(images), crop, pixels.dtype)

    def describe(self) -> dict[str, Any]:
        """What it is, for the report: engine, device, precision and what else was chosen."""
        return {"engine": self.name, "device": str(self.device), "precision": self.precision}

    @abstractmethod
    def close(self) -> None:
        """Give back memory; the engine cannot be called afterwards. Calling it twice is harmless."""
