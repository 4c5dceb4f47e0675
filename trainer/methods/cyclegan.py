"""CycleGAN (Zhu, Park, Isola, Efros 2017): two domains without pairs, two generators, two discriminators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cgconvert.errors import UsageError
from cgconvert.models.loading import Model
from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.data.batches import Batch
from trainer.losses.adversarial import gan_loss
from trainer.losses.features import logits_of, mean_matching_loss
from trainer.losses.reconstruction import colour_loss, l1
from trainer.methods.base import DISCRIMINATORS, GENERATORS, Losses, Method
from trainer.methods.domain_colours import DomainColours
from trainer.networks.building import new_discriminator, new_generator, new_projected
from trainer.networks.discriminators import Logits
from trainer.networks.joining import forward_joined, mixes_images

Pair = tuple[Tensor, Tensor]
OptionalPair = tuple[Tensor | None, Tensor | None]


class CycleGan(Method):
    """Two generators turn each domain into the other; two discriminators judge a domain each.

    The step is the published one: the generators first, with the discriminators fixed, then both
    discriminators on the fakes of that same pass. Losses are named by what they ask: `gan_ab` that
    `generator_ab`'s results pass in B, `cycle_a` that A -> B -> A returns, `identity_b` that
    `generator_ab` leaves pictures of B alone.
    """

    def __init__(self, config: Config, precision: Precision, distributed: bool = False) -> None:
        """Raises `UsageError`, `ModelError` for networks that the config describes wrongly."""
        loss = config.loss
        networks = {name: new_generator(config, name) for name in ("gen_ab", "gen_ba")}
        channels_a = int(config.network.arguments.get("in_channels", 3))
        channels_b = int(config.network.arguments.get("out_channels", 3))
        phases: dict[str, Any] = {GENERATORS: (("gen_ab", "gen_ba"), self._generator_losses)}
        self._judged = loss.ablation != "cycle-alone"
        if self._judged:
            networks["disc_a"] = new_discriminator(config, channels_a)
            networks["disc_b"] = new_discriminator(config, channels_b)
            if loss.projected > 0:
                networks["disc_projected_a"] = new_projected(config)
                networks["disc_projected_b"] = new_projected(config)
            judges = [name for name in networks if name.startswith("disc_")]
            phases[DISCRIMINATORS] = (judges, self._discriminator_losses)
        if channels_a != channels_b:
            raise UsageError("cyclegan needs as many channels in A as in B: pictures are read as RGB")
        self.lambda_a = 0.0 if loss.ablation in ("gan-alone", "gan-backward") else loss.lambda_a
        self.lambda_b = 0.0 if loss.ablation in ("gan-alone", "gan-forward") else loss.lambda_b
        # The paper's other conditions are about adversarial and cycle losses alone.
        self.lambda_identity = loss.lambda_identity if loss.ablation == "full" else 0.0
        self.colours = DomainColours()
        super().__init__(config, precision, distributed, networks, phases, pools=("a", "b"))

    @classmethod
    def main_generator(cls, config: Config) -> str:
        """`gen_ba`: `network.generator` is its architecture, and A is the domain of the look."""
        return "gen_ba"

    @property
    def generator_ab(self) -> nn.Module:
        return self.networks["gen_ab"]

    @property
    def generator_ba(self) -> nn.Module:
        return self.networks["gen_ba"]

    def train_step(self, batch: Batch) -> Losses:
        a, b = self.images(batch["a"]), self.images(batch["b"])
        if self.config.loss.colour > 0:
            self.colours.update("a", a, self.distributed)
            self.colours.update("b", b, self.distributed)
        discriminators = [network for name, network in self.networks.items() if name.startswith("disc_")]
        # The generators: the gradient passes through the discriminators, which do not learn from it.
        for disc in discriminators:
            disc.requires_grad_(False)
        with self.precision.autocast():
            losses, fake_a, fake_b = self.phases[GENERATORS](a, b)
        self._lower(GENERATORS, losses)
        # The discriminators, on the fakes of this pass or on earlier ones that the pools have kept.
        if self._judged:
            for disc in discriminators:
                disc.requires_grad_(True)
            fake_a, fake_b = self.pools["a"].query(fake_a), self.pools["b"].query(fake_b)
            with self.precision.autocast():
                judged = self.phases[DISCRIMINATORS](a, b, fake_a, fake_b)
            self._lower(DISCRIMINATORS, judged)
            losses |= judged
        self._end_step(batch)
        return {name: value.detach() for name, value in losses.items()}

    def _generator_losses(self, a: Tensor, b: Tensor) -> tuple[Losses, Tensor, Tensor]:
        """The generators' losses, and their results in A and in B, detached."""
        loss = self.config.loss
        (fake_a, fake_b), (back_a, back_b), (same_a, same_b) = self._passes(a, b)
        losses: Losses = {}
        if self._judged:
            for way, disc, fake, real in (("ab", "disc_b", fake_b, b), ("ba", "disc_a", fake_a, a)):
                logits, matching = self._opinion(self.networks[disc], fake, real)
                losses[f"gan_{way}"] = loss.lambda_gan * gan_loss(logits, True, loss.gan, for_generator=True)
                if matching is not None:
                    losses[f"features_{way}"] = loss.feature_matching * matching
                if loss.projected > 0:
                    losses[f"projected_{way}"] = self._projected_loss(f"disc_projected_{way[1]}", fake)
        if back_a is not None:
            losses["cycle_a"] = self.lambda_a * l1(back_a, a)
        if back_b is not None:
            losses["cycle_b"] = self.lambda_b * l1(back_b, b)
        if same_a is not None and same_b is not None:
            # As published, lambda_b weighs the identity loss of generator_ab, which is about pictures of B.
            losses["identity_a"] = self.lambda_identity * loss.lambda_a * l1(same_a, a)
            losses["identity_b"] = self.lambda_identity * loss.lambda_b * l1(same_b, b)
        if loss.colour > 0:
            losses["colour_a"] = loss.colour * colour_loss(fake_a, self.colours.moved(b, "b", "a"))
            losses["colour_b"] = loss.colour * colour_loss(fake_b, self.colours.moved(a, "a", "b"))
        for domain, name, images, fake, other_way in (
            ("a", "gen_ba", b, fake_a, "a_to_b"),
            ("b", "gen_ab", a, fake_b, "b_to_a"),
        ):
            if loss.temporal_way == other_way:
                continue
            temporal = self._temporal(name, images, fake)
            if temporal is not None:
                losses[f"temporal_{domain}"] = temporal
        return losses, fake_a.detach(), fake_b.detach()

    def _passes(self, a: Tensor, b: Tensor) -> tuple[Pair, OptionalPair, OptionalPair]:
        """What both generators make of a batch: results, their ways back, and their own domain's pictures.

        Each pair is (in domain A, in domain B). What no loss asks for is None.
        """
        same, cycle_a, cycle_b = self.lambda_identity > 0, self.lambda_a > 0, self.lambda_b > 0
        if mixes_images(self.generator_ab) or mixes_images(self.generator_ba):
            # One by one and in the published order, which a batch norm's running statistics depend on.
            fake_b = self.generator_ab(a)
            back_a = self.generator_ba(fake_b) if cycle_a else None
            fake_a = self.generator_ba(b)
            back_b = self.generator_ab(fake_a) if cycle_b else None
            own = (self.generator_ba(a), self.generator_ab(b)) if same else (None, None)
            return (fake_a, fake_b), (back_a, back_b), own
        fake_b, same_b = forward_joined(self.generator_ab, a, b if same else None)
        fake_a, same_a = forward_joined(self.generator_ba, b, a if same else None)
        back_a = self.generator_ba(fake_b) if cycle_a else None
        back_b = self.generator_ab(fake_a) if cycle_b else None
        return (fake_a, fake_b), (back_a, back_b), (same_a, same_b)

    def _opinion(self, disc: nn.Module, fake: Tensor, real: Tensor) -> tuple[Logits, Tensor | None]:
        """A discriminator's logits of a fake, and the distance of its features from those of real pictures.

        Both come from one pass of the fake. Without feature matching the second is None.
        """
        if self.config.loss.feature_matching <= 0:
            return disc(self._augmented(fake)), None
        with torch.no_grad():
            wanted = disc.features(self._augmented(real))  # type: ignore[operator]
        found = disc.features(self._augmented(fake))  # type: ignore[operator]
        return logits_of(found), mean_matching_loss(found, wanted)

    def _discriminator_losses(self, a: Tensor, b: Tensor, fake_a: Tensor, fake_b: Tensor) -> Losses:
        losses = self._disc_loss("disc_a", a, fake_a) | self._disc_loss("disc_b", b, fake_b)
        if self.config.loss.projected > 0:
            losses["projected_disc_a"] = self._projected_disc_loss("disc_projected_a", a, fake_a)
            losses["projected_disc_b"] = self._projected_disc_loss("disc_projected_b", b, fake_b)
        return losses

    def back(self, name: str) -> Model:
        return self.averaged("gen_ba" if name == "gen_ab" else "gen_ab")

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"colours": self.colours.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        # Checkpoints from before there was the colour loss have no such state; it then starts afresh.
        if "colours" in state:
            self.colours.load_state_dict(state["colours"], self.device)
