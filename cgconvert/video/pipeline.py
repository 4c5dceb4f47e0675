"""A video through the network: decode, translate and encode, each in a thread of its own.

Between them are channels bounded in bytes, so that memory does not grow with the video. The caller's thread
only watches: it shows the progress and hears interrupts, also while the network is at work.

Unless `resume` is off the frames are encoded in closed segments, which are kept beside the result until it is
complete: what was broken off goes on from the last of them. The segments are joined without encoding anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cgconvert.engines.flat import FlatFrames, has_instance_norms
from cgconvert.engines.kept import KeptEngine
from cgconvert.engines.pixels import PixelFrames
from cgconvert.engines.planes import PlaneFrames
from cgconvert.engines.spread import Spread
from cgconvert.engines.translator import Translator
from cgconvert.errors import InputError, Interrupted
from cgconvert.frames import Frame, PlaneFrame
from cgconvert.host.channels import Channel, Relayed, StageClock, Workers
from cgconvert.host.files import atomic_path
from cgconvert.host.interrupts import listening
from cgconvert.media.picture.finish import finished
from cgconvert.media.picture.resize import resized
from cgconvert.media.video.codecs import sample_depth
from cgconvert.media.video.colour import is_rgb
from cgconvert.media.video.compare import compare
from cgconvert.media.video.cuda import card_access
from cgconvert.media.video.encoder import FrameEncoder, PacketEncoder
from cgconvert.media.video.finish import PlaneFinisher
from cgconvert.media.video.probe import sample_pixels
from cgconvert.media.video.sink import VideoSink
from cgconvert.media.video.source import CopiedPacket, Damage, VideoSource
from cgconvert.media.video.steady import Steadier
from cgconvert.media.video.tone import is_hdr
from cgconvert.options import ENGINES, EngineOptions, VideoOptions
from cgconvert.progress import Progress, Silent
from cgconvert.tensors.transfers import own_device, taken_over, transfers_for
from cgconvert.video import resume
from cgconvert.video.estimate import Measurement
from cgconvert.video.jobs import kept_segments
from cgconvert.video.plan import VideoPlan, encoding_as_dict, plan_video
from cgconvert.video.report import VideoReport, describe_growth
from cgconvert.video.resume import ResumableRun
from cgconvert.video.route import choose_route
from cgconvert.video.segments import SegmentEncoder, join_segments

VideoFrame = Frame | PlaneFrame
CHANNEL_BYTES = 48 * 2**20
"""Pictures that wait before and after the network: some frames of 1080p, a second of small ones."""

GROUPS = {
    "decode": "decode",
    "preprocess": "translate",
    "translate": "translate",
    "postprocess": "translate",
    "steady": "steady",
    "finish": "encode",
    "encode": "encode",
}
"""The stages of a video in the order of its way, and the thread that each works in."""


OnFrame = Callable[[np.ndarray, float], object]
"""Is shown each result of the network: pixels (H, W, 3), and seconds from the beginning of the source."""


def convert_video(
    source: str | Path,
    output: str | Path | None = None,
    model: str | Path = "photo2monet",
    options: VideoOptions | None = None,
    engine_options: EngineOptions | None = None,
    progress: Progress | None = None,
    *,
    on_frame: OnFrame | None = None,
) -> VideoReport:
    """Convert a video to another look; sound, subtitles, chapters and all timestamps stay as they are.

    `output` None: beside the source, as NAME.MODEL.EXT. The result appears whole or not at all. Raises
    `CgconvertError` subclasses; `Interrupted` on Ctrl-C.

    `on_frame(pixels, seconds)` is called in a thread of the pipeline with each result of the network, in
    order: RGB (H, W, 3) of the work size, uint8 or for more than 8 bits uint16, and its time in the source.
    The array is the pipeline's own and is not to be changed. `strength`, `keep_colours`, `size` and
    `compare` come after it. What it raises ends the run and is raised here. Every frame is shown, so the run
    begins anew each time (`resume` is off), and on a CUDA device frames go as RGB, which is slower.
    """
    options = options or VideoOptions()
    plan = plan_video(
        Path(source),
        Path(output) if output is not None else None,
        model,
        options if on_frame is None else replace(options, resume=False),
        engine_options or EngineOptions(),
    )
    if on_frame is not None and plan.route.target is not None:
        plan = choose_route(plan, plan.route.device, as_planes=False)
    return run_video(plan, progress or Silent(), on_frame=on_frame)


@dataclass
class Outcome:
    """What the threads of a run tell of it: each field is written by one of them."""

    frames_in: int = 0
    written: int = 0
    first_frame: float = 0.0
    batch: int = 1
    engine: dict[str, Any] = field(default_factory=dict)
    begun: bool = False


def run_video(
    plan: VideoPlan,
    progress: Progress,
    engines: KeptEngine | None = None,
    measurement: Measurement | None = None,
    on_frame: OnFrame | None = None,
) -> VideoReport:
    """Carry out a plan. Raises as `convert_video` does, whose `on_frame` needs a route of RGB frames.

    `engines` keeps the engine for the next video, and is the caller's to close. None: it is closed here.
    `measurement` estimates by the first frames what all of them take. None: `progress` is told, for a long
    run.
    """
    started = time.perf_counter()
    options, route = plan.options, plan.route
    device = torch.device(route.device)
    devices = [device, *map(torch.device, route.others)]
    is_steadied = plan.steadiness is not None
    finish = _finisher(plan)
    used = {**dict.fromkeys(GROUPS, True), "steady": is_steadied, "finish": finish is not None}
    stages = {stage: group for stage, group in GROUPS.items() if used[stage]}
    outcome, clock = Outcome(), StageClock(stages, {"translate": len(devices)})
    decoded: Channel[VideoFrame | CopiedPacket] = Channel(CHANNEL_BYTES)
    translated: Channel[VideoFrame | CopiedPacket] = Channel(CHANNEL_BYTES)
    engine_ready: Channel[VideoFrame] = Channel(0)  # nothing passes it: it is closed when the engine is ready
    steadied = translated if not is_steadied else Channel[VideoFrame | CopiedPacket](CHANNEL_BYTES)
    workers = Workers(decoded, translated, steadied, engine_ready)
    relayed = Relayed(workers, progress)
    measurement = measurement or Measurement(plan, lambda estimate: relayed.note(estimate.describe()))

    def decode() -> None:
        """Frames of the source and packets of its other streams, in the order of the file."""
        if route.decoding_card is not None:
            own_device(device)
        items = iter(source)
        while True:
            try:
                with clock.busy("decode"):
                    item = next(items, None)
            except OSError as error:  # of the source: the output's own are told apart by the sink
                raise InputError(f"{plan.source}: cannot be read on ({error.strerror or error})") from error
            if options.strict and source.damage:
                raise InputError(f"{plan.source}: {'; '.join(source.damage.messages)} (`strict`)")
            if item is None:
                break
            if isinstance(item, CopiedPacket) and kept is not None:
                continue  # written when the segments are joined, in the order of the file
            decoded.put(item)
            if not isinstance(item, CopiedPacket):
                outcome.frames_in += 1
                if route.target is not None and outcome.frames_in == 1:
                    # A CUDA graph cannot be recorded while another thread allocates on the card.
                    engine_ready.take()
        decoded.close()

    def translate() -> None:
        """Every frame through the network, in batches; the packets to copy pass them by."""
        # Dithered for the encoder's depth. Where swscale changes the size, it dithers after that, and where
        # results become HDR, their steps change; RGB of more than 8 bits swscale cuts off rather than rounds,
        # so that offsets would darken it.
        depth = sample_depth(plan.encoding.pixel_format)
        rounded_later = plan.size != plan.work_size or is_steadied or finish is not None
        rounded_later = rounded_later or is_hdr(plan.result_info)
        if rounded_later or (depth > 8 and is_rgb(plan.encoding.pixel_format)):
            depth = 16
        depth_of_results = None if plan.options.compare and finish is None else depth
        samples = partial(sample_pixels, plan.source, plan.info, plan.work_size)
        keeper = engines or KeptEngine()
        numbers = [number for number in range(len(devices)) if number not in keeper.lost]
        numbers = numbers or list(range(len(devices)))  # rather an error that tells what is wrong with them

        def make(place: int, count: int | None, first: list[VideoFrame]) -> Translator[Any]:
            """An engine ready on a device, for the first frame and batches of so many; None: it chooses."""
            where = devices[numbers[place]]
            own_device(where)
            transfers = transfers_for(where)
            kind: Any = PixelFrames(plan.card, transfers, depth_of_results, is_steadied)
            if route.target is not None:
                kind = PlaneFrames(route.target, plan.card, transfers)
            asked = _engine_options(plan, kept)
            if route.others:
                asked = replace(asked, device=str(where), batch=asked.batch if count is None else count)
            pixels = (plan.expected_frames or 0) * plan.work_size[0] * plan.work_size[1]
            job = keeper.at(numbers[place]).ready(
                plan.model,
                asked,
                kind.first_pixels(first),
                relayed,
                samples,
                kind.stored_bytes(first[0]),
                pixels,
            )
            flat = None
            if has_instance_norms(job.engine.model.generator):
                flat = FlatFrames(job.engine, samples, job.note)
            whole = None
            if route.target is not None:
                from cgconvert.engines.whole import whole_pass

                whole = whole_pass(job, kind, first, pixels, relayed)
            return Translator(job, kind, clock, flat, whole)

        spread: Spread[Any] | None = None
        try:
            for batch in _batches(decoded, translated, lambda: outcome.batch):
                if spread is None:
                    # The first batch is given twice: its one frame makes the engine ready, which chooses how
                    # many go together; then it begins a batch of so many. So batches begin where segments do.
                    spread = Spread(
                        [devices[number] for number in numbers], partial(make, first=batch), relayed.note
                    )
                    if kept is not None:
                        described = spread.describe()
                        named = ("engine", "precision", "batch", "calibration")
                        chosen = {key: described[key] for key in named if key in described}
                        tile = spread.tile_choice(batch) or "off"
                        kept.choose({**chosen, "tile": tile, "planes": route.target is not None})
                    engine_ready.close()
                    outcome.batch = spread.batch
                    outcome.first_frame = time.perf_counter() - started
                    measurement.begin(outcome.first_frame, resumed, trial_encoder)
                    expected = plan.expected_frames
                    left = None if expected is None else max(1, expected - resumed)
                    relayed.begin(plan.source.name, left, "frame")
                    outcome.begun = True
                    continue
                for result in spread.translate(batch):
                    translated.put(result)
                outcome.batch = spread.batch  # which is smaller once memory has run short
                relayed.advance(sink.frames - resumed, clock.busiest)
            if spread is None and not resumed:
                raise InputError(f"{plan.source}: no frame lies between `start` and `end`")
            if spread is not None:
                for result in spread.finish():
                    translated.put(result)
            translated.close()
        except BaseException:  # whatever state the engine is in, no other video gets it
            if spread is not None:
                spread.close()
            keeper.close()
            raise
        finally:
            if spread is not None:
                outcome.engine = spread.describe()
                spread.close()
                for place in spread.failed:  # no other video gets what is left of it
                    keeper.lose(numbers[place])
            if engines is None:
                keeper.close()

    def steady() -> None:
        """Results that change where their sources do; packets to copy pass by in their order."""
        assert plan.steadiness is not None
        steadier = Steadier(plan.steadiness.strength, exact=plan.steadiness.exact)
        if kept is not None and resumed and not steadier.restore(kept.steady_state()):
            relayed.note(f"how results were steadied up to frame {resumed} is lost: it begins anew there")
        count = resumed
        for item in translated:
            if isinstance(item, Frame):
                assert item.seen is not None
                count += 1
                ends_segment = kept is not None and count % resume.SEGMENT_FRAMES == 0
                with clock.busy("steady"):
                    pixels = steadier.step(item.seen, item.pixels)
                    state = steadier.checkpoint() if ends_segment else None
                item = replace(item, pixels=pixels, seen=None, state=state)
            steadied.put(item)
        steadied.close()

    def trial_encoder() -> PacketEncoder:
        """For the size of the result, which the run's own encoder tells dozens of frames later."""
        return PacketEncoder(FrameEncoder(plan.result_info, plan.encoding), plan.muxer)

    def encode() -> None:
        """Results and packets into the file, which is ended and read back."""
        if route.encoding_card is not None:
            own_device(device)
        for item in steadied:
            if on_frame is not None and isinstance(item, Frame):
                on_frame(item.pixels, float(item.pts * plan.info.time_base))
            if finish is not None and isinstance(item, Frame):
                with clock.busy("finish"):
                    item = finish(item)
            with clock.busy("encode"):
                if isinstance(item, CopiedPacket):
                    assert isinstance(sink, VideoSink)  # packets of segments were left out above
                    sink.copy(item)
                    continue
                if options.compare is not None and isinstance(item, Frame):
                    assert isinstance(item.source, np.ndarray)
                    joined = compare(item.source, resized(item.pixels, *plan.size), options.compare)
                    item = Frame(joined, item.pts, item.duration)
                sink.write(item)
            measurement.see(item)
        with clock.busy("encode"):
            sink.finish()
        if isinstance(sink, VideoSink):
            outcome.written = sink.written
        if kept is not None:
            source.container.close()  # it is read once more, and its decoder and its index need memory
            relayed.stage("joining the segments")
            with clock.busy("encode"), _open_source(plan, joining=True) as again:
                result = _open_sink(plan, again, temporary, source.damage)
                join_segments(kept, again, result, check)
            outcome.written = result.written
            relayed.stage(None)

    def check() -> None:
        """For the joining, which waits at nothing: whether it is to stop."""
        workers.check()
        if options.strict and source.damage:
            raise InputError(f"{plan.source}: {'; '.join(source.damage.messages)} (`strict`)")

    def show() -> None:
        """How far the encoder is, while nothing else is told."""
        if outcome.begun:
            progress.advance(sink.frames - resumed, clock.busiest)

    progress.note(f"{plan.source.name} -> {plan.output.name}: loading {plan.card.name}")
    for note in route.notes:
        progress.note(note)
    # What is entered last ends first: the threads, then source and sink, then the file gets its name, and
    # then its segments are removed.
    with (
        listening() as stop,
        kept_segments(plan) if options.resume else nullcontext() as kept,
        atomic_path(plan.output, options.overwrite) as temporary,
        ExitStack() as opened,
    ):
        resumed = kept.frames if kept is not None else 0
        for note in kept.notes if kept is not None else ():
            progress.note(note)
        if resumed:
            progress.note(f"going on after frame {resumed}, which was reached before")
        source = _open_source(plan, kept)
        # A thread that could not be ended may still be at work with them; the file is removed all the same.
        opened.callback(lambda: None if workers.left else source.container.close())
        sink: VideoSink | SegmentEncoder
        if kept is not None:
            sink = _open_segments(plan, source, kept)
        else:
            sink = _open_sink(plan, source, temporary, source.damage)
        opened.callback(lambda: None if workers.left else sink.abort())
        opened.callback(progress.finish)
        with workers:
            workers.start("decode", decode)
            workers.start("translate", translate)
            if is_steadied:
                workers.start("steady", steady)
            workers.start("encode", encode)
            try:
                workers.watch(stop, show)
            except KeyboardInterrupt:
                of = f" of about {plan.info.frames}" if plan.info.frames else ""
                again = "nothing is left at"
                if kept is not None and kept.frames:
                    again = f"the same command goes on after frame {kept.frames}; nothing is yet at"
                raise Interrupted(
                    f"interrupted after {sink.frames}{of} frames; {again} {plan.output}"
                ) from None
    return _report(plan, source, sink.frames, resumed, outcome, clock, time.perf_counter() - started)


