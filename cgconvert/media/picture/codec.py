"""Pictures in files: decoded upright as RGB of 8 or 16 bit, alpha and metadata beside; encoded again."""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from cgconvert.errors import InputError
from cgconvert.frames import check_pixels
from cgconvert.host.objects import AnyPath, ObjectPath
from cgconvert.media.picture.exif import has_density
from cgconvert.media.picture.formats import FORMATS
from cgconvert.media.picture.gif import GifInfo, draw_gif, write_gif
from cgconvert.media.picture.headers import (
    ImageHeader,
    describe_unknown,
    identify,
    png_pixels_only,
    read_header,
)
from cgconvert.media.picture.metadata import (
    JPEG_EXIF,
    TIFF_EXTRA_SAMPLES,
    Metadata,
    embed,
    for_result,
    not_held,
    read_metadata,
)
from cgconvert.media.picture.tiff_tags import Directory, begin_with, first_offset

PIXEL_LIMIT = 400_000_000
"""The most pixels of one picture. A header that says more is taken for damage or an attack."""
TOTAL_PIXEL_LIMIT = 20_000_000_000
"""The most pixels of all frames or pages of one file: 10,000 frames of 1920x1080, or 570 pages of A4 at 600
dpi. A few bytes can ask for a thousand times as many."""
BYTES_LIMIT = 4 << 30
INFLATED_BYTES = 1 << 20
"""Bytes that are inflated at once where only their checksum counts."""
JPEG_QUALITY, WEBP_QUALITY, AVIF_QUALITY = 95, 90, 90
AVIF_SPEED = 9  # takes a seventh of the time of speed 8, for the same size and 0.4 dB less

COMMON_DENSITY = (72, 72)
"""The density that programs write by default, in pixels per inch. Its loss is not reported."""

_EDGE_LIMITS = {"jpeg": 65500, "webp": 16383}

# Pictures are decoded in our own threads, so threads of a codec would only take time from the network. Its
# errors arrive with the file's name, so it must not print them itself.
cv2.setNumThreads(1)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@dataclass(frozen=True)
class Picture:
    """One upright picture. `pixels` are uint8 or uint16 RGB (H, W, 3); `alpha` (H, W) has their type.

    uint16 always spans 0 to 65535, and `depth` is how many of the bits the file has (8, 10, 12 or 16).
    `format` and `lossless` say how the file stores it. `dropped` says in words what of the file is missing.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    metadata: Metadata = field(default_factory=Metadata)
    format: str = "png"
    lossless: bool = True
    depth: int = 8
    dropped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_pixels(self.pixels, 3)
        alpha = self.alpha
        if alpha is not None and (alpha.shape != self.pixels.shape[:2] or alpha.dtype != self.pixels.dtype):
            raise ValueError(f"alpha {alpha.dtype} {alpha.shape} does not fit pixels {self.pixels.shape}")

    def with_pixels(self, pixels: np.ndarray) -> Picture:
        """Return the picture with other pixels of the same shape and type."""
        return replace(self, pixels=pixels)

    def rgba(self) -> np.ndarray:
        """Return pixels and alpha together, (H, W, 4)."""
        alpha = self.alpha
        if alpha is None:
            alpha = np.full(self.pixels.shape[:2], np.iinfo(self.pixels.dtype).max, self.pixels.dtype)
        return np.dstack((self.pixels, alpha))


def read_file(path: AnyPath) -> bytes:
    """Return all bytes of a picture's file. Raises `InputError` with the reason why it cannot be read."""
    if isinstance(path, ObjectPath):
        return path.read()
    try:
        # Non-blocking, so that a pipe with a picture's name is refused at once.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InputError("not a file")
            if status.st_size > BYTES_LIMIT:
                raise InputError(f"{status.st_size / 2**30:.1f} GiB: larger than any picture that is read")
            return file.read()
    except FileNotFoundError:
        raise InputError("no such file") from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from error


