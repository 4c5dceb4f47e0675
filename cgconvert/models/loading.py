"""A model ready to use: its card and its generator with weights, and the conversion of single images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cgconvert.card import ModelCard
from cgconvert.errors import ModelError
from cgconvert.finish import Finish
from cgconvert.generators import build_generator, generator_shapes
from cgconvert.media.picture.finish import finished
from cgconvert.media.picture.resize import resized
from cgconvert.models.catalog import find_model
from cgconvert.models.files import read_card, read_weights
from cgconvert.models.trust import is_trusted
from cgconvert.sizes import check_work_size, network_size
from cgconvert.tensors.images import images_to_pixels, pixels_to_images


@dataclass(frozen=True)
class Model:
    """A model card with its generator in eval mode, float32, on the CPU."""

    card: ModelCard
    generator: nn.Module
    path: Path | None = None

    def convert(
        self,
        image: np.ndarray,
        *,
        strength: float = 1.0,
        keep_colours: bool = False,
        stroke: str | float | None = None,
        work_size: str | None = None,
    ) -> np.ndarray:
        """Convert one picture with the plain network, on its device and in the type of its weights.

        Takes and returns uint8 or uint16 RGB (H, W, 3) of any size from 1x1; the result has the same size
        and type. The options are those of `ImageOptions`, but without `stroke` and `work_size` the network
        sees all of the picture. Raises `ValueError` for anything but such a picture, and `UsageError` for
        options that make no sense.
        """
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"expected one RGB image of shape (H, W, 3), got shape {image.shape}")
        if image.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"expected an image of uint8 or uint16, got {image.dtype}")
        finish = Finish(strength, keep_colours)
        check_work_size(work_size, stroke)
        size = image.shape[1], image.shape[0]
        seen = image
        if work_size is not None or stroke is not None:
            seen = resized(image, *network_size(work_size, stroke, self.card, size, size))
        is_finished = not finish.is_plain or seen.shape != image.shape
        weight = next(iter(self.generator.parameters()), torch.zeros(0))
        with torch.inference_mode():
            images, crop = pixels_to_images(seen[None], self.card, weight.device, weight.dtype)
            stored = np.uint16 if is_finished else image.dtype
            result = images_to_pixels(self.generator(images), crop, stored)[0]
        return finished(image, result, finish) if is_finished else result


def load_model(name_or_path: str | Path) -> Model:
    """Load a model by name (installed or shipped) or by path. Raises `ModelError`."""
    path = find_model(name_or_path)
    card = read_card(path)
    weights = read_weights(path, card)
    if card.architecture == "torchscript" and not is_trusted(card.weights_sha256):
        raise ModelError(
            f"{path}: it holds a TorchScript program, which is code: if you trust whoever made it, import "
            "this file with `trust=True`"
        )
    try:
        generator = generator_with_weights(card.architecture, card.arguments, weights)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    return Model(card, generator, path)


def generator_with_weights(
    architecture: str, arguments: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> nn.Module:
    """A generator with these weights, all of them and no others: eval mode, float32, CPU, no gradients.

    Names and shapes are compared before anything is allocated, so that a card that promises more than its
    file holds costs nothing. Raises `ModelError`.
    """
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    misfit = find_misfit(generator_shapes(architecture, arguments), found)
    if misfit:
        raise ModelError(f"the weights do not fit architecture {architecture!r}: {misfit}")
    generator = build_generator(architecture, arguments)
    wide = {
        name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()
    }
    generator.load_state_dict(wide)
    return generator.eval().requires_grad_(False)


def find_misfit(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> str | None:
    """The first difference between two sets of named shapes, in words; None if they are the same."""
    for name, shape in expected.items():
        if name not in found:
            return f"{name!r} is missing ({_count(len(expected.keys() - found.keys()))})"
        if found[name] != shape:
            return f"{name!r} is {_times(found[name])} instead of {_times(shape)}"
    extra = [name for name in found if name not in expected]
    if extra:
        return f"{extra[0]!r:.100} has no place in it ({_count(len(extra))})"
    return None


def _count(number: int) -> str:
    return "the only one" if number == 1 else f"one of {number}"


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"
