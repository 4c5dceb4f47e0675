"""CUT (Park, Efros, Zhang, Zhu 2020): one generator, no cycle; patches keep what they show."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.data.batches import Batch
from trainer.losses.adversarial import gan_loss
from trainer.losses.contrastive import patch_nce
from trainer.methods.base import DISCRIMINATORS, GENERATORS, Losses
from trainer.methods.oneway import OneWay, direction
from trainer.networks.building import generator_card, new_discriminator, new_generator, new_projected
from trainer.networks.initialization import init_weights
from trainer.networks.patch_projection import PatchProjection
from trainer.networks.taps import Taps


class Cut(OneWay):
    """A generator, a discriminator `disc`, and `project`, which maps patch features to vectors to compare.

    The step is the published one: the discriminator, then generator and projection against the new one. The
    features of the source come from the same pass as the result, where the original computes them again.
    """

    def __init__(self, config: Config, precision: Precision, distributed: bool = False) -> None:
        """Raises `UsageError`, `ModelError` for networks that the config describes wrongly."""
        name = self.main_generator(config)
        networks: dict[str, nn.Module] = {name: new_generator(config, name)}
        card = generator_card(config, name)
        networks["disc"] = new_discriminator(config, card.out_channels)
        if config.loss.projected > 0:
            networks["disc_projected"] = new_projected(config)
        self._taps = Taps(networks[name], config.loss.nce_layers)
        with torch.no_grad():
            edge = max(64, card.size_minimum)
            widths = [f.shape[1] for f in self._taps.encode(torch.zeros(1, card.in_channels, edge, edge))]
        net = config.network
        networks["project"] = init_weights(PatchProjection(widths), net.init, net.init_gain)
        phases = {
            GENERATORS: ((name, "project"), self._translate),
            DISCRIMINATORS: ([key for key in networks if key.startswith("disc")], self._discriminator_losses),
        }
        pools = (direction(config)[1],)
        super().__init__(config, precision, distributed, networks, phases, pools, hooked=(name,))

    def train_step(self, batch: Batch) -> Losses:
        source, target = self.images(batch[self.source]), self.images(batch[self.target])
        disc, loss = self.networks["disc"], self.config.loss
        judges = [network for name, network in self.networks.items() if name.startswith("disc")]
        with self.precision.autocast():
            fake, losses = self.phases[GENERATORS](source, target)
        for judge in judges:
            judge.requires_grad_(True)
        pooled = self.pools[self.target].query(fake.detach().to(target.dtype))
        with self.precision.autocast():
            judged = self.phases[DISCRIMINATORS](target, pooled)
        self._lower(DISCRIMINATORS, judged)
        # The generator's gradient passes through the new discriminators, which do not learn from it.
        for judge in judges:
            judge.requires_grad_(False)
        with self.precision.autocast():
            on_fake = disc(self._augmented(fake))
            losses["gan"] = loss.lambda_gan * gan_loss(on_fake, True, loss.gan, for_generator=True)
            if loss.projected > 0:
                losses["projected"] = self._projected_loss("disc_projected", fake)
        self._lower(GENERATORS, losses)
        self._end_step(batch)
        return {name: value.detach() for name, value in (losses | judged).items()}

    def _discriminator_losses(self, real: Tensor, fake: Tensor) -> Losses:
        losses = self._disc_loss("disc", real, fake)
        if self.config.loss.projected > 0:
            losses["projected_disc"] = self._projected_disc_loss("disc_projected", real, fake)
        return losses

    def _translate(self, source: Tensor, target: Tensor) -> tuple[Tensor, Losses]:
        """The generator's results of `source`, and the losses that need no discriminator."""
        loss, count = self.config.loss, source.shape[0]
        both = loss.nce_identity and source.shape == target.shape
        output, features = self._taps.run(torch.cat([source, target]) if both else source)
        fake = output[:count]
        contrast = self._contrast(self._taps.encode(output), features)
        losses: Losses = {"nce": loss.lambda_nce * contrast[:count].mean()}
        if both:
            # As published, the two terms share one weight.
            losses["nce"] = 0.5 * losses["nce"]
            losses["nce_identity"] = 0.5 * loss.lambda_nce * contrast[count:].mean()
        temporal = self._temporal(self.main, source, fake)
        if temporal is not None:
            losses["temporal"] = temporal
        return fake, losses

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
