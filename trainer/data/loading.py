"""Pictures decoded to be shown or measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cgconvert.media.picture.resize import resized
from trainer.data.augment import MULTIPLE, Pixels
from trainer.data.pictures import Picture, read_picture

SMALLEST = 16  # pixels, below which no generator works


def evenly(pictures: Sequence[Picture], count: int) -> list[Picture]:
    """`count` of the pictures, evenly spaced from the first on; 0, or more than there are: all."""
    count = min(count or len(pictures), len(pictures))
    return [pictures[int(index * len(pictures) / count)] for index in range(count)]


def load_pictures(
    pictures: Sequence[Picture], longest: int, half: str | None = None, multiple: int = MULTIPLE
) -> list[Pixels]:
    """Decoded pictures, none with an edge above `longest`, edges rounded to `multiple`.

    `half` "a" or "b" takes the left or the right half of each, for pictures side by side.
    """
    result = []
    for picture in pictures:
        pixels = read_picture(picture)
        if half:
            middle = pixels.shape[1] // 2
            pixels = np.ascontiguousarray(
                pixels[:, :middle] if half == "a" else pixels[:, middle : 2 * middle]
            )
        height, width = pixels.shape[:2]
        factor = min(1.0, longest / max(height, width))
        size = [
            max(round(edge * factor / multiple), -(-SMALLEST // multiple)) * multiple
            for edge in (width, height)
        ]
        result.append(resized(pixels, size[0], size[1]))
    return result
