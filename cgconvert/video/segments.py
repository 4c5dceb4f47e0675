"""Encoding in closed segments, and joining them into the result without encoding anew."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict
from fractions import Fraction

from cgconvert.errors import OutputError
from cgconvert.frames import Frame, PlaneFrame
from cgconvert.host.channels import LOOK, Worker, check_worker
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
    recorded, so that all runs over the same frames give the same packets wherever they were interrupted, and
    however many segments are encoded at once: with `encoders` above 1 each is in a thread of its own.
    """

    def __init__(
        self,
        run: ResumableRun,
        muxer: str,
        create: Callable[[], FrameEncoder],
        damage: Damage,
        encoders: int = 1,
    ) -> None:
        self.run, self.muxer, self.create, self.damage, self.encoders = run, muxer, create, damage, encoders
        self.frames = run.frames
        """Frames in finished segments and in those that are being encoded."""
        self._waiting = Waiting()
        self._current: _Segment | None = None
        self._ended: deque[_Segment] = deque()

    def write(self, frame: Frame | PlaneFrame) -> None:
        """Encode one frame. Raises `OutputError`."""
        try:
            if self._current is None:
                # Segments are recorded in their order, so that what is kept is always the beginning.
                while len(self._ended) >= self.encoders or (self._ended and self._ended[0].is_done):
                    self._record(self._ended.popleft())
                self._current = self._begin()
            self._current.write(frame)
            self.frames += 1
            if self._current.frames == resume.SEGMENT_FRAMES:
                self._end()
        except ENCODING_ERRORS as error:
            raise self._failed(error) from error

    def finish(self) -> None:
        """End the last segment, however short it is. Raises `OutputError`."""
        try:
            if self._current is not None:
                self._end()
            while self._ended:
                self._record(self._ended.popleft())
        except ENCODING_ERRORS as error:
            raise self._failed(error) from error

    def _begin(self) -> _Segment:
        def create() -> PacketEncoder:
            return PacketEncoder(self.create(), self.muxer)

        return _Segment(create) if self.encoders == 1 else _SegmentThread(create, self._waiting)

    def _end(self) -> None:
        """No more frames come for the segment."""
        assert self._current is not None
        self._current.close()
        self._ended.append(self._current)
        self._current = None
        if self.encoders == 1:
            self._record(self._ended.popleft())

    def _record(self, segment: _Segment) -> None:
        """Put the packets of a segment on the disk, once they are complete."""
        segment.wait()
        packets = segment.packets
        if len(packets) != segment.frames:
            raise OutputError(
                f"{self.run.output}: the encoder gave {len(packets)} packets for {segment.frames} frames"
            )
        times = [packet.pts for packet in packets]
        path = self.run.new_path()
        with PacketWriter(path) as writer:
            for packet in packets:
                writer.write(packet)
        if segment.state is not None:
            self.run.keep_state(segment.state)
        self.run.add(
            Segment(
                frames=segment.frames,
                first_pts=min(times),
                last_pts=max(times),
                delay=encoder_delay(packets),
                bytes=path.stat().st_size,
                sha256=file_sha256(path),
                damage=asdict(self.damage),
            )
        )

    def _failed(self, error: Exception) -> OutputError:
        if isinstance(error, OSError):
            return output_error(self.run.output, error)
        return OutputError(f"cannot write {self.run.output}: {getattr(error, 'strerror', None) or error}")

    def abort(self) -> None:
        """Give up the segments that are being encoded; the finished ones stay."""
        self._waiting.give_up()
        self._current = None
        self._ended.clear()


class _Segment:
    """Encodes the frames of a segment as they come. `state` is the one that the last frame has."""

    is_done = True

    def __init__(self, create: Callable[[], PacketEncoder]) -> None:
        self.create = create
        self.packets: list[EncodedPacket] = []
        self.frames = 0
        self.state: bytes | None = None
        self._encoder: PacketEncoder | None = None

    def write(self, frame: Frame | PlaneFrame) -> None:
        """Take one frame. Raises `ENCODING_ERRORS`."""
        self.frames += 1
        self.state = frame.state
        self._encode(frame)

    def _encode(self, frame: Frame | PlaneFrame | None) -> None:
        if self._encoder is None:
            self._encoder = self.create()
        self.packets += self._encoder.encode(frame)
        if frame is None:
            self._encoder = None

    def close(self) -> None:
        """No more frames come. Raises `ENCODING_ERRORS`."""
        self._encode(None)

    def wait(self) -> None:
        """Return when all packets are there. Raises `ENCODING_ERRORS`, `Aborted`."""


WAITING_BYTES = 512 << 20
"""Bytes of frames that may wait for encoders in threads of their own."""


class Waiting:
    """What waits for the encoders of several segments, and the condition that they share."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.bytes = 0
        self.error: BaseException | None = None
        self.is_given_up = False

    def give_up(self) -> None:
        """No encoder is to go on."""
        with self.changed:
            self.is_given_up = True
            self.changed.notify_all()


class _SegmentThread(_Segment):
    """A segment that is encoded in a thread of its own, while others are."""

    is_done = False

    def __init__(self, create: Callable[[], PacketEncoder], waiting: Waiting) -> None:
        super().__init__(create)
        self.waiting = waiting
        self.queue: deque[Frame | PlaneFrame | None] = deque()
        Worker("encode-segment", self._work).start()

    def write(self, frame: Frame | PlaneFrame) -> None:
        """Take one frame, when there is memory for it. Raises `ENCODING_ERRORS`, `Aborted`."""
        with self.waiting.changed:
            while self.waiting.bytes and self.waiting.bytes + frame.nbytes > WAITING_BYTES:
                self._look()
            self._check()
            self.frames += 1
            self.state = frame.state
            self.waiting.bytes += frame.nbytes
            self.queue.append(frame)
            self.waiting.changed.notify_all()

    def close(self) -> None:
        """No more frames come."""
        with self.waiting.changed:
            self.queue.append(None)
            self.waiting.changed.notify_all()

    def wait(self) -> None:
        """Return when all packets are there. Raises `ENCODING_ERRORS`, `Aborted`."""
        with self.waiting.changed:
            while not self.is_done:
                self._look()
            self._check()

    def _check(self) -> None:
        """Whichever segment failed, the run is over: what waits for its encoder would wait for ever."""
        if self.waiting.error is not None:
            raise self.waiting.error

    def _look(self) -> None:
        """Wait for a change, and end if the run is over."""
        self.waiting.changed.wait(LOOK)
        check_worker()
        self._check()

    def _work(self) -> None:
        try:
            while True:
                with self.waiting.changed:
                    while not self.queue and not self.waiting.is_given_up:
                        self._look()
                    if self.waiting.is_given_up:
                        return
                    frame = self.queue.popleft()
                self._encode(frame)
                if frame is None:
                    return
                with self.waiting.changed:
                    self.waiting.bytes -= frame.nbytes
                    self.waiting.changed.notify_all()
        except BaseException as error:  # the thread that writes raises it
            self.waiting.error = self.waiting.error or error
        finally:
            with self.waiting.changed:
                self.is_done = True
                self.waiting.changed.notify_all()


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
