"""Distillation: a small generator learns from a large one (OMGD, Ren et al. 2021; DCD, Li et al. 2020)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cgconvert.engines.keys import weights_sha256
from cgconvert.errors import UsageError
from cgconvert.models.loading import Model, load_model
from trainer.compute.precision import Precision
from trainer.config import Config, config_from_checkpoint
from trainer.data.batches import Batch
from trainer.losses.adversarial import gan_loss
from trainer.losses.features import by_scale, gram, logits_of, relative_l1
from trainer.losses.reconstruction import l1, total_variation
from trainer.losses.ssim import ssim_map
from trainer.methods.base import DISCRIMINATORS, GENERATORS, Losses
from trainer.methods.cyclegan import CycleGan
from trainer.methods.oneway import OneWay, direction
from trainer.networks.building import generator_card, new_discriminator, new_generator, new_projected
from trainer.networks.taps import Taps
from trainer.storage.checkpoint import load_checkpoint


class Distill(OneWay):
    """The generator is the student; the discriminator `disc` judges it and gives features to compare it in.

    The teacher is a model file, or a training run of CycleGAN whose discriminator is the start of `disc`.
    Without such a run the features are the teacher's own inner layers, and `disc` starts fresh. With
    `distill.online` the teacher's run goes on learning, one step before each of the student's.
    """

    def __init__(self, config: Config, precision: Precision, distributed: bool = False) -> None:
        """Raises `UsageError`, `ModelError` for networks or a teacher that the config describes wrongly."""
        name = self.main_generator(config)
        self._teacher_run = _load_teacher_run(config, precision)
        if config.distill.online and self._teacher_run is None:
            raise UsageError("distill.online needs distill.checkpoint, the training run that goes on")
        if config.distill.online and distributed:
            raise UsageError("distill.online needs a single process: each would have a teacher of its own")
        if self._teacher_run is not None:
            self.teacher = self._teacher_run.averaged(name)
            # The student's discriminator starts as the run's, so it is built as that was.
            built = self._teacher_run.config.network
            keys = ("discriminator", "ndf", "disc_layers", "disc_norm", "disc_scales")
            config = config.with_changes({f"network.{key}": getattr(built, key) for key in keys})
        else:
            self.teacher = _load_teacher(config, precision)
        # The state of a run includes a teacher that learns on. Any other teacher must stay as it is.
        self._teacher_sha256 = "" if config.distill.online else weights_sha256(self.teacher.generator)
        networks = {name: new_generator(config, name)}
        networks["disc"] = new_discriminator(config, generator_card(config, name).out_channels)
        if config.loss.projected > 0:
            networks["disc_projected"] = new_projected(config)
        self._taps: Taps | None = None
        if self._teacher_run is None:
            self._taps = Taps(self.teacher.generator)
        else:
            judge = self._teacher_run.networks[f"disc_{direction(config)[1]}"]
            networks["disc"].load_state_dict(judge.state_dict())
        phases = {
            GENERATORS: ((name,), networks[name].__call__),
            DISCRIMINATORS: ([key for key in networks if key.startswith("disc")], self._discriminator_losses),
        }
        super().__init__(config, precision, distributed, networks, phases)

    def train_step(self, batch: Batch) -> Losses:
        from_teacher: Losses = {}
        if self._teacher_run is not None and self.config.distill.online:
            student_rate = self.optimizers[GENERATORS].param_groups[0]["lr"]
            self._teacher_run.set_rate(student_rate / self.config.optimizer.lr)
            learned = self._teacher_run.train_step(batch)
            from_teacher = {f"teacher_{name}": value for name, value in learned.items()}
        source, target = self.images(batch[self.source]), self.images(batch[self.target])
        judges = [network for name, network in self.networks.items() if name.startswith("disc")]
        # Both are given the same noise, so that the student can learn where the teacher's strokes begin.
        of_teacher, own = self.teacher.card.noise_channels, self.config.network.noise
        noise = self._noise(source, max(of_teacher, own)) if max(of_teacher, own) else None
        with torch.no_grad(), self.precision.autocast():
            wanted = self.teacher.generator(beside(source, noise, of_teacher))
        # The student: the gradient passes through the discriminators, which do not learn from it.
        for judge in judges:
            judge.requires_grad_(False)
        with self.precision.autocast():
            fake = self.phases[GENERATORS](beside(source, noise, own))
            losses = self._student_losses(source, fake, wanted, noise)
        self._lower(GENERATORS, losses)
        for judge in judges:
            judge.requires_grad_(True)
        with self.precision.autocast():
            judged = self.phases[DISCRIMINATORS](target, fake.detach())
        self._lower(DISCRIMINATORS, judged)
        self._end_step(batch)
        return from_teacher | {name: value.detach() for name, value in (losses | judged).items()}

    def _student_losses(self, source: Tensor, fake: Tensor, wanted: Tensor, noise: Tensor | None) -> Losses:
        """The losses of the student's result `fake` of `source`, of which the teacher's is `wanted`.

        `noise` went in beside the source, in as many of its channels as either of them takes. The teacher's
        inner layers look at results as at pictures, and are given it there too.
        """
        settings, loss = self.config.distill, self.config.loss
        of_teacher, own = self.teacher.card.noise_channels, self.config.network.noise
        disc: Any = self.networks["disc"]
        on_fake = disc.features(fake)
        judgement = gan_loss(logits_of(on_fake), True, loss.gan, for_generator=True)
        losses: Losses = {"gan": loss.lambda_gan * judgement}
        if loss.projected > 0:
            losses["projected"] = self._projected_loss("disc_projected", fake)
        losses["l1"] = settings.lambda_l1 * l1(fake, wanted)
        losses["ssim"] = settings.lambda_ssim * (1 - ssim_map(fake, wanted, 2.0).mean())
        if self._taps is None:
            ours = on_fake
            with torch.no_grad():
                theirs = disc.features(wanted)
        else:
            ours = self._taps.encode(beside(fake, noise, of_teacher))
            with torch.no_grad():
                theirs = self._taps.encode(beside(wanted, noise, of_teacher))
        losses["features"] = settings.lambda_features * relative_l1(ours, theirs)
        if settings.lambda_gram > 0:
            grams = [[[gram(f) for f in scale] for scale in by_scale(part)] for part in (ours, theirs)]
            losses["gram"] = settings.lambda_gram * relative_l1(grams[0], grams[1])
        if settings.lambda_tv > 0:
            losses["tv"] = settings.lambda_tv * total_variation(fake)
        seen = noise[:, :own] if noise is not None and own else None
        temporal = self._temporal(self.main, source, fake, seen)
        if temporal is not None:
            losses["temporal"] = temporal
        return losses

    def _discriminator_losses(self, real: Tensor, fake: Tensor) -> Losses:
        losses = self._disc_loss("disc", real, fake)
        if self.config.loss.projected > 0:
            losses["projected_disc"] = self._projected_disc_loss("disc_projected", real, fake)
        return losses

    def teacher_of(self, name: str) -> Model:
        return self.teacher

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict() | {"teacher_sha256": self._teacher_sha256}
        if self._teacher_run is not None and self.config.distill.online:
            state["master"] = self._teacher_run.state_dict()  # the key of all checkpoints so far
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises `UsageError` where the teacher is not the one that the state was learned from."""
        known = state.get("teacher_sha256", "")
        if known and self._teacher_sha256 and known != self._teacher_sha256:
            where = self.config.distill.checkpoint or self.config.distill.teacher
            raise UsageError(
                f"{where}: is no longer the teacher that this run began with "
                f"(SHA-256 of its weights {self._teacher_sha256[:12]}, was {known[:12]}); "
                "put that one back, or start a new run"
            )
        super().load_state_dict(state)
        if "master" in state and self._teacher_run is not None:
            self._teacher_run.load_state_dict(state["master"])


def beside(images: Tensor, noise: Tensor | None, channels: int) -> Tensor:
    """Images NCHW with the first `channels` of the noise, as a generator takes them."""
    return images if noise is None or channels == 0 else torch.cat([images, noise[:, :channels]], dim=1)


def _load_teacher_run(config: Config, precision: Precision) -> CycleGan | None:
    """The training run that the teacher comes from, or None where a model file is the teacher."""
    where = config.distill.checkpoint
    if not where:
        return None
    path = Path(where)
    state = load_checkpoint(path / "checkpoint.pt" if path.is_dir() else path)
    settings = config_from_checkpoint(state, where)
    if settings.run.method != "cyclegan" or settings.loss.ablation == "cycle-alone":
        raise UsageError(f"{where}: a teacher's run must be of cyclegan with discriminators")
    run = CycleGan(settings, precision)
    run.load_state_dict(state["method"])
    return run


def _load_teacher(config: Config, precision: Precision) -> Model:
    """The teacher's model file on the device, in the precision's type."""
    if not config.distill.teacher:
        raise UsageError("distillation needs a teacher: set distill.teacher or distill.checkpoint")
    model = load_model(config.distill.teacher)
    model.generator.to(precision.device, precision.dtype)
    return model
