"""The generators: networks from images of one domain to images of another.

Every generator maps float NCHW images in [-1, 1] to images of the same height and width.
`ARCHITECTURES` is the only list of them; a model card names its architecture by a key of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from cgconvert.errors import ModelError
from cgconvert.generators.animegan import AnimeGANGenerator
from cgconvert.generators.arguments import check_arguments
from cgconvert.generators.foreign import ForeignGenerator, OnnxGenerator, TorchScriptGenerator
from cgconvert.generators.h2 import H2Generator
from cgconvert.generators.identity import IdentityGenerator
from cgconvert.generators.mobile_resnet import MobileResnetGenerator
from cgconvert.generators.pix2pixhd import Pix2PixHDGenerator
from cgconvert.generators.resnet import ResnetGenerator
from cgconvert.generators.resnet_attention import ResnetAttentionGenerator
from cgconvert.generators.sizes import size_rule
from cgconvert.generators.unet import UnetGenerator

ARCHITECTURES: dict[str, type[nn.Module]] = {
    "resnet": ResnetGenerator,
    "unet": UnetGenerator,
    "h2": H2Generator,
    "mobile_resnet": MobileResnetGenerator,
    "pix2pixhd": Pix2PixHDGenerator,
    "resnet_attention": ResnetAttentionGenerator,
    "animegan2": AnimeGANGenerator,
    "onnx": OnnxGenerator,
    "torchscript": TorchScriptGenerator,
    "identity": IdentityGenerator,
}


def build_generator(architecture: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A generator with fresh weights; `ModelError` names what is unknown or out of bounds."""
    try:
        generator = ARCHITECTURES[architecture]
    except KeyError:
        known = ", ".join(ARCHITECTURES)
        raise ModelError(f"unknown architecture {architecture!r}; known: {known}") from None
    check_arguments(architecture, generator, arguments)
    try:
        return generator(**arguments)
    except (TypeError, ValueError) as error:
        raise ModelError(f"architecture {architecture!r} cannot be built: {error}") from error


def generator_shapes(architecture: str, arguments: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight and buffer of a generator, found without allocating them."""
    with torch.device("meta"):
        state = build_generator(architecture, arguments).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


__all__ = [
    "ARCHITECTURES",
    "AnimeGANGenerator",
    "ForeignGenerator",
    "H2Generator",
    "IdentityGenerator",
    "MobileResnetGenerator",
    "Pix2PixHDGenerator",
    "ResnetAttentionGenerator",
    "ResnetGenerator",
    "UnetGenerator",
    "build_generator",
    "generator_shapes",
    "size_rule",
]
