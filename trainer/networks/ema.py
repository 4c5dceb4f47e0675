"""Exponential moving averages of generators, which are shown, measured and exported."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Ema:
    """A moving average of each generator's weights (Yazici et al. 2019), in the type of the weights.

    After n updates the decay is min(decay, (1 + n) / (10 + n)), so that random weights do not stay in the
    first averages. Buffers (batch-norm statistics) are copied. With decay 0 the averages are the generators.
    """

    def __init__(self, generators: Mapping[str, nn.Module], decay: float) -> None:
        self._sources = dict(generators)
        self._decay = decay
        self.updates = 0
        self.generators = {
            name: copy.deepcopy(network).eval().requires_grad_(False) for name, network in generators.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the generators as they are now."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        for name, source in self._sources.items():
            average = self.generators[name]
            new: list[Tensor] = list(source.parameters())
            torch._foreach_lerp_(list(average.parameters()), new, 1 - decay)
            for old_buffer, buffer in zip(average.buffers(), source.buffers(), strict=True):
                old_buffer.copy_(buffer)

    def state_dict(self) -> dict[str, Any]:
        weights = {name: network.state_dict() for name, network in self.generators.items()}
        return {"updates": self.updates, "weights": weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.updates = int(state["updates"])
        for name, network in self.generators.items():
            network.load_state_dict(state["weights"][name])
