"""Reads format, size and number of pictures from the bytes of a file before it is decoded."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from cgconvert.errors import InputError, printable
from cgconvert.media.picture.avif import AvifInfo, is_avif, read_avif
from cgconvert.media.picture.gif import GifFile, read_gif
from cgconvert.media.picture.tiff_tags import Directory, TagError, read_directories

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PAGE_LIMIT = 10_000
"""The most directories of a TIFF. More are taken for damage or an attack."""


@dataclass(frozen=True)
class ImageHeader:
    """What a file says of its picture. `width` and `height` are pixels as stored, before any turning.

    `frames` counts the frames of an animation or the pages. `lossless` says whether the compression is.
    `gray_key` is the gray value that a PNG calls transparent. `tiff` is the first directory of a TIFF file,
    and `pages` those of all its pages. `avif` and `gif` are what such files say.
    """

    format: str
    width: int
    height: int
    frames: int = 1
    lossless: bool = True
    gray_key: int | None = None
    tiff: Directory | None = None
    avif: AvifInfo | None = None
    gif: GifFile | None = None
    pages: tuple[Directory, ...] = ()

    @property
    def parts(self) -> str:
        """What the file holds several of: "frames" or "pages"."""
        return "pages" if self.format == "tiff" else "frames"

    @property
    def pixels(self) -> int:
        """The pixels of all frames or pages together, each as large as it is stored or shown."""
        if self.pages:
            return sum(page.number(0x0100) * page.number(0x0101) for page in self.pages)
        whole = self.width * self.height
        if self.gif:
            patches = (frame.patch for frame in self.gif.frames)
            return sum(max(whole, patch.width * patch.height) for patch in patches)
        return whole * self.frames

    @property
    def largest(self) -> tuple[int, int]:
        """Width and height of the largest frame or page."""
        sizes = [(self.width, self.height)]
        sizes += [(page.number(0x0100), page.number(0x0101)) for page in self.pages]
        sizes += [(frame.patch.width, frame.patch.height) for frame in (self.gif.frames if self.gif else ())]
        return max(sizes, key=lambda size: size[0] * size[1])


def identify(data: bytes) -> str | None:
    """Return the format by content (a key of `FORMATS`), or None for anything else."""
    if data[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if data[:8] == PNG_SIGNATURE:
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if data[4:8] == b"ftyp" and is_avif(data):
        return "avif"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if data[:2] == b"BM" and len(data) >= 26:
        return "bmp"
    return None


_OTHERS = (
    (b"\xff\x0a", 0, "a JPEG XL picture, which is not supported: save it as PNG first"),
    (b"\0\0\0\x0cJXL ", 0, "a JPEG XL picture, which is not supported: save it as PNG first"),
    (b"\0\0\0\x0cjP  ", 0, "a JPEG 2000 picture, which is not supported: save it as PNG first"),
    (b"8BPS", 0, "a Photoshop file, which is not supported: save it as PNG or TIFF first"),
    (b"%PDF", 0, "a PDF, not a picture"),
    (b"ftyphei", 4, "a HEIC picture, which is not supported: save it as JPEG or AVIF first"),
    (b"ftypmif1", 4, "a HEIF picture, which is not supported: save it as JPEG or AVIF first"),
    (b"<svg", 0, "an SVG drawing, not a picture of pixels"),
)


_VIDEOS = (
    (b"\x1a\x45\xdf\xa3", 0),  # Matroska and WebM
    (b"AVI ", 8),
    (b"\0\0\x01\xba", 0),  # MPEG program stream
    (b"FLV\x01", 0),
    (b"OggS", 0),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", 0),  # ASF, which WMV is
)


def is_video(data: bytes) -> bool:
    """Whether bytes that `identify` does not know begin as a video does."""
    if data[4:8] == b"ftyp":
        return data[8:12] not in (b"heic", b"heix", b"mif1")
    transport = len(data) > 188 and data[0] == data[188] == 0x47
    return transport or any(data[at : at + len(mark)] == mark for mark, at in _VIDEOS)


def describe_unknown(data: bytes) -> str:
    """Say why bytes that `identify` does not know are no input."""
    if not data:
        return "the file is empty"
    if is_video(data):
        return "a video: convert it with `cgconvert video`"
    for signature, offset, text in _OTHERS:
        if data[offset : offset + len(signature)] == signature:
            return text
    return "not a picture that can be read (JPEG, PNG, WebP, GIF, TIFF, AVIF, BMP)"


def read_header(data: bytes) -> ImageHeader:
    """Read the header of a picture's file. Raises `InputError`, whose text does not name the file."""
    kind = identify(data)
    if kind is None:
        raise InputError(describe_unknown(data))
    readers = {
        "jpeg": _jpeg,
        "png": _png,
        "webp": _webp,
        "gif": _gif,
        "tiff": _tiff,
        "avif": _avif,
        "bmp": _bmp,
    }
    try:
        header = readers[kind](data)
    except (struct.error, IndexError, TagError) as error:
        raise InputError(f"damaged or cut short: its {kind.upper()} header cannot be read") from error
    if header.width < 1 or header.height < 1:
        raise InputError(f"damaged: its {kind.upper()} header says {header.width}x{header.height} pixels")
    return header


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield the segments of a JPEG before its pixels as marker, offset of the marker, and payload."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return
        marker = data[at + 1]
        if marker == 0xFF:  # fill bytes
            at += 1
            continue
        if marker in (0xD9, 0xDA):
            return
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            at += 2
            continue
        length = struct.unpack_from(">H", data, at + 2)[0]
        yield marker, at, data[at + 4 : at + 2 + length]
        at += 2 + length


