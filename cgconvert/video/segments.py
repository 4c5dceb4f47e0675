"""Encoding in closed segments, and joining them into the result without encoding anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from fractions import Fraction

from cgconvert.errors import OutputError
from cgconvert.frames import Frame, PlaneFrame
from cgconvert.host.files import file_sha256, output_error
from cgconvert.media.video.encoder import ENCODING_ERRORS, FrameEncoder, PacketEncoder
from cgconvert.media.video.packets import (
    EncodedPacket,
    PacketWriter,
    decoding_times,
    encoder_delay,
    read_packets,
)
from cgconvert.media.video.sink import VideoSink
from cgconvert.media.video.source import CopiedPacket, Damage, VideoSource
from cgconvert.video import resume
from cgconvert.video.resume import ResumableRun, Segment


class SegmentEncoder:
    """Encodes frames into the segments of a run; the encoder starts anew for each, so each is closed.

    `create` makes an encoder. Every `SEGMENT_FRAMES` frames the segment is drained, flushed to the disk and
    recorded, so that all runs over the same frames give the same packets wherever they were interrupted.
    """

    def __init__(
        self, run: ResumableRun, muxer: str, create: Callable[[], FrameEncoder], damage: Damage
    ) -> None:
        self.run, self.muxer, self.create, self.damage = run, muxer, create, damage
        self.frames = run.frames
        """Frames in finished segments and in the one that is being encoded."""
        self._encoder: PacketEncoder | None = None
        self._packets: list[EncodedPacket] = []
        self._in_segment = 0
        self._state: bytes | None = None

    def write(self, frame: Frame | PlaneFrame) -> None:
        """Encode one frame. Raises `OutputError`."""
        try:
            if self._encoder is None:
                self._encoder = PacketEncoder(self.create(), self.muxer)
            self._packets += self._encoder.encode(frame)
            self._in_segment += 1
            self._state = frame.state
            self.frames += 1
            if self._in_segment == resume.SEGMENT_FRAMES:
                self._end()
        except ENCODING_ERRORS as error:
            raise self._failed(error) from error

    def finish(self) -> None:
        """End the last segment, however short it is. Raises `OutputError`."""
        try:
            if self._in_segment:
                self._end()
        except ENCODING_ERRORS as error:
            raise self._failed(error) from error

    def _end(self) -> None:
        """Drain the encoder and record the segment."""
        assert self._encoder is not None
        self._packets += self._encoder.encode(None)
        if len(self._packets) != self._in_segment:
            raise OutputError(
                f"{self.run.output}: the encoder gave {len(self._packets)} packets "
                f"for {self._in_segment} frames"
            )
        times = [packet.pts for packet in self._packets]
        path = self.run.new_path()
        with PacketWriter(path) as writer:
            for packet in self._packets:
                writer.write(packet)
        if self._state is not None:
            self.run.keep_state(self._state)
        self.run.add(
            Segment(
                frames=self._in_segment,
                first_pts=min(times),
                last_pts=max(times),
                delay=encoder_delay(self._packets),
                bytes=path.stat().st_size,
                sha256=file_sha256(path),
                damage=asdict(self.damage),
            )
        )
        self.abort()

    def _failed(self, error: Exception) -> OutputError:
        if isinstance(error, OSError):
            return output_error(self.run.output, error)
        return OutputError(f"cannot write {self.run.output}: {getattr(error, 'strerror', None) or error}")

    def abort(self) -> None:
        """Give up the segment that is being encoded; the finished ones stay."""
        self._encoder, self._packets, self._in_segment = None, [], 0


def join_segments(
    run: ResumableRun, source: VideoSource, sink: VideoSink, check: Callable[[], None] = lambda: None
) -> None:
    """Write the packets of all segments, and those that `source` copies, into `sink` in the order of time.

    Nothing is encoded anew. `source` is read once more for its copied streams. `check` is called for every
    packet and may raise. The sink is aborted when anything fails. Raises `OutputError`, `InputError`.
    """
    base = source.info.time_base
    video = _joined(run)
    pending = next(video, None)
    try:
        for item in source.packets_to_copy():
            check()
            time = _decoding_time(item)
            while pending is not None and time is not None and pending[1] * base <= time:
                sink.write_encoded(*pending)
                pending = next(video, None)
            sink.copy(item)
        while pending is not None:
            check()
            sink.write_encoded(*pending)
            pending = next(video, None)
        check()
        sink.finish()
    except BaseException:
        sink.abort()
        raise


def _joined(run: ResumableRun) -> Iterator[tuple[EncodedPacket, int]]:
    """Every packet in decoding order with its dts in the whole; in memory is one segment at a time."""
    paths = [run.path_of(number) for number in range(len(run.segments))]
    # All frames of a segment come before those of the next, so that each is sorted by itself.
    times = (pts for path in paths for pts in sorted(packet.pts for packet in read_packets(path)))
    delay = max((segment.delay for segment in run.segments), default=0)
    packets = (packet for path in paths for packet in read_packets(path))
    yield from zip(packets, decoding_times(times, delay), strict=True)


def _decoding_time(item: CopiedPacket) -> Fraction | None:
    """When a copied packet is decoded, in seconds; None if nobody knows."""
    packet = item.packet
    time = packet.dts if packet.dts is not None else packet.pts
    return time * packet.time_base if time is not None and packet.time_base else None
