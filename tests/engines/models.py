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
from cgconvert.generators.h2 import H2Generator
from cgconvert.models.loading import Model, generator_with_weights
from cgconvert.tensors.noise import with_noise
from trainer.exporting.folding import fold_batch_norms
from trainer.networks.initialization import init_weights

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


def make_learned(seed: int = 0) -> Model:
    """A model of the kind that one-sided training exports: noise beside the picture, batch norms folded away.

    Its weights are those that a training starts with, which resemble the picture, with a larger share of the
    noise than at a start.
    """
    arguments: dict[str, Any] = {
        "half_channels": 24,
        "channels": 32,
        "blocks": 2,
        "in_channels": 5,
        "keep_black": True,
        "keep_detail": True,
    }
    torch.manual_seed(seed)
    network = init_weights(build_generator("h2", {**arguments, "norm": "batch"}), "identity", 0.02)
    assert isinstance(network, H2Generator)
    with torch.no_grad():
        network.head.weight[:, 12:] *= 5  # the four sub-pixels of each channel of noise
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean of all that is seen
    pictures = torch.from_numpy(make_pixels(4, 64, 64, seed=7)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        network.train()(with_noise(pictures, 2, 3))
    plain, weights = fold_batch_norms("h2", {**arguments, "norm": "batch"}, network.state_dict())
    card = ModelCard(
        "learned",
        "h2",
        plain,
        size_multiple=4,
        size_minimum=16,
        weights_sha256=f"learned-{seed}",
        noise={"channels": 2, "seed": 3},
    )
    return Model(card, generator_with_weights("h2", plain, weights))


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
