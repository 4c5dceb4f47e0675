"""pix2pix (Isola, Zhu, Zhou, Efros 2017): pairs of pictures, one generator, a conditional discriminator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.data.batches import Batch
from trainer.losses.adversarial import gan_loss
from trainer.losses.features import logits_of, matching_loss
from trainer.losses.reconstruction import l1
from trainer.methods.base import DISCRIMINATORS, GENERATORS, Losses
from trainer.methods.oneway import OneWay
from trainer.networks.building import new_discriminator, new_generator
from trainer.networks.discriminators import Logits


class Pix2Pix(OneWay):
    """The generator learns from pairs; the discriminator `disc` judges input and output together.

    The step is the published one: the discriminator first, then the generator against the new one. The losses
    are `gan` and `l1` of the generator, and `disc_real` and `disc_fake`, whose mean the discriminator lowers.
    """

    def __init__(self, config: Config, precision: Precision, distributed: bool = False) -> None:
        """Raises `UsageError`, `ModelError` for networks that the config describes wrongly."""
        loss, name = config.loss, self.main_generator(config)
        networks = {name: new_generator(config, name)}
        phases: dict[str, Any] = {GENERATORS: ((name,), networks[name].__call__)}
        self._judged = loss.ablation != "l1-alone"
        self._conditional = loss.conditional and loss.ablation not in ("gan-alone", "l1-gan")
        self._lambda_l1 = 0.0 if loss.ablation in ("gan-alone", "cgan-alone") else loss.lambda_l1
        if self._judged:
            channels = int(config.network.arguments.get("out_channels", 3))
            if self._conditional:
                channels += int(config.network.arguments.get("in_channels", 3))
            networks["disc"] = new_discriminator(config, channels)
            phases[DISCRIMINATORS] = (("disc",), self._discriminator_losses)
        super().__init__(config, precision, distributed, networks, phases)

    def train_step(self, batch: Batch) -> Losses:
        source, target = self.images(batch[self.source]), self.images(batch[self.target])
        with self.precision.autocast():
            fake = self.phases[GENERATORS](source)
        judged: Losses = {}
        if self._judged:
            disc = self.networks["disc"]
            disc.requires_grad_(True)
            with self.precision.autocast():
                judged = self.phases[DISCRIMINATORS](source, target, fake.detach().to(target.dtype))
            # The published loss of the discriminator is the mean of its two parts, which are logged whole.
            weights = {"disc_real": 0.5, "disc_fake": 0.5}
            self._lower(DISCRIMINATORS, {name: weights.get(name, 1.0) * v for name, v in judged.items()})
            # The generator's gradient passes through the discriminator, which does not learn from it.
            disc.requires_grad_(False)
        with self.precision.autocast():
            losses = self._generator_losses(source, target, fake)
        self._lower(GENERATORS, losses)
        self._end_step(batch)
        return {name: value.detach() for name, value in (losses | judged).items()}

    def _seen(self, source: Tensor, output: Tensor) -> Tensor:
        """An output as the discriminator is shown it: beside its input, both augmented alike."""
        images = torch.cat([source, output.to(source.dtype)], 1) if self._conditional else output
        return self._augmented(images)

    def _discriminator_losses(self, source: Tensor, target: Tensor, fake: Tensor) -> Losses:
        disc, loss = self.networks["disc"], self.config.loss
        # Fake before real, as published: the running statistics of a batch norm depend on it.
        on_fake: Logits = disc(self._seen(source, fake))
        on_real: Logits = disc(self._seen(source, target))
        losses = {
            "disc_real": gan_loss(on_real, True, loss.gan),
            "disc_fake": gan_loss(on_fake, False, loss.gan),
        }
        if self._penalised():
            images = self._seen(source, target).detach().requires_grad_(True)
            losses["r1"] = self._penalty(disc(images), images)
        return losses

    def _generator_losses(self, source: Tensor, target: Tensor, fake: Tensor) -> Losses:
        loss, losses = self.config.loss, Losses()
        if self._judged:
            disc = self.networks["disc"]
            if loss.feature_matching > 0:
                with torch.no_grad():
                    on_real = disc.features(self._seen(source, target))  # type: ignore[operator]
                on_fake = disc.features(self._seen(source, fake))  # type: ignore[operator]
                losses["features"] = loss.feature_matching * matching_loss(on_fake, on_real)
                logits = logits_of(on_fake)
            else:
                logits = disc(self._seen(source, fake))
            losses["gan"] = loss.lambda_gan * gan_loss(logits, True, loss.gan, for_generator=True)
        if self._lambda_l1 > 0:
            losses["l1"] = self._lambda_l1 * l1(fake, target)
        temporal = self._temporal(self.main, source, fake)
        if temporal is not None:
            losses["temporal"] = temporal
        return losses
