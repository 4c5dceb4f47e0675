"""What the methods with one generator share: which way it goes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.config import Config
from trainer.methods.base import Method


def direction(config: Config) -> tuple[str, str]:
    """The source and the target domain of `data.direction`: ("a", "b") or ("b", "a")."""
    return ("a", "b") if config.data.direction == "a_to_b" else ("b", "a")


class OneWay(Method):
    """A method whose only generator leads from one domain to the other, as `data.direction` says."""

    @classmethod
    def main_generator(cls, config: Config) -> str:
        return "gen_{}{}".format(*direction(config))

    @property
    def generator(self) -> nn.Module:
        return self.networks[self.main]

    def _noise(self, images: Tensor, channels: int | None = None) -> Tensor:
        """Noise for images NCHW as any place of any field has it: (N, channels, H, W), uniform in [-1, 1].

        By default as many channels as the generator takes.
        """
        count, _, height, width = images.shape
        shape = (count, self.config.network.noise if channels is None else channels, height, width)
        return torch.rand(shape, device=images.device, dtype=images.dtype) * 2 - 1

    @property
    def source(self) -> str:
        """The domain that the generator takes."""
        return self.cards[self.main].source_domain

    @property
    def target(self) -> str:
        """The domain that the generator makes."""
        return self.cards[self.main].target_domain
