"""Large pictures read and written by strips with libvips, so that they are never whole in memory.

libvips is an extra (`pip install cgconvert[large]`). It reads PNG and JPEG by scan lines, and TIFF by strips
or rows of tiles, also pyramids and BigTIFF.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cgconvert.errors import InputError, OutputError
from cgconvert.host.rectangles import RectangleFile
from cgconvert.media.picture.codec import JPEG_QUALITY
from cgconvert.media.picture.headers import identify
from cgconvert.media.picture.metadata import JPEG_EXIF, Metadata, for_result

if TYPE_CHECKING:
    import pyvips

STRIP_BYTES = 16 << 20
"""Bytes of pixels that are read at once."""

STRIP_FORMATS = ("jpeg", "png", "tiff")
"""Formats that are read and written by strips."""

BIG_TIFF = (b"II+\0", b"MM\0+")
"""How a BigTIFF begins."""

CLASSIC_TIFF = 3_900_000_000
"""Bytes of samples up to which a TIFF is not a BigTIFF: its offsets have 32 bits."""

TILE_EDGE = 256
"""Pixels, of the tiles in which a pyramid is written if its source has strips."""

_DTYPES: dict[str, type[np.uint8] | type[np.uint16]] = {"uchar": np.uint8, "ushort": np.uint16}
_SPACES = {"srgb": 3, "rgb16": 3, "b-w": 1, "grey16": 1}
_METADATA = ("icc-profile-data", "xmp-data", "iptc-data", "photoshop-data")


@dataclass(frozen=True)
class LargePicture:
    """A file that can be read by strips: size in pixels when upright, and type of its samples.

    `colours` is 3 or 1 (gray); `has_alpha` says that a sample more is alpha. A TIFF may have tiles of
    `tile` (width, height) pixels, and be a pyramid.
    """

    path: Path
    format: str
    width: int
    height: int
    dtype: type[np.uint8] | type[np.uint16]
    colours: int
    has_alpha: bool
    tile: tuple[int, int] | None = None
    is_pyramid: bool = False


@cache
def is_available() -> bool:
    """Whether libvips is installed, on a system on which it can read a file without a name."""
    if sys.platform == "win32":
        return False
    try:
        _vips()
    except (ImportError, OSError):
        return False
    return True


def read_large_header(path: Path) -> LargePicture | None:
    """What a file says of its picture; None for what is not read by strips.

    These are files of other formats, damaged headers, several pages, CMYK, Lab, float samples, and TIFFs with
    alpha, of which libvips does not say whether the alpha is multiplied in.
    """
    vips = _vips()
    kind = _format_of(path)
    if kind is None:
        return None
    try:
        image = _opened(path, kind)
        dtype, colours = _DTYPES.get(image.format), _SPACES.get(image.interpretation)
        if dtype is None or colours is None or image.bands not in (colours, colours + 1):
            return None
        has_alpha = image.bands == colours + 1
        if kind == "tiff" and (has_alpha or image.get("bits-per-sample") not in (8, 16)):
            return None
        turned = _number(image, "orientation", 1) in (5, 6, 7, 8)
        size = (image.height, image.width) if turned else (image.width, image.height)
        is_pyramid = _number(image, "n-subifds", 0) > 0
        if (pages := _number(image, "n-pages", 1)) > 1:
            is_pyramid = all(_is_reduced(path, page, size) for page in range(1, pages))
            if not is_pyramid:
                return None
        width, height = (_number(image, name, 0) for name in ("tile-width", "tile-height"))
        tile = (width, height) if width and height else None
    except vips.Error:
        return None
    return LargePicture(path, kind, *size, dtype, colours, has_alpha, tile, is_pyramid)


def _format_of(path: Path) -> str | None:
    """The format of a file that is read by strips, by its first bytes."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return None
        with path.open("rb") as file:
            begin = file.read(256)
    except OSError:
        return None
    kind = "tiff" if begin.startswith(BIG_TIFF) else identify(begin)
    return kind if kind in STRIP_FORMATS else None


def _is_reduced(path: Path, page: int, size: tuple[int, int]) -> bool:
    """Whether a page is the first one made smaller, which is how pyramids are stored."""
    small = _vips().Image.new_from_file(str(path), page=page, access="sequential")
    return max(size) // 2**page in range(
        max(small.width, small.height) - 1, max(small.width, small.height) + 2
    )


def can_write(large: LargePicture, kind: str) -> bool:
    """Whether the result can be written by strips as `kind` and holds all samples of the source."""
    if kind == "jpeg":
        return not large.has_alpha and large.dtype is np.uint8 and max(large.width, large.height) <= 65500
    return kind == "png" or (kind == "tiff" and not large.has_alpha)


