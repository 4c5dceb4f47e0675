"""The data of a run: its domains checked, its hold-out chosen, its stream of batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cgconvert.errors import UsageError
from cgconvert.generators import build_generator
from cgconvert.generators.sizes import size_rule
from trainer.config import Config, DataConfig, absolute
from trainer.data.augment import WHOLE, SizeRule
from trainer.data.batches import BatchSource, MatchedCache, PairCache, PictureCache, Sampler
from trainer.data.pairing import check_sizes, matched
from trainer.data.pictures import Domain, scan_domain, split_holdout
from trainer.networks.building import WHOLE_PICTURES, architecture_of
from trainer.networks.discriminators import smallest_input

PAIRED = ("pix2pix",)
ALONE = ("gan",)
"""Methods that learn from domain B alone."""


@dataclass(frozen=True)
class TrainingData:
    """Batches to learn from, and hold-out domains by name: "a" and "b", or "pairs"."""

    source: BatchSource
    training: dict[str, Domain]
    holdout: dict[str, Domain]

    def describe(self) -> list[str]:
        """Lines for people: what was found."""
        lines = [domain.describe() for domain in self.training.values()]
        return lines + [f"hold-out {domain.describe()}" for domain in self.holdout.values()]


def open_data(
    config: Config, base: Path, rank: int = 0, world: int = 1, pinned: bool = False
) -> TrainingData:
    """Check every picture of the run and make its stream of batches. Raises `UsageError`."""
    data = config.data
    paired = config.run.method in PAIRED
    _check_channels(config)
    rule = whole_size(config)
    if paired and data.pairs:
        names = {"pairs": (data.pairs, data.holdout_pairs)}
    elif config.run.method in ALONE and data.b:
        names = {"b": (data.b, data.holdout_b)}
    elif data.a and data.b:
        names = {"a": (data.a, data.holdout_a), "b": (data.b, data.holdout_b)}
    else:
        wanted = "data.pairs, or data.a and data.b" if paired else "data.a and data.b"
        wanted = "data.b" if config.run.method in ALONE else wanted
        raise UsageError(f"no pictures named: set {wanted} in the config")
    parallel = paired and "a" in names
    if parallel and bool(data.holdout_a) != bool(data.holdout_b):
        raise UsageError("hold-out pairs come from two folders: set data.holdout_a and data.holdout_b")
    where = {name: (absolute(own, base), absolute(held, base)) for name, (own, held) in names.items()}
    training, holdout = _domains(where, data, parallel, warn=rank == 0 and config.run.method != "one_sided")
    if parallel:
        check_sizes(training["a"].pictures, training["b"].pictures, data, rule)
    samplers = _samplers(config, training, paired, rule)
    source = BatchSource(samplers, config.run.batch, rank, world, data.workers, pinned)
    return TrainingData(source, training, holdout)


def _check_channels(config: Config) -> None:
    """Pictures are read as RGB, whatever a network could take."""
    for key in ("arguments", "reverse_arguments"):
        for name in ("in_channels", "out_channels"):
            count = getattr(config.network, key).get(name, 3)
            if count != 3:
                raise UsageError(f"network.{key}: {name} must be 3, got {count!r}: pictures are read as RGB")


def whole_size(config: Config) -> SizeRule:
    """What pictures that are trained on whole are rounded to, so that every network accepts them."""
    net = config.network
    if config.data.preprocess not in WHOLE_PICTURES:
        return WHOLE
    used = [architecture_of(config, name) for name in ("gen_ba", "gen_ab")]
    least = smallest_input(net.discriminator, net.disc_layers, net.disc_scales)
    multiples = []
    for architecture, arguments in used:
        with torch.device("meta"):
            build_generator(architecture, arguments)  # says what is wrong with them
        multiple, minimum = size_rule(architecture, arguments)
        multiples.append(multiple)
        least = max(least, minimum)
    return SizeRule(max(multiples), least)


Domains = dict[str, Domain]


def _domains(
    where: dict[str, tuple[str, str]], data: DataConfig, parallel: bool, warn: bool
) -> tuple[Domains, Domains]:
    """Training and hold-out domains by name, those of parallel folders reduced to their pairs.

    Pairs are found before some are held out: the other way round each folder would lose other ones.
    """
    frames, most = data.frames_per_video, data.pictures_per_folder
    training = {
        name: scan_domain(own, frames, warn=warn, per_folder=most) for name, (own, _) in where.items()
    }
    holdout = {
        name: scan_domain(held, data.frames_per_video, least=1, warn=False)
        for name, (_, held) in where.items()
        if held
    }
    for domains in (training, holdout) if parallel else ():
        if domains:
            domains["a"], domains["b"] = matched(domains["a"], domains["b"])
    for name in where:
        if name not in holdout:
            training[name], holdout[name] = split_holdout(training[name], data.holdout)
    return training, holdout


def _samplers(config: Config, training: Domains, paired: bool, rule: SizeRule) -> dict[str, Sampler]:
    data, seed = config.data, config.run.seed
    limit = data.cache_mb * 2**20
    if "pairs" in training:
        return {"pairs": Sampler(PairCache(training["pairs"].pictures, data, limit, rule), data, seed, 0)}
    caches = {name: PictureCache(d.pictures, data, limit // 2, rule) for name, d in training.items()}
    if paired:
        return {"pairs": Sampler(MatchedCache(caches["a"], caches["b"]), data, seed, 0)}
    if config.run.method in ALONE:
        labels = labels_of(training["b"], data.labels) if data.labels else None
        return {"b": Sampler(caches["b"], data.of_domain("b"), seed, 1, labels)}
    order: Sequence[str] = ("a", "b")
    own = {name: data.of_domain(name) for name in order}
    return {name: Sampler(caches[name], own[name], seed, stream) for stream, name in enumerate(order)}


def labels_of(domain: Domain, names: Sequence[str]) -> list[int]:
    """The place in `names` of the folder, the first below the domain's, that each picture is in.

    Raises `UsageError` for a picture that is in none of them, and for a label without pictures.
    """
    numbers = {name: number for number, name in enumerate(names)}
    labels = []
    for picture in domain.pictures:
        below = picture.path.relative_to(picture.folder).parts if picture.folder else ()
        if len(below) < 2 or below[0] not in numbers:
            raise UsageError(f"{picture.path}: is in none of the folders {', '.join(names)} of data.labels")
        labels.append(numbers[below[0]])
    for name, number in numbers.items():
        if number not in labels:
            raise UsageError(f"{domain.where}: has no readable picture in {name}, one of data.labels")
    return labels
