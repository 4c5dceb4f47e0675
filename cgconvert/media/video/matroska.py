"""The shape of pixels in Matroska and WebM files (RFC 9559), which PyAV cannot tell FFmpeg's muxer.

The muxer takes DisplayWidth and DisplayHeight from a field of the stream that PyAV does not set, so codecs
that do not tell the shape themselves would lose it. Both are put into the finished header: what lies between
the Void element that the muxer leaves before it and the end of the tracks moves to the front, into that Void.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

SEGMENT, SEEK_HEAD, SEEK, SEEK_POSITION = 0x18538067, 0x114D9B74, 0x4DBB, 0x53AC
VOID, CRC, TRACKS, TRACK, TRACK_NUMBER = 0xEC, 0xBF, 0x1654AE6B, 0xAE, 0xD7
VIDEO, DISPLAY_WIDTH, DISPLAY_HEIGHT, DISPLAY_UNIT = 0xE0, 0x54B0, 0x54BA, 0x54B2
HEAD_BYTES = 4 << 20
"""The bytes of a file in which its tracks are looked for."""


@dataclass(frozen=True)
class Element:
    """An element of EBML: its identifier, where it starts, and where its content starts and ends."""

    kind: int
    start: int
    content: int
    end: int

    @property
    def size_bytes(self) -> int:
        """The bytes in which its size is written."""
        return self.content - self.start - (self.kind.bit_length() + 7) // 8


def display_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Return the size at which a picture with pixels of shape `aspect` is shown. No side is reduced."""
    return (round(width * aspect), height) if aspect >= 1 else (width, round(height / aspect))


def mark_display_sizes(path: Path, sizes: Mapping[int, tuple[int, int]]) -> bool:
    """Write the (width, height) at which tracks are shown into the header, by the track's number from 1 on.

    Returns False, and leaves the file as it is, if it is not laid out as FFmpeg's muxer does it, or if its
    header has no room. Raises `OSError`.
    """
    with path.open("r+b") as file:
        data = file.read(HEAD_BYTES)
        try:
            start, edited = _edited_header(data, sizes)
        except (IndexError, StopIteration, ValueError):
            return False
        file.seek(start)
        file.write(edited)
    return True


def _edited_header(data: bytes, sizes: Mapping[int, tuple[int, int]]) -> tuple[int, bytes]:
    """Return the offset of the index of parts, and new bytes from there up to the end of the tracks.

    Raises `IndexError`, `StopIteration` or `ValueError` if the header is another than expected.
    """
    segment = next(part for part in _elements(data, 0, len(data)) if part.kind == SEGMENT)
    parts: list[Element] = []
    for part in _elements(data, segment.content, len(data)):
        parts.append(part)
        if part.kind == TRACKS:
            break
    index, void, tracks = parts[0], parts[1], parts[-1]
    if (index.kind, void.kind, tracks.kind) != (SEEK_HEAD, VOID, TRACKS) or tracks.end > len(data):
        raise ValueError("not laid out as FFmpeg does")
    new = _with_sizes(data, tracks, sizes)
    growth = len(new) - (tracks.end - tracks.start)
    room = void.end - void.start - growth
    if room < 9:
        raise ValueError("no room")
    head = _moved_index(data, index, growth, void.end - segment.content, tracks.start - segment.content)
    filling = _element(VOID, bytes(room - 9), 8)
    edited = head + filling + data[void.end : tracks.start] + new
    if len(edited) != tracks.end - index.start:
        raise ValueError("what follows would be elsewhere")
    return index.start, edited


def _elements(data: bytes, at: int, end: int) -> Iterator[Element]:
    """Yield the elements from `at` on. One whose size is unknown ends with the data."""
    while at < end:
        start = at
        length = 9 - data[at].bit_length()
        kind = int.from_bytes(data[at : at + length], "big")
        at += length
        length = 9 - data[at].bit_length()
        unknown = (1 << 7 * length) - 1
        size = int.from_bytes(data[at : at + length], "big") & unknown
        at += length
        if length > 8 or not kind:
            raise ValueError("no element")
        stop = end if size == unknown else at + size
        yield Element(kind, start, at, stop)
        at = stop


def _element(kind: int, content: bytes, least: int = 1) -> bytes:
    """Return an element whose size is written in `least` bytes, or in more if it needs them."""
    length = max(least, ((len(content) + 1).bit_length() + 6) // 7)
    size = (1 << 7 * length) | len(content)
    return kind.to_bytes((kind.bit_length() + 7) // 8, "big") + size.to_bytes(length, "big") + content


def _number(kind: int, value: int) -> bytes:
    return _element(kind, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def _joined(parts: list[bytes], has_checksum: bool) -> bytes:
    """Return parts of a parent's content as one, behind their checksum if it has one."""
    content = b"".join(parts)
    return _element(CRC, zlib.crc32(content).to_bytes(4, "little")) + content if has_checksum else content


def _with_sizes(data: bytes, tracks: Element, sizes: Mapping[int, tuple[int, int]]) -> bytes:
    """Return the tracks with the sizes at which they are shown."""
    entries = []
    has_checksum = False
    for entry in _elements(data, tracks.content, tracks.end):
        if entry.kind == CRC:
            has_checksum = True
            continue
        fields = list(_elements(data, entry.content, entry.end))
        number = next(
            (
                int.from_bytes(data[one.content : one.end], "big")
                for one in fields
                if one.kind == TRACK_NUMBER
            ),
            0,
        )
        if entry.kind != TRACK or number not in sizes:
            entries.append(data[entry.start : entry.end])
            continue
        content = b""
        for one in fields:
            if one.kind == VIDEO:
                kept = [
                    data[part.start : part.end]
                    for part in _elements(data, one.content, one.end)
                    # The muxer says in DisplayUnit that nobody knows; without it sizes are pixels.
                    if part.kind not in (DISPLAY_WIDTH, DISPLAY_HEIGHT, DISPLAY_UNIT)
                ]
                width, height = sizes[number]
                shown = _number(DISPLAY_WIDTH, width) + _number(DISPLAY_HEIGHT, height)
                content += _element(VIDEO, b"".join(kept) + shown, one.size_bytes)
            else:
                content += data[one.start : one.end]
        entries.append(_element(TRACK, content, entry.size_bytes))
    return _element(TRACKS, _joined(entries, has_checksum), tracks.size_bytes)


def _moved_index(data: bytes, index: Element, growth: int, first: int, last: int) -> bytes:
    """Return the index of parts, of which those from position `first` to `last` have moved by `growth`."""
    entries = []
    has_checksum = False
    for entry in _elements(data, index.content, index.end):
        if entry.kind == CRC:
            has_checksum = True
            continue
        edited = bytearray(data[entry.start : entry.end])
        for one in _elements(data, entry.content, entry.end) if entry.kind == SEEK else ():
            position = int.from_bytes(data[one.content : one.end], "big")
            if one.kind == SEEK_POSITION and first <= position <= last:
                moved = (position - growth).to_bytes(one.end - one.content, "big")
                edited[one.content - entry.start : one.end - entry.start] = moved
        entries.append(bytes(edited))
    return _element(SEEK_HEAD, _joined(entries, has_checksum), index.size_bytes)