def _finisher(plan: VideoPlan) -> Callable[[Frame], VideoFrame] | None:
    """Return what finishes results on the processor. None if there is nothing to do, or a card does it."""
    finish = plan.finish
    if finish is None or plan.route.target is not None:
        return None
    if plan.source_format is not None:
        return PlaneFinisher(plan.info, *plan.size, plan.source_format, finish)

    def as_pixels(frame: Frame) -> Frame:
        assert isinstance(frame.source, np.ndarray)
        return replace(frame, pixels=finished(frame.source, frame.pixels, finish))

    return as_pixels


def _open_source(plan: VideoPlan, kept: ResumableRun | None = None, joining: bool = False) -> VideoSource:
    """The source as the route wants its frames, after those that are kept, with the packets that are copied.

    `joining`: for the packets alone, of which nothing is decoded.
    """
    keeps_source = plan.options.compare is not None or _finisher(plan) is not None
    copied = [
        p.index
        for p in plan.streams
        if p.action in ("copied", "encoded") and not p.goes_into_header(plan.muxer)
    ]
    decoding = None if joining else plan.route.decoding_card
    return VideoSource(
        plan.source,
        plan.info,
        plan.work_size,
        frozenset(copied),
        plan.options.start,
        plan.options.end,
        plan.size if keeps_source else None,
        plan.source_format,
        as_planes=plan.route.target is not None,
        card=card_access(decoding, fallback=True) if decoding is not None else None,
        take_over=taken_over,
        after=kept.last_pts if kept is not None else None,
        earlier=Damage(**kept.segments[-1].damage) if kept is not None and kept.segments else None,
        deinterlacing=plan.deinterlacing,
        alpha_size=plan.size if plan.keeps_alpha else None,
    )


