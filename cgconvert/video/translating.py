"""The thread of a run over a video that has the network: every frame through it, in batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from cgconvert.engines.flat import FlatFrames, has_instance_norms
from cgconvert.engines.kept import KeptEngine
from cgconvert.engines.pixels import PixelFrames
from cgconvert.engines.planes import PlaneFrames
from cgconvert.engines.spread import Spread
from cgconvert.engines.translator import Translator
from cgconvert.errors import InputError
from cgconvert.frames import PlaneFrame
from cgconvert.host.channels import Channel
from cgconvert.media.video.codecs import sample_depth
from cgconvert.media.video.colour import is_rgb
from cgconvert.media.video.probe import sample_pixels
from cgconvert.media.video.source import CopiedPacket
from cgconvert.media.video.tone import is_hdr
from cgconvert.options import ENGINES, EngineOptions
from cgconvert.tensors.transfers import own_device, transfers_for
from cgconvert.video import resume
from cgconvert.video.plan import VideoPlan
from cgconvert.video.resume import ResumableRun
from cgconvert.video.run import VideoFrame, VideoItem, VideoRun


def translate(run: VideoRun) -> None:
    """Every frame through the network; the packets to copy pass them by."""
    keeper = run.engines or KeptEngine()
    numbers = [number for number in range(len(run.devices)) if number not in keeper.lost]
    numbers = numbers or list(range(len(run.devices)))  # rather an error that tells what is wrong with them
    spread: Spread[Any] | None = None
    try:
        for batch in _batches(run.decoded, run.translated, lambda: run.outcome.batch):
            if spread is None:
                # The first batch is given twice: its one frame makes the engine ready, which chooses how
                # many go together; then it begins a batch of so many. So batches begin where segments do.
                make = partial(_translator, run, keeper, numbers, first=batch)
                spread = Spread([run.devices[number] for number in numbers], make, run.progress.note)
                _begin(run, spread, batch)
                continue
            for result in spread.translate(batch):
                run.translated.put(result)
            run.outcome.batch = spread.batch  # which is smaller once memory has run short
            run.progress.advance(run.sink.frames - run.resumed, run.clock.busiest)
        if spread is None and not run.resumed:
            raise InputError(f"{run.plan.source}: no frame lies between `start` and `end`")
        if spread is not None:
            for result in spread.finish():
                run.translated.put(result)
        run.translated.close()
    except BaseException:  # whatever state the engine is in, no other video gets it
        if spread is not None:
            spread.close()
        keeper.close()
        raise
    finally:
        if spread is not None:
            run.outcome.engine = spread.describe()
            spread.close()
            for place in spread.failed:  # no other video gets what is left of it
                keeper.lose(numbers[place])
        if run.engines is None:
            keeper.close()


def _begin(run: VideoRun, spread: Spread[Any], first: list[VideoFrame]) -> None:
    """The engines are ready: say so, and keep what they chose."""
    if run.kept is not None:
        described = spread.describe()
        named = ("engine", "precision", "batch", "calibration")
        chosen = {key: described[key] for key in named if key in described}
        tile = spread.tile_choice(first) or "off"
        run.kept.choose({**chosen, "tile": tile, "planes": run.route.target is not None})
    run.engine_ready.close()
    run.outcome.batch = spread.batch
    run.outcome.first_frame = time.perf_counter() - run.started
    run.measurement.begin(run.outcome.first_frame, run.resumed, run.trial_encoder)
    expected = run.plan.expected_frames
    left = None if expected is None else max(1, expected - run.resumed)
    run.progress.begin(run.plan.source.name, left, "frame")
    run.outcome.begun = True


def _translator(
    run: VideoRun,
    keeper: KeptEngine,
    numbers: list[int],
    place: int,
    count: int | None,
    first: list[VideoFrame],
) -> Translator[Any]:
    """An engine ready on a device, for the first frame and batches of `count`; None: it chooses.

    The device is that of the number at this place among `numbers`.
    """
    plan, target = run.plan, run.route.target
    where = run.devices[numbers[place]]
    own_device(where)
    transfers = transfers_for(where)
    kind: Any = PixelFrames(plan.card, transfers, _depth_of_results(run), run.is_steadied)
    if target is not None:
        kind = PlaneFrames(target, plan.card, transfers)
    asked = _engine_options(plan, run.kept)
    if run.route.others:
        asked = replace(asked, device=str(where), batch=asked.batch if count is None else count)
    pixels = (plan.expected_frames or 0) * plan.work_size[0] * plan.work_size[1]
    samples = partial(sample_pixels, plan.source, plan.info, plan.work_size)
    job = keeper.at(numbers[place]).ready(
        plan.model,
        asked,
        kind.first_pixels(first),
        run.progress,
        samples,
        kind.stored_bytes(first[0]),
        pixels,
    )
    flat = None
    if has_instance_norms(job.engine.model.generator):
        flat = FlatFrames(job.engine, samples, job.note)
    whole = None
    if target is not None:
        from cgconvert.engines.whole import whole_pass

        whole = whole_pass(job, kind, first, pixels, run.progress)
    return Translator(job, kind, run.clock, flat, whole)


def _depth_of_results(run: VideoRun) -> int | None:
    """The bits that results are dithered to, None where they are shown beside their sources.

    That is the encoder's depth. Where swscale changes the size, it dithers after that, and where results
    become HDR, their steps change; RGB of more than 8 bits swscale cuts off rather than rounds, so that
    offsets would darken it. Then they have 16 bits.
    """
    plan = run.plan
    if plan.options.compare and run.finish is None:
        return None
    depth = sample_depth(plan.encoding.pixel_format)
    rounded_later = plan.size != plan.work_size or run.is_steadied or run.finish is not None
    rounded_later = rounded_later or is_hdr(plan.result_info)
    return 16 if rounded_later or (depth > 8 and is_rgb(plan.encoding.pixel_format)) else depth


def _engine_options(plan: VideoPlan, kept: ResumableRun | None) -> EngineOptions:
    """As asked, with the engine, batch and tiles of the kept segments: others round differently.

    Where they were made without tiles, frames for which the memory is too short now go through in tiles.
    """
    options = plan.engine
    if kept is not None and options.engine == "auto" and kept.choices.get("engine") in ENGINES:
        options = replace(options, engine=kept.choices["engine"])
    if kept is not None and options.batch is None and "batch" in kept.choices:
        options = replace(options, batch=kept.choices["batch"])
    if kept is not None and options.tile == "auto" and kept.choices.get("tile", "off") != "off":
        options = replace(options, tile=kept.choices["tile"])
    return options


def _batches(
    decoded: Channel[VideoItem], translated: Channel[VideoItem], size: Callable[[], int]
) -> Iterator[list[VideoFrame]]:
    """Frames in batches of `size()`; packets to copy overtake those that wait for their batch to fill.

    The very first frame is given alone, and once more as the beginning of the first batch. A frame of another
    kind than those that wait, such as one that the card could not decode, begins a new batch, and so does
    every `SEGMENT_FRAMES`th.
    """
    waiting: list[VideoFrame] = []
    count = 0
    for item in decoded:
        if isinstance(item, CopiedPacket):
            translated.put(item)
            continue
        if waiting and _kind(waiting[0]) != _kind(item):
            yield waiting
            waiting = []
        if not count:
            yield [item]
        count += 1
        waiting.append(item)
        if len(waiting) >= size() or count % resume.SEGMENT_FRAMES == 0:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _kind(frame: VideoFrame) -> object:
    """What frames of one batch have in common."""
    return frame.kind if isinstance(frame, PlaneFrame) else None
