"""What the methods with one generator share: which way it goes, and steadiness under motion."""

from __future__ import annotations

from torch import Tensor

from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.losses.temporal import temporal_loss
from trainer.methods.base import Losses, Method


class OneWay(Method):
    """`name` is gen_ab or gen_ba, by `data.direction`; it leads from domain `source` to `target`."""

    def __init__(self, config: Config, precision: Precision, distributed: bool = False) -> None:
        super().__init__(config, precision, distributed)
        forward = config.data.direction == "a_to_b"
        self.source, self.target = ("a", "b") if forward else ("b", "a")
        self.name = f"gen_{self.source}{self.target}"
        arguments = config.network.arguments
        self.in_channels = int(arguments.get("in_channels", 3))
        self.out_channels = int(arguments.get("out_channels", 3))

    def _add_configured_generator(self) -> None:
        net = self.config.network
        self._add_generator(self.name, net.generator, dict(net.arguments), (self.source, self.target))

    def _steadiness(self, source: Tensor, result: Tensor) -> Losses:
        """The temporal loss by its name, or nothing where it has no weight. `result` is that of `source`."""
        loss = self.config.loss
        weight = self._ramp(loss.temporal, loss.temporal_ramp)
        if weight <= 0:
            return {}
        network = self.networks[self.name]
        return {"temporal": weight * temporal_loss(network, source, result, loss.temporal_noise)}
