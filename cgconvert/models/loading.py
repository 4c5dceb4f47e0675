"""A model ready to use: its card and its generator with weights, and the conversion of single images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cgconvert.errors import ModelError
from cgconvert.generators import build_generator
from cgconvert.models.card import ModelCard
from cgconvert.models.catalog import find_model
from cgconvert.models.files import read_card, read_weights


@dataclass(frozen=True)
class Model:
    """A model card with its generator in eval mode, float32, on the CPU."""

    card: ModelCard
    generator: nn.Module
    path: Path | None = None

    def convert(self, image: np.ndarray) -> np.ndarray:
        """Convert one picture with the plain float32 network on the device where the generator is.

        Takes and returns uint8 or uint16 RGB (H, W, 3); the result has the same size and type.
        """
        from cgconvert.transforms import images_to_pixels, pixels_to_images

        device = next(iter(self.generator.parameters()), torch.zeros(0)).device
        with torch.inference_mode():
            images, crop = pixels_to_images(image[None], self.card, device)
            return images_to_pixels(self.generator(images), crop, image.dtype)[0]


def load_model(name_or_path: str | Path) -> Model:
    """Load a model by name (installed or shipped) or by path. Raises `ModelError`."""
    path = find_model(name_or_path)
    card = read_card(path)
    generator = build_generator(card.architecture, card.arguments)
    weights = {name: tensor.float() for name, tensor in read_weights(path, card).items()}
    try:
        generator.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelError(f"{path}: weights do not fit architecture {card.architecture!r} ({reason})") from error
    return Model(card, generator.eval().requires_grad_(False), path)
