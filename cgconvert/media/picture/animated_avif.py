"""Animated AVIF: Pillow packs and unpacks the frames; times and loop count are read and written here.

Pillow rounds times to milliseconds and knows no loop count. Both are in boxes of the ISO base media file
format (ISO/IEC 14496-12), and the loop count is that of an edit list, as libavif writes it.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np

from cgconvert.errors import InputError

FALLBACK_SCALE = 1000
"""Ticks in a second where the times have no common tick that fits."""
MOST_SCALE = 1_000_000
FRAME_LIMIT = 1_000_000
_EMPTY_EXIF = b"II*\0\x08\0\0\0\0\0\0\0\0\0"
_INDEFINITE = (1 << 64) - 1
_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts")


@dataclass(frozen=True)
class AvifTimes:
    """The time of each frame in seconds, and how often all are shown, 0 for ever."""

    plays: int
    seconds: tuple[Fraction, ...]


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the content of every box, those within `_PARENTS` after their parent."""
    at = start
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", data, at + 8)[0], 16
        last = end if size == 0 else at + size
        if (size and size < head) or last > end:
            raise InputError("damaged: a box of the AVIF is larger than what it is in")
        yield kind, at + head, last
        if kind in _PARENTS:
            yield from _boxes(data, at + head, last)
        at = last


def read_times(data: bytes) -> AvifTimes:
    """Read the times of an animated AVIF. Raises `InputError`."""
    scale, plays, length, span = 0, 0, _INDEFINITE, 0
    seconds: list[Fraction] = []
    repeats: bool | None = None
    shown = False
    try:
        for kind, at, _ in _boxes(data, 0, len(data)):
            if kind == b"trak":
                if shown and seconds:
                    break  # the track of the colours comes before that of alpha
                seconds, repeats, shown = [], None, False
            elif kind == b"tkhd":
                length = _track_length(data, at)
            elif kind == b"elst" and struct.unpack_from(">I", data, at + 4)[0] >= 1:
                repeats = bool(data[at + 3] & 1)
                span = struct.unpack_from(">Q" if data[at] else ">I", data, at + 8)[0]
            elif kind == b"mdhd":
                scale = struct.unpack_from(">I", data, at + (20 if data[at] else 12))[0]
            elif kind == b"hdlr":
                shown = data[at + 8 : at + 12] == b"pict"
            elif kind == b"stts":
                for entry in range(struct.unpack_from(">I", data, at + 4)[0]):
                    count, ticks = struct.unpack_from(">II", data, at + 8 + 8 * entry)
                    if len(seconds) + count > FRAME_LIMIT:
                        raise InputError(f"more than {FRAME_LIMIT} frames in one file")
                    seconds += [Fraction(ticks, scale)] * count
    except (struct.error, IndexError, ZeroDivisionError) as error:
        raise InputError("damaged or cut short: the times of the AVIF cannot be read") from error
    if repeats is False:
        plays = 1
    elif repeats and length != _INDEFINITE and span:
        plays = -(-length // span)
    return AvifTimes(plays, tuple(seconds))


def _track_length(data: bytes, at: int) -> int:
    """Return the duration in a track header, of which version 1 has 64 bits and version 0 has 32."""
    if data[at]:
        return struct.unpack_from(">Q", data, at + 28)[0]
    length = struct.unpack_from(">I", data, at + 20)[0]
    return _INDEFINITE if length == 0xFFFFFFFF else length


def unpack_avif(data: bytes) -> Iterator[np.ndarray]:
    """Yield each frame of an animated AVIF as uint8 RGB (H, W, 3) or RGBA (H, W, 4). Raises `InputError`."""
    from PIL.AvifImagePlugin import AvifImageFile

    try:
        with AvifImageFile(io.BytesIO(data)) as picture:
            for number in range(picture.n_frames):
                picture.seek(number)
                picture.load()
                yield np.array(picture)
    except (OSError, RuntimeError, SyntaxError, ValueError, KeyError, EOFError, struct.error) as error:
        raise InputError("damaged or cut short: a frame of the AVIF cannot be decoded") from error


def common_scale(seconds: Sequence[Fraction]) -> int:
    """Return the ticks a second in which every time is a whole number, or `FALLBACK_SCALE` without any."""
    scale = math.lcm(*(time.denominator for time in seconds))
    longest = max(seconds, default=Fraction(0)) * scale
    return scale if scale <= MOST_SCALE and longest < 1 << 32 else FALLBACK_SCALE


def write_animated_avif(
    file: BinaryIO,
    pictures: Iterable[np.ndarray],
    ticks: Sequence[int],
    scale: int,
    plays: int,
    quality: int,
    speed: int,
    **metadata: bytes,
) -> None:
    """Write uint8 pictures (H, W, 3) or (H, W, 4) of one shape as an animated AVIF.

    Picture number n is shown for `ticks[n]` of which `scale` make a second. `metadata`: `exif`, `xmp` and
    `icc_profile`, as Pillow calls them. Raises `InputError`.
    """
    packed = io.BytesIO()
    block = metadata.pop("exif", b"")
    filling = b""
    if block:
        # Pillow would write the block anew, and makers' private notes in it would break.
        filling = (_EMPTY_EXIF + b"filling" * (len(block) // 7))[: max(len(block), len(_EMPTY_EXIF))]
        metadata["exif"] = filling
    options: dict[str, Any] = {
        "quality": quality,
        "speed": speed,
        "subsampling": "4:4:4",  # as for JPEG: strokes are new edges
        "max_threads": 1,
        "duration": list(ticks),
        **metadata,
    }
    try:
        _as_one_picture(iter(pictures), len(ticks)).save(packed, "AVIF", save_all=True, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"cannot be encoded as an animated AVIF ({error})") from error
    edited = _with_times(packed.getbuffer(), scale, plays)
    at = edited.find(filling)
    if block and at > 0:
        edited[at : at + len(filling)] = block.ljust(len(filling), b"\0")
    file.write(edited)


def _as_one_picture(pictures: Iterator[np.ndarray], count: int) -> Any:
    """Return a picture for Pillow that holds only one of its frames, the one that was sought last."""
    from PIL import Image

    class Frames(Image.Image):
        n_frames, is_animated = count, True

        def __init__(self) -> None:
            super().__init__()
            self.number = -1
            self.seek(0)

        def seek(self, frame: int) -> None:
            if frame >= count:
                raise EOFError
            if frame < self.number:  # back to the first, when all have been written
                return
            while self.number < frame:
                current = Image.fromarray(next(pictures))
                self.number += 1
                self.im, self._mode, self._size = current.im, current.mode, current.size

        def tell(self) -> int:
            return 0

    return Frames()


def _with_times(packed: memoryview, scale: int, plays: int) -> bytearray:
    """Return Pillow's file with ticks of another length, a loop count, and without the time of its making."""
    edited = bytearray(packed)
    total = 0
    for kind, at, _ in _boxes(bytes(packed), 0, len(packed)):
        if kind == b"mdhd":
            struct.pack_into(">QQI", edited, at + 4, 0, 0, scale)
            total = struct.unpack_from(">Q", edited, at + 24)[0]
    length = total * plays if plays else _INDEFINITE
    for kind, at, _ in _boxes(bytes(packed), 0, len(packed)):
        if kind == b"mvhd":
            struct.pack_into(">QQIQ", edited, at + 4, 0, 0, scale, length)
        elif kind == b"tkhd":
            struct.pack_into(">QQ", edited, at + 4, 0, 0)
            struct.pack_into(">Q", edited, at + 28, length)
        elif kind == b"elst":
            edited[at + 3] = plays != 1
    return edited