def _open_segments(plan: VideoPlan, source: VideoSource, kept: ResumableRun) -> SegmentEncoder:
    """The encoder of the segments that follow those that are kept."""
    encoding_card = plan.route.encoding_card
    card = card_access(encoding_card) if encoding_card is not None else None
    return SegmentEncoder(
        kept,
        plan.muxer,
        lambda: FrameEncoder(plan.result_info, plan.encoding, card),
        source.damage,
    )


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


def _open_sink(plan: VideoPlan, source: VideoSource, path: Path, damage: Damage) -> VideoSink:
    """The result's file, with the source's streams and the route's encoder."""
    card = plan.route.encoding_card
    return VideoSink(
        path,
        plan.output,
        plan.muxer,
        source.container,
        plan.result_info,
        plan.encoding,
        plan.streams,
        source.cut,
        card_access(card) if card is not None else None,
        damage,
    )


def _batches(
    decoded: Channel[VideoFrame | CopiedPacket],
    translated: Channel[VideoFrame | CopiedPacket],
    size: Callable[[], int],
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


def _report(
    plan: VideoPlan,
    source: VideoSource,
    frames_out: int,
    resumed: int,
    outcome: Outcome,
    clock: StageClock,
    seconds: float,
) -> VideoReport:
    warnings = [*plan.warnings, *source.damage.messages]
    frames_in = resumed + outcome.frames_in
    if frames_out != frames_in:
        warnings.append(f"{frames_in} frames came in and {frames_out} went out")
    warnings += describe_growth(plan.source, outcome.written, plan.encoding)
    return VideoReport(
        source=str(plan.source),
        output=str(plan.output),
        model=plan.card.name,
        frames_in=frames_in,
        frames_out=frames_out,
        resumed_frames=resumed,
        seconds=round(seconds, 3),
        first_frame=round(outcome.first_frame, 3),
        stage_seconds={stage: round(value, 3) for stage, value in clock.seconds.items()},
        busiest=clock.busiest,
        busiest_seconds=round(clock.loads()[clock.busiest], 3),
        engine=outcome.engine,
        encoding=encoding_as_dict(plan),
        size=plan.size,
        work_size=plan.work_size,
        streams=[asdict(stream) for stream in plan.streams],
        damage=asdict(source.damage),
        warnings=warnings,
        path=list(plan.route.notes),
        steady=asdict(plan.steadiness) if plan.steadiness is not None else None,
        hdr=asdict(plan.hdr) if plan.hdr is not None else None,
        look=asdict(plan.look),
    )
