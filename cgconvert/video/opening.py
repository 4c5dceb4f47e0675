"""What a plan's route wants opened: the source, the result's file, the encoder of segments, the finisher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from cgconvert.frames import Frame, PlaneFrame
from cgconvert.media.picture.finish import finished
from cgconvert.media.video.cuda import card_access
from cgconvert.media.video.encoder import FrameEncoder
from cgconvert.media.video.finish import PlaneFinisher
from cgconvert.media.video.sink import VideoSink
from cgconvert.media.video.source import Damage, VideoSource
from cgconvert.tensors.transfers import taken_over
from cgconvert.video.plan import VideoPlan
from cgconvert.video.resume import ResumableRun
from cgconvert.video.segments import SegmentEncoder


def finisher(plan: VideoPlan) -> Callable[[Frame], Frame | PlaneFrame] | None:
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


def open_source(
    plan: VideoPlan,
    after: int | None = None,
    earlier: Damage | None = None,
    joining: bool = False,
) -> VideoSource:
    """The source as the route wants its frames, with the packets that are copied.

    `after` is the pts of the last frame that is not wanted, and `earlier` the damage found up to there.
    `joining`: for the packets alone, of which nothing is decoded.
    """
    keeps_source = plan.options.compare is not None or finisher(plan) is not None
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
        after=after,
        earlier=earlier,
        deinterlacing=plan.deinterlacing,
        alpha_size=plan.size if plan.keeps_alpha else None,
    )


def open_segments(plan: VideoPlan, source: VideoSource, kept: ResumableRun) -> SegmentEncoder:
    """The encoder of the segments that follow those that are kept."""
    encoding_card = plan.route.encoding_card
    card = card_access(encoding_card) if encoding_card is not None else None
    return SegmentEncoder(
        kept,
        plan.muxer,
        lambda: FrameEncoder(plan.result_info, plan.encoding, card),
        source.damage,
        plan.encoders,
    )


def open_sink(plan: VideoPlan, source: VideoSource, path: Path, damage: Damage) -> VideoSink:
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
