"""A run over one video: the channels between its threads, what they share, and its report."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cgconvert.engines.kept import KeptEngine
from cgconvert.errors import InputError
from cgconvert.frames import Frame, PlaneFrame
from cgconvert.host.channels import Channel, Relayed, StageClock, Workers
from cgconvert.media.video.encoder import FrameEncoder, PacketEncoder
from cgconvert.media.video.sink import VideoSink
from cgconvert.media.video.source import CopiedPacket, Damage, VideoSource
from cgconvert.progress import Progress
from cgconvert.video.estimate import Measurement
from cgconvert.video.opening import finisher, open_segments, open_sink, open_source
from cgconvert.video.plan import VideoPlan, encoding_as_dict
from cgconvert.video.report import VideoReport, describe_growth
from cgconvert.video.resume import ResumableRun
from cgconvert.video.segments import SegmentEncoder

VideoFrame = Frame | PlaneFrame
VideoItem = VideoFrame | CopiedPacket
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


@dataclass
class Outcome:
    """What the threads of a run tell of it: each field is written by one of them."""

    frames_in: int = 0
    written: int = 0
    first_frame: float = 0.0
    batch: int = 1
    engine: dict[str, Any] = field(default_factory=dict)
    begun: bool = False


class VideoRun:
    """What the threads of one run share; `video.pipeline` shows how they stand together.

    `engines` keeps the engine for the next video, and is the caller's to close. None: it is closed here.
    `measurement` estimates by the first frames what all of them take. None: `progress` is told, for a long
    run. After `open` there are the `source`, the `sink` and, if finished segments are `kept`, how many frames
    of them are there: `resumed`.
    """

    source: VideoSource
    sink: VideoSink | SegmentEncoder
    temporary: Path | None
    kept: ResumableRun | None
    resumed: int

    def __init__(
        self,
        plan: VideoPlan,
        progress: Progress,
        engines: KeptEngine | None = None,
        measurement: Measurement | None = None,
        on_frame: OnFrame | None = None,
    ) -> None:
        self.started = time.perf_counter()
        self.plan, self.options, self.route = plan, plan.options, plan.route
        self.engines, self.on_frame = engines, on_frame
        self.device = torch.device(self.route.device)
        self.devices = [self.device, *map(torch.device, self.route.others)]
        self.is_steadied = plan.steadiness is not None
        self.finish = finisher(plan)
        used = {**dict.fromkeys(GROUPS, True), "steady": self.is_steadied, "finish": self.finish is not None}
        stages = {stage: group for stage, group in GROUPS.items() if used[stage]}
        self.outcome, self.clock = Outcome(), StageClock(stages, {"translate": len(self.devices)})
        self.decoded: Channel[VideoItem] = Channel(CHANNEL_BYTES)
        self.translated: Channel[VideoItem] = Channel(CHANNEL_BYTES)
        self.steadied = self.translated if not self.is_steadied else Channel[VideoItem](CHANNEL_BYTES)
        self.engine_ready: Channel[VideoFrame] = Channel(0)
        """Nothing passes it: it is closed when the engine is ready."""
        self.workers = Workers(self.decoded, self.translated, self.steadied, self.engine_ready)
        self.told = progress
        self.progress = Relayed(self.workers, progress)
        self.measurement = measurement or Measurement(
            plan, lambda estimate: self.progress.note(estimate.describe())
        )

    def open(
        self, opened: ExitStack, kept: ResumableRun | None, temporary: Path | None, after: int | None = None
    ) -> None:
        """Open the source and what the results go to: segments that are `kept`, or a file at `temporary`.

        Both are closed with `opened`. `after` is the pts of the last frame that is not wanted, if none is
        kept.
        """
        self.kept, self.temporary = kept, temporary
        self.resumed = kept.frames if kept is not None else 0
        earlier = None
        if kept is not None and kept.segments:
            after, earlier = kept.last_pts, Damage(**kept.segments[-1].damage)
        self.source = open_source(self.plan, after, earlier)
        # A thread that could not be ended may still be at work with them; the file is removed all the same.
        opened.callback(lambda: None if self.workers.left else self.source.container.close())
        if kept is not None:
            self.sink = open_segments(self.plan, self.source, kept)
        else:
            assert temporary is not None
            self.sink = open_sink(self.plan, self.source, temporary, self.source.damage)
        opened.callback(lambda: None if self.workers.left else self.sink.abort())
        opened.callback(self.told.finish)

    def check_strict(self) -> None:
        """Raise `InputError` if there is damage and none may be."""
        if self.options.strict and self.source.damage:
            raise InputError(f"{self.plan.source}: {'; '.join(self.source.damage.messages)} (`strict`)")

    def trial_encoder(self) -> PacketEncoder:
        """For the size of the result, which the run's own encoder tells dozens of frames later."""
        return PacketEncoder(FrameEncoder(self.plan.result_info, self.plan.encoding), self.plan.muxer)

    def show(self) -> None:
        """How far the encoder is, while nothing else is told; for the watching thread."""
        if self.outcome.begun:
            self.told.advance(self.sink.frames - self.resumed, self.clock.busiest)

    def report(self) -> VideoReport:
        """What has been done, once it is."""
        plan, damage, outcome = self.plan, self.source.damage, self.outcome
        warnings = [*plan.warnings, *damage.messages]
        frames_in, frames_out = self.resumed + outcome.frames_in, self.sink.frames
        if frames_out != frames_in:
            warnings.append(f"{frames_in} frames came in and {frames_out} went out")
        warnings += describe_growth(plan.source, outcome.written, plan.encoding)
        return VideoReport(
            source=str(plan.source),
            output=str(plan.output),
            model=plan.card.name,
            frames_in=frames_in,
            frames_out=frames_out,
            resumed_frames=self.resumed,
            seconds=round(time.perf_counter() - self.started, 3),
            first_frame=round(outcome.first_frame, 3),
            stage_seconds={stage: round(value, 3) for stage, value in self.clock.seconds.items()},
            busiest=self.clock.busiest,
            busiest_seconds=round(self.clock.loads()[self.clock.busiest], 3),
            engine=outcome.engine,
            encoding={**encoding_as_dict(plan), "encoders": plan.encoders},
            size=plan.size,
            work_size=plan.work_size,
            streams=[asdict(stream) for stream in plan.streams],
            damage=asdict(damage),
            warnings=warnings,
            path=list(plan.route.notes),
            steady=asdict(plan.steadiness) if plan.steadiness is not None else None,
            hdr=asdict(plan.hdr) if plan.hdr is not None else None,
            look=asdict(plan.look),
        )
