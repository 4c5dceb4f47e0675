"""GIF files: their blocks are read and written here, and Pillow packs and unpacks the pixels.

The format is that of the GIF89a specification (CompuServe 1990), with the loop count of Netscape and the
XMP packet of Adobe in application extensions.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import BinaryIO

import numpy as np

from cgconvert.errors import InputError
from cgconvert.media.picture.canvas import Patch, changed_part, draw_all

TICK = Fraction(1, 100)
"""The unit of a frame's time in seconds."""
MOST_TICKS = 65535
PALETTE_SAMPLES = 4096
"""Pixels of a frame from which its palette is made. Four times as many take twice the time for 0.3 dB."""
OPAQUE_FROM = 128
"""The alpha from which a pixel is drawn, since GIF has only transparent and opaque pixels."""

_NETSCAPE, _XMP, _PROFILE = b"NETSCAPE2.0", b"XMP DataXMP", b"ICCRGBG1012"
_XMP_TRAILER = bytes((1, *range(255, -1, -1)))
_DISPOSALS = {2: "clear", 3: "restore"}


@dataclass(frozen=True)
class GifFrame:
    """One frame as stored: its place, its time, its colour table of RGB bytes, and its packed pixels."""

    patch: Patch
    ticks: int
    palette: bytes
    transparent: int | None
    interlaced: bool
    packed: bytes | memoryview


@dataclass
class GifFile:
    """All blocks of a GIF. `plays` is how often it is shown, 0 for ever."""

    width: int
    height: int
    plays: int = 1
    frames: list[GifFrame] = field(default_factory=list)
    xmp: bytes | None = None
    icc: bytes | None = None
    comments: list[bytes] = field(default_factory=list)

    @property
    def may_be_transparent(self) -> bool:
        """Whether some pixel of some frame can be transparent, as far as the blocks say."""
        first = self.frames[0].patch
        whole = (first.left, first.top, first.width, first.height) == (0, 0, self.width, self.height)
        disposed = any(frame.patch.disposal == "clear" for frame in self.frames[:-1])
        return not whole or disposed or any(frame.transparent is not None for frame in self.frames)


def read_gif(data: bytes) -> GifFile:
    """Read the blocks of a GIF without unpacking its pixels. Raises `InputError` if it is cut short."""
    try:
        return _read_blocks(data)
    except (struct.error, IndexError):
        raise InputError("cut short: the end of the GIF is missing") from None


def _read_blocks(data: bytes) -> GifFile:
    view = memoryview(data)
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    gif = GifFile(width, height)
    common, at = _colour_table(data, 13, flags)
    ticks, transparent, disposal = 0, None, "keep"
    while data[at] != 0x3B:
        if data[at] == 0x2C:
            left, top, w, h, flags = struct.unpack_from("<HHHHB", data, at + 1)
            own, start = _colour_table(data, at + 10, flags)
            end = _after_blocks(data, start + 1)
            patch = Patch(left, top, w, h, True, disposal)
            palette = own or common
            gif.frames.append(
                GifFrame(patch, ticks, palette, transparent, bool(flags & 0x40), view[start:end])
            )
            ticks, transparent, disposal, at = 0, None, "keep", end
        elif data[at] == 0x21:
            kind, end = data[at + 1], _after_blocks(data, at + 2)
            if kind == 0xF9:
                flags, ticks, index = struct.unpack_from("<BHB", data, at + 3)
                disposal = _DISPOSALS.get(flags >> 2 & 7, "keep")
                transparent = index if flags & 1 else None
            elif kind == 0xFE:
                gif.comments.append(_joined(data, at + 2))
            elif kind == 0xFF:
                _read_application(gif, data, at + 2, end)
            at = end
        elif data[at] == 0:  # filling that some programs write between blocks
            at += 1
        else:
            raise InputError("damaged: a GIF with a block of unknown kind")
    if not gif.frames:
        raise InputError("damaged: a GIF without a picture")
    if not gif.width or not gif.height:  # some programs write no size of the whole
        gif.width = max(frame.patch.left + frame.patch.width for frame in gif.frames)
        gif.height = max(frame.patch.top + frame.patch.height for frame in gif.frames)
    return gif


