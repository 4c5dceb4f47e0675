"""Encoded packets in a file of their own: exact times, each packet sealed by a checksum.

A container would round times or drop durations. This file keeps what an encoder gave, so that packets
that were encoded earlier can be written into the result as if they came from the encoder now.

Layout, little-endian: the magic line, then for each packet pts, dts, duration (int64), flags (uint32),
number of bytes (uint32), CRC-32 of these fields and the bytes (uint32), the bytes. Times count in the time
base that the reader is given.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import av

from cgconvert.errors import InputError
from cgconvert.host.files import flush_to_disk

MAGIC = b"cgconvert packets 1\n"
_FIELDS = struct.Struct("<qqqII")
_CHECKSUM = struct.Struct("<I")
_KEYFRAME = 1
_NO_TIME = -(2**63)


@dataclass(frozen=True)
class EncodedPacket:
    """What an encoder gave for one frame; times in units of the stream's time base, `dts` None if unknown."""

    data: bytes
    pts: int
    dts: int | None
    duration: int
    keyframe: bool

    def to_packet(self, dts: int, time_base: Fraction, stream: Any) -> av.Packet[Any]:
        """The packet for a muxer's `stream`, to be decoded at `dts`."""
        packet: av.Packet[Any] = av.Packet(self.data)
        packet.stream, packet.time_base = stream, time_base
        packet.pts, packet.dts, packet.duration = self.pts, dts, self.duration
        packet.is_keyframe = self.keyframe
        return packet


class PacketWriter:
    """Appends packets to a file; on a clean exit the bytes have been flushed to the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._file.write(MAGIC)

    def write(self, packet: EncodedPacket) -> None:
        """Append a packet. Raises `OSError`."""
        fields = _FIELDS.pack(
            packet.pts,
            _NO_TIME if packet.dts is None else packet.dts,
            packet.duration,
            _KEYFRAME if packet.keyframe else 0,
            len(packet.data),
        )
        self._file.write(fields + _CHECKSUM.pack(zlib.crc32(packet.data, zlib.crc32(fields))))
        self._file.write(packet.data)

    def __enter__(self) -> PacketWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if error is None:
            flush_to_disk(self.path)


def read_packets(path: Path) -> Iterator[EncodedPacket]:
    """The packets of a file in the order in which they were written.

    Raises `InputError` where the file is damaged or ends within a packet.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise InputError(f"{path}: not a file of encoded packets")
        while head := file.read(_FIELDS.size + _CHECKSUM.size):
            if len(head) < _FIELDS.size + _CHECKSUM.size:
                raise InputError(f"{path}: ends within a packet")
            fields = head[: _FIELDS.size]
            pts, dts, duration, flags, size = _FIELDS.unpack(fields)
            (checksum,) = _CHECKSUM.unpack_from(head, _FIELDS.size)
            data = file.read(size)
            if len(data) < size or zlib.crc32(data, zlib.crc32(fields)) != checksum:
                raise InputError(f"{path}: a packet is damaged")
            yield EncodedPacket(
                data, pts, None if dts == _NO_TIME else dts, duration, bool(flags & _KEYFRAME)
            )


def decoding_times(presented: Iterable[int], delay: int) -> Iterator[int]:
    """The dts of packets in decoding order, from the pts of all frames in ascending order.

    The pts are read as the dts are asked for, and only `delay` of them are kept.

    An encoder that reorders frames by `delay` places gives frame i the pts of frame i - delay as its dts. The
    first `delay` packets, which have no such frame, keep the distances of their pts, moved before the first
    one, as x264 does it: the durations that MP4 stores are differences of dts. Joined segments need this:
    each segment's encoder started its own delay anew, so that the times around a border would overlap.
    """
    times = iter(presented)
    first = list(islice(times, delay + 1))
    if not first:
        return
    if len(first) <= delay:
        before = first[-1] - first[0] + 1
        yield from (pts - before for pts in first)
        return
    before = first[delay] - first[0]
    yield from (pts - before for pts in first[:delay])
    waiting = deque(first)
    yield waiting.popleft()
    for pts in times:
        waiting.append(pts)
        yield waiting.popleft()


def encoder_delay(packets: Sequence[EncodedPacket]) -> int:
    """By how many places an encoder reorders frames, from all packets of one closed run of it."""
    first = min((packet.pts for packet in packets), default=0)
    return sum(packet.dts is not None and packet.dts < first for packet in packets)
