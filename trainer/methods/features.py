"""Features of networks: of discriminators for matching, and of generators' inner layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cgconvert.errors import UsageError
from trainer.compute.precision import widened
from trainer.losses.basic import Logits, feature_matching, l1

Features = Sequence[Tensor] | Sequence[Sequence[Tensor]]


def by_scale(features: Features) -> list[Sequence[Tensor]]:
    """A list of feature maps for each scale, whether there are several or one."""
    return [features] if isinstance(features[0], Tensor) else list(features)  # type: ignore[list-item, arg-type]


def logits_of(features: Features) -> Logits:
    """What the discriminator's forward pass would give: the last of its features, for each scale.

    One pass then serves the adversarial loss and feature matching.
    """
    logits: Any = [scale[-1] for scale in by_scale(features)]
    return logits[0] if isinstance(features[0], Tensor) else logits


def matching_loss(fake: Features, real: Features) -> Tensor:
    """pix2pixHD's feature matching of pairs: mean L1 over the layers, mean over the scales."""
    pairs = zip(by_scale(fake), by_scale(real), strict=True)
    return torch.stack([feature_matching(f, r) for f, r in pairs]).mean()


def mean_matching_loss(fake: Features, real: Features) -> Tensor:
    """Feature matching without pairs (Salimans et al. 2016): of the means over batch and places."""
    parts = []
    for scale_fake, scale_real in zip(by_scale(fake), by_scale(real), strict=True):
        for f, r in zip(scale_fake[:-1], scale_real[:-1], strict=True):
            parts.append(l1(widened(f).mean((0, 2, 3)), widened(r.detach()).mean((0, 2, 3))))
    return torch.stack(parts).mean()


class _EnoughError(Exception):
    """Ends a forward pass when the last wanted layer has been reached."""


class Taps:
    """Inner layers of a generator: 0 is the image itself, n the output of its n-th convolution.

    An empty list takes the image, the first three convolutions, the one after and the one half way through:
    in a ResNet generator those of the paper of CUT. Raises `UsageError` for layers that are not there.
    """

    def __init__(self, network: nn.Module, layers: Sequence[int] = ()) -> None:
        self._network = network
        convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        chosen = list(layers) or sorted({0, 1, 2, 3, 4, len(convolutions) // 2 + 1})
        if min(chosen) < 0 or max(chosen) > len(convolutions):
            raise UsageError(f"layers are 0 to {len(convolutions)} of this generator, got {chosen}")
        self.layers = tuple(chosen)
        self._modules = [convolutions[layer - 1] for layer in chosen if layer > 0]

    def run(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The network's result, and the features on the way, in the order of `layers`."""
        found: dict[int, Tensor] = {}
        handles = [
            module.register_forward_hook(self._keep(found, i)) for i, module in enumerate(self._modules)
        ]
        try:
            output = self._network(images)
        finally:
            for handle in handles:
                handle.remove()
        return output, self._ordered(images, found)

    def encode(self, images: Tensor) -> list[Tensor]:
        """The features alone; the pass ends at the last of them."""
        found: dict[int, Tensor] = {}

        def keep_and_stop(index: int) -> Any:
            keep = self._keep(found, index)

            def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
                keep(module, inputs, output)
                if len(found) == len(self._modules):
                    raise _EnoughError

            return hook

        handles = [module.register_forward_hook(keep_and_stop(i)) for i, module in enumerate(self._modules)]
        try:
            self._network(images)
        except _EnoughError:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return self._ordered(images, found)

    @staticmethod
    def _keep(found: dict[int, Tensor], index: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            found[index] = output

        return hook

    def _ordered(self, images: Tensor, found: dict[int, Tensor]) -> list[Tensor]:
        features = iter([found[index] for index in range(len(self._modules))])
        return [images if layer == 0 else next(features) for layer in self.layers]
