"""Picture formats tried on a tiny picture: what can really be written and read here."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cgconvert.errors import InputError
from cgconvert.media.picture.codec import Picture, decode_picture, encode_picture
from cgconvert.media.picture.formats import FORMATS


def try_pictures() -> Iterator[tuple[str, str | None]]:
    """Yield each format's suffix, with the reason if no picture can be written and read in it, else None."""
    pixels = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
    for kind, suffixes in FORMATS.items():
        try:
            data, _ = encode_picture(Picture(pixels), kind)
            read = decode_picture(data)
        except InputError as error:
            yield suffixes[0], f"this build of OpenCV does not have it ({error})"
        else:
            whole = (read.format, read.pixels.shape) == (kind, pixels.shape)
            yield suffixes[0], None if whole else "it did not come back whole"
