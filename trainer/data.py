"""The data of a run: its domains checked, its hold-out chosen, its stream of batches."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cgconvert.errors import UsageError
from trainer.config import Config, DataConfig
from trainer.dataset import BatchSource, MatchedCache, PairCache, PictureCache, Sampler
from trainer.images import Domain, scan_domain, split_holdout

log = logging.getLogger("trainer")
PAIRED = ("pix2pix",)


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


def absolute(where: str, base: Path) -> str:
    """A path of the config, relative to the folder of the config file."""
    return str((base / Path(where).expanduser()).resolve()) if where else ""


def open_data(config: Config, base: Path, rank: int = 0, world: int = 1) -> TrainingData:
    """Check every picture of the run and make its stream of batches. Raises `UsageError`."""
    data = config.data
    paired = config.run.method in PAIRED
    if paired and data.pairs:
        names = {"pairs": (data.pairs, data.holdout_pairs)}
    elif data.a and data.b:
        names = {"a": (data.a, data.holdout_a), "b": (data.b, data.holdout_b)}
    else:
        wanted = "data.pairs, or data.a and data.b" if paired else "data.a and data.b"
        raise UsageError(f"no pictures named: set {wanted} in the config")
    training, holdout = {}, {}
    for name, (where, held) in names.items():
        training[name], holdout[name] = _domain(absolute(where, base), absolute(held, base), data, rank == 0)
    if paired and "a" in training:
        for part, domains in (("data", training), ("the hold-out", holdout)):
            domains["a"], domains["b"] = _matched(domains["a"], domains["b"], part)
    samplers = _samplers(config, training, paired)
    workers = data.workers
    return TrainingData(BatchSource(samplers, config.run.batch, rank, world, workers), training, holdout)


def _domain(where: str, held: str, data: DataConfig, warn: bool) -> tuple[Domain, Domain]:
    domain = scan_domain(where, data.frames_per_video, warn=warn)
    if held:
        return domain, scan_domain(held, data.frames_per_video, least=1, warn=False)
    return split_holdout(domain, data.holdout)


def _matched(a: Domain, b: Domain, part: str) -> tuple[Domain, Domain]:
    """Both domains reduced to the names they share. Raises `UsageError` where they share none."""
    by_name = {picture.name: picture for picture in b.pictures}
    shared = [picture for picture in a.pictures if picture.name in by_name]
    if not shared:
        raise UsageError(
            f"{a.where} and {b.where}: no file name is in both folders, so nothing is paired in {part}"
        )
    alone = len(a.pictures) + len(b.pictures) - 2 * len(shared)
    if alone:
        log.warning("%d pictures in %s and %s have no partner, left out", alone, a.where, b.where)
    partners = tuple(by_name[picture.name] for picture in shared)
    return replace(a, pictures=tuple(shared)), replace(b, pictures=partners)


def _samplers(config: Config, training: dict[str, Domain], paired: bool) -> dict[str, Sampler]:
    data, seed = config.data, config.run.seed
    limit = data.cache_mb * 2**20
    if "pairs" in training:
        return {"pairs": Sampler(PairCache(training["pairs"].pictures, data, limit), data, seed, 0)}
    caches = {name: PictureCache(d.pictures, data, limit // 2) for name, d in training.items()}
    if paired:
        return {"pairs": Sampler(MatchedCache(caches["a"], caches["b"]), data, seed, 0)}
    order: Sequence[str] = ("a", "b")
    return {name: Sampler(caches[name], data, seed, stream) for stream, name in enumerate(order)}
