"""pix2pix (Isola, Zhu, Zhou, Efros 2017): pairs of pictures, one generator, a conditional discriminator."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.data.batches import Batch
from trainer.losses.adversarial import Logits, gan_loss, r1_penalty
from trainer.losses.features import logits_of, matching_loss
from trainer.losses.reconstruction import l1
from trainer.methods.base import Losses
from trainer.methods.oneway import OneWay
from trainer.networks.diffaugment import diff_augment


class Pix2Pix(OneWay):
    """`gen_ab` (or `gen_ba`, by `data.direction`) learns from pairs; `disc` judges input and output together.

    The step is the published one: the discriminator first, then the generator against the new one. Losses:
    `gan` and `l1` of the generator, `disc_real` and `disc_fake`, of which the discriminator lowers the mean.
    """

    def __init__(self, config: Config, precision: Precision, distributed: bool = False) -> None:
        super().__init__(config, precision, distributed)
        loss = config.loss
        self._add_configured_generator()
        self._judged = loss.ablation != "l1-alone"
        self._conditional = loss.conditional and loss.ablation not in ("gan-alone", "l1-gan")
        self._lambda_l1 = 0.0 if loss.ablation in ("gan-alone", "cgan-alone") else loss.lambda_l1
        if self._judged:
            seen = self.out_channels + (self.in_channels if self._conditional else 0)
            self._add_discriminator("disc", seen)
        gen = self.networks[self.name]
        self._finish(
            {
                "generators": ([self.name], gen.__call__),
                "discriminators": (["disc"] if self._judged else [], self._discriminator_losses),
            }
        )

    def train_step(self, batch: Batch) -> Losses:
        """One step, as described above the class; {"a", "b"} as in `Method.train_step`."""
        source, target = self.images(batch[self.source]), self.images(batch[self.target])
        with self.precision.autocast():
            fake = self.phases["generators"](source)
        losses: Losses = {}
        if self._judged:
            self.networks["disc"].requires_grad_(True)
            with self.precision.autocast():
                judged = self.phases["discriminators"](source, target, fake.detach().to(target.dtype))
            weights = {"disc_real": 0.5, "disc_fake": 0.5}
            self._lower("discriminators", {name: weights.get(name, 1.0) * v for name, v in judged.items()})
            losses |= judged
            self.networks["disc"].requires_grad_(False)
        with self.precision.autocast():
            asked = self._generator_losses(source, target, fake)
        self._lower("generators", asked)
        self._end_step(batch)
        return {name: value.detach() for name, value in (asked | losses).items()}

    def _seen(self, source: Tensor, output: Tensor) -> Tensor:
        """What the discriminator is shown of an output; input and output are augmented alike."""
        images = torch.cat([source, output.to(source.dtype)], 1) if self._conditional else output
        return diff_augment(images, self._augment)

    def _discriminator_losses(self, source: Tensor, target: Tensor, fake: Tensor) -> Losses:
        disc, loss = self.networks["disc"], self.config.loss
        # Fake before real, as published: the running statistics of a batch norm depend on it.
        on_fake: Logits = disc(self._seen(source, fake))
        on_real: Logits = disc(self._seen(source, target))
        losses = {
            "disc_real": gan_loss(on_real, True, loss.gan),
            "disc_fake": gan_loss(on_fake, False, loss.gan),
        }
        if loss.r1 > 0 and self.step % loss.r1_every == 0:
            images = self._seen(source, target).detach().requires_grad_(True)
            losses["r1"] = loss.r1 * loss.r1_every * r1_penalty(disc(images), images)
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
        return losses | self._steadiness(source, fake)
