"""torch.compile for networks that learn, used only after a comparison with the plain network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cgconvert.errors import UnavailableError, first_line
from trainer.compute.precision import Precision, widened

MOST = {"fp64": 0.02, "fp32": 0.02, "bf16": 0.25, "fp16": 0.1}
"""Largest relative difference of all gradients together; half precision rounds in another order."""


def compile_verified(name: str, network: nn.Module, images: Tensor, precision: Precision) -> None:
    """Compile a network in place, after comparing its gradients with those of the plain one.

    A training with a compiler that loses gradients runs without an error and learns nothing; torch 2.13 does
    that on the CPU, where whole branches get zero. `images` are float NCHW. Raises `UnavailableError` where
    the gradients differ or the compiler fails.
    """
    plain = _gradients(network, images, precision)
    network.compile()
    try:
        compiled = _gradients(network, images, precision)
    except Exception as error:  # whatever a compiler raises: it is not for the user to tell its kinds apart
        raise UnavailableError(
            f"torch.compile fails for {name} here ({first_line(error, 120)}): set run.compile = false"
        ) from error
    difference = float((compiled - plain).norm() / plain.norm().clamp_min(1e-12))
    if not difference <= MOST[precision.name]:
        raise UnavailableError(
            f"torch.compile gives {name} other gradients here (they differ by {difference:.0%}): "
            "set run.compile = false"
        )


def _gradients(network: nn.Module, images: Tensor, precision: Precision) -> Tensor:
    """All gradients of weights with more than one dimension in one vector, for a fixed random loss.

    Vectors are left out, since the gradients of biases before an instance norm are rounding errors. Buffers
    that the passes change (batch-norm statistics) and global random numbers (dropout) are put back.
    """
    kept = {name: buffer.clone() for name, buffer in network.named_buffers()}
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        with precision.autocast():
            output = network(images)
        results = [output] if isinstance(output, Tensor) else list(output)
        weighted = [(widened(r) * torch.randn(r.shape, device=r.device)).sum() for r in results]
        loss = torch.stack(weighted).sum()
        weights = [p for p in network.parameters() if p.dim() > 1]
        gradients = torch.autograd.grad(loss, weights)
    for name, buffer in network.named_buffers():
        buffer.copy_(kept[name])
    return torch.cat([gradient.flatten() for gradient in gradients])
