"""Batch norms folded into the convolutions before them: what is exported has no norm left to compute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cgconvert.generators import build_generator


def fold_batch_norms(
    architecture: str, arguments: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Arguments and weights of the same function without norms; unchanged where there is no batch norm.

    In use a batch norm is one factor and one offset a channel, and every generator has it after a
    convolution, with nothing between but resizing and filters that keep constants. So both go into that
    convolution's weights and bias. Computed in float64.
    """
    arguments, weights = dict(arguments), dict(weights)
    if arguments.get("norm") != "batch":
        return arguments, weights
    with torch.device("meta"):
        network = build_generator(architecture, arguments)
        plain = {**arguments, "norm": "none"} | ({"bias": True} if architecture == "resnet" else {})
        names = build_generator(architecture, plain).state_dict().keys()
    folded = {name: weights[name] for name in names if name in weights}
    convolution, turned = "", False
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            convolution, turned = name, isinstance(module, nn.ConvTranspose2d)
        elif isinstance(module, nn.BatchNorm2d):
            gamma, beta, mean, variance = (
                weights[f"{name}.{key}"].double() for key in ("weight", "bias", "running_mean", "running_var")
            )
            scale = gamma / torch.sqrt(variance + module.eps)
            weight = weights[f"{convolution}.weight"]
            shape = (1, -1, 1, 1) if turned else (-1, 1, 1, 1)
            offset = weights[f"{convolution}.bias"].double() if f"{convolution}.bias" in weights else 0.0
            folded[f"{convolution}.weight"] = (weight.double() * scale.view(shape)).to(weight.dtype)
            folded[f"{convolution}.bias"] = (beta + (offset - mean) * scale).to(weight.dtype)
    return plain, folded
