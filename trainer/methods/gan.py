"""DCGAN (Goodfellow et al. 2014; Radford, Metz, Chintala 2016): pictures from noise, of a label if there are.

It makes no model that converts pictures: `train sample` shows what it makes. It is the beginning that all
other methods here grew from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cgconvert.errors import UsageError
from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.data.batches import LABELS, Batch
from trainer.losses.adversarial import gan_loss
from trainer.methods.base import DISCRIMINATORS, GENERATORS, Losses, Method
from trainer.networks.dcgan import DcganDiscriminator, DcganGenerator
from trainer.networks.initialization import init_weights

NAME = "generator"
ARGUMENTS = ("ngf", "latent")


def new_dcgan(config: Config) -> DcganGenerator:
    """The generator that a config describes, with fresh weights. Raises `UsageError`."""
    given = dict(config.network.arguments)
    for key, value in given.items():
        whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
        if key not in ARGUMENTS or not whole:
            raise UsageError(f"network.arguments of a gan are whole numbers ngf and latent, got {given}")
    return DcganGenerator(config.data.crop_size, classes=len(config.data.labels), **given)


class Gan(Method):
    """`generator` makes pictures like those of domain B, and `disc` tells them from those.

    The published step: the discriminator on a real and on a fake batch, each with its own statistics, then
    the generator. Losses: `gan`, and the parts `disc_real` and `disc_fake`.
    """

    def __init__(self, config: Config, precision: Precision, distributed: bool = False) -> None:
        """Raises `UsageError` for networks that the config describes wrongly."""
        net, data = config.network, config.data
        generator = new_dcgan(config)
        disc = DcganDiscriminator(data.crop_size, net.ndf, len(data.labels))
        networks: dict[str, nn.Module] = {NAME: generator, "disc": disc}
        for network in networks.values():
            init_weights(network, net.init, net.init_gain)
        phases: dict[str, tuple[Sequence[str], Callable[..., Any]]] = {
            GENERATORS: ((NAME,), self._generate),
            DISCRIMINATORS: (("disc",), self._discriminator_losses),
        }
        super().__init__(config, precision, distributed, networks, phases, averaged=(NAME,))

    @classmethod
    def main_generator(cls, config: Config) -> str:
        return NAME

    def train_step(self, batch: Batch) -> Losses:
        real, disc = self.images(batch["b"]), self.networks["disc"]
        labels = batch[LABELS].to(self.device, non_blocking=True) if LABELS in batch else None
        # Noise of any process, batch after batch from the global random numbers.
        noise = torch.randn(real.shape[0], self._latent, device=self.device, dtype=real.dtype)
        with self.precision.autocast():
            fake = self.phases[GENERATORS](noise, labels)
        disc.requires_grad_(True)
        with self.precision.autocast():
            judged = self.phases[DISCRIMINATORS](real, fake.detach().to(real.dtype), labels)
        self._lower(DISCRIMINATORS, judged)
        disc.requires_grad_(False)
        with self.precision.autocast():
            logits = disc(self._augmented(fake), labels)
            losses = {"gan": gan_loss(logits, True, self.config.loss.gan, for_generator=True)}
        self._lower(GENERATORS, losses)
        self._end_step(batch)
        return {name: value.detach() for name, value in (losses | judged).items()}

    @property
    def _latent(self) -> int:
        return int(self.config.network.arguments.get("latent", 100))

    def _generate(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        return self.networks[NAME](noise, labels)

    def _discriminator_losses(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> Losses:
        disc, gan = self.networks["disc"], self.config.loss.gan
        return {
            "disc_real": gan_loss(disc(self._augmented(real), labels), True, gan),
            "disc_fake": gan_loss(disc(self._augmented(fake), labels), False, gan),
        }


@torch.inference_mode()
def generate(generator: DcganGenerator, count: int, seed: int, labels: Sequence[int] = ()) -> Tensor:
    """Images (count, 3, size, size) in [-1, 1] of an averaged generator, the same for a seed.

    `labels` are taken in turn where the generator knows any.
    """
    weight = next(generator.parameters())
    random = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, generator.latent, generator=random)
    chosen = None
    if generator.classes:
        chosen = torch.tensor([labels[index % len(labels)] for index in range(count)], device=weight.device)
    return generator(noise.to(weight.device, weight.dtype), chosen)
