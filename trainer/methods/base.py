"""What every method of training has: networks, optimizers, phases, averages, and a state to keep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cgconvert.errors import UsageError
from cgconvert.generators import build_generator
from cgconvert.generators.sizes import size_rule
from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.data.augment import MULTIPLE
from trainer.data.batches import Batch
from trainer.losses.adversarial import Logits, gan_loss, r1_penalty
from trainer.methods.image_pool import ImagePool
from trainer.networks.compiling import compile_verified
from trainer.networks.diffaugment import diff_augment
from trainer.networks.discriminators import build_discriminator, smallest_input
from trainer.networks.ema import Ema
from trainer.networks.initialization import init_weights

Losses = dict[str, Tensor]


class Phase(nn.Module):
    """One forward pass whose losses one optimizer lowers; what DistributedDataParallel wraps.

    `networks` are those that learn in it. A method's forward passes through several networks, some of
    them more than once, but a wrapped module allows one forward a backward: so all of it is one module.
    """

    def __init__(self, networks: Sequence[nn.Module], compute: Callable[..., Any]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self._compute = compute

    def forward(self, *inputs: Any) -> Any:
        return self._compute(*inputs)


class Method(ABC):
    """Owns networks and optimizers; `train_step` takes a batch and returns its losses, detached.

    `generators` names those that are averaged, shown and exported, with their source and target domain.
    """

    def __init__(self, config: Config, precision: Precision, distributed: bool = False) -> None:
        self.config = config
        self.precision = precision
        self.distributed = distributed
        self.device = precision.device
        self.networks: dict[str, nn.Module] = {}
        self._channels: dict[str, int] = {}
        self._tapped: set[str] = set()  # networks whose inner layers hooks read
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.generators: dict[str, tuple[str, str]] = {}
        self.pools: dict[str, ImagePool] = {}
        self.multiple = MULTIPLE  # of pixels, that every generator here accepts
        self.step = 0
        self.images_seen = 0
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=precision.name == "fp16")
        # Not on the CPU: there the backward pass of normalisations is many times slower in that format.
        self._channels_last = config.run.channels_last and self.device.type == "cuda"
        self._crops = config.data.preprocess not in ("none", "scale_width")
        self._augment = tuple(config.loss.diffaugment)
        self.ema: Ema

    # What a method defines -------------------------------------------------------------------------

    @abstractmethod
    def train_step(self, batch: Batch) -> Losses:
        """Learn from {"a", "b"}: uint8 or float NCHW of equal batch. Returns losses as they were before."""

    def back(self, name: str) -> nn.Module | None:
        """The averaged generator that leads back from a generator's result, where the method has one."""
        return None

    def teacher_of(self, name: str) -> nn.Module | None:
        """The network whose results a generator should give, where the method has one."""
        return None

    # Building --------------------------------------------------------------------------------------

    def _add_generator(
        self, name: str, architecture: str, arguments: dict[str, Any], way: tuple[str, str]
    ) -> None:
        network = build_generator(architecture, arguments)
        if not any(True for _ in network.parameters()):
            raise UsageError(f"generator {architecture!r} has nothing to learn; set network.generator")
        multiple, minimum = size_rule(architecture, arguments)
        crop = self.config.data.crop_size
        if self._crops and (crop % multiple or crop < minimum):
            raise UsageError(
                f"data.crop_size {crop} does not suit generator {architecture!r}: "
                f"it takes multiples of {multiple} from {minimum} on"
            )
        self.multiple = max(self.multiple, multiple)
        self._add_network(name, network)
        self._channels[name] = int(arguments.get("in_channels", 3))
        self.generators[name] = way

    def _add_discriminator(self, name: str, in_channels: int) -> None:
        net = self.config.network
        least = smallest_input(net.discriminator, net.disc_layers, net.disc_scales)
        if self._crops and self.config.data.crop_size < least:
            raise UsageError(
                f"data.crop_size {self.config.data.crop_size} is too small for the discriminator: with "
                f"network.disc_layers {net.disc_layers} and disc_scales {net.disc_scales} it needs {least}"
            )
        disc = build_discriminator(
            net.discriminator,
            in_channels,
            net.ndf,
            net.disc_layers,
            net.disc_norm,  # type: ignore[arg-type]
            net.disc_scales,
        )
        self._add_network(name, disc)
        self._channels[name] = in_channels

    def _add_network(self, name: str, network: nn.Module) -> None:
        init_weights(network, self.config.network.init, self.config.network.init_gain)
        network.to(self.device, self.precision.dtype)
        if self._channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.networks[name] = network

    def _add_pools(self, domains: Sequence[str]) -> None:
        """A pool of earlier fakes for each domain, other ones in each process."""
        rank = torch.distributed.get_rank() if self.distributed else 0
        first = self.config.run.seed * 1000 + len(domains) * rank
        for index, domain in enumerate(domains):
            self.pools[domain] = ImagePool(self.config.loss.pool, seed=first + index)

    def _finish(self, phases: dict[str, tuple[list[str], Callable[..., Any]]]) -> None:
        """Make averages, an optimizer for each phase, and the phases; call last in `__init__`."""
        self.ema = Ema({name: self.networks[name] for name in self.generators}, self.config.network.ema)
        if self.config.run.compile:
            self._compile()
        self.phases: dict[str, nn.Module] = {}
        for phase, (names, compute) in phases.items():
            networks = [self.networks[name] for name in names]
            if not networks:
                continue
            self.optimizers[phase] = self._optimizer(phase, networks)
            module: nn.Module = Phase(networks, compute)
            if self.distributed:
                module = nn.parallel.DistributedDataParallel(
                    module, broadcast_buffers=False, find_unused_parameters=False
                )
            self.phases[phase] = module

    def _compile(self) -> None:
        """Compile every network that sees images, each compared with itself uncompiled.

        Not those with taps: a compiled network does not look for hooks that were added since, so that what
        they should find would be missing, or that of an earlier pass.
        """
        edge, count = self.config.data.crop_size, max(self.config.run.batch, 2)
        for name, channels in self._channels.items():
            if name in self._tapped:
                continue
            random = torch.Generator().manual_seed(0)
            images = self.images(torch.rand(count, channels, edge, edge, generator=random) * 2 - 1)
            compile_verified(name, self.networks[name], images, self.precision)

    def _optimizer(self, phase: str, networks: list[nn.Module]) -> torch.optim.Optimizer:
        settings = self.config.optimizer
        rate = settings.disc_lr if phase == "discriminators" and settings.disc_lr else settings.lr
        parameters = [p for network in networks for p in network.parameters()]
        betas = (settings.beta1, settings.beta2)
        optimizer = torch.optim.Adam(parameters, lr=rate, betas=betas, fused=True)
        for group in optimizer.param_groups:
            group["initial_lr"] = rate
        return optimizer

    # Working ---------------------------------------------------------------------------------------

    def images(self, pixels: Tensor) -> Tensor:
        """uint8 or float NCHW as images in [-1, 1], on the device and in the precision's type.

        uint8 is scaled from [0, 255]. Float values are images already and stay as they are.
        """
        images = pixels.to(self.device, non_blocking=True).to(self.precision.dtype)
        if pixels.dtype == torch.uint8:
            images = images.mul_(2 / 255).sub_(1)
        if self._channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return images

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
        self.images_seen += batch["a"].shape[0] * world

    def _ramp(self, weight: float, over: int) -> float:
        """A weight that grows linearly from 0 over a number of images."""
        return weight * min(self.images_seen / over, 1.0) if over else weight

    def _judge(self, disc: nn.Module, images: Tensor) -> Logits:
        return disc(diff_augment(images, self._augment))

    def _disc_loss(self, name: str, real: Tensor, fake: Tensor) -> Losses:
        """A discriminator's loss, the mean of real and fake, and now and then the R1 penalty.

        Both go through in one pass unless a batch norm would then mix them.
        """
        disc, loss = self.networks[name], self.config.loss
        if mixes_images(disc) or real.shape != fake.shape:
            on_real, on_fake = self._judge(disc, real), self._judge(disc, fake)
        else:
            on_real, on_fake = halves(self._judge(disc, torch.cat([real, fake])))
        value = 0.5 * (gan_loss(on_real, True, loss.gan) + gan_loss(on_fake, False, loss.gan))
        losses = {name: value}
        if loss.r1 > 0 and self.step % loss.r1_every == 0:
            images = real.detach().requires_grad_(True)
            penalty = r1_penalty(disc(images), images)
            # Lazy regularisation (Karras et al. 2020): rarer, and as much heavier.
            losses[f"r1_{name.removeprefix('disc_')}"] = loss.r1 * loss.r1_every * penalty
        return losses

    # Keeping ---------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that `train_step` depends on, but for the global random numbers and the batches."""
        return {
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "ema": self.ema.state_dict(),
            "scaler": self._scaler.state_dict(),
            "pools": {name: pool.state_dict() for name, pool in self.pools.items()},
            "step": self.step,
            "images_seen": self.images_seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        for name, optimizer in self.optimizers.items():
            rates = [group["initial_lr"] for group in optimizer.param_groups]
            optimizer.load_state_dict(state["optimizers"][name])
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["initial_lr"] = rate  # the config's, which may have been changed since
        self.ema.load_state_dict(state["ema"])
        self._scaler.load_state_dict(state["scaler"])
        for name, pool in self.pools.items():
            pool.load_state_dict(state["pools"][name], self.device)
        self.step, self.images_seen = int(state["step"]), int(state["images_seen"])


def mixes_images(network: nn.Module) -> bool:
    """Whether a network's result for one image depends on the others of its batch, or on chance."""
    mixing = (nn.BatchNorm2d, nn.Dropout)
    return any(isinstance(module, mixing) for module in network.modules())


def halves(output: Logits) -> tuple[Logits, Logits]:
    """The results for the first and for the second half of a joined batch."""
    if isinstance(output, Tensor):
        first, second = output.chunk(2)
        return first, second
    parts = [part.chunk(2) for part in output]
    return [first for first, _ in parts], [second for _, second in parts]


def forward_joined(network: nn.Module, first: Tensor, second: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Two inputs through one network in a single pass where that gives the same as two passes."""
    if second is None:
        return network(first), None
    if first.shape[1:] != second.shape[1:] or mixes_images(network):
        return network(first), network(second)
    one, two = network(torch.cat([first, second])).split([first.shape[0], second.shape[0]])
    return one, two
