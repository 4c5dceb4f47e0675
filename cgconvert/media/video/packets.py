"""Encoded packets in a file of their own: exact times, each packet sealed by a checksum.

A container would round times or drop durations. This file keeps what an encoder gave, so that packets
that were encoded earlier can be written into the result as if they came from the encoder now.

Layout, little-endian: the magic line, then for each packet pts, dts, duration (int64), flags, numbers of
bytes in the packet and beside it (uint32), CRC-32 of these fields and all bytes (uint32), the bytes. Times
count in the time base that the reader is given.
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
from typing import Any, Literal

import av
from av.packet import PacketSideData, packet_sidedata_type_from_literal

from cgconvert.errors import InputError
from cgconvert.host.files import flush_to_disk

MAGIC = b"cgconvert packets 2\n"
_FIELDS = struct.Struct("<qqqIII")
_CHECKSUM = struct.Struct("<I")
_KEYFRAME = 1
_NO_TIME = -(2**63)

BESIDE: Literal["matroska_block_additional"] = "matroska_block_additional"


@dataclass(frozen=True)
class EncodedPacket:
    """What an encoder gave for one frame; times in units of the stream's time base, `dts` None if unknown.

    `beside` is what Matroska and WebM store beside a packet (BlockAdditional): the alpha of VP9.
    """

    data: bytes
    pts: int
    dts: int | None
    duration: int
    keyframe: bool
    beside: bytes = b""

    @classmethod
    def of(cls, packet: av.Packet[Any]) -> EncodedPacket:
        """Keep a packet of an encoder, which has a pts."""
        assert packet.pts is not None
        beside = bytes(packet.get_sidedata(BESIDE)) if packet.has_sidedata(BESIDE) else b""
        return cls(
            bytes(packet), packet.pts, packet.dts, packet.duration or 0, bool(packet.is_keyframe), beside
        )

    def to_packet(self, dts: int, time_base: Fraction, stream: Any) -> av.Packet[Any]:
        """The packet for a muxer's `stream`, to be decoded at `dts`."""
        packet: av.Packet[Any] = av.Packet(self.data)
        packet.stream, packet.time_base = stream, time_base
        packet.pts, packet.dts, packet.duration = self.pts, dts, self.duration
        packet.is_keyframe = self.keyframe
        if self.beside:
            data = PacketSideData(packet_sidedata_type_from_literal(BESIDE), len(self.beside))  # type: ignore[call-arg]
            data.update(self.beside)
            packet.set_sidedata(data, move=True)
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
            len(packet.beside),
        )
        data = packet.data + packet.beside
        self._file.write(fields + _CHECKSUM.pack(zlib.crc32(data, zlib.crc32(fields))))
        self._file.write(data)

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
            pts, dts, duration, flags, size, beside = _FIELDS.unpack(fields)
            (checksum,) = _CHECKSUM.unpack_from(head, _FIELDS.size)
            data = file.read(size + beside)
            if len(data) < size + beside or zlib.crc32(data, zlib.crc32(fields)) != checksum:
                raise InputError(f"{path}: a packet is damaged")
            known = None if dts == _NO_TIME else dts
            yield EncodedPacket(data[:size], pts, known, duration, bool(flags & _KEYFRAME), data[size:])


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