def _read_application(gif: GifFile, data: bytes, at: int, end: int) -> None:
    name, content = data[at + 1 : at + 12], at + 12
    if name == _XMP:  # the packet stands there as it is, and not in blocks
        gif.xmp = data[content : end - len(_XMP_TRAILER) - 1] or None
    elif name == _PROFILE:
        gif.icc = _joined(data, content) or None
    elif name == _NETSCAPE and data[content] >= 3 and data[content + 1] == 1:
        repeats = struct.unpack_from("<H", data, content + 2)[0]
        gif.plays = repeats + 1 if repeats else 0


def _colour_table(data: bytes, at: int, flags: int) -> tuple[bytes, int]:
    """Return the colour table that may begin at `at`, and where it ends."""
    size = 3 << (flags & 7) + 1 if flags & 0x80 else 0
    return data[at : at + size], at + size


def _after_blocks(data: bytes, at: int) -> int:
    while data[at]:
        at += data[at] + 1
    return at + 1


def _joined(data: bytes, at: int) -> bytes:
    """Return the content of a chain of blocks."""
    parts = []
    while data[at]:
        parts.append(data[at + 1 : at + 1 + data[at]])
        at += data[at] + 1
    return b"".join(parts)


def draw_gif(gif: GifFile) -> Iterator[np.ndarray]:
    """Yield the whole canvas (H, W, 4) of uint8 RGBA for each frame. Raises `InputError`."""
    return draw_all(((frame.patch, _unpacked(frame)) for frame in gif.frames), gif.width, gif.height)


def _unpacked(frame: GifFrame) -> np.ndarray:
    """Return a frame's pixels as RGBA. Indices beyond its colour table are black."""
    from PIL.GifImagePlugin import GifImageFile

    size = struct.pack("<HH", frame.patch.width, frame.patch.height)
    table = bytes(range(256)) * 3  # any table; the indices are what is asked for
    alone = b"GIF89a" + size + b"\xf7\0\0" + table + b"\x2c" + bytes(4) + size
    alone += b"\x40" if frame.interlaced else b"\0"
    try:
        with GifImageFile(io.BytesIO(alone + frame.packed + b"\x3b")) as picture:
            picture.load()
            indices = np.asarray(picture)
    except (OSError, SyntaxError, ValueError, IndexError, EOFError, struct.error) as error:
        raise InputError("damaged or cut short: a frame of the GIF cannot be decoded") from error
    colours = np.zeros((256, 4), np.uint8)
    known = np.frombuffer(frame.palette, np.uint8)
    known = known[: len(known) // 3 * 3].reshape(-1, 3)
    colours[: len(known), :3] = known
    colours[:, 3] = 255
    if frame.transparent is not None:
        colours[frame.transparent] = 0
    return colours[indices]


@dataclass(frozen=True)
class GifInfo:
    """What a GIF holds beside its frames. `plays` is how often they are shown, 0 for ever.

    With `transparent` every frame has a transparent colour, even if no pixel has it: some programs decide by
    the first frame whether there is any, and what a rectangle is cleared to.
    """

    plays: int = 1
    transparent: bool = False
    xmp: bytes | None = None
    icc: bytes | None = None
    comments: tuple[bytes, ...] = ()


def write_gif(file: BinaryIO, frames: Iterable[tuple[np.ndarray, int]], info: GifInfo) -> None:
    """Write RGBA pictures (H, W, 4) of uint8, each with its time in ticks, as a GIF.

    Every frame has a palette of its own, and only the rectangle that changes is stored. A pixel can only
    become transparent again if the frame before is cleared, so each frame is written when the next is known.
    """
    blank: np.ndarray | None = None
    shown: np.ndarray | None = None  # what the frame that waits is drawn on
    waiting: tuple[np.ndarray, int] | None = None
    for canvas, ticks in frames:
        drawn = np.where(canvas[:, :, 3:] >= OPAQUE_FROM, canvas | _OPAQUE, 0)
        if waiting is None or blank is None:
            _write_head(file, drawn.shape[1], drawn.shape[0], info)
            blank = shown = np.zeros_like(drawn)
        else:
            assert shown is not None
            vanishes = bool(((drawn[:, :, 3] == 0) & (waiting[0][:, :, 3] != 0)).any())
            _write_frame(file, info, *waiting, shown, vanishes)
            shown = blank if vanishes else waiting[0]
        waiting = drawn, ticks
    assert waiting is not None and shown is not None
    _write_frame(file, info, *waiting, shown, False)
    file.write(b"\x3b")


_OPAQUE = np.array([0, 0, 0, 255], np.uint8)


def _write_head(file: BinaryIO, width: int, height: int, info: GifInfo) -> None:
    if max(width, height) > 65535:
        raise InputError(f"{width}x{height}: GIF holds at most 65535 pixels a side")
    file.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0x70, 0, 0))
    if info.plays != 1:
        repeats = min(info.plays - 1, 65535) if info.plays else 0
        file.write(b"\x21\xff\x0b" + _NETSCAPE + struct.pack("<BBHB", 3, 1, repeats, 0))
    if info.icc:
        file.write(b"\x21\xff\x0b" + _PROFILE + _blocks(info.icc))
    if info.xmp:
        file.write(b"\x21\xff\x0b" + _XMP + info.xmp + _XMP_TRAILER + b"\0")
    for comment in info.comments:
        file.write(b"\x21\xfe" + _blocks(comment))


