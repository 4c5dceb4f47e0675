"""Distillation: a small generator learns from a large one (OMGD, Ren et al. 2021; DCD, Li et al. 2020)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cgconvert.engines.keys import weights_sha256
from cgconvert.errors import UsageError
from cgconvert.models.loading import load_model
from trainer.compute.precision import Precision
from trainer.config import Config, config_from_checkpoint
from trainer.data.batches import Batch
from trainer.losses.adversarial import gan_loss
from trainer.losses.features import by_scale, gram, relative_l1
from trainer.losses.reconstruction import l1, total_variation
from trainer.losses.ssim import ssim_map
from trainer.methods.base import Losses
from trainer.methods.cyclegan import CycleGan
from trainer.methods.oneway import OneWay
from trainer.networks.taps import Taps
from trainer.storage.checkpoint import load_checkpoint


class Distill(OneWay):
    """`gen_ab` (or `gen_ba`) is the student; `disc` judges it and gives the features it is compared in.

    The teacher is a model file, or a training run of CycleGAN whose discriminator is the start of `disc`.
    Without such a run the features are the teacher's own inner layers, and `disc` starts fresh. With
    `distill.online` the teacher's run goes on learning, one step before each of the student's.
    """

    def __init__(self, config: Config, precision: Precision, distributed: bool = False) -> None:
        super().__init__(config, precision, distributed)
        self._master = self._load_master()
        if config.distill.online and self._master is None:
            raise UsageError("distill.online needs distill.checkpoint, the training run that goes on")
        if config.distill.online and distributed:
            raise UsageError("distill.online needs a single process: each would have a teacher of its own")
        self.teacher = self._load_teacher()
        # One that learns on is part of this run's state; any other must stay as it is.
        self._teacher_sha256 = "" if config.distill.online else weights_sha256(self.teacher)
        self._add_configured_generator()
        if self._master is not None:
            settings = self._master.config.network
            self.config = config.with_changes(
                {
                    f"network.{key}": getattr(settings, key)
                    for key in ("discriminator", "ndf", "disc_layers", "disc_norm", "disc_scales")
                }
            )
        self._add_discriminator("disc", self.out_channels)
        if self._master is not None:
            self.networks["disc"].load_state_dict(self._master.networks[f"disc_{self.target}"].state_dict())
        self._taps = None if self._master is not None else Taps(self.teacher)
        gen = self.networks[self.name]
        self._finish(
            {
                "generators": ([self.name], gen.__call__),
                "discriminators": (["disc"], self._discriminator_losses),
            }
        )

    def _load_master(self) -> CycleGan | None:
        where = self.config.distill.checkpoint
        if not where:
            return None
        path = Path(where)
        state = load_checkpoint(path / "checkpoint.pt" if path.is_dir() else path)
        settings = config_from_checkpoint(state, where)
        if settings.run.method != "cyclegan" or settings.loss.ablation == "cycle-alone":
            raise UsageError(f"{where}: a teacher's run must be of cyclegan with discriminators")
        master = CycleGan(settings, self.precision)
        master.load_state_dict(state["method"])
        return master

    def _load_teacher(self) -> nn.Module:
        if self._master is not None:
            return self._master.ema.generators[self.name]
        if not self.config.distill.teacher:
            raise UsageError("distillation needs a teacher: set distill.teacher or distill.checkpoint")
        return load_model(self.config.distill.teacher).generator.to(self.device, self.precision.dtype)

    def train_step(self, batch: Batch) -> Losses:
        """One step, as described above the class; {"a", "b"} as in `Method.train_step`."""
        losses: Losses = {}
        if self._master is not None and self.config.distill.online:
            self._master.set_rate(
                self.optimizers["generators"].param_groups[0]["lr"] / self.config.optimizer.lr
            )
            own = self._master.train_step(batch)
            losses |= {f"teacher_{name}": value for name, value in own.items()}
        source, target = self.images(batch[self.source]), self.images(batch[self.target])
        disc = self.networks["disc"]
        with torch.no_grad(), self.precision.autocast():
            wanted = self.teacher(source)
        disc.requires_grad_(False)
        with self.precision.autocast():
            asked = self._student_losses(source, wanted)
        fake = asked.pop("output")
        self._lower("generators", asked)
        disc.requires_grad_(True)
        with self.precision.autocast():
            judged = self.phases["discriminators"](target, fake.detach().to(target.dtype))
        self._lower("discriminators", judged)
        self._end_step(batch)
        return losses | {name: value.detach() for name, value in (asked | judged).items()}

    def _student_losses(self, source: Tensor, wanted: Tensor) -> Losses:
        """The student's losses, and under "output" its result."""
        settings, loss = self.config.distill, self.config.loss
        fake = self.phases["generators"](source)
        disc = self.networks["disc"]
        on_fake = disc.features(fake)  # type: ignore[operator]
        logits = [part[-1] for part in by_scale(on_fake)]
        losses: Losses = {"gan": loss.lambda_gan * gan_loss(logits, True, loss.gan, for_generator=True)}
        losses["l1"] = settings.lambda_l1 * l1(fake, wanted)
        losses["ssim"] = settings.lambda_ssim * (1 - ssim_map(fake, wanted, 2.0).mean())
        with torch.no_grad():
            judged = disc.features(wanted) if self._taps is None else self._taps.encode(wanted)  # type: ignore[operator]
        ours = on_fake if self._taps is None else self._taps.encode(fake)
        losses["features"] = settings.lambda_features * relative_l1(ours, judged)
        if settings.lambda_gram > 0:
            grams = [[[gram(f) for f in scale] for scale in by_scale(part)] for part in (ours, judged)]
            losses["gram"] = settings.lambda_gram * relative_l1(grams[0], grams[1])
        if settings.lambda_tv > 0:
            losses["tv"] = settings.lambda_tv * total_variation(fake)
        return losses | self._steadiness(source, fake) | {"output": fake}

    def teacher_of(self, name: str) -> nn.Module:
        return self.teacher

    def _discriminator_losses(self, real: Tensor, fake: Tensor) -> Losses:
        return self._disc_loss("disc", real, fake)

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        if self._master is not None and self.config.distill.online:
            state["master"] = self._master.state_dict()
        return state | {"teacher_sha256": self._teacher_sha256}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        known = state.get("teacher_sha256", "")
        if known and self._teacher_sha256 and known != self._teacher_sha256:
            where = self.config.distill.checkpoint or self.config.distill.teacher
            raise UsageError(
                f"{where}: is no longer the teacher that this run began with "
                f"(SHA-256 of its weights {self._teacher_sha256[:12]}, was {known[:12]}); "
                "put that one back, or start a new run"
            )
        super().load_state_dict(state)
        if "master" in state and self._master is not None:
            self._master.load_state_dict(state["master"])