def read_picture(path: AnyPath, pixel_limit: int = PIXEL_LIMIT) -> Picture:
    """Read and decode one picture. Raises `InputError`, whose text does not name the file."""
    data = read_file(path)
    return decode_picture(data, checked_header(data, pixel_limit))


def checked_header(data: bytes, pixel_limit: int = PIXEL_LIMIT, single: bool = True) -> ImageHeader:
    """Return the header of a file that may be decoded. The format is told by the content.

    Raises `InputError` for unknown formats, for a frame of more than `pixel_limit` pixels, for more than
    `TOTAL_PIXEL_LIMIT` pixels of all frames, and if `single` for animations and several pages.
    """
    header = read_header(data)
    width, height = header.largest
    if width * height > pixel_limit:
        raise too_many_pixels(width, height, pixel_limit)
    if header.pixels > TOTAL_PIXEL_LIMIT:
        raise InputError(
            f"{header.frames} {header.parts} of {width}x{height}: more than the "
            f"{TOTAL_PIXEL_LIMIT // 1_000_000} million pixels allowed in one file"
        )
    if single and header.frames > 1:
        raise InputError(f"{header.frames} {header.parts} in one file: split it into single pictures")
    return header


def too_many_pixels(width: int, height: int, pixel_limit: int) -> InputError:
    """The refusal of a picture that is larger than allowed."""
    return InputError(
        f"{width}x{height}: more than the {pixel_limit // 1_000_000} million pixels allowed; "
        "raise `pixel_limit` if you trust the file"
    )


