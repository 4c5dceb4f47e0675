"""Animated WebP: chunks to frames and back. Frames are packed and unpacked as WebP files of their own.

The container is that of RFC 9649.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import BinaryIO

from cgconvert.errors import InputError
from cgconvert.media.picture.canvas import Patch
from cgconvert.media.picture.headers import webp_chunks

TICK = Fraction(1, 1000)
"""The unit of a frame's time in seconds."""
MOST_TICKS = (1 << 24) - 1
BYTES_LIMIT = (1 << 32) - 2

_ICC, _ALPHA, _EXIF, _XMP, _ANIMATION = 0x20, 0x10, 0x08, 0x04, 0x02


@dataclass(frozen=True)
class WebpFrame:
    """One frame: its place, its time in ticks, and what makes a WebP file of its own of it."""

    patch: Patch
    ticks: int
    alone: Callable[[], bytes]


@dataclass(frozen=True)
class AnimatedWebp:
    """The frames of an animated WebP. `plays` is how often it is shown, 0 for ever."""

    plays: int
    frames: tuple[WebpFrame, ...]
    may_be_transparent: bool


def read_animated_webp(data: bytes) -> AnimatedWebp:
    """Read the frames of an animated WebP without unpacking them. Raises `InputError`."""
    plays, alpha = 0, False
    frames: list[WebpFrame] = []
    for kind, payload in webp_chunks(data):
        if kind == b"VP8X":
            alpha = bool(payload[0] & _ALPHA)
        elif kind == b"ANIM":
            plays = struct.unpack_from("<H", payload, 4)[0]
        elif kind == b"ANMF":
            if len(payload) < 24:
                raise InputError("damaged or cut short: a frame of the WebP is missing")
            left, top, width, height, ticks = (
                int.from_bytes(payload[at : at + 3], "little") for at in range(0, 15, 3)
            )
            flags = payload[15]
            patch = Patch(
                2 * left, 2 * top, width + 1, height + 1, not flags & 2, "clear" if flags & 1 else "keep"
            )
            frames.append(WebpFrame(patch, ticks, partial(_alone, patch, payload[16:])))
    first = frames[0].patch
    whole = all(frame.patch.disposal == "keep" for frame in frames) and not (first.left or first.top)
    return AnimatedWebp(plays, tuple(frames), alpha or not whole)


def _alone(patch: Patch, chunks: bytes) -> bytes:
    """Return the chunks of a frame as a file of their own, which needs a header for separate alpha."""
    head = b""
    if chunks[:4] == b"ALPH":
        size = (patch.width - 1).to_bytes(3, "little") + (patch.height - 1).to_bytes(3, "little")
        head = _chunk(b"VP8X", bytes((_ALPHA, 0, 0, 0)) + size)
    return b"RIFF" + struct.pack("<I", 4 + len(head) + len(chunks)) + b"WEBP" + head + chunks


def _chunk(kind: bytes, payload: bytes) -> bytes:
    return kind + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)


def write_animated_webp(
    file: BinaryIO,
    size: tuple[int, int],
    plays: int,
    frames: Iterable[tuple[Patch, int, bytes]],
    icc: bytes | None,
    others: Sequence[tuple[bytes, bytes | None]],
) -> None:
    """Write an animated WebP of `size` (width, height). `others` are the chunks EXIF and XMP.

    A frame has its place, its time in ticks, and its pixels as a WebP file of their own. What the header
    says of all frames is written when they are. Raises `InputError` above 4 GiB.
    """
    start = file.tell()
    edges = b"".join((edge - 1).to_bytes(3, "little") for edge in size)
    file.write(b"RIFF\0\0\0\0WEBP" + _chunk(b"VP8X", bytes(4) + edges))
    flags = _ANIMATION | (_ICC if icc else 0)
    if icc:
        file.write(_chunk(b"ICCP", icc))
    file.write(_chunk(b"ANIM", bytes(4) + struct.pack("<H", min(plays, 65535))))
    for patch, ticks, alone in frames:
        place = (patch.left // 2, patch.top // 2, patch.width - 1, patch.height - 1)
        numbers = (*place, min(ticks, MOST_TICKS))
        how = (0 if patch.blend else 2) | (patch.disposal == "clear")
        body = b"".join(number.to_bytes(3, "little") for number in numbers) + bytes((how,))
        for kind, payload in webp_chunks(alone):
            if kind in (b"ALPH", b"VP8 ", b"VP8L"):
                body += _chunk(kind, payload)
            if kind == b"ALPH" or (kind == b"VP8L" and payload[4] & 0x10):
                flags |= _ALPHA
        file.write(_chunk(b"ANMF", body))
    for kind, content in others:
        if content:
            flags |= _EXIF if kind == b"EXIF" else _XMP
            file.write(_chunk(kind, content))
    end = file.tell()
    if end - start - 8 > BYTES_LIMIT:
        raise InputError("more than 4 GiB of frames, which WebP does not hold")
    file.seek(start + 4)
    file.write(struct.pack("<I", end - start - 8))
    file.seek(start + 20)
    file.write(bytes((flags,)))
    file.seek(end)
