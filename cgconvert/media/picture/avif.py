"""Reads size, rotation, depth and metadata of an AVIF file. OpenCV then decodes it."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass

from cgconvert.errors import InputError

ORIENTATION = 0x0112

# Pillow prints this without the file's name, and the picture is converted all the same.
warnings.filterwarnings("ignore", "Corrupt EXIF data", module="PIL")


@dataclass(frozen=True)
class AvifInfo:
    """What an AVIF file says of its picture. Sizes are in pixels as stored.

    `orientation` is the file's own turning in the numbers of EXIF (1 to 8). The EXIF block is not in here,
    because Pillow may rewrite it. OpenCV returns it as it is in the file.
    """

    width: int
    height: int
    frames: int = 1
    orientation: int = 1
    depth: int = 8
    xmp: bytes | None = None
    icc: bytes | None = None
    alpha: bool = False


def is_avif(data: bytes) -> bool:
    """Whether a file that begins with `ftyp` says that it is AVIF."""
    size = struct.unpack_from(">I", data)[0]
    brands = data[8 : min(max(size, 16), 256)]
    return any(brands[at : at + 4] in (b"avif", b"avis") for at in range(0, len(brands), 4) if at != 4)


def read_avif(data: bytes) -> AvifInfo:
    """Read what the file says of its picture, without decoding it. Raises `InputError`."""
    # Imported here, since few pictures need it. `Image.open` has one limit on pixels for the whole process,
    # so the class is used instead. Our own limit is checked before the picture is decoded.
    from PIL.AvifImagePlugin import AvifImageFile

    try:
        with AvifImageFile(io.BytesIO(data)) as picture:
            turn = picture.getexif().get(ORIENTATION, 1)
            xmp, icc = picture.info.get("xmp"), picture.info.get("icc_profile")
            alpha = picture.mode == "RGBA"
            return AvifInfo(*picture.size, picture.n_frames, turn, _depth(data), xmp, icc, alpha)
    except (OSError, RuntimeError, SyntaxError, ValueError, KeyError, struct.error) as error:
        raise InputError("damaged or cut short: its AVIF header cannot be read") from error


def _depth(data: bytes) -> int:
    """Return the bits of a sample by the first AV1 configuration in the file, which Pillow does not show."""
    at = data.find(b"av1C")
    if at < 0 or at + 6 >= len(data):
        return 8
    deep, twelve = data[at + 6] & 0x40, data[at + 6] & 0x20
    return 12 if twelve else 10 if deep else 8
