"""Which of the engines that `auto` may take is the fastest on this machine: measured once, and kept.

Which one it is depends on the processor or card, its driver, the number of threads and the network, so no
table says it. A long job measures, and all jobs that come later find what was measured in the cache.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cgconvert.engines.batches import OutOfMemoryError
from cgconvert.engines.cache import cache_is_on, find_entry, get_or_build, kept_parts
from cgconvert.engines.choose import Candidate, engine_class
from cgconvert.engines.job import EngineJob
from cgconvert.engines.keys import device_name, engine_parts, weights_sha256
from cgconvert.errors import UnavailableError
from cgconvert.models.loading import Model
from cgconvert.progress import Progress, shown_stage
from cgconvert.tensors.images import padded_size

WORTH_MEASURING = 64 * 1024 * 1024
"""Pixels of a job for which a few seconds of measuring are little: 500 pictures of 360x360."""

SECONDS, LEAST_RUNS, MOST_RUNS = 0.5, 2, 20
"""How long each engine is measured, after a first run that counts for nothing."""

EDGE = 256
"""The longest side that is measured on a processor, whose engines take any size; larger ones take seconds."""

MARGIN = 1.1
"""How many times as fast another engine must be to take the place of the usual one."""

BUILT_ON_CARDS = ("compile", "tensorrt")
"""What may be the fastest on a card, the usual one first."""

MEASURED = "measured.json"


def in_order(
    model: Model,
    order: Sequence[Candidate],
    size: tuple[int, int],
    batch: int | None,
    pixels: int,
    progress: Progress,
) -> tuple[list[Candidate], Mapping[str, Any]]:
    """Candidates with the fastest one first, and what was measured for that: pictures a second by engine.

    `size` is (height, width) of the job's first picture, `pixels` are those of all its pictures together; 0
    where nobody knows. A job that is too small for it measures nothing, and takes what an earlier one has
    measured. Where nothing is known, or there is no choice, the order stays, and what was measured is empty.
    """
    rivals = contenders(model, order, size)
    if not rivals:
        return list(order), {}
    if len(rivals) == 1 or not cache_is_on():
        return _first(rivals[0], order), {}
    height, width = padded_size(*size, model.card)
    if order[0].device.type == "cpu":
        height, width = padded_size(min(height, EDGE), min(width, EDGE), model.card)
    parts = engine_parts(
        model,
        "auto",
        order[0].device,
        order[0].precision,
        engines=[rival.engine for rival in rivals],
        shape=[batch or 0, height, width],
        threads=torch.get_num_threads(),
        file_sha256=model.card.weights_sha256,
    )
    if pixels < WORTH_MEASURING and find_entry(parts) is None:
        return _first(rivals[0], order), {}

    def measure(folder: Path) -> None:
        found = {}
        with shown_stage(progress, "measuring which engine is the fastest here"):
            for rival in rivals:
                rate = pictures_per_second(model, rival, (height, width), batch, progress)
                if rate is not None:
                    found[rival.engine] = round(rate, 3)
        (folder / MEASURED).write_text(json.dumps(found))

    about = f"{model.card.name}, {order[0].precision}, {width}x{height}: how fast each engine is"
    rates: dict[str, float] = get_or_build(
        parts, measure, lambda folder: json.loads((folder / MEASURED).read_text()), about, progress.note
    )
    usual = next((rival for rival in rivals if rival.engine in rates), rivals[0])
    best = max(rivals, key=lambda rival: rates.get(rival.engine, 0.0))
    is_faster = rates.get(best.engine, 0.0) >= MARGIN * rates.get(usual.engine, 0.0)
    return _first(best if is_faster else usual, order), rates


def contenders(model: Model, order: Sequence[Candidate], size: tuple[int, int]) -> list[Candidate]:
    """Candidates that may be the fastest, the usual one first, all of one precision on one device.

    On a processor they are those that it has. On a card they are what has been built for the size, since to
    build takes minutes: compile, and tensorrt if it was built by name or by `cgconvert compile`. None where
    nothing has been built.
    """
    usual = order[0]
    if usual.plugin or usual.device.type not in ("cpu", "cuda"):
        return []
    alike = [one for one in order if (one.device, one.precision) == (usual.device, usual.precision)]
    if usual.device.type == "cpu":
        works = [one for one in alike if engine_class(one.engine).why_not(one.device, one.precision) is None]
        return works if len(works) > 1 else []
    built = _built_on_card(model, usual, padded_size(*size, model.card))
    return [replace(usual, engine=name) for name in BUILT_ON_CARDS if name in built]


def _built_on_card(model: Model, usual: Candidate, padded: tuple[int, int]) -> set[str]:
    """The engines that were built for a model, a padded size and a precision on this kind of card."""
    weights, card = weights_sha256(model.generator), device_name(usual.device)
    return {
        parts["engine"]
        for parts in kept_parts()
        if parts.get("engine") in BUILT_ON_CARDS
        and (parts.get("weights_sha256"), parts.get("device")) == (weights, card)
        and parts.get("precision") == usual.precision
        and list(parts.get("shape", ()))[1:] == list(padded)
        and engine_class(parts["engine"]).why_not(usual.device, usual.precision) is None
    }


def _first(best: Candidate, order: Sequence[Candidate]) -> list[Candidate]:
    return [best, *(one for one in order if one != best)]


def pictures_per_second(
    model: Model, candidate: Candidate, size: tuple[int, int], batch: int | None, progress: Progress
) -> float | None:
    """The best rate of an engine on pictures of a padded size; None if it does not run here."""
    from cgconvert.engines.ready import make_ready

    try:
        job = make_ready(model, candidate, size, batch, progress, lambda count: [])
    except (UnavailableError, OutOfMemoryError):
        return None
    try:
        return _rate(job, size)
    finally:
        job.close()


def _rate(job: EngineJob, size: tuple[int, int]) -> float:
    engine = job.engine
    count = max(1, min(job.batch, engine.streams) if engine.device.type == "cpu" else job.batch)
    shape = (count, engine.model.card.network_channels, *size)
    # The same pictures for all, and none that is the same everywhere, which some layers do faster.
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0)).mul_(2).sub_(1).to(engine.device)
    best, started, runs = 0.0, time.perf_counter(), 0
    while runs <= LEAST_RUNS or (runs <= MOST_RUNS and time.perf_counter() - started < SECONDS):
        begun = time.perf_counter()
        with torch.inference_mode():
            engine(images).flatten()[0].item()  # which waits for a card
        if runs:
            best = max(best, count / (time.perf_counter() - begun))
        runs += 1
    return best