def _blocks(content: bytes) -> bytes:
    pieces = (content[at : at + 255] for at in range(0, len(content), 255))
    return b"".join(bytes((len(piece),)) + piece for piece in pieces) + b"\0"


def _write_frame(
    file: BinaryIO, info: GifInfo, picture: np.ndarray, ticks: int, shown: np.ndarray, clear: bool
) -> None:
    """Write what differs from what is `shown`, or all of it if it is to be cleared afterwards."""
    height, width = picture.shape[:2]
    rows, columns = (slice(0, height), slice(0, width)) if clear else changed_part(shown, picture)
    part = picture[rows, columns]
    indices, palette, transparent = _with_palette(part, info.transparent)
    bits = max(1, (len(palette) // 3 - 1).bit_length())
    flags = (2 if clear else 1) << 2 | (transparent is not None)
    file.write(struct.pack("<BBBBHBB", 0x21, 0xF9, 4, flags, min(ticks, MOST_TICKS), transparent or 0, 0))
    place = columns.start, rows.start, part.shape[1], part.shape[0]
    file.write(struct.pack("<BHHHHB", 0x2C, *place, 0x80 | bits - 1))
    file.write(palette.ljust(3 << bits, b"\0"))
    file.write(_packed(indices))


def _with_palette(picture: np.ndarray, transparent: bool) -> tuple[np.ndarray, bytes, int | None]:
    """Return indices (H, W), the colour table that they point into, and the index that is transparent.

    There is one if a pixel is transparent, or if `transparent`.

    Colours are exact if there are few enough. Otherwise the table is made by median cut (Heckbert 1982) and
    improved by k-means, and what it lacks is spread by error diffusion (Floyd and Steinberg 1976).
    """
    from PIL import Image

    opaque = picture[:, :, 3] != 0
    room = 255 if transparent or not opaque.all() else 256
    red, green, blue = (picture[:, :, channel].astype(np.uint32) for channel in range(3))
    packed = red << 16 | green << 8 | blue
    colours = np.unique(packed[opaque])
    if len(colours) <= room:
        indices = np.searchsorted(colours, packed).astype(np.uint8)
        table = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(np.uint8)
    else:
        pixels = picture[:, :, :3][opaque]
        step = max(1, len(pixels) // PALETTE_SAMPLES)
        while math.gcd(step, picture.shape[1]) > 1:  # or the same columns would be taken from every row
            step += 1
        few = Image.fromarray(pixels[::step][None])
        chosen = few.quantize(room, Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE)
        whole = Image.fromarray(np.ascontiguousarray(picture[:, :, :3]))
        indices = np.array(whole.quantize(palette=chosen, dither=Image.Dither.FLOYDSTEINBERG))
        table = np.array(chosen.getpalette(), np.uint8).reshape(-1, 3)[:room]
    if room == 256:
        return indices, table.tobytes(), None
    indices[~opaque] = len(table)
    return indices, table.tobytes() + bytes(3), len(table)


def _packed(indices: np.ndarray) -> bytes:
    """Return indices (H, W) as the packed pixels of a frame."""
    from PIL import Image

    alone = io.BytesIO()
    Image.fromarray(indices).save(alone, "GIF", interlace=False)  # a gray picture, whose values are indices
    return bytes(read_gif(alone.getvalue()).frames[0].packed)
