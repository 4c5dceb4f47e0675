"""What every method of training has: networks, optimizers, phases, averages, and a state to keep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cgconvert.card import ModelCard
from cgconvert.models.loading import Model
from cgconvert.tensors.images import scaled_to_images
from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.data.augment import MULTIPLE
from trainer.data.batches import Batch
from trainer.losses.adversarial import gan_loss, hinge_of_halves, r1_penalty
from trainer.losses.temporal import draw_change, masked_l1, next_frame
from trainer.methods.image_pool import ImagePool
from trainer.networks.building import generator_card
from trainer.networks.compiling import compile_verified
from trainer.networks.diffaugment import diff_augment
from trainer.networks.discriminators import Logits
from trainer.networks.efficientnet import EfficientNetLite0, load_efficientnet
from trainer.networks.ema import Ema
from trainer.networks.joining import mixes_images, split_logits

Losses = dict[str, Tensor]
"""Scalar losses by their names in the log."""

GENERATORS, DISCRIMINATORS = "generators", "discriminators"
"""The phases of a step, by which optimizers are kept in checkpoints."""


class Phase(nn.Module):
    """One forward pass whose losses one optimizer lowers; what DistributedDataParallel wraps.

    `networks` are those that learn in it. A method's forward goes through several networks, some of them
    more than once, but a wrapped module may run only once before its backward. So all of it is one module.
    """

    def __init__(self, networks: Sequence[nn.Module], compute: Callable[..., Any]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self._compute = compute

    def forward(self, *inputs: Any) -> Any:
        return self._compute(*inputs)


class Method(ABC):
    """Owns networks and optimizers, and learns from batches.

    `networks` are all that learn, by the names that checkpoints know them by. Those whose names begin with
    `gen_` are generators: `ema` averages them, `cards` describes them, and they are shown, measured and
    exported. `main` names the generator that the training is for.
    """

    def __init__(
        self,
        config: Config,
        precision: Precision,
        distributed: bool,
        networks: Mapping[str, nn.Module],
        phases: Mapping[str, tuple[Sequence[str], Callable[..., Any]]],
        pools: Sequence[str] = (),
        hooked: Collection[str] = (),
        averaged: Sequence[str] = (),
    ) -> None:
        """Place the networks on the device and make all that goes with them.

        `phases` gives, by `GENERATORS` and `DISCRIMINATORS`, the names of the networks that learn in a phase
        and the forward pass that gives its losses. `pools` are the domains whose earlier fakes are kept.
        `hooked` names the networks whose inner layers are read by hooks, `averaged` those that are averaged
        and shown beside the generators `gen_...`.
        """
        self.config = config
        self.precision = precision
        self.distributed = distributed
        self.device = precision.device
        self.step = 0
        self.images_seen = 0
        self.main = self.main_generator(config)
        self.networks = dict(networks)
        self.cards: dict[str, ModelCard] = {
            name: generator_card(config, name) for name in networks if name.startswith("gen_")
        }
        # Pictures whose edges are multiples of this suit every generator here.
        self.multiple = max([MULTIPLE, *(card.size_multiple for card in self.cards.values())])
        # Not on the CPU: there the backward pass of normalisations is many times slower in that format.
        self._channels_last = config.run.channels_last and self.device.type == "cuda"
        for network in self.networks.values():
            network.to(self.device, precision.dtype)
            if self._channels_last:
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        shown = [*self.cards, *averaged]
        self.ema = Ema({name: self.networks[name] for name in shown}, config.network.ema)
        if config.run.compile:
            self._compile(hooked)
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.phases: dict[str, nn.Module] = {}
        for phase, (names, compute) in phases.items():
            learning = [self.networks[name] for name in names]
            self.optimizers[phase] = self._optimizer(phase, learning)
            module: nn.Module = Phase(learning, compute)
            if distributed:
                module = nn.parallel.DistributedDataParallel(
                    module, broadcast_buffers=False, find_unused_parameters=False
                )
            self.phases[phase] = module
        # Each process keeps other fakes, since it sees other pictures.
        rank = torch.distributed.get_rank() if distributed else 0
        first = config.run.seed * 1000 + len(pools) * rank
        self.pools = {
            domain: ImagePool(config.loss.pool, seed=first + index) for index, domain in enumerate(pools)
        }
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=precision.name == "fp16")
        self._norms_frozen = False

    # What a method defines

    @classmethod
    @abstractmethod
    def main_generator(cls, config: Config) -> str:
        """The name of the generator that a training with this config is for."""

    @abstractmethod
    def train_step(self, batch: Batch) -> Losses:
        """Learn from {"a", "b"}: uint8 or float NCHW of equal batch (a gan from "b" and its labels).

        Returns all losses, detached, as they were before the step.
        """

    def back(self, name: str) -> Model | None:
        """The averaged generator that leads back from a generator's result, where the method has one."""
        return None

    def teacher_of(self, name: str) -> Model | None:
        """The model whose results a generator should give, where the method has one."""
        return None

    # Building

    def _compile(self, hooked: Collection[str]) -> None:
        """Compile every network that sees images, each compared with itself uncompiled.

        A compiled network passes by hooks that were added since, or gives what they found in an earlier pass.
        So the hooked ones stay as they are.
        """
        edge, count = self.config.data.crop_size, max(self.config.run.batch, 2)
        for name, network in self.networks.items():
            convolution = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
            if name in hooked or convolution is None:
                continue
            channels = self.cards[name].network_channels if name in self.cards else convolution.in_channels
            random = torch.Generator().manual_seed(0)
            images = torch.rand(count, channels, edge, edge, generator=random) * 2 - 1
            compile_verified(name, network, self.images(images), self.precision)

    def _optimizer(self, phase: str, networks: list[nn.Module]) -> torch.optim.Optimizer:
        settings = self.config.optimizer
        rate = settings.disc_lr if phase == DISCRIMINATORS and settings.disc_lr else settings.lr
        parameters = [p for network in networks for p in network.parameters()]
        betas = (settings.beta1, settings.beta2)
        optimizer = torch.optim.Adam(parameters, lr=rate, betas=betas, fused=True)
        for group in optimizer.param_groups:
            group["initial_lr"] = rate
        return optimizer

    # Working

    def averaged(self, name: str) -> Model:
        """The average of a generator, as a model that converts pictures."""
        return Model(self.cards[name], self.ema.generators[name])

    def images(self, pixels: Tensor) -> Tensor:
        """uint8 or float NCHW as images in [-1, 1], on the device and in the precision's type.

        uint8 is scaled from [0, 255]. Float values are images already and stay as they are.
        """
        pixels = pixels.to(self.device, non_blocking=True)
        dtype = self.precision.dtype
        images = scaled_to_images(pixels, 255, dtype) if pixels.dtype == torch.uint8 else pixels.to(dtype)
        if self._channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return images

    def set_progress(self, progress: float) -> None:
        """Called before a step with how far the training is, from 0 to 1."""
        if progress >= self.config.network.norm_frozen and not self._norms_frozen:
            self._freeze_norms()

    def _freeze_norms(self) -> None:
        """From here on generators' batch norms use the statistics they have, as they will when exported.

        All processes use those of the first one, which are what checkpoints keep.
        """
        self._norms_frozen = True
        for name in self.cards:
            for module in self.networks[name].modules():
                if not isinstance(module, nn.BatchNorm2d):
                    continue
                module.eval()
                for statistics in module.buffers() if self.distributed else ():
                    torch.distributed.broadcast(statistics, src=0)

    def set_rate(self, factor: float) -> None:
        """Set every learning rate to `factor` of its start."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor

    def _lower(self, phase: str, losses: Losses) -> None:
        """One step of a phase's optimizer down the sum of `losses`."""
        optimizer = self.optimizers[phase]
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(total).backward()
        self._scaler.step(optimizer)

    def _end_step(self, batch: Batch) -> None:
        self._scaler.update()
        self.ema.update()
        self.step += 1
        world = torch.distributed.get_world_size() if self.distributed else 1
        self.images_seen += len(next(iter(batch.values()))) * world

    def _augmented(self, images: Tensor) -> Tensor:
        """Images as a discriminator is shown them."""
        return diff_augment(images, self.config.loss.diffaugment)

    def _disc_loss(self, name: str, real: Tensor, fake: Tensor, augmented: bool = False) -> Losses:
        """A discriminator's loss, the mean of real and fake, and every `r1_every` steps the R1 penalty.

        Images that are `augmented` already are not augmented again. Real and fake go through in one pass,
        unless a batch norm would mix them.
        """
        disc, loss = self.networks[name], self.config.loss
        fake = fake.to(real.dtype)  # half precision under autocast
        shown = (lambda images: images) if augmented else self._augmented
        if mixes_images(disc) or real.shape != fake.shape:
            on_real, on_fake = disc(shown(real)), disc(shown(fake))
        else:
            on_real, on_fake = split_logits(disc(shown(torch.cat([real, fake]))))
        value = 0.5 * (gan_loss(on_real, True, loss.gan) + gan_loss(on_fake, False, loss.gan))
        losses = {name: value}
        if self._penalised():
            images = real.detach().requires_grad_(True)
            losses[f"r1_{name.removeprefix('disc_')}"] = self._penalty(disc(images), images)
        return losses

    @property
    def pretrained(self) -> EfficientNetLite0:
        """The network whose features projected discriminators and content losses look at."""
        return load_efficientnet(self.device, self.precision.dtype)

    def _projected_loss(self, name: str, fake: Tensor) -> Tensor:
        """A generator's weighted loss: a projected discriminator's hinge loss for its results."""
        features = self.pretrained.features(self._augmented(fake.to(self.precision.dtype)))
        logits = self.networks[name](features)
        return self.config.loss.projected * gan_loss(logits, True, "hinge", for_generator=True)

    def _projected_disc_loss(self, name: str, real: Tensor, fake: Tensor) -> Tensor:
        """A projected discriminator's hinge loss for real and fake images, which go through in one pass."""
        with torch.no_grad():
            features = self.pretrained.features(self._augmented(torch.cat([real, fake.to(real.dtype)])))
        return hinge_of_halves(self.networks[name](features))

    def _penalised(self) -> bool:
        """Whether this step has the R1 penalty."""
        return self.config.loss.r1 > 0 and self.step % self.config.loss.r1_every == 0

    def _penalty(self, logits: Logits, images: Tensor) -> Tensor:
        """The weighted R1 penalty; given more rarely, it is as much heavier (Karras et al. 2020)."""
        return self.config.loss.r1 * self.config.loss.r1_every * r1_penalty(logits, images)

    def _temporal(
        self, name: str, images: Tensor, results: Tensor, noise: Tensor | None = None
    ) -> Tensor | None:
        """The weighted temporal loss of a generator that has made `results` of `images`; None without weight.

        It costs one more pass of the generator. With `noise`, which it was given beside the images, the next
        frame has that moved along, and may be lit otherwise.
        """
        weight = self._temporal_weight()
        if weight <= 0:
            return None
        if noise is not None:
            change = draw_change(images)
            following, mask = change.next_frame(images, noise, self.config.loss.temporal_noise)
            wanted = change.wanted(results)
        else:
            following, wanted, mask = next_frame(images, results, self.config.loss.temporal_noise)
        return weight * masked_l1(self.networks[name](following), wanted, mask)

    def _temporal_weight(self) -> float:
        """The temporal loss's weight now, which may grow from 0."""
        weight, over = self.config.loss.temporal, self.config.loss.temporal_ramp
        return weight * min(self.images_seen / over, 1.0) if over else weight

    # Keeping

    def state_dict(self) -> dict[str, Any]:
        """All that `train_step` depends on, except for the global random numbers and the batches."""
        return {
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "ema": self.ema.state_dict(),
            "scaler": self._scaler.state_dict(),
            "pools": {name: pool.state_dict() for name, pool in self.pools.items()},
            "step": self.step,
            "images_seen": self.images_seen,
            "norms_frozen": self._norms_frozen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state. Learning rates start from the config's, which may have been changed since."""
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        for name, optimizer in self.optimizers.items():
            rates = [group["initial_lr"] for group in optimizer.param_groups]
            optimizer.load_state_dict(state["optimizers"][name])
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["initial_lr"] = rate
        self.ema.load_state_dict(state["ema"])
        self._scaler.load_state_dict(state["scaler"])
        for name, pool in self.pools.items():
            pool.load_state_dict(state["pools"][name], self.device)
        self.step, self.images_seen = int(state["step"]), int(state["images_seen"])
        if state.get("norms_frozen"):
            self._freeze_norms()
