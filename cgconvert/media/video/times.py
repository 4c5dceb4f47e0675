"""Times of packets as one clock: where recordings were joined, a transport stream's clock begins anew."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Protocol

import av

BACKWARD = Fraction(1, 10)
"""Seconds by which the packets of a stream may go back before its clock counts as begun anew."""

FORWARD = Fraction(10)
"""Seconds by which a packet may be ahead of everything read so far; FFmpeg's dts_delta_threshold."""

TOLERANCE = Fraction(1)
"""Seconds by which a stream may miss its own end where another stream's new clock is tried on it."""


class Notes(Protocol):
    """Where repairs are counted."""

    time_jumps: int
    untimed_packets: int
    dropped_packets: int

    def note(self, message: str) -> None:
        """Remember a message once."""
        ...


class PacketTimes:
    """Moves packets so that the clock of each stream goes on where it begins anew, and all keep together.

    A clock that jumps gives an offset by which everything that follows is moved. Packets of other streams
    from before the jump may still come, so that each stream goes over to the new offset when its own times
    jump: it takes the offset of another stream wherever that joins its packets to within `TOLERANCE`. Where
    a container knows no jumps (`may_jump` False), times stay as they are.
    """

    def __init__(self, may_jump: bool, notes: Notes) -> None:
        self.may_jump, self.notes = may_jump, notes
        self.offsets = [Fraction(0)]
        self.used: dict[int, Fraction] = {}
        self.starts: dict[int, Fraction] = {}
        self.lengths: dict[int, Fraction] = {}
        self.ends: dict[int, Fraction] = {}

    def __call__(self, packet: av.Packet[Any]) -> None:
        """Move one packet, in the order of the file."""
        base, index = packet.time_base, packet.stream.index
        if base is None or not packet.size:
            return
        if self.may_jump:
            if packet.dts is not None:
                self.used[index] = self._offset(packet, packet.dts * base)
            moved = round(self.used.get(index, Fraction(0)) / base)
            packet.pts = packet.pts + moved if packet.pts is not None else None
            packet.dts = packet.dts + moved if packet.dts is not None else None
        when = packet.dts if packet.dts is not None else packet.pts
        if when is not None:
            lasts = (packet.duration or 0) * base
            if not lasts:  # as in a transport stream, so as long as the packet before
                gap = when * base - self.starts.get(index, when * base)
                lasts = gap if 0 < gap < TOLERANCE else self.lengths.get(index, Fraction(0))
            self.starts[index], self.lengths[index] = when * base, lasts
            self.ends[index] = when * base + lasts

    def place(self, packet: av.Packet[Any]) -> bool:
        """Give a packet to copy the times that it lacks; False if nothing before it says where it belongs."""
        base, index = packet.time_base, packet.stream.index
        assert base is not None
        if packet.dts is None and packet.pts is None:
            if index not in self.ends:
                self.notes.dropped_packets += 1
                self.notes.note("packets without a time stamp before the first that has one, left out")
                return False
            packet.pts = packet.dts = round(self.ends[index] / base)
            self.ends[index] += (packet.duration or 0) * base or self.lengths[index]
            self.notes.untimed_packets += 1
            self.notes.note("copied packets without a time stamp, placed after the one before")
        elif packet.dts is None:
            packet.dts = packet.pts
        elif packet.pts is None:
            packet.pts = packet.dts
        return True

    def _offset(self, packet: av.Packet[Any], when: Fraction) -> Fraction:
        """By how many seconds a packet is to be moved that says `when`."""
        index = packet.stream.index
        if packet.stream.type not in ("video", "audio"):  # too few to tell a jump from a pause
            return self.offsets[-1]
        offset = self.used.get(index, self.offsets[-1])
        if index not in self.ends:
            return offset
        back = when + offset < self.starts[index] - BACKWARD
        ahead = when + offset > max(self.ends.values()) + FORWARD
        if not (back or ahead):
            return offset
        for known in reversed(self.offsets):
            if known != offset and abs(when + known - self.ends[index]) <= TOLERANCE:
                return known
        offset = self.ends[index] - when
        self.offsets.append(offset)
        self.notes.time_jumps += 1
        self.notes.note("times that jump as where recordings were joined: what follows goes on from there")
        return offset
