"""CycleGAN (Zhu, Park, Isola, Efros 2017): two domains without pairs, two generators, two discriminators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cgconvert.errors import UsageError
from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.data.batches import Batch
from trainer.losses.adversarial import Logits, gan_loss
from trainer.losses.features import logits_of, mean_matching_loss
from trainer.losses.reconstruction import colour_loss, l1
from trainer.losses.temporal import temporal_loss
from trainer.methods.base import Losses, Method, forward_joined, mixes_images
from trainer.methods.domain_colours import DomainColours
from trainer.networks.diffaugment import diff_augment

Pair = tuple[Tensor, Tensor]
OptionalPair = tuple[Tensor | None, Tensor | None]


class CycleGan(Method):
    """gen_ab and gen_ba turn one domain into the other; disc_a and disc_b judge their own domain.

    The step is the published one: generators first, with the discriminators fixed, then both
    discriminators on the fakes of that same pass. Losses are named by what they ask: `gan_ab` that
    gen_ab's results pass in B, `cycle_a` that A -> B -> A returns, `identity_b` that gen_ab leaves B alone.
    """

    def __init__(self, config: Config, precision: Precision, distributed: bool = False) -> None:
        super().__init__(config, precision, distributed)
        net, loss = config.network, config.loss
        reverse = net.reverse_generator or net.generator
        reverse_arguments = net.reverse_arguments if net.reverse_generator else net.arguments
        self._add_generator("gen_ab", reverse, dict(reverse_arguments), ("a", "b"))
        self._add_generator("gen_ba", net.generator, dict(net.arguments), ("b", "a"))
        channels = {
            "a": int(net.arguments.get("in_channels", 3)),
            "b": int(net.arguments.get("out_channels", 3)),
        }
        self._judged = loss.ablation != "cycle-alone"
        if self._judged:
            for domain in ("a", "b"):
                self._add_discriminator(f"disc_{domain}", channels[domain])
        self.lambda_a = 0.0 if loss.ablation in ("gan-alone", "gan-backward") else loss.lambda_a
        self.lambda_b = 0.0 if loss.ablation in ("gan-alone", "gan-forward") else loss.lambda_b
        # The papers' conditions are about adversarial and cycle losses alone.
        self.lambda_identity = loss.lambda_identity if loss.ablation == "full" else 0.0
        # Not only the identity loss needs that, which feeds a generator its own target: so does the data.
        if channels["a"] != channels["b"]:
            raise UsageError("cyclegan needs as many channels in A as in B: pictures are read as RGB")
        self._add_pools(("a", "b"))
        self.colours = DomainColours()
        self._finish(
            {
                "generators": (["gen_ab", "gen_ba"], self._generator_losses),
                "discriminators": (["disc_a", "disc_b"] if self._judged else [], self._discriminator_losses),
            }
        )

    def train_step(self, batch: Batch) -> Losses:
        """One step, as described above the class; {"a", "b"} as in `Method.train_step`."""
        a, b = self.images(batch["a"]), self.images(batch["b"])
        if self.config.loss.colour > 0:
            self.colours.update("a", a, self.distributed)
            self.colours.update("b", b, self.distributed)
        for name in ("disc_a", "disc_b") if self._judged else ():
            self.networks[name].requires_grad_(False)
        with self.precision.autocast():
            losses, fake_a, fake_b = self.phases["generators"](a, b)
        self._lower("generators", losses)
        if self._judged:
            for name in ("disc_a", "disc_b"):
                self.networks[name].requires_grad_(True)
            fake_a, fake_b = self.pools["a"].query(fake_a), self.pools["b"].query(fake_b)
            with self.precision.autocast():
                judged = self.phases["discriminators"](a, b, fake_a, fake_b)
            self._lower("discriminators", judged)
            losses |= judged
        self._end_step(batch)
        return {name: value.detach() for name, value in losses.items()}

    def _generator_losses(self, a: Tensor, b: Tensor) -> tuple[Losses, Tensor, Tensor]:
        loss = self.config.loss
        gen_ab, gen_ba = self.networks["gen_ab"], self.networks["gen_ba"]
        (fake_a, fake_b), (back_a, back_b), (same_a, same_b) = self._passes(a, b)
        losses: Losses = {}
        if self._judged:
            for name, disc, fake, real in (("ab", "disc_b", fake_b, b), ("ba", "disc_a", fake_a, a)):
                logits, matching = self._opinion(self.networks[disc], fake, real)
                losses[f"gan_{name}"] = loss.lambda_gan * gan_loss(logits, True, loss.gan, for_generator=True)
                if matching is not None:
                    losses[f"features_{name}"] = loss.feature_matching * matching
        if back_a is not None:
            losses["cycle_a"] = self.lambda_a * l1(back_a, a)
        if back_b is not None:
            losses["cycle_b"] = self.lambda_b * l1(back_b, b)
        if same_a is not None and same_b is not None:
            # As published: gen_ab's identity is weighted by lambda_b, being about pictures of B.
            losses["identity_a"] = self.lambda_identity * loss.lambda_a * l1(same_a, a)
            losses["identity_b"] = self.lambda_identity * loss.lambda_b * l1(same_b, b)
        if loss.colour > 0:
            losses["colour_a"] = loss.colour * colour_loss(fake_a, self.colours.moved(b, "b", "a"))
            losses["colour_b"] = loss.colour * colour_loss(fake_b, self.colours.moved(a, "a", "b"))
        temporal = self._ramp(loss.temporal, loss.temporal_ramp)
        if temporal > 0:
            if loss.temporal_way != "a_to_b":
                losses["temporal_a"] = temporal * temporal_loss(gen_ba, b, fake_a, loss.temporal_noise)
            if loss.temporal_way != "b_to_a":
                losses["temporal_b"] = temporal * temporal_loss(gen_ab, a, fake_b, loss.temporal_noise)
        return losses, fake_a.detach(), fake_b.detach()

    def _passes(self, a: Tensor, b: Tensor) -> tuple[Pair, OptionalPair, OptionalPair]:
        """What both generators make of a batch: results, their ways back, and their own domain's pictures.

        Each pair is (of domain a, of domain b); what no loss asks for is None.
        """
        gen_ab, gen_ba = self.networks["gen_ab"], self.networks["gen_ba"]
        same, cycle_a, cycle_b = self.lambda_identity > 0, self.lambda_a > 0, self.lambda_b > 0
        back_a: Tensor | None = None
        back_b: Tensor | None = None
        if mixes_images(gen_ab) or mixes_images(gen_ba):
            # One by one and in the published order, which a batch norm's running statistics remember.
            fake_b = gen_ab(a)
            back_a = gen_ba(fake_b) if cycle_a else None
            fake_a = gen_ba(b)
            back_b = gen_ab(fake_a) if cycle_b else None
            own = (gen_ba(a), gen_ab(b)) if same else (None, None)
            return (fake_a, fake_b), (back_a, back_b), own
        fake_b, same_b = forward_joined(gen_ab, a, b if same else None)
        fake_a, same_a = forward_joined(gen_ba, b, a if same else None)
        back_a = gen_ba(fake_b) if cycle_a else None
        back_b = gen_ab(fake_a) if cycle_b else None
        return (fake_a, fake_b), (back_a, back_b), (same_a, same_b)

    def _opinion(self, disc: nn.Module, fake: Tensor, real: Tensor) -> tuple[Logits, Tensor | None]:
        """A discriminator's logits of a fake, and how far its features are from those of the real picture.

        Both come from one pass of the fake; without feature matching the second is None.
        """
        if self.config.loss.feature_matching <= 0:
            return self._judge(disc, fake), None
        with torch.no_grad():
            wanted = disc.features(diff_augment(real, self._augment))  # type: ignore[operator]
        found = disc.features(diff_augment(fake, self._augment))  # type: ignore[operator]
        return logits_of(found), mean_matching_loss(found, wanted)

    def _discriminator_losses(self, a: Tensor, b: Tensor, fake_a: Tensor, fake_b: Tensor) -> Losses:
        return self._disc_loss("disc_a", a, fake_a.to(a.dtype)) | self._disc_loss(
            "disc_b", b, fake_b.to(b.dtype)
        )

    def back(self, name: str) -> nn.Module:
        return self.ema.generators[{"gen_ab": "gen_ba", "gen_ba": "gen_ab"}[name]]

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"colours": self.colours.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        # Checkpoints from before there was this loss have none: they start afresh.
        if "colours" in state:
            self.colours.load_state_dict(state["colours"], self.device)
