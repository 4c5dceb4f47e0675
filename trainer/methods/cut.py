"""CUT (Park, Efros, Zhang, Zhu 2020): one generator, no cycle; patches keep what they show."""

from __future__ import annotations

import torch
from torch import Tensor

from cgconvert.generators.sizes import size_rule
from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.data.batches import Batch
from trainer.losses.adversarial import gan_loss
from trainer.losses.contrastive import patch_nce
from trainer.methods.base import Losses
from trainer.methods.oneway import OneWay
from trainer.networks.patch_projection import PatchProjection
from trainer.networks.taps import Taps

WIDTH = 256


class Cut(OneWay):
    """`gen_ab` (or `gen_ba`) and `disc`; `project` maps patch features to vectors that are compared.

    The published step: the discriminator, then generator and projection against the new one. The features of
    the source come from the same pass as the result, where the original computes them a second time.
    """

    def __init__(self, config: Config, precision: Precision, distributed: bool = False) -> None:
        super().__init__(config, precision, distributed)
        self._add_configured_generator()
        self._add_discriminator("disc", self.out_channels)
        self._taps = Taps(self.networks[self.name], config.loss.nce_layers)
        self._tapped.add(self.name)
        with torch.no_grad():
            edge = max(64, size_rule(config.network.generator, config.network.arguments)[1])
            probe = self.images(torch.zeros(1, self.in_channels, edge, edge))
            channels = [feature.shape[1] for feature in self._taps.encode(probe)]
        self._add_network("project", PatchProjection(channels))
        self._add_pools((self.target,))
        self._finish(
            {
                "generators": ([self.name, "project"], self._translate),
                "discriminators": (["disc"], self._discriminator_losses),
            }
        )

    def train_step(self, batch: Batch) -> Losses:
        """One step, as described above the class; {"a", "b"} as in `Method.train_step`."""
        source, target = self.images(batch[self.source]), self.images(batch[self.target])
        disc, loss = self.networks["disc"], self.config.loss
        with self.precision.autocast():
            fake, asked = self.phases["generators"](source, target)
        disc.requires_grad_(True)
        pooled = self.pools[self.target].query(fake.detach().to(target.dtype))
        with self.precision.autocast():
            judged = self.phases["discriminators"](target, pooled)
        self._lower("discriminators", judged)
        disc.requires_grad_(False)
        with self.precision.autocast():
            asked["gan"] = loss.lambda_gan * gan_loss(
                self._judge(disc, fake), True, loss.gan, for_generator=True
            )
        self._lower("generators", asked)
        self._end_step(batch)
        return {name: value.detach() for name, value in (asked | judged).items()}

    def _discriminator_losses(self, real: Tensor, fake: Tensor) -> Losses:
        return self._disc_loss("disc", real, fake)

    def _translate(self, source: Tensor, target: Tensor) -> tuple[Tensor, Losses]:
        """Results, and the losses that need no discriminator."""
        loss = self.config.loss
        both = loss.nce_identity and source.shape == target.shape
        images = torch.cat([source, target]) if both else source
        output, features = self._taps.run(images)
        contrast = self._contrast(self._taps.encode(output), features)
        count = source.shape[0]
        fake = output[:count]
        losses: Losses = {"nce": loss.lambda_nce * contrast[:count].mean()}
        if both:
            # Half each, as published: the identity term takes no weight away from the other terms.
            losses = {
                "nce": 0.5 * losses["nce"],
                "nce_identity": 0.5 * loss.lambda_nce * contrast[count:].mean(),
            }
        return fake, losses | self._steadiness(source, fake)

    def _contrast(self, results: list[Tensor], sources: list[Tensor]) -> Tensor:
        """The contrastive loss of each image, mean over the layers: (N,)."""
        project, loss = self.networks["project"], self.config.loss
        by_layer = []
        for layer, (result, source) in enumerate(zip(results, sources, strict=True)):
            places = result.shape[2] * result.shape[3]
            chosen = torch.randperm(places, device=result.device)[: loss.nce_patches]
            queries, keys = (f.flatten(2)[:, :, chosen].transpose(1, 2) for f in (result, source))
            queries, keys = project(layer, queries), project(layer, keys)
            by_layer.append(patch_nce(queries, keys, loss.nce_temperature))
        return torch.stack(by_layer).mean(0)
