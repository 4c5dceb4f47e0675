"""A video through the network: decode -> preprocess -> translate -> postprocess -> encode, overlapped.

Decoding and encoding run in threads of their own, the network in the caller's. Between them are channels
bounded in bytes, so that memory does not grow with the video.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from cgconvert.engines.base import Engine
from cgconvert.engines.ready import create_verified_engine
from cgconvert.errors import InputError, Interrupted
from cgconvert.frames import Frame, PlaneFrame
from cgconvert.host.channels import Aborted, Channel, StageClock, Workers
from cgconvert.host.files import atomic_path
from cgconvert.media.picture.resize import resized
from cgconvert.media.video.compare import compare
from cgconvert.media.video.cuda import card_access
from cgconvert.media.video.probe import sample_pixels
from cgconvert.media.video.sink import VideoSink
from cgconvert.media.video.source import CopiedPacket, VideoSource
from cgconvert.models.loading import load_model
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.progress import Progress, Silent
from cgconvert.tensors.transfers import own_device, taken_over, transfers_for
from cgconvert.video.plan import VideoPlan, encoding_as_dict, plan_video
from cgconvert.video.report import VideoReport
from cgconvert.video.translators import AnyFrame, PixelTranslator, PlaneTranslator, Translator

VideoItem = AnyFrame | CopiedPacket
CHANNEL_BYTES = 48 * 2**20
"""Pictures that wait before and after the network: some frames of 1080p, a second of small ones."""


def convert_video(
    source: str | Path,
    output: str | Path | None = None,
    model: str | Path = "photo2monet",
    options: VideoOptions | None = None,
    engine_options: EngineOptions | None = None,
    progress: Progress | None = None,
) -> VideoReport:
    """Put a video into another look; sound, subtitles, chapters and every time stamp stay as they are.

    `output` None: beside the source, as NAME.MODEL.EXT. The result appears whole or not at all. Raises
    `CgconvertError` subclasses; `Interrupted` on Ctrl-C.
    """
    plan = plan_video(
        Path(source),
        Path(output) if output is not None else None,
        model,
        options or VideoOptions(),
        engine_options or EngineOptions(),
    )
    return run_video(plan, progress or Silent())


def run_video(plan: VideoPlan, progress: Progress) -> VideoReport:
    """Carry out a plan. Raises as `convert_video` does."""
    path = plan.route
    decoder = card_access(path.decoding_card, fallback=True) if path.decoding_card is not None else None
    encoder = card_access(path.encoding_card) if path.encoding_card is not None else None
    copied = frozenset(
        p.index for p in plan.streams if p.action == "copied" and not p.goes_into_header(plan.muxer)
    )
    compared = plan.size if plan.options.compare else None
    options = plan.options
    source = VideoSource(
        plan.source,
        plan.info,
        plan.work_size,
        copied,
        options.start,
        options.end,
        compared,
        as_planes=path.target is not None,
        card=decoder,
        take_over=taken_over,
    )
    with source, atomic_path(plan.output, options.overwrite) as temporary:
        sink = VideoSink(
            temporary,
            plan.output,
            plan.muxer,
            source.container,
            plan.info,
            plan.encoding,
            plan.streams,
            source.cut,
            encoder,
            source.damage,
        )
        run = VideoRun(plan, source, sink, progress)
        try:
            report = run.go()
        except BaseException:
            sink.abort()
            raise
        finally:
            progress.finish()
    return report


class VideoRun:
    """One video on its way: the threads, the channels between them, and what they count."""

    def __init__(
        self,
        plan: VideoPlan,
        source: VideoSource,
        sink: VideoSink,
        progress: Progress,
    ) -> None:
        self.plan, self.source, self.sink, self.progress = plan, source, sink, progress
        self.path, self.device = plan.route, torch.device(plan.route.device)
        self.translator: Translator = PixelTranslator()
        if self.path.target is not None:
            self.translator = PlaneTranslator(transfers_for(self.device), self.path.target)
        self.clock = StageClock("decode", "translate", "encode")
        self.decoded: Channel[VideoItem] = Channel(CHANNEL_BYTES)
        self.translated: Channel[VideoItem] = Channel(CHANNEL_BYTES)
        self.workers = Workers(self.decoded, self.translated)
        self.frames_in = 0
        self.first_frame = 0.0
        self.engine: Engine | None = None
        self.ready = threading.Event()
        """Set with the engine: a CUDA graph cannot be recorded while another thread decodes on the card."""

    def go(self) -> VideoReport:
        """Start the threads, translate, join them, finish the file. Raises what any of them raised."""
        started = time.perf_counter()
        plan = self.plan
        self.progress.note(f"{plan.source.name} -> {plan.output.name}: loading {plan.card.name}")
        for note in self.path.notes:
            self.progress.note(note)
        self.workers.start("decode", self._decode)
        self.workers.start("encode", self._encode)
        try:
            self._translate(started)
            self._watch_encoding()
            self.workers.join()
        except Aborted:
            self.ready.set()
            self.workers.join()  # raises the error that aborted us
        except KeyboardInterrupt:
            raise Interrupted(self._interrupted()) from None
        finally:
            self.workers.abort()
            self.ready.set()
            for thread in self.workers.threads:
                thread.join()
            if self.engine is not None:
                self.engine.close()
        if self.sink.frames == 0:
            raise InputError(f"{plan.source}: no frame lies between `start` and `end`")
        self._check_strict()
        return self._report(time.perf_counter() - started)

    def _interrupted(self) -> str:
        of = f" of about {self.plan.info.frames}" if self.plan.info.frames else ""
        return f"interrupted after {self.sink.frames}{of} frames; nothing is left at {self.plan.output}"

    def _decode(self) -> None:
        if self.path.decoding_card is not None:
            own_device(self.device)
        items = iter(self.source)
        while True:
            try:
                with self.clock.busy("decode"):
                    item = next(items, None)
            except OSError as error:  # of the source: the output's own are told apart by the sink
                raise InputError(
                    f"{self.plan.source}: cannot be read on ({error.strerror or error})"
                ) from error
            if item is None:
                break
            if not isinstance(item, CopiedPacket):
                self.frames_in += 1
            self.decoded.put(item)
            if self.path.target is not None and self.frames_in:
                self.ready.wait()
        self.decoded.close()

    def _batches(self) -> Iterator[list[AnyFrame]]:
        """Frames in batches; packets to copy overtake the frames that wait for their batch to fill.

        The first is one frame, with which the engine is made ready and says how many it wants. A frame of
        another kind than those that wait, such as one that the card could not decode, begins a new batch.
        """
        waiting: list[AnyFrame] = []
        for item in self.decoded:
            if isinstance(item, CopiedPacket):
                self.translated.put(item)
                continue
            if waiting and _kind(waiting[0]) != _kind(item):
                yield waiting
                waiting = []
            waiting.append(item)
            if self.engine is None or len(waiting) >= self.engine.batch:
                yield waiting
                waiting = []
        if waiting:
            yield waiting

    def _translate(self, started: float) -> None:
        """Every batch through the engine, which is made ready with the first one."""
        for batch in self._batches():
            if self.engine is None:
                self.engine = self._ready_engine(batch)
                self.ready.set()
                self.first_frame = time.perf_counter() - started
                self.progress.begin(self.plan.source.name, self._expected(), "frame")
            self._pass_on(self.translator.translate(self.engine, batch))
            self._check_strict()
            self.progress.advance(self.sink.frames, self.clock.busiest)
        self._pass_on(self.translator.finish())
        self.translated.close()

    def _pass_on(self, results: Iterator[AnyFrame]) -> None:
        """Results to the encoder; the network's time counts, waiting for room before the encoder does not."""
        while True:
            with self.clock.busy("translate"):
                frame = next(results, None)
            if frame is None:
                return
            self.translated.put(frame)

    def _ready_engine(self, batch: Sequence[AnyFrame]) -> Engine:
        plan = self.plan
        return create_verified_engine(
            load_model(plan.model),
            plan.engine,
            self.translator.first_pixels(batch),
            self.progress,
            lambda count: sample_pixels(plan.source, plan.info, plan.work_size, count),
        )

    def _expected(self) -> int | None:
        """Frames to come, as far as the container knows."""
        info, options = self.plan.info, self.plan.options
        if options.start is None and options.end is None:
            return info.frames
        if info.duration is None:
            return None
        end = min(options.end, info.duration) if options.end is not None else info.duration
        return max(1, round((end - (options.start or 0)) * info.rate))

    def _encode(self) -> None:
        mode = self.plan.options.compare
        owned = self.path.encoding_card is None
        for item in self.translated:
            if not owned and not isinstance(item, CopiedPacket):
                own_device(self.device)
                owned = True
            with self.clock.busy("encode"):
                if isinstance(item, CopiedPacket):
                    self.sink.copy(item)
                elif mode is not None and isinstance(item, Frame) and item.source is not None:
                    joined = compare(item.source, resized(item.pixels, *self.plan.size), mode)
                    self.sink.write(Frame(joined, item.pts, item.duration))
                else:
                    self.sink.write(item)
        with self.clock.busy("encode"):
            self.sink.finish()

    def _watch_encoding(self) -> None:
        """Show how the last frames are encoded while nothing is left to translate."""
        while self.workers.alive():
            self.progress.advance(self.sink.frames, self.clock.busiest)
            time.sleep(0.05)

    def _check_strict(self) -> None:
        """Stop at the first damage if the user wants none. Raises `InputError`."""
        damage = self.source.damage
        if self.plan.options.strict and damage:
            raise InputError(f"{self.plan.source}: {'; '.join(damage.messages)} (`strict`)")

    def _stage_seconds(self) -> dict[str, float]:
        """What each stage was busy for, in the order of the video's way."""
        assert self.engine is not None
        parts = {"decode": self.clock.seconds["decode"], **self.engine.stage_seconds}
        parts["encode"] = self.clock.seconds["encode"]
        return {stage: round(value, 3) for stage, value in parts.items()}

    def _report(self, seconds: float) -> VideoReport:
        assert self.engine is not None
        plan = self.plan
        warnings = [*plan.notes, *self.source.damage.messages]
        warnings += [f"stream {p.describe()}" for p in plan.streams if p.action == "dropped"]
        if self.sink.frames != self.frames_in:
            warnings.append(f"{self.frames_in} frames came in and {self.sink.frames} went out")
        return VideoReport(
            source=str(plan.source),
            output=str(plan.output),
            model=plan.card.name,
            frames_in=self.frames_in,
            frames_out=self.sink.frames,
            seconds=round(seconds, 3),
            first_frame=round(self.first_frame, 3),
            stage_seconds=self._stage_seconds(),
            busiest=self.clock.busiest,
            busiest_seconds=round(self.clock.seconds[self.clock.busiest], 3),
            engine=self.engine.describe(),
            encoding=encoding_as_dict(plan),
            size=plan.size,
            work_size=plan.work_size,
            streams=[asdict(stream) for stream in plan.streams],
            damage=asdict(self.source.damage),
            warnings=warnings,
            path=list(self.path.notes),
        )


def _kind(frame: AnyFrame) -> object:
    """What frames of one batch have in common."""
    return frame.kind if isinstance(frame, PlaneFrame) else None
