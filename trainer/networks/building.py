"""The networks of a run, built as its config says and with weights to start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from cgconvert.card import ModelCard
from cgconvert.errors import UsageError
from cgconvert.generators import build_generator
from cgconvert.generators.sizes import size_rule
from trainer.config import Config
from trainer.networks.discriminators import build_discriminator, smallest_input
from trainer.networks.initialization import init_weights
from trainer.networks.projected import SMALLEST as SMALLEST_PROJECTED
from trainer.networks.projected import ProjectedDiscriminator

PICTURE = 3  # channels
NOISE_SEED = 0
"""Of the field that a generator keeps; in training every crop gets noise of its own."""
WHOLE_PICTURES = ("none", "scale_width")
"""Values of `data.preprocess` that train on whole pictures, of any size."""


def architecture_of(config: Config, name: str) -> tuple[str, Mapping[str, Any]]:
    """Architecture and arguments of the generator `gen_ab` or `gen_ba` of a run; noise counts as input."""
    net = config.network
    if name == "gen_ab" and config.run.method == "cyclegan" and net.reverse_generator:
        return net.reverse_generator, net.reverse_arguments
    if net.noise:
        return net.generator, {**net.arguments, "in_channels": PICTURE + net.noise}
    return net.generator, net.arguments


def generator_card(config: Config, name: str) -> ModelCard:
    """The card of a run's generator: architecture, domains and sizes. Raises `ModelError`."""
    architecture, arguments = architecture_of(config, name)
    multiple, minimum = size_rule(architecture, arguments)
    way = name.removeprefix("gen_")
    return ModelCard(
        name=name,
        architecture=architecture,
        arguments=dict(arguments),
        source_domain=way[0],
        target_domain=way[1],
        size_multiple=multiple,
        size_minimum=minimum,
        native_size=config.data.crop_size,
        noise={"channels": config.network.noise, "seed": NOISE_SEED} if config.network.noise else {},
    )


def new_generator(config: Config, name: str) -> nn.Module:
    """The generator `gen_ab` or `gen_ba` with fresh weights, float32 on the CPU.

    Raises `ModelError` for an architecture that cannot be built, `UsageError` for one that has no weights or
    does not take crops of `data.crop_size`.
    """
    architecture, arguments = architecture_of(config, name)
    network = build_generator(architecture, arguments)
    if not any(True for _ in network.parameters()):
        raise UsageError(f"generator {architecture!r} has nothing to learn; set network.generator")
    multiple, minimum = size_rule(architecture, arguments)
    crop = config.data.crop_size
    if config.data.preprocess not in WHOLE_PICTURES and (crop % multiple or crop < minimum):
        raise UsageError(
            f"data.crop_size {crop} does not suit generator {architecture!r}: "
            f"it takes multiples of {multiple} from {minimum} on"
        )
    return init_weights(network, config.network.init, config.network.init_gain)


def new_discriminator(config: Config, in_channels: int) -> nn.Module:
    """A discriminator with fresh weights, float32 on the CPU.

    Raises `UsageError` where crops of `data.crop_size` are too small for it.
    """
    net, crop = config.network, config.data.crop_size
    least = smallest_input(net.discriminator, net.disc_layers, net.disc_scales)
    if config.data.preprocess not in WHOLE_PICTURES and crop < least:
        raise UsageError(
            f"data.crop_size {crop} is too small for the discriminator: with "
            f"network.disc_layers {net.disc_layers} and disc_scales {net.disc_scales} it needs {least}"
        )
    network = build_discriminator(
        net.discriminator,
        in_channels,
        net.ndf,
        net.disc_layers,
        net.disc_norm,  # type: ignore[arg-type]
        net.disc_scales,
    )
    return init_weights(network, net.init, net.init_gain)


def new_projected(config: Config) -> nn.Module:
    """A discriminator on pretrained features with fresh weights, float32 on the CPU.

    Raises `UsageError` where crops of `data.crop_size` are too small for it.
    """
    crop = config.data.crop_size
    if config.data.preprocess not in WHOLE_PICTURES and crop < SMALLEST_PROJECTED:
        raise UsageError(
            f"data.crop_size {crop} is too small for loss.projected: it needs {SMALLEST_PROJECTED}"
        )
    return ProjectedDiscriminator(config.run.batch)
