"""Several batches through a network in one pass, where that gives what single passes give."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.networks.discriminators import Logits


def mixes_images(network: nn.Module) -> bool:
    """Whether a network's result for one image depends on the others of its batch, or on chance."""
    return any(isinstance(module, (nn.BatchNorm2d, nn.Dropout)) for module in network.modules())


def split_logits(logits: Logits) -> tuple[Logits, Logits]:
    """The logits of the first and of the second half of a joined batch."""
    if isinstance(logits, Tensor):
        first, second = logits.chunk(2)
        return first, second
    parts = [part.chunk(2) for part in logits]
    return [first for first, _ in parts], [second for _, second in parts]


def forward_joined(network: nn.Module, first: Tensor, second: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A network's results for two batches, NCHW; the second may be None, and so is its result then."""
    if second is None:
        return network(first), None
    if first.shape[1:] != second.shape[1:] or mixes_images(network):
        return network(first), network(second)
    one, two = network(torch.cat([first, second])).split([first.shape[0], second.shape[0]])
    return one, two
