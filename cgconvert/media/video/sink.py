"""Writes a video of newly encoded frames and copied packets of the other streams."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer, OutputContainer

from cgconvert.errors import OutputError, UnavailableError
from cgconvert.frames import Frame, PlaneFrame, StreamInfo
from cgconvert.host.files import output_error, real_path
from cgconvert.media.video.copying import CopiedStream
from cgconvert.media.video.encoder import Encoding, FrameEncoder, video_metadata
from cgconvert.media.video.matroska import display_size, mark_display_sizes
from cgconvert.media.video.open import open_video
from cgconvert.media.video.packets import EncodedPacket
from cgconvert.media.video.probe import VideoProbe
from cgconvert.media.video.sound import EncodedSound
from cgconvert.media.video.source import WHOLE, CopiedPacket, Cut, Damage
from cgconvert.media.video.streams import StreamPlan, read_cover

MILLISECONDS = 1000
"""Units per second in which MP4 and MOV store where a track begins, unless told otherwise."""

MOST_UNITS = 2**31 - 1

PICTURE_TYPES = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}
"""Names and media types of covers as attachments, by codec."""


def _muxer_options(
    muxer: str, source: InputContainer, info: StreamInfo, plans: Sequence[StreamPlan]
) -> dict[str, str]:
    """Put the index of MP4 and MOV first, and choose units in which all tracks begin at whole numbers."""
    if muxer not in ("mp4", "mov"):
        return {}
    units = MILLISECONDS
    bases = [source.streams[plan.index].time_base for plan in plans if plan.action == "copied"]
    for base in [info.time_base, *bases]:
        finer = math.lcm(units, base.denominator) if base else units
        units = finer if finer <= MOST_UNITS else units
    return {"movflags": "+faststart", "movie_timescale": str(units)}


class VideoSink:
    """Writes one video to `path`, a temporary name that the caller renames to `target`.

    With a `path` of None it writes into memory, by which `check_writable` tries codec and container. Streams
    of `plans` that are not dropped are created in the source's order. With `card` the encoder takes frames
    from the memory of that card. Frames come in order of pts by `write`, packets by `copy`, and `finish`
    completes the file. `abort` leaves an unusable file, which the caller removes. `damage` counts what was
    wrong with copied packets.
    """

    def __init__(
        self,
        path: Path | None,
        target: Path,
        muxer: str,
        source: InputContainer,
        info: StreamInfo,
        encoding: Encoding,
        plans: Sequence[StreamPlan],
        cut: Cut = WHOLE,
        card: HWAccel | None = None,
        damage: Damage | None = None,
    ) -> None:
        self.path, self.target = path, target
        self.damage = damage if damage is not None else Damage()
        self.encoder = FrameEncoder(info, encoding, card)
        self.frames = 0
        self.written = 0
        """The size of the finished file in bytes."""
        self.copies: dict[int, CopiedStream | EncodedSound] = {}
        try:
            self.container = av.open(
                f"file:{real_path(path)}" if path else io.BytesIO(),
                "w",
                format=muxer,
                container_options=_muxer_options(muxer, source, info, plans),
            )
            self.container.metadata.update(video_metadata(source.metadata))
            self.outputs: dict[int, Any] = {}
            self.display_sizes: dict[int, tuple[int, int]] = {}
            """By the number of a Matroska track, at which size it is shown if its pixels are not square."""
            for plan in plans:
                template = source.streams[plan.index]
                if plan.action == "converted":
                    self.video = self.encoder.add_to(self.container, template)
                    self.outputs[plan.index] = self.video
                    self._note_display_size(encoding.width, encoding.height, info.sample_aspect_ratio)
                elif plan.action == "copied":
                    output = self._add_copy(self.container, template, plan, muxer)
                    self.outputs[plan.index] = output
                    if isinstance(template, av.VideoStream):
                        self._note_display_size(template.width, template.height, template.sample_aspect_ratio)
                    if not plan.goes_into_header(muxer):
                        self.copies[plan.index] = CopiedStream(
                            self.container, template, output, muxer, self.damage
                        )
                elif plan.action == "encoded":
                    sound = EncodedSound(self.container, template, self.damage)
                    sound.output.metadata.update(video_metadata(template.metadata))
                    self.copies[plan.index], self.outputs[plan.index] = sound, sound.output
            self._mark_the_video(plans)
            self._copy_chapters(source, cut)
            self.container.start_encoding()
        except (av.error.FFmpegError, OSError) as error:
            raise _as_output_error(target, error) from error

    def _note_display_size(self, width: int, height: int, aspect: Fraction | None) -> None:
        """Remember how the video that was added last is shown, for containers that must be told."""
        if self.container.format.name in ("matroska", "webm") and aspect not in (None, 0, 1):
            assert aspect is not None
            self.display_sizes[len(self.container.streams)] = display_size(width, height, aspect)

    def _add_copy(self, container: OutputContainer, template: Any, plan: StreamPlan, muxer: str) -> Any:
        if plan.goes_into_header(muxer) and plan.kind == "cover":
            name, mimetype = PICTURE_TYPES.get(plan.codec, ("cover", "application/octet-stream"))
            name = template.metadata.get("filename") or name
            return container.add_attachment(name, mimetype, read_cover(template.container.name, plan.index))
        if template.type == "attachment":
            name = template.metadata.get("filename", "attachment")
            return container.add_attachment(
                name, template.mimetype or "application/octet-stream", template.data
            )
        stream = container.add_stream_from_template(template, opaque=True)
        stream.metadata.update(template.metadata)
        stream.disposition = template.disposition
        return stream

    def _mark_the_video(self, plans: Sequence[StreamPlan]) -> None:
        """Mark the converted one of several video streams as the one that players show."""
        videos = [plan for plan in plans if plan.kind == "video" and plan.index in self.outputs]
        if len(videos) < 2:
            return
        default = av.stream.Disposition.default
        for plan in videos:
            stream = self.outputs[plan.index]
            others = stream.disposition & ~default
            stream.disposition = others | default if plan.action == "converted" else others

    def _copy_chapters(self, source: InputContainer, cut: Cut) -> None:
        """Copy the chapters that lie within the cut."""
        chapters = source.chapters()
        for chapter in chapters:
            base = chapter["time_base"] or Fraction(1, av.time_base)
            offset = round(cut.start / base)
            if cut.end is not None:
                chapter["end"] = min(chapter["end"], round(cut.end / base))
            chapter["start"], chapter["end"] = max(0, chapter["start"] - offset), chapter["end"] - offset
        chapters = [chapter for chapter in chapters if chapter["end"] > chapter["start"]]
        if chapters:
            self.container.set_chapters(chapters)

    def write(self, frame: Frame | PlaneFrame) -> None:
        """Encode one frame. Raises `OutputError`."""
        try:
            self._mux_video(self.encoder.encode(frame))
        except (av.error.FFmpegError, OSError) as error:
            raise _as_output_error(self.target, error) from error

    def write_encoded(self, packet: EncodedPacket, dts: int) -> None:
        """Write a packet that was encoded earlier with the same settings. Raises `OutputError`."""
        try:
            self._mux_video([packet.to_packet(dts, self.encoder.info.time_base, self.video)])
        except (av.error.FFmpegError, OSError) as error:
            raise _as_output_error(self.target, error) from error

    def copy(self, item: CopiedPacket) -> None:
        """Write a packet of another stream, or the sound in it. Raises `OutputError`."""
        try:
            self.copies[item.stream].write(item.packet)
        except (av.error.FFmpegError, OSError) as error:
            raise _as_output_error(self.target, error) from error

    def _mux_video(self, packets: list[av.Packet[Any]]) -> None:
        for packet in packets:
            self.container.mux_one(packet)
            self.frames += 1

    def finish(self) -> None:
        """Drain the encoder, write the end of the file and check what was written. Raises `OutputError`.

        Without a frame there is nothing to check: it is no result, and some containers leave the stream out.
        """
        try:
            if self.encoder.frames:
                self._mux_video(self.encoder.encode(None))
            for copy in self.copies.values():
                if isinstance(copy, EncodedSound):
                    copy.finish()
            self.container.close()
            sizes = self.display_sizes if self.frames else {}
            if sizes and self.path is not None and not mark_display_sizes(self.path, sizes):
                self.damage.note("the shape of its pixels is lost: the result's header has no room")
        except (av.error.FFmpegError, OSError) as error:
            raise _as_output_error(self.target, error) from error
        if self.frames:
            self._check()
            assert self.path is not None
            self.written = self.path.stat().st_size

    def abort(self) -> None:
        """Close the file as far as that is possible. What is in it is not to be used."""
        with contextlib.suppress(av.error.FFmpegError, OSError, ValueError):
            self.container.close()

    def _check(self) -> None:
        """Read the file back without decoding it, and count the packets of each stream."""
        assert self.path is not None
        index_of = {stream.index: source for source, stream in self.outputs.items()}
        expected = {self.video.index: self.frames}
        expected |= {copy.output.index: copy.packets for copy in self.copies.values()}
        found: dict[int, int] = dict.fromkeys(expected, 0)
        with open_video(self.path) as container:
            for packet in container.demux(*[container.streams[index] for index in expected]):
                if packet.size:
                    found[packet.stream.index] += 1
        for index, count in expected.items():
            if found[index] < count:
                raise OutputError(
                    f"{self.target}: stream #{index_of.get(index, index)} was written with {count} packets "
                    f"but reads back with {found[index]}; is the disk failing?"
                )


def check_writable(
    video: VideoProbe, target: Path, muxer: str, encoding: Encoding, plans: Sequence[StreamPlan]
) -> None:
    """Open encoder and container in memory as the run will, so that what cannot work fails before it.

    Raises `UnavailableError` with the source's name and what the encoder or the container says.
    """
    try:
        VideoSink(None, target, muxer, video.container, video.info, encoding, plans).abort()
    except (OutputError, ValueError) as error:
        cause = error.__cause__
        reason = getattr(cause, "strerror", None) or str(cause or error)
        encoder = encoding.codec.encoder
        instead = "; without an NVIDIA GPU use h264, h265 or av1" if "nvenc" in encoder else ""
        options = " ".join(f"{key}={value}" for key, value in encoding.options().items())
        raise UnavailableError(
            f"{video.path}: {encoder} ({encoding.width}x{encoding.height} {encoding.pixel_format} {options}) "
            f"cannot write {target.suffix} here: {reason}{instead}"
        ) from error


def _as_output_error(path: Path, error: Exception) -> OutputError:
    if isinstance(error, OSError):
        return output_error(path, error)
    return OutputError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}")