def read_pixels(large: LargePicture, check: Callable[[], None], file: RectangleFile) -> None:
    """Write the pixels, upright RGB (H, W, 3), into a file of that size.

    `check` is called between strips, and what it raises ends the reading. Raises `InputError` for damaged
    files, and `OSError` for a disk that is full.
    """
    vips = _vips()
    step = max(1, STRIP_BYTES // (large.width * file.point))
    try:
        image = _upright(large)[0 : large.colours]
        if large.colours == 1:
            image = image.bandjoin([image, image])
        region = vips.Region.new(image)
        for top in range(0, large.height, step):
            check()
            rows = min(step, large.height - top)
            strip = np.frombuffer(region.fetch(0, top, large.width, rows), np.uint8)
            file.write(top, 0, strip.reshape(rows, large.width, file.point))
    except vips.Error as error:
        raise InputError(f"damaged or cut short: {_first_line(error)}") from error


def write_pixels(
    large: LargePicture,
    file: RectangleFile,
    target: Path,
    kind: str,
    quality: int | None,
    is_stopped: Callable[[], bool],
) -> tuple[str, ...]:
    """Encode the result in `file` (H, W, 3), with the alpha and the metadata of its source, as `kind`.

    `quality` is 1 to 100 for JPEG. Encoding ends early once `is_stopped`, and the file is then of no use.
    Returns in words what the result does not hold. Raises `InputError` for a source that cannot be read any
    more, and `OutputError`.
    """
    vips = _vips()
    try:
        source = _upright(large)
        stored, space = ("ushort", "rgb16") if large.dtype is np.uint16 else ("uchar", "srgb")
        image = vips.Image.rawload(
            file.name, large.width, large.height, 3, format=stored, interpretation=space
        )
        dropped: tuple[str, ...] = ()
        if large.has_alpha:
            image = image.bandjoin(source[large.colours])
        image = image.copy(xres=source.xres, yres=source.yres)
        for name in source.get_fields():
            is_exif = name.startswith("exif-ifd") and not name.startswith("exif-ifd1-")
            if name == "icc-profile-data" and large.colours == 1:
                dropped = ("a colour profile for gray",)
            elif name in _METADATA or is_exif or name == "resolution-unit":
                image.set_type(source.get_typeof(name), name, source.get(name))
        if source.get_typeof("exif-data"):  # without its thumbnail, and upright as the pixels are
            block = Metadata(source.get("exif-data").removeprefix(JPEG_EXIF))
            cleaned = for_result(block, large.width, large.height).exif
            image.set_type(vips.GValue.blob_type, "exif-data", JPEG_EXIF + (cleaned or b""))
            image.set_type(vips.GValue.gint_type, "orientation", 1)
            image.set_type(vips.GValue.gstr_type, "exif-ifd0-Orientation", "1")
    except vips.Error as error:
        raise InputError(f"cannot be read any more: {_first_line(error)}") from error

    def look(watched: Any, progress: Any) -> None:
        if is_stopped():
            watched.set_kill(True)

    tile_width, tile_height = large.tile or (TILE_EDGE, TILE_EDGE)
    image.set_progress(True)
    image.signal_connect("eval", look)
    try:
        if kind == "jpeg":
            image.jpegsave(os.fsencode(target), Q=quality or JPEG_QUALITY, subsample_mode="off")
        elif kind == "png":
            image.pngsave(os.fsencode(target), compression=1, filter="sub")
        else:
            image.tiffsave(
                os.fsencode(target),
                compression="lzw",
                predictor="horizontal",
                tile=large.tile is not None or large.is_pyramid,
                tile_width=tile_width,
                tile_height=tile_height,
                pyramid=large.is_pyramid,
                bigtiff=large.width * large.height * image.bands * np.dtype(large.dtype).itemsize
                > CLASSIC_TIFF,
            )
    except vips.Error as error:
        if is_stopped():
            return dropped
        raise OutputError(f"cannot write {target}: {_first_line(error)}") from error
    return dropped


def _upright(large: LargePicture) -> pyvips.Image:
    """The picture for one reading from top to bottom. libvips decodes one that has to be turned to a file."""
    image = _opened(large.path, large.format, fail_on="error")
    if _number(image, "orientation", 1) == 1:
        return image
    return _opened(large.path, large.format, fail_on="error", access="random").autorot()


def _opened(path: Path, kind: str, access: str = "sequential", **options: Any) -> pyvips.Image:
    """The image of a file, by the loader of its format alone."""
    vips = _vips()
    load = {"jpeg": vips.Image.jpegload, "png": vips.Image.pngload, "tiff": vips.Image.tiffload}[kind]
    return load(os.fsencode(path), access=access, **options)


def _number(image: pyvips.Image, name: str, default: int) -> int:
    return int(image.get(name)) if image.get_typeof(name) else default


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(getattr(error, "detail", error) or error).splitlines()]
    return next((line for line in lines if line), "unknown")


def _vips() -> Any:
    # Its errors arrive with the file's name, so it must not print them itself.
    logging.getLogger("pyvips").setLevel(logging.CRITICAL)
    import pyvips

    # Files keep their names and change, which the cache of operations does not see.
    pyvips.cache_set_max(0)
    return pyvips
