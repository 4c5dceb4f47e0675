"""Animated PNG: chunks to frames and back. Frames are packed and unpacked as PNG files of their own.

The chunks acTL, fcTL and fdAT are those of the third edition of the PNG specification (W3C 2025).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import BinaryIO

from cgconvert.errors import InputError
from cgconvert.media.picture.canvas import Patch
from cgconvert.media.picture.headers import PNG_SIGNATURE
from cgconvert.media.picture.metadata import png_chunk

MOST = 65535
"""The most of numerator and denominator of a frame's time."""

_DISPOSALS = ("keep", "clear", "restore")


@dataclass(frozen=True)
class PngFrame:
    """One frame: its place, its time in seconds, and what makes a PNG file of its own of it."""

    patch: Patch
    seconds: Fraction
    alone: Callable[[], bytes]


@dataclass(frozen=True)
class AnimatedPng:
    """The frames of an animated PNG. `plays` is how often it is shown, 0 for ever.

    `hidden` says that there is another picture, for programs that do not know animations.
    """

    plays: int
    frames: tuple[PngFrame, ...]
    hidden: bool
    may_be_transparent: bool


def chunks_at(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield type and payload of every chunk of a PNG whose structure `png_chunks` has checked."""
    view, at = memoryview(data), 8
    while at < len(data):
        length = struct.unpack_from(">I", data, at)[0]
        kind = data[at + 4 : at + 8]
        yield kind, view[at + 8 : at + 8 + length]
        if kind == b"IEND":
            return
        at += 12 + length


def read_animated_png(data: bytes) -> AnimatedPng:
    """Read the frames of an animated PNG without unpacking them. Raises `InputError`."""
    header, shared = b"", b""
    plays = 0
    count: int | None = None
    controls: list[bytes] = []
    packed: list[list[memoryview]] = []
    hidden = has_key = False
    for kind, payload in chunks_at(data):
        if kind == b"IHDR":
            header = bytes(payload)
        elif kind in (b"PLTE", b"tRNS"):
            shared += png_chunk(kind, bytes(payload))
            has_key = has_key or kind == b"tRNS"
        elif kind == b"acTL":
            count, plays = struct.unpack_from(">II", payload)
        elif kind == b"fcTL":
            controls.append(bytes(payload))
            packed.append([])
        elif kind == b"IDAT":
            hidden = not controls
            if controls:
                packed[-1].append(payload)
        elif kind == b"fdAT" and packed:
            packed[-1].append(payload[4:])
    if count != len(controls):
        raise InputError(f"damaged: it says {count} frames and has {len(controls)}")
    frames: list[PngFrame] = []
    for control, pieces in zip(controls, packed, strict=True):
        _, width, height, left, top, over, under, disposal, blend = struct.unpack(">IIIIIHHBB", control)
        if disposal > 2 or (not frames and disposal == 2):  # nothing is there before the first frame
            disposal = 1
        own = PNG_SIGNATURE + png_chunk(b"IHDR", struct.pack(">II", width, height) + header[8:]) + shared
        patch = Patch(left, top, width, height, blend == 1, _DISPOSALS[disposal])
        frames.append(PngFrame(patch, Fraction(over, under or 100), partial(_alone, own, pieces)))
    first = frames[0].patch
    holes = struct.pack(">II", first.width, first.height) != header[:8]
    holes = holes or any(frame.patch.disposal == "clear" for frame in frames)
    return AnimatedPng(plays, tuple(frames), hidden, holes or has_key or header[9] in (4, 6))


def _alone(head: bytes, pieces: list[memoryview]) -> bytes:
    return head + png_chunk(b"IDAT", b"".join(pieces)) + png_chunk(b"IEND", b"")


def time_of(seconds: Fraction) -> tuple[int, int]:
    """Return numerator and denominator as a frame holds them, the nearest if it cannot hold the time."""
    if max(seconds.numerator, seconds.denominator) <= MOST:
        return seconds.numerator, seconds.denominator
    if seconds >= MOST:
        return MOST, 1
    near = seconds.limit_denominator(max(1, int(MOST / max(float(seconds), 1.0))))
    return near.numerator, near.denominator


def write_animated_png(
    file: BinaryIO,
    size: tuple[int, int],
    count: int,
    plays: int,
    frames: Iterable[tuple[Patch, Fraction, bytes]],
    extra: bytes,
) -> None:
    """Write an animated PNG of `size` (width, height), with the chunks `extra` before its frames.

    A frame has its place, its time in seconds, and its pixels as a PNG file of their own. The files of all
    frames need the same colour type and depth, and no palette.
    """
    number = 0
    for index, (patch, seconds, alone) in enumerate(frames):
        chunks = list(chunks_at(alone))
        if index == 0:
            header = struct.pack(">II", *size) + bytes(chunks[0][1])[8:]
            file.write(PNG_SIGNATURE + png_chunk(b"IHDR", header) + extra)
            file.write(png_chunk(b"acTL", struct.pack(">II", count, plays)))
        place = (patch.width, patch.height, patch.left, patch.top)
        disposal = _DISPOSALS.index(patch.disposal)
        control = struct.pack(">IIIIIHHBB", number, *place, *time_of(seconds), disposal, int(patch.blend))
        file.write(png_chunk(b"fcTL", control))
        number += 1
        for kind, payload in chunks:
            if kind != b"IDAT":
                continue
            if index == 0:
                file.write(png_chunk(b"IDAT", bytes(payload)))
            else:
                file.write(png_chunk(b"fdAT", struct.pack(">I", number) + bytes(payload)))
                number += 1
    file.write(png_chunk(b"IEND", b""))
