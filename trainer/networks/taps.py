"""Inner layers of a generator, read by hooks while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from cgconvert.errors import UsageError


class _EnoughError(Exception):
    """Raised to end a forward pass when the last wanted layer has been reached."""


class Taps:
    """Inner layers of a generator: layer 0 is the image itself, layer n the output of its n-th convolution.

    An empty list takes the image, the first four convolutions and the one half way through, which in a ResNet
    generator are those of the paper of CUT. Raises `UsageError` for layers that are not there.
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
