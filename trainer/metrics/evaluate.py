"""A model against two baselines that it must beat, on pictures that it has not seen."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cgconvert.errors import UsageError
from cgconvert.models.loading import load_model
from trainer.compute.precision import choose_device
from trainer.data.augment import Pixels, resize
from trainer.data.loading import load_pictures
from trainer.data.pairing import matched
from trainer.data.pictures import Domain, Picture, read_frames, scan_domain
from trainer.metrics.colour import ReinhardTransfer
from trainer.metrics.inception import Inception
from trainer.metrics.measures import Metrics, measure_results, measure_truth
from trainer.metrics.motion import WarpError, shift_error, warp_error
from trainer.metrics.ssim import psnr

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


def _chosen(pictures: Sequence[Picture], count: int) -> list[Picture]:
    """`count` of them, evenly spaced; 0: all."""
    count = min(count or len(pictures), len(pictures))
    return [pictures[int(index * len(pictures) / count)] for index in range(count)]


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
    chosen = [_chosen(domain.pictures, options.count) for domain in domains]
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
    inception = None
    if options.inception:
        inception = Inception(Path(options.inception), device, options.inception_sha256 or None)
    return_way = load_model(back) if back else None
    if return_way is not None:
        return_way.generator.to(device)
    rows: dict[str, Metrics] = {}
    for name in models:
        model = load_model(name)
        model.generator.to(device)
        results = [model.convert(pixels) for pixels in sources]
        metrics = measure_results(sources, results, targets, options.edge, inception)
        metrics["shift"] = shift_error(sources[:8], model.convert)
        if return_way is not None:
            cycles = [
                psnr(pixels, return_way.convert(result))
                for pixels, result in zip(sources, results, strict=True)
            ]
            metrics["cycle_psnr"] = sum(cycles) / len(cycles)
        if paired:
            metrics |= measure_truth(results, targets)
        rows[name] = metrics
    transfer = ReinhardTransfer(targets)
    baselines = {
        "unchanged": sources,
        # With pairs the picture's own truth would be given away: each takes the colours of the next one.
        "colour transfer": [transfer.convert(pixels, index + 1) for index, pixels in enumerate(sources)],
    }
    for name, results in baselines.items():
        rows[name] = measure_results(sources, results, targets, options.edge, inception)
        if paired:
            rows[name] |= measure_truth(results, targets)
    return Table(rows, len(sources), len(targets), target, options.edge)


def evaluate_video(name: str, video: Path, frames: int, longest: int, device: str = "cpu") -> WarpError:
    """Warp error of a model on the first `frames` frames of a video, beside the video's own."""
    model = load_model(name)
    model.generator.to(choose_device(device))
    decoded = read_frames(video, range(frames))
    size = max(next(iter(decoded.values())).shape[:2])
    source = [_fitted(pixels, longest / size) for _, pixels in sorted(decoded.items())]
    return warp_error(source, [model.convert(pixels) for pixels in source])


def _fitted(pixels: Pixels, factor: float) -> Pixels:
    if factor >= 1:
        return pixels
    return resize(pixels, max(round(pixels.shape[1] * factor), 16), max(round(pixels.shape[0] * factor), 16))
