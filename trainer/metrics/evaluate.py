"""A model against two baselines that it must beat, on pictures that it has not seen."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cgconvert.errors import UsageError
from cgconvert.frames import Frame
from cgconvert.media.picture.codec import to_8_bit
from cgconvert.media.picture.resize import resized
from cgconvert.media.video.probe import probe
from cgconvert.media.video.source import VideoSource
from cgconvert.models.loading import load_model
from trainer.compute.precision import choose_device
from trainer.data.augment import Pixels
from trainer.data.loading import evenly, load_pictures
from trainer.data.pairing import matched
from trainer.data.pictures import Domain, scan_domain
from trainer.metrics.colour import ReinhardTransfer
from trainer.metrics.measures import Metrics, measure_generator, measure_results, measure_truth, open_networks
from trainer.metrics.motion import WarpError, warp_error

log = logging.getLogger("trainer")


@dataclass(frozen=True)
class Table:
    """Metrics by row: the model, the unchanged sources, colour transfer; and what they were measured on."""

    rows: dict[str, Metrics]
    sources: int
    targets: int
    reference: str
    edge: int


@dataclass(frozen=True)
class EvaluateOptions:
    """How to measure: edges in pixels; `count` 0 takes all pictures."""

    longest: int = 256
    edge: int = 256
    count: int = 0
    device: str = "cpu"
    inception: str = ""
    inception_sha256: str = ""
    learned: bool = False


def _in_pairs(sources: Domain, targets: Domain) -> tuple[Domain, Domain]:
    """Both domains pair by pair, by name, or by order where no name is in both. Raises `UsageError`."""
    if {picture.name for picture in sources.pictures} & {picture.name for picture in targets.pictures}:
        return matched(sources, targets)
    counts = len(sources.pictures), len(targets.pictures)
    if counts[0] != counts[1]:
        raise UsageError(
            f"not paired: no file name is in both folders, and there are {counts[0]} pictures in "
            f"{sources.where}, {counts[1]} in {targets.where}"
        )
    log.warning("no file name is in both %s and %s: paired by their order", sources.where, targets.where)
    return sources, targets


def _sets(source: str, target: str, options: EvaluateOptions, paired: bool) -> list[list[Pixels]]:
    """The pictures of both domains, those of pairs each beside its truth and of its size."""
    domains = scan_domain(source, warn=False), scan_domain(target, warn=False)
    if paired:
        domains = _in_pairs(*domains)
    chosen = [evenly(domain.pictures, options.count) for domain in domains]
    loaded = [load_pictures(pictures, options.longest) for pictures in chosen]
    for index, (one, two) in enumerate(zip(*loaded, strict=True)) if paired else ():
        if one.shape != two.shape:
            names = " and ".join(str(pictures[index].path) for pictures in chosen)
            raise UsageError(f"not paired: {names} differ in shape; make the two of a pair alike")
    return loaded


def evaluate(
    models: Sequence[str],
    source: str,
    target: str,
    options: EvaluateOptions,
    back: str = "",
    paired: bool = False,
) -> Table:
    """Measure models on the pictures of `source` against the domain in `target`.

    `back` names the model of the other direction, for the cycle's PSNR; `paired` compares with the picture of
    the same name in `target` as well. Rows have the names that `models` has: two files may hold models of one
    name. Raises `UsageError`, `ModelError`.
    """
    device = choose_device(options.device)
    sources, targets = _sets(source, target, options, paired)
    networks = open_networks(options.inception, options.inception_sha256, options.learned, device)
    return_way = load_model(back) if back else None
    if return_way is not None:
        return_way.generator.to(device)
    rows: dict[str, Metrics] = {}
    for name in models:
        model = load_model(name)
        model.generator.to(device)
        rows[name] = measure_generator(
            model.convert,
            sources,
            targets,
            options.edge,
            return_way.convert if return_way else None,
            targets if paired else (),
            networks,
        )
    transfer = ReinhardTransfer(targets)
    baselines = {
        "unchanged": sources,
        # With pairs the picture's own truth would be given away: each takes the colours of the next one.
        "colour transfer": [transfer.convert(pixels, index + 1) for index, pixels in enumerate(sources)],
    }
    for name, results in baselines.items():
        rows[name] = measure_results(sources, results, targets, options.edge, networks)
        if paired:
            rows[name] |= measure_truth(results, targets)
    return Table(rows, len(sources), len(targets), target, options.edge)


def evaluate_video(name: str, video: Path, frames: int, longest: int, device: str = "cpu") -> WarpError:
    """Warp error of a model on the first `frames` frames of a video, beside the video's own."""
    model = load_model(name)
    model.generator.to(choose_device(device))
    info = probe(video)
    factor = longest / max(info.width, info.height)
    with VideoSource(video, info, (info.width, info.height)) as decoded:
        shown = (_fitted(to_8_bit(frame.pixels), factor) for frame in decoded if isinstance(frame, Frame))
        source = list(islice(shown, frames))
    return warp_error(source, [model.convert(pixels) for pixels in source])


def _fitted(pixels: Pixels, factor: float) -> Pixels:
    if factor >= 1:
        return pixels
    return resized(pixels, max(round(pixels.shape[1] * factor), 16), max(round(pixels.shape[0] * factor), 16))
