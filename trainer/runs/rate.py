"""How fast a training will be on this machine, measured before it begins."""

from __future__ import annotations

import time

import torch

from cgconvert.generators.sizes import size_rule
from trainer.compute.precision import choose_precision
from trainer.config import Config
from trainer.data.batches import Batch
from trainer.methods import build_method
from trainer.networks.building import WHOLE_PICTURES, architecture_of
from trainer.networks.discriminators import smallest_input
from trainer.networks.projected import SMALLEST

SECONDS = 4.0  # after which no further step is measured
QUICK_SECONDS = 0.5
QUICK = 64  # pixels: edge of the crops of a quick measurement
NIGHT = 8.0  # hours
LONG = 12.0  # hours, above which a run's length deserves advice


def measure_rate(config: Config, quick: bool = False) -> float:
    """Images a second of the config's training steps, on random images; reading pictures comes on top.

    A `quick` measurement takes smaller crops and counts them by their area, as convolutions cost: near enough
    to tell hours from weeks. Raises what building the networks raises.
    """
    seconds = QUICK_SECONDS if quick else SECONDS
    precision = choose_precision(config.run)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    crop = config.data.load_size if config.data.preprocess in WHOLE_PICTURES else config.data.crop_size
    edge = min(crop, _smallest(config)) if quick else crop
    method = build_method(config.with_changes({"data.crop_size": edge, "run.compile": False}), precision)
    random = torch.Generator().manual_seed(0)
    shape = (config.run.batch, 3, edge, edge)
    batch: Batch = {
        domain: torch.randint(0, 256, shape, generator=random, dtype=torch.uint8) for domain in ("a", "b")
    }

    def step() -> float:
        started = time.monotonic()
        method.train_step(batch)
        if precision.device.type == "cuda":
            torch.cuda.synchronize(precision.device)
        return time.monotonic() - started

    times = [step()]
    # The first step prepares kernels and memory; it counts only where it takes longer than there is time for.
    if times[0] < seconds:
        times = []
        while not times or sum(times) < seconds:
            times.append(step())
    return config.run.batch / (sum(times) / len(times)) * (edge / crop) ** 2


def _smallest(config: Config) -> int:
    """The edge in pixels of a quick measurement, which every network of the config accepts."""
    if config.run.method == "gan":
        return config.data.crop_size
    net = config.network
    edge = max(QUICK, smallest_input(net.discriminator, net.disc_layers, net.disc_scales))
    if config.loss.projected > 0:
        edge = max(edge, SMALLEST)
    rules = [size_rule(*architecture_of(config, name)) for name in ("gen_ab", "gen_ba")]
    multiple = max(rule[0] for rule in rules)
    return -(-max(edge, *(rule[1] for rule in rules)) // multiple) * multiple


def how_long(config: Config) -> list[str]:
    """Lines that say how long a run will take here, and what fits where that is long."""
    rate = measure_rate(config, quick=True)
    step = config.run.batch / rate
    if config.run.hours > 0:
        images = int(3600 * config.run.hours * rate)
        return [f"a step takes about {step:.2g} s here: {images} images in {config.run.hours:g} hours"]
    hours = config.run.images / rate / 3600
    lines = [f"a step takes about {step:.2g} s here: {config.run.images} images take {in_words(hours)}"]
    if hours > LONG:
        fitting = max(config.run.batch, int(36 * NIGHT * rate) * 100)
        small = (
            "" if config.run.method == "one_sided" else "; run.method = 'one_sided' learns a look in minutes"
        )
        lines.append(
            f"what fits into {NIGHT:g} hours: run.images = {fitting}; smaller crops (data.crop_size) and "
            f"generators (network.generator = 'h2') take less{small}"
        )
    return lines


def in_words(hours: float) -> str:
    """0.2 -> "12 minutes", 30 -> "30 hours", 360 -> "15 days"."""
    if hours < 1:
        return f"{max(1, round(60 * hours))} minutes"
    return f"{round(hours, 1):g} hours" if hours < 48 else f"{round(hours / 24)} days"
