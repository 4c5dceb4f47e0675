"""Small models for the tests of engines, with weights that make a picture of a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from cgconvert.card import ModelCard
from cgconvert.engines.base import Engine
from cgconvert.engines.job import EngineJob
from cgconvert.engines.pixels import convert_pixels
from cgconvert.generators import build_generator, size_rule
from cgconvert.models.loading import Model

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet": ("resnet", {"ngf": 8, "blocks": 2}),
    "resnet_batch": ("resnet", {"ngf": 8, "blocks": 2, "norm": "batch", "dropout": True}),
    "resnet_affine": ("resnet", {"ngf": 8, "blocks": 1, "norm": "instance_affine", "upsampling": "resize"}),
    "resnet_plain": ("resnet", {"ngf": 8, "blocks": 1, "norm": "none", "padding": "zero"}),
    "resnet_gray": ("resnet", {"ngf": 8, "blocks": 1, "in_channels": 1, "out_channels": 1}),
    "tiny": ("resnet", {"ngf": 4, "blocks": 1}),
    "unet": ("unet", {"ngf": 4, "depth": 5}),
    "unet_instance": ("unet", {"ngf": 4, "depth": 5, "norm": "instance"}),
    "h2": ("h2", {"half_channels": 8, "channels": 16, "blocks": 2}),
    "h2_noise": ("h2", {"half_channels": 8, "channels": 16, "blocks": 2, "in_channels": 5, "norm": "none"}),
    "identity": ("identity", {}),
}


def make_model(kind: str = "resnet", seed: int = 0) -> Model:
    """A model of a kind above with random weights, and statistics of its own where it has batch norms."""
    architecture, arguments = KINDS[kind]
    torch.manual_seed(seed)
    generator = build_generator(architecture, arguments).eval().requires_grad_(False)
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
        elif isinstance(module, nn.InstanceNorm2d) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    multiple, minimum = size_rule(architecture, arguments)
    card = ModelCard(
        kind.replace("_", "-"),
        architecture,
        arguments,
        size_multiple=multiple,
        size_minimum=minimum,
        weights_sha256=f"{kind}-{seed}",
        noise={"channels": 2, "seed": 3} if kind.endswith("_noise") else {},
    )
    return Model(card, generator)


def make_pixels(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth coloured pictures with some noise, (N, H, W, 3) uint8."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    frequency = random.uniform(0.02, 0.2, (count, 1, 1, 3, 2))
    phase = random.uniform(0, 6, (count, 1, 1, 3))
    wave = np.sin(frequency[..., 0] * y[None, :, :, None] + frequency[..., 1] * x[None, :, :, None] + phase)
    picture = 127 + 90 * wave + random.normal(0, 12, wave.shape)
    return picture.clip(0, 255).astype(np.uint8)


def convert(engine: Engine, pixels: np.ndarray, batch: int = 64) -> np.ndarray:
    """Pixels (N, H, W, 3) through an engine, so many at once."""
    return convert_pixels(EngineJob(engine, batch), pixels)
