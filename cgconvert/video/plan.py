"""The plan of a video's conversion, decided and checked before any work. Imports no torch for the CPU."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from cgconvert.card import ModelCard
from cgconvert.errors import InputError, ModelError, UsageError
from cgconvert.finish import Finish, lacks_detail
from cgconvert.frames import StreamInfo
from cgconvert.media.video.alpha import PROFILES, source_has_alpha, why_not_alpha
from cgconvert.media.video.codecs import (
    VideoCodec,
    container_of,
    find_codec,
    held_by,
    pixel_format_for,
)
from cgconvert.media.video.encoder import Encoding
from cgconvert.media.video.fields import MODES as DEINTERLACE_MODES
from cgconvert.media.video.fields import Deinterlacing, choose_deinterlacing
from cgconvert.media.video.planes import yuv_format
from cgconvert.media.video.probe import VideoProbe
from cgconvert.media.video.streams import StreamPlan
from cgconvert.media.video.tags import tag_options
from cgconvert.media.video.tone import HDR_MODES, HdrPlan, choose_hdr, is_hdr
from cgconvert.models.catalog import find_model, renamed_note
from cgconvert.models.files import read_card
from cgconvert.options import EngineOptions, VideoOptions, check_engine_options
from cgconvert.sizes import check_work_size, network_size, parse_size, pixel_aspect
from cgconvert.video.route import VideoRoute, with_route
from cgconvert.video.steadiness import Steadiness, check_steady, choose_steadiness
from cgconvert.video.target import Place, choose_target, dropped_metadata, plan_writable_streams

COMPARE_MODES = ("side", "split")
DECODERS = ("auto", "cpu", "nvdec")
MOST_ENCODERS, AUTO_ENCODERS, CORES_OF_AN_ENCODER = 16, 4, 8
"""Segments that may be encoded at once, by themselves at most, and the cores that each of them needs."""


@dataclass(frozen=True)
class VideoPlan:
    """One video's conversion. Only the engine is still chosen by the run, which measures for it.

    `size` is the result's (width, height), `work_size` that of what the network sees. `keeps_alpha`: frames
    carry the source's transparency.
    """

    source: Path
    output: Path
    muxer: str
    model: Path
    card: ModelCard
    info: StreamInfo
    streams: Sequence[StreamPlan]
    codec_name: str
    encoding: Encoding
    size: tuple[int, int]
    work_size: tuple[int, int]
    options: VideoOptions
    engine: EngineOptions
    route: VideoRoute
    look: Finish = field(default_factory=Finish)
    steadiness: Steadiness | None = None
    deinterlacing: Deinterlacing | None = None
    hdr: HdrPlan | None = None
    keeps_alpha: bool = False
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def result_info(self) -> StreamInfo:
        """What is known of the result's stream, apart from its size."""
        info = self.hdr.described(self.info) if self.hdr is not None else self.info
        return replace(info, sample_aspect_ratio=_result_aspect(info, self.size))

    @property
    def expected_frames(self) -> int | None:
        """Frames that the result will have, as far as the container knows."""
        info, options = self.info, self.options
        if options.start is None and options.end is None:
            return info.frames
        if info.duration is None:
            return None
        end = min(options.end, info.duration) if options.end is not None else info.duration
        return max(1, round((end - (options.start or 0)) * info.rate))

    @property
    def encoders(self) -> int:
        """Segments that are encoded at once. On a card there is one encoder."""
        if self.options.encoders is not None:
            return self.options.encoders
        is_the_limit = self.route.device.startswith("cuda") and self.route.encoding_card is None
        if not is_the_limit or not self.options.resume:
            return 1
        return max(1, min(AUTO_ENCODERS, (os.cpu_count() or 1) // CORES_OF_AN_ENCODER))

    @property
    def warnings(self) -> list[str]:
        """What of the source the result will not keep, or will have otherwise, in words."""
        others = [stream for stream in self.streams if stream.action in ("dropped", "encoded")]
        return [*self.notes, *(f"stream {stream.describe()}" for stream in others)]

    @property
    def finish(self) -> Finish | None:
        """How results are finished with their sources, None if they are encoded as they are."""
        needed = not self.look.is_plain or lacks_detail(self.work_size, self.size)
        return self.look if needed else None

    @property
    def source_format(self) -> str | None:
        """The pixel format in which results are finished on the processor, None for RGB pixels.

        HDR is finished as the SDR pixels that it is tone mapped to.
        """
        name = self.encoding.pixel_format
        is_yuv = (
            yuv_format(name, self.info) is not None and not self.options.compare and not is_hdr(self.info)
        )
        return name if self.finish is not None and is_yuv else None

    def describe(self) -> list[str]:
        """Return the plan line by line, as `--dry-run` prints it."""
        info, encoding = self.info, self.encoding
        about = f"{info.width}x{info.height}, {float(info.rate):.3f} frames/s, {info.pixel_format}"
        length = f", {info.duration:.1f} s" if info.duration else ""
        count = f", {info.frames} frames" if info.frames else ""
        device = ", ".join([self.route.device, *self.route.others])
        if device == "cpu":
            device = self.engine.device
        settings = " ".join(f"{name}={value}" for name, value in encoding.options().items())
        lines = [
            f"source     {self.source} ({about}{length}{count})",
            f"model      {self.card.name} ({self.card.source_domain} -> {self.card.target_domain}), "
            f"{self.model}",
            f"network    sees {self.work_size[0]}x{self.work_size[1]}; device {device}, "
            f"engine {self.engine.engine}, precision {self.engine.precision}, "
            f"batch {self.engine.batch or 'auto'}",
            f"result     {self.output} ({self.muxer}, {self.codec_name} by {encoding.codec.encoder}, "
            f"{encoding.width}x{encoding.height}, {encoding.pixel_format}, {settings})",
        ]
        if told := self.look.describe():
            lines.append(f"look       {told}")
        if self.steadiness is not None:
            lines.append(f"steady     {self.steadiness.describe()}")
        lines += [f"route      {note}" for note in self.route.notes]
        lines += [f"stream     {plan.describe()}" for plan in self.streams]
        lines += [f"note       {note}" for note in self.notes]
        return lines


def plan_video(
    source: Path,
    output: Path | Place | None,
    model: str | Path,
    options: VideoOptions,
    engine: EngineOptions,
) -> VideoPlan:
    """Decide everything about a video's conversion and check that it can work.

    `output` is a file or a folder; None is the source's folder. The result is NAME.MODEL.EXT in a folder.
    Raises `UsageError`, `UnavailableError`, `ModelError`, `InputError`, `OutputError`.
    """
    check_options(options, engine)
    with VideoProbe(source) as video:
        deinterlacing, joined = choose_deinterlacing(source, video.info, options.deinterlace)
        if deinterlacing is not None:
            video.info = deinterlacing.described(video.info)
        info = video.info
        hdr = choose_hdr(source, info, options.hdr)
        result = hdr.described(info) if hdr is not None else info
        if options.start is not None and info.duration and options.start >= info.duration:
            raise UsageError(f"`start={options.start:g}` is past the end of {source} ({info.duration:.1f} s)")
        model_path, card = find_video_model(model)
        # The result's path decides its container, and the container decides the codec if none is asked for.
        target, notes = choose_target(video, output, card.name, options)
        notes += renamed_note(model)
        muxer, default_codec = container_of(target)
        codec_name = options.codec or default_codec
        codec = find_codec(codec_name)
        if codec.codec not in held_by(muxer):
            raise UsageError(
                f"{target.suffix} cannot hold {codec_name}: use an `output` with .mkv, or another `codec`"
            )
        _check_encoder_options(options, codec, codec_name)
        size = (info.width, info.height)
        if options.size:
            size = parse_size(options.size, info.width, info.height, "size")
        work_size = network_size(options.work_size, options.stroke, card, size, (info.width, info.height))
        is_transparent = source_has_alpha(info)
        alpha_lost = why_not_alpha(codec, muxer, options) if is_transparent else None
        keeps_alpha = is_transparent and alpha_lost is None
        encoding = _encoding(codec, info, size, options, keeps_alpha)
        as_stored = size == work_size == (info.width, info.height) and not (info.rotation or options.compare)
        tags, dropped = tag_options(result, codec.encoder, as_stored)
        encoding = replace(encoding, tags=tags)
        # Encoder and container are opened once in memory, so that what they refuse is known before the work.
        streams = plan_writable_streams(video, target, muxer, encoding)
        _check_strict(source, streams, options)
        if hdr is not None:
            joined.append(hdr.describe())
        aspect = _result_aspect(info, size)
        if aspect not in (info.sample_aspect_ratio, None, 1):
            joined.append(
                f"{size[0]}x{size[1]} has another shape than the source: its pixels are marked as "
                f"{aspect.numerator}:{aspect.denominator}, so that players show the source's shape"
            )
        if alpha_lost is not None:
            joined.append(f"the video's transparency (alpha) is lost: {alpha_lost}")
        notes += [*joined, *dropped_metadata(video, target, muxer, encoding, streams), *dropped]
    plan = VideoPlan(
        source=source,
        output=target,
        muxer=muxer,
        model=model_path,
        card=card,
        info=info,
        streams=streams,
        codec_name=codec_name,
        encoding=encoding,
        size=size,
        work_size=work_size,
        options=options,
        engine=engine,
        route=VideoRoute("cpu"),
        look=Finish(options.strength, options.keep_colours),
        steadiness=choose_steadiness(options.steady, card),
        deinterlacing=deinterlacing,
        hdr=hdr,
        keeps_alpha=keeps_alpha,
        notes=tuple(notes),
    )
    # A card may decode, and may replace the encoder planned so far. Both are tried on one frame.
    return with_route(plan)


def _result_aspect(info: StreamInfo, size: tuple[int, int]) -> Fraction | None:
    """Return the shape of a result's pixels, None for square ones."""
    return pixel_aspect(info.sample_aspect_ratio, (info.width, info.height), size)


def find_video_model(model: str | Path) -> tuple[Path, ModelCard]:
    """Return the path and the card of a model that can convert videos. Raises `ModelError`."""
    path = find_model(model)
    card = read_card(path)
    if card.in_channels not in (1, 3) or card.out_channels not in (1, 3):
        raise ModelError(
            f"{card.name} has {card.in_channels} -> {card.out_channels} channels: videos need 1 or 3"
        )
    return path, card


def _encoding(
    codec: VideoCodec, info: StreamInfo, size: tuple[int, int], options: VideoOptions, with_alpha: bool
) -> Encoding:
    """Return how frames of the result are encoded, twice as wide side by side. Raises `UsageError`."""
    encoded = (size[0] * 2, size[1]) if options.compare == "side" else size
    if encoded[0] < codec.least_width:
        raise UsageError(
            f"{codec.encoder} needs frames of {codec.least_width} pixels in width or more, and these have "
            f"{encoded[0]}: use another `codec`, such as h264, or a larger `size`"
        )
    return Encoding(
        codec,
        *encoded,
        pixel_format_for(codec, info, options.pix_fmt, encoded, with_alpha),
        options.crf if options.crf is not None else codec.quality,
        options.preset or (PROFILES[0] if with_alpha and codec.encoder == "prores_ks" else codec.preset),
    )


def _check_encoder_options(options: VideoOptions, codec: VideoCodec, name: str) -> None:
    """Raise `UsageError` for a quality or preset that the codec does not have."""
    low, high = codec.quality_range
    if options.crf is not None and not codec.quality_option:
        raise UsageError(f"`crf` means nothing to {name}: leave it out")
    if options.crf is not None and not low <= options.crf <= high:
        raise UsageError(f"`crf={options.crf:g}` is out of range: {name} takes {low:g} to {high:g}")
    if options.preset is not None and not codec.preset_option:
        raise UsageError(f"`preset` means nothing to {name}: leave it out")
    if options.preset is not None and codec.presets and options.preset not in codec.presets:
        raise UsageError(f"{name} has no preset {options.preset!r} (it has: {', '.join(codec.presets)})")


def check_options(options: VideoOptions, engine: EngineOptions) -> None:
    """Raise `UsageError` for options that make no sense with any video."""
    if options.compare not in (None, *COMPARE_MODES):
        raise UsageError(f"`compare={options.compare!r}` is unknown: use {' or '.join(COMPARE_MODES)}")
    if options.deinterlace not in DEINTERLACE_MODES:
        known = ", ".join(DEINTERLACE_MODES)
        raise UsageError(f"`deinterlace={options.deinterlace!r}` is unknown: use {known}")
    if options.hdr not in HDR_MODES:
        raise UsageError(f"`hdr={options.hdr!r}` is unknown: use {', '.join(HDR_MODES)}")
    check_steady(options.steady)
    check_work_size(options.work_size, options.stroke)
    Finish(options.strength, options.keep_colours)  # which checks them
    if options.decoder not in DECODERS:
        raise UsageError(f"`decoder={options.decoder!r}` is unknown: use {', '.join(DECODERS)}")
    if options.encoders is not None and not 1 <= options.encoders <= MOST_ENCODERS:
        raise UsageError(f"`encoders={options.encoders}` is not from 1 to {MOST_ENCODERS}")
    if options.encoders not in (None, 1) and not options.resume:
        raise UsageError(f"`encoders={options.encoders}` encodes several segments at once: use `resume` too")
    if options.decoder == "nvdec" and engine.device == "cpu":
        raise UsageError(
            '`decoder="nvdec"` decodes into the memory of a CUDA device: use `device="cuda"` with it'
        )
    for name, value in (("start", options.start), ("end", options.end)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise UsageError(f"`{name}={value:g}` is no time: seconds count from 0, the video's beginning")
    if options.start is not None and options.end is not None and options.end <= options.start:
        raise UsageError(f"`end={options.end:g}` is not after `start={options.start:g}`")
    check_engine_options(engine)


def _check_strict(source: Path, streams: Sequence[StreamPlan], options: VideoOptions) -> None:
    dropped = [stream.describe() for stream in streams if stream.action in ("dropped", "encoded")]
    if options.strict and dropped:
        raise InputError(f"{source}: not every stream can be kept (`strict`): {'; '.join(dropped)}")


def encoding_as_dict(plan: VideoPlan) -> dict[str, Any]:
    """Return how a plan writes its result, as plain data for the report."""
    encoding = plan.encoding
    return {
        "container": plan.muxer,
        "codec": plan.codec_name,
        "encoder": encoding.codec.encoder,
        "pixel_format": encoding.pixel_format,
        "size": [encoding.width, encoding.height],
        "options": encoding.options(),
    }
