"""One-sided translation (Benaim and Wolf 2017) with pretrained features: one generator, no way back.

Nothing is learned but what is wanted. A source's content is held by features of a network that knows
ordinary pictures, its colours by the colour loss; two discriminators ask for the target's look, one of
patches and one of pretrained features (Sauer et al. 2021). Where strokes begin is decided by fixed noise.

Some sources may be targets without their strokes (`loss.repaint`). What these show and their colours are
those of paintings, so that nothing but paint is left for the discriminators to ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cgconvert.errors import UsageError
from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.data.batches import Batch
from trainer.losses.adversarial import gan_loss, hinge_of_halves
from trainer.losses.perceptual import normalised_features_l1
from trainer.losses.reconstruction import colour_loss, tint_loss
from trainer.losses.temporal import Change, draw_change, masked_l1
from trainer.methods.base import DISCRIMINATORS, GENERATORS, Losses
from trainer.methods.domain_colours import DomainColours
from trainer.methods.oneway import OneWay
from trainer.methods.unpainting import unpainted
from trainer.networks.building import generator_card, new_discriminator, new_generator, new_projected
from trainer.networks.diffaugment import augment_alike, diff_augment

NORM_MOMENTUM = 0.02  # batches are small, so that a batch norm's statistics need some fifty of them
CHANGED = 0.5  # of a batch, the images that are shown once more as the next frame: half a pass less
CONTENT = slice(1, 3)  # of the features: strides 8 and 16
CONTENT_LEVELS = 3


class OneSided(OneWay):
    """A generator, and the discriminators `disc` and `disc_projected`, of which one may be left out.

    A step makes one pass of the generator: over the source, and over the source as another frame of a video
    would show it (moved, with grain, faded), the noise moved along. The discriminators learn first, the
    generator against the new ones. The result's features are computed once, for both discriminator passes
    and for the content.
    """

    def __init__(self, config: Config, precision: Precision, distributed: bool = False) -> None:
        """Raises `UsageError`, `ModelError` for networks that the config describes wrongly."""
        loss, name = config.loss, self.main_generator(config)
        networks: dict[str, nn.Module] = {name: new_generator(config, name)}
        for module in networks[name].modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = NORM_MOMENTUM
        if loss.lambda_gan > 0:
            networks["disc"] = new_discriminator(config, generator_card(config, name).out_channels)
        if loss.projected > 0:
            networks["disc_projected"] = new_projected(config)
        self._judges = [network for key, network in networks.items() if key != name]
        if not self._judges:
            raise UsageError("one_sided needs loss.projected or loss.lambda_gan: nothing asks for a look")
        self.colours = DomainColours()
        phases: dict[str, tuple[Sequence[str], Callable[..., Any]]] = {
            GENERATORS: ((name,), self._translate),
            DISCRIMINATORS: ([key for key in networks if key != name], self._discriminator_losses),
        }
        super().__init__(config, precision, distributed, networks, phases)

    def train_step(self, batch: Batch) -> Losses:
        source, target = self.images(batch[self.source]), self.images(batch[self.target])
        # The last sources are targets without their strokes, and what they show is the targets.
        own = len(source) - round(self.config.loss.repaint * len(source))
        shown = source
        if own < len(source):
            shown = torch.cat([source[:own], target[own:]])
            source = torch.cat([source[:own], unpainted(target[own:])])
        wanted = self._wanted_colours(shown, target, own)
        temporal = self._temporal_weight()
        change = draw_change(source[: self._changed(source)]) if temporal > 0 else None
        with self.precision.autocast():
            fake, again, mask = self.phases[GENERATORS](source, change)
            names = self.config.loss.diffaugment
            seen_fake, seen_shown = augment_alike([fake.to(source.dtype), shown], names)
            seen_target = diff_augment(target, names)
            of_fake, of_shown, of_target = self._features(seen_fake, seen_shown, seen_target)
        for judge in self._judges:
            judge.requires_grad_(True)
        with self.precision.autocast():
            detached = [feature.detach() for feature in of_fake]
            judged = self.phases[DISCRIMINATORS](seen_target, seen_fake.detach(), of_target, detached)
        self._lower(DISCRIMINATORS, judged)
        # The generator's gradient passes through the new discriminators, which do not learn from it.
        for judge in self._judges:
            judge.requires_grad_(False)
        with self.precision.autocast():
            asked = self._generator_losses(wanted, fake, seen_fake, of_fake, of_shown)
            if change is not None:
                asked["temporal"] = temporal * masked_l1(again, change.wanted(fake[: len(again)]), mask)
        self._lower(GENERATORS, asked)
        self._end_step(batch)
        return {name: value.detach() for name, value in (asked | judged).items()}

    def _wanted_colours(self, shown: Tensor, target: Tensor, own: int) -> Tensor:
        """The colours that results should have: the first `own` of what is shown come from the source."""
        loss, sources = self.config.loss, shown[:own]
        if loss.colour <= 0 and loss.tint <= 0:
            return shown
        self.colours.update(self.source, sources, self.distributed)
        self.colours.update(self.target, target, self.distributed)
        moved = self.colours.moved_but_black(sources, self.source, self.target)
        if loss.colour_move < 1:
            moved = torch.lerp(sources.to(moved.dtype), moved, loss.colour_move)
        return torch.cat([moved, shown[own:].to(moved.dtype)]) if own < len(shown) else moved

    def _translate(self, source: Tensor, change: Change | None) -> tuple[Tensor, Tensor, Tensor]:
        """Results of the sources, those of the changed sources, and where the two can be compared."""
        network, noise = self.generator, self._noise(source)
        if change is None:
            fake = network(torch.cat([source, noise], dim=1))
            return fake, fake, torch.ones_like(source[:, :1])
        changed = self._changed(source)
        grain = self.config.loss.temporal_noise
        following, mask = change.next_frame(source[:changed], noise[:changed], grain)
        frames = torch.cat([torch.cat([source, noise], dim=1), following])
        fake, again = network(frames).split([len(source), changed])
        return fake, again, mask

    @staticmethod
    def _changed(images: Tensor) -> int:
        """How many of a batch's images are shown once more; which ones is chance, as all of a batch is."""
        return max(1, round(CHANGED * len(images)))

    def _features(self, *batches: Tensor) -> list[Sequence[Tensor]]:
        """Pretrained features of the result, with its graph, and of what is shown and of targets, without."""
        loss, (fake, *others) = self.config.loss, batches
        if loss.projected <= 0 and loss.content <= 0:
            return [[] for _ in batches]
        levels = 4 if loss.projected > 0 else CONTENT_LEVELS
        found = self.pretrained.features(fake, levels)
        with torch.no_grad():
            both = [level.chunk(2) for level in self.pretrained.features(torch.cat(others), levels)]
        return [found, [first for first, _ in both], [second for _, second in both]]

    def _discriminator_losses(
        self, real: Tensor, fake: Tensor, of_real: Sequence[Tensor], of_fake: Sequence[Tensor]
    ) -> Losses:
        losses: Losses = {}
        if "disc" in self.networks:
            losses |= self._disc_loss("disc", real, fake, augmented=True)
        if "disc_projected" in self.networks:
            joined = [torch.cat([r, f]) for r, f in zip(of_real, of_fake, strict=True)]
            losses["projected_disc"] = hinge_of_halves(self.networks["disc_projected"](joined))
        return losses

    def _generator_losses(
        self,
        wanted: Tensor,
        fake: Tensor,
        seen: Tensor,
        of_fake: Sequence[Tensor],
        of_shown: Sequence[Tensor],
    ) -> Losses:
        loss, losses = self.config.loss, Losses()
        if "disc" in self.networks:
            logits = self.networks["disc"](seen)
            losses["gan"] = loss.lambda_gan * gan_loss(logits, True, loss.gan, for_generator=True)
        if "disc_projected" in self.networks:
            logits = self.networks["disc_projected"](of_fake)
            losses["projected"] = loss.projected * gan_loss(logits, True, "hinge", for_generator=True)
        if loss.content > 0:
            content = normalised_features_l1(of_fake[CONTENT], of_shown[CONTENT])
            losses["content"] = loss.content * content
        if loss.colour > 0:
            losses["colour"] = loss.colour * colour_loss(fake, wanted)
        if loss.tint > 0:
            losses["tint"] = loss.tint * tint_loss(fake, wanted)
        return losses

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"colours": self.colours.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.colours.load_state_dict(state["colours"], self.device)