def decode_picture(data: bytes, header: ImageHeader | None = None) -> Picture:
    """Decode a picture from the bytes of its file. `header` is what `checked_header` returned for them.

    Raises `InputError` for damaged files and for samples that 8 or 16 bit RGB cannot represent.
    """
    header = header or checked_header(data)
    flags = _decode_flags(header)
    if header.tiff and first_offset(data)[2] != header.tiff.offset:  # a reduced copy comes first
        edited = bytearray(data)
        begin_with(edited, header.tiff)
        data = bytes(edited)
    metadata = read_metadata(data, header)
    try:
        if header.format == "avif":
            raw, block = _decode_avif(data)
            metadata = replace(metadata, exif=block)
        elif header.gif is not None:
            raw = next(draw_gif(header.gif))[:, :, [2, 1, 0, 3]]
            raw = raw if (raw[:, :, 3] != 255).any() else raw[:, :, :3]
        else:
            if header.format == "png":
                data = png_pixels_only(data)
            elif header.tiff is not None:
                _check_deflated(data, header.tiff)
            raw = cv2.imdecode(np.frombuffer(_alpha_kept_apart(data, header.tiff), np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError("not enough memory to decode it") from error
        raw = None
    if raw is None or raw.size == 0:
        raise InputError(f"damaged, cut short, or a kind of {header.format.upper()} that is not supported")
    depth = 16 if raw.dtype == np.uint16 else 8
    if header.avif is not None and raw.dtype == np.uint16:
        depth = 12 if header.avif.depth == 12 or raw.max(initial=0) > 1023 else 10
        raw = (raw << (16 - depth)) | (raw >> (2 * depth - 16))  # this can be undone exactly
    if raw.dtype not in (np.uint8, np.uint16):
        raise InputError(f"samples of type {raw.dtype}: save it with 8 or 16 bit integers first")
    pixels, alpha = _split(raw, header.gray_key)
    if alpha is not None and header.tiff and header.tiff.numbers(TIFF_EXTRA_SAMPLES)[:1] == (1,):
        pixels = _unassociated(pixels, alpha)
    pixels = np.ascontiguousarray(turned_upright(pixels, metadata.orientation))
    if alpha is not None:
        alpha = np.ascontiguousarray(turned_upright(alpha, metadata.orientation))
    metadata = for_result(metadata, pixels.shape[1], pixels.shape[0])
    return Picture(pixels, alpha, metadata, header.format, header.lossless, depth, metadata.left_out)


def _decode_avif(data: bytes) -> tuple[np.ndarray | None, bytes | None]:
    """Return the samples of an AVIF, and its EXIF block byte for byte, or None without one."""
    raw, types, blocks = cv2.imdecodeWithMetadata(np.frombuffer(data, np.uint8), flags=cv2.IMREAD_UNCHANGED)
    block = dict(zip(types, blocks, strict=True)).get(cv2.IMAGE_METADATA_EXIF)
    # Some programs put the mark of JPEG before the block.
    return raw, None if block is None else np.asarray(block).tobytes().removeprefix(JPEG_EXIF)


def avif_exif(data: bytes) -> bytes | None:
    """Return the EXIF block of an AVIF byte for byte, or None without one or if its picture is damaged."""
    try:
        return _decode_avif(data)[1]
    except cv2.error:
        return None


def _decode_flags(header: ImageHeader) -> int:
    """Return OpenCV's flags for a picture. Raises `InputError` for TIFFs that it would misread."""
    tiff = header.tiff
    if tiff is None:
        return cv2.IMREAD_UNCHANGED
    photometric, samples = tiff.number(0x0106), tiff.number(0x0115, 1)
    if photometric in (0, 1) and samples > 1:
        raise InputError("a gray TIFF with alpha or more samples is not supported: save it as PNG first")
    if (photometric == 2 and samples > 4) or samples > 5:
        raise InputError(
            f"a TIFF of {samples} samples a pixel is not supported: save it as RGB or RGBA first"
        )
    sample_format = tiff.number(0x0153, 1)
    if sample_format not in (1, 4) or max(tiff.numbers(0x0102), default=1) > 16:
        raise InputError("a TIFF of float or 32-bit samples: save it with 8 or 16 bit integers first")
    if photometric in (
        5,
        8,
    ):  # CMYK and Lab are read as RGB
        return cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.IMREAD_UNCHANGED


def _check_deflated(data: bytes, tiff: Directory) -> None:
    """Raise `InputError` if the checksum of a strip or tile is wrong: OpenCV would make it black.

    Of the compressions of TIFF only Deflate has one.
    """
    if tiff.number(0x0103, 1) not in (8, 32946):
        return
    room = tiff.number(0x0100) * tiff.number(0x0101) * 16 + INFLATED_BYTES  # so a few bytes cannot take hours
    offsets, sizes = ((tiff.numbers(strip) or tiff.numbers(tile)) for strip, tile in ((273, 324), (279, 325)))
    for offset, size in zip(offsets, sizes, strict=False):
        inflater, packed = zlib.decompressobj(), data[offset : offset + size]
        try:
            while packed and room > 0:
                room -= len(inflater.decompress(packed, INFLATED_BYTES))
                packed = inflater.unconsumed_tail
        except zlib.error:
            pass
        if not inflater.eof:
            raise InputError("damaged or cut short: the checksum of its pixels is wrong")


def _alpha_kept_apart(data: bytes, tiff: Directory | None) -> bytes | bytearray:
    """Return the file with its alpha marked as associated, so that libtiff does not multiply it in again."""
    tag = tiff.tags.get(TIFF_EXTRA_SAMPLES) if tiff else None
    if tiff is None or tag is None or tag.type != 3 or tiff.number(TIFF_EXTRA_SAMPLES) != 2:
        return data
    edited = bytearray(data)
    edited[tag.offset : tag.offset + 2] = struct.pack(tiff.order + "H", 1)
    return edited


def _split(raw: np.ndarray, gray_key: int | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Split what OpenCV decoded into RGB and alpha."""
    if raw.ndim == 2:
        alpha = None
        if gray_key is not None:  # OpenCV ignores the transparent value of a gray PNG
            alpha = np.where(raw == gray_key, 0, np.iinfo(raw.dtype).max).astype(raw.dtype)
        return cv2.cvtColor(raw, cv2.COLOR_GRAY2RGB), alpha
    if raw.shape[2] == 3:
        return cv2.cvtColor(raw, cv2.COLOR_BGR2RGB), None
    if raw.shape[2] == 4:
        return cv2.cvtColor(raw, cv2.COLOR_BGRA2RGB), np.ascontiguousarray(raw[:, :, 3])
    raise InputError(f"{raw.shape[2]} samples a pixel are not supported: save it as RGB or RGBA first")


def _unassociated(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Divide colours by the alpha that was multiplied into them. They are black where alpha is 0."""
    peak = np.iinfo(pixels.dtype).max
    divisor = np.maximum(alpha, 1).astype(np.float64)[:, :, None]
    return np.clip(np.rint(pixels * (peak / divisor)), 0, peak).astype(pixels.dtype)


def turned_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return a view of pixels (H, W) or (H, W, C), turned and mirrored by EXIF `orientation` (1 to 8)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def encode_picture(picture: Picture, kind: str, quality: int | None = None) -> tuple[bytes, tuple[str, ...]]:
    """Encode a picture with its alpha and metadata as `kind` (a key of `FORMATS`).

    `quality` is 1 to 100 for JPEG, WebP and AVIF, of which the last two are lossless at 100. None takes the
    format's default. Returns the file's bytes, and in words what of the picture they do not hold. Raises
    `InputError` if the format cannot hold a picture of this size.
    """
    height, width = picture.pixels.shape[:2]
    if max(height, width) > _EDGE_LIMITS.get(kind, 1 << 30):
        raise InputError(f"{width}x{height}: {kind.upper()} holds at most {_EDGE_LIMITS[kind]} pixels a side")
    picture, dropped = fitted(picture, kind, quality)
    metadata = picture.metadata
    if kind == "gif":
        file = io.BytesIO()
        write_gif(
            file, [(picture.rgba(), 0)], GifInfo(1, False, metadata.xmp, metadata.icc, metadata.comments)
        )
        return file.getvalue(), dropped
    if picture.alpha is None:
        raw = cv2.cvtColor(picture.pixels, cv2.COLOR_RGB2BGR)
    else:
        raw = np.dstack((picture.pixels[:, :, ::-1], picture.alpha))
    depth = picture.depth if picture.depth in (10, 12) else 12
    if kind == "avif" and raw.dtype == np.uint16:
        raw = (
            raw >> (16 - depth) if picture.depth == depth else np.rint(raw * (4095 / 65535)).astype(np.uint16)
        )
    options = _encode_options(picture, kind, quality, depth)
    if kind in ("webp", "avif"):
        return _encode(kind, raw, options, metadata), dropped
    encoded, lost = embed(_encode(kind, raw, options, Metadata()), kind, metadata, picture.alpha is not None)
    return encoded, dropped + lost


def _encode(kind: str, raw: np.ndarray, options: list[int], metadata: Metadata) -> bytes:
    parts = [metadata.exif, metadata.xmp, metadata.icc]
    numbers = [cv2.IMAGE_METADATA_EXIF, cv2.IMAGE_METADATA_XMP, cv2.IMAGE_METADATA_ICCP]
    types = [number for number, part in zip(numbers, parts, strict=True) if part]
    blocks = [np.frombuffer(part, np.uint8) for part in parts if part]
    try:
        if types:
            done, encoded = cv2.imencodeWithMetadata(FORMATS[kind][0], raw, types, blocks, options)
        else:
            done, encoded = cv2.imencode(FORMATS[kind][0], raw, options)
    except cv2.error as error:
        raise InputError(f"cannot be encoded as {kind.upper()} ({error.err})") from error
    if not done:
        raise InputError(f"cannot be encoded as {kind.upper()}")
    return encoded.tobytes()


def fitted(picture: Picture, kind: str, quality: int | None) -> tuple[Picture, tuple[str, ...]]:
    """Return the picture as the format can hold it, and in words what is missing then."""
    dropped: list[str] = []
    alpha = picture.alpha
    if alpha is not None and kind == "jpeg":
        dropped.append("alpha, which JPEG does not hold")
        alpha = None
    elif alpha is not None and kind == "avif" and quality is not None and quality < 100:
        dropped.append(f"exact alpha (AVIF at quality {quality} stores it with losses)")
    elif alpha is not None and kind == "gif" and ((alpha > 0) & (alpha < np.iinfo(alpha.dtype).max)).any():
        dropped.append("partial transparency (pixels of a GIF are visible or not)")
    pixels, depth = picture.pixels, picture.depth
    if pixels.dtype == np.uint16 and kind in ("jpeg", "webp", "gif", "bmp"):
        dropped.append(f"{depth} bits a sample, of which {kind.upper()} holds 8")
        pixels, alpha, depth = to_8_bit(pixels), None if alpha is None else to_8_bit(alpha), 8
    elif depth == 16 and kind == "avif":
        dropped.append("16 bits a sample, of which AVIF holds 12")
    if picture.metadata.chunks and kind != "png":
        kept = {name for name, _ in picture.metadata.chunks} - {b"sRGB", b"gAMA", b"cHRM"}
        if kept:
            dropped.append(f"PNG chunks {', '.join(sorted(name.decode('latin-1') for name in kept))}")
    density, block = picture.metadata.density, picture.metadata.exif
    kept_elsewhere = block is not None and has_density(block)
    if (
        density
        and kind in ("webp", "gif", "avif")
        and density.per("inch") != COMMON_DENSITY
        and not kept_elsewhere
    ):
        dropped.append(f"the density ({density.describe()}), which {kind.upper()} does not hold")
    dropped += not_held(picture.metadata, kind)
    return replace(picture, pixels=pixels, alpha=alpha, depth=depth), tuple(dropped)


def to_8_bit(samples: np.ndarray) -> np.ndarray:
    """Return uint8 samples as they are, and uint16 samples rounded to uint8."""
    if samples.dtype == np.uint8:
        return samples
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _encode_options(picture: Picture, kind: str, quality: int | None, depth: int) -> list[int]:
    if kind == "jpeg":
        # Full colour resolution, because the source's sampling says nothing of the new strokes.
        sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
        return [cv2.IMWRITE_JPEG_QUALITY, quality or JPEG_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    if kind == "png":
        # Run lengths after the "sub" filter take a third less time than deflate 1, for files a tenth larger.
        rle, sub = cv2.IMWRITE_PNG_STRATEGY_RLE, cv2.IMWRITE_PNG_FILTER_SUB
        return [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, rle, cv2.IMWRITE_PNG_FILTER, sub]
    if kind == "webp":
        if quality == 100 or (quality is None and picture.format == "webp" and picture.lossless):
            # Keep colours under full transparency, which WebP otherwise discards.
            return [cv2.IMWRITE_WEBP_LOSSLESS_MODE, cv2.IMWRITE_WEBP_LOSSLESS_PRESERVE_COLOR]
        return [cv2.IMWRITE_WEBP_QUALITY, quality or WEBP_QUALITY]
    if kind == "avif":
        # OpenCV stores alpha at the colours' quality, so with alpha it is lossless unless asked otherwise.
        default = 100 if picture.alpha is not None else AVIF_QUALITY
        options = [cv2.IMWRITE_AVIF_QUALITY, quality or default, cv2.IMWRITE_AVIF_SPEED, AVIF_SPEED]
        return [*options, cv2.IMWRITE_AVIF_DEPTH, depth] if picture.pixels.dtype == np.uint16 else options
    if kind == "tiff":
        return [cv2.IMWRITE_TIFF_COMPRESSION, cv2.IMWRITE_TIFF_COMPRESSION_LZW, cv2.IMWRITE_TIFF_PREDICTOR, 2]
    return []


__all__ = [
    "Picture",
    "decode_picture",
    "describe_unknown",
    "encode_picture",
    "identify",
    "read_file",
    "read_picture",
    "to_8_bit",
]