def _jpeg(data: bytes) -> ImageHeader:
    for marker, _, payload in jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", payload, 1)
            return ImageHeader("jpeg", width, height, lossless=marker in (0xC3, 0xC7, 0xCB, 0xCF))
    raise InputError("damaged or cut short: a JPEG without a frame header")


def png_chunks(data: bytes, checked: bool = False) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and payload of every chunk of a PNG. With `checked` every checksum is verified.

    Raises `InputError` if the file is cut short or a checksum is wrong.
    """
    at = 8
    while True:
        if at + 12 > len(data):
            raise InputError("cut short: the end of the PNG is missing")
        length = struct.unpack_from(">I", data, at)[0]
        kind, end = data[at + 4 : at + 8], at + 8 + length
        if end + 4 > len(data):
            raise InputError("cut short: the end of the PNG is missing")
        view = memoryview(data)[at + 4 : end]
        if checked and zlib.crc32(view) != struct.unpack_from(">I", data, end)[0]:
            name = printable(kind.decode("latin-1"))
            raise InputError(f"damaged: the checksum of its {name} chunk is wrong")
        yield kind, bytes(view[4:]) if kind != b"IDAT" else b""
        if kind == b"IEND":
            return
        at = end + 4


def png_pixels_only(data: bytes) -> bytes:
    """Return a PNG with only those chunks that its pixels are decoded from. `png_chunks` has checked it.

    libpng prints warnings about other chunks without the file's name.
    """
    with_key = data[25] in (0, 2, 3)  # colour types that may have a transparent colour
    kept, at = [memoryview(data)[:8]], 8
    while at < len(data):
        end = at + 12 + struct.unpack_from(">I", data, at)[0]
        kind = data[at + 4 : at + 8]
        is_critical = kind[:1].isupper()
        if is_critical or (kind == b"tRNS" and with_key):
            kept.append(memoryview(data)[at:end])
        if kind == b"IEND":
            break
        at = end
    return b"".join(kept)


def _png(data: bytes) -> ImageHeader:
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    if depth not in (1, 2, 4, 8, 16):
        raise InputError(f"damaged: its PNG header says {depth} bits a sample")
    frames, key = 1, None
    for kind, payload in png_chunks(data, checked=True):
        if kind == b"acTL":
            frames = struct.unpack_from(">I", payload)[0]
        elif kind == b"tRNS" and colour == 0 and len(payload) >= 2:
            value = struct.unpack_from(">H", payload)[0] & ((1 << depth) - 1)
            key = value if depth in (8, 16) else value * 255 // ((1 << depth) - 1)
    return ImageHeader("png", width, height, max(frames, 1), gray_key=key)


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and payload of every chunk of a WebP file."""
    at = 12
    while at + 8 <= len(data):
        kind, length = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _webp(data: bytes) -> ImageHeader:
    if struct.unpack_from("<I", data, 4)[0] + 8 > len(data) + 1:
        raise InputError("cut short: the end of the WebP is missing")
    size: tuple[int, int] | None = None
    frames, lossless = 0, False
    for kind, payload in webp_chunks(data):
        if kind == b"VP8X":
            size = 1 + int.from_bytes(payload[4:7], "little"), 1 + int.from_bytes(payload[7:10], "little")
        elif kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", payload, 6)
            size = size or (width & 0x3FFF, height & 0x3FFF)
        elif kind == b"VP8L":
            bits = struct.unpack_from("<I", payload, 1)[0]
            size, lossless = size or (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)), True
        elif kind == b"ANMF":
            frames += 1
            lossless = lossless or payload[16:20] == b"VP8L"
    if size is None:
        raise InputError("damaged or cut short: a WebP without a picture")
    return ImageHeader("webp", *size, max(frames, 1), lossless)


def _tiff(data: bytes) -> ImageHeader:
    directories = read_directories(data, PAGE_LIMIT + 1)
    if not directories:
        raise InputError("damaged: a TIFF without a picture")
    if len(directories) > PAGE_LIMIT:
        raise InputError(f"more than {PAGE_LIMIT} pages in one file")
    # Reduced copies and masks (NewSubfileType) do not count as pages.
    pages = tuple(page for page in directories if not page.number(0x00FE) & 0b101) or (directories[0],)
    first = pages[0]
    lossless = all(page.number(0x0103, 1) not in (6, 7, 34712, 50001, 50002) for page in pages)
    size = first.number(0x0100), first.number(0x0101)
    return ImageHeader("tiff", *size, len(pages), lossless, tiff=first, pages=pages)


def _avif(data: bytes) -> ImageHeader:
    info = read_avif(data)
    return ImageHeader("avif", info.width, info.height, info.frames, lossless=False, avif=info)


def _gif(data: bytes) -> ImageHeader:
    gif = read_gif(data)
    return ImageHeader("gif", gif.width, gif.height, len(gif.frames), gif=gif)


def _bmp(data: bytes) -> ImageHeader:
    header_size = struct.unpack_from("<I", data, 14)[0]
    if header_size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return ImageHeader("bmp", abs(width), abs(height))
