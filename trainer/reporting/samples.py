"""Grids of hold-out pictures: what goes in, what comes out, what comes back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cgconvert.host.files import write_atomically
from cgconvert.media.picture.codec import Picture, encode_picture
from cgconvert.media.picture.formats import SUFFIXES
from trainer.data.augment import Pixels
from trainer.methods.base import Method


def sample_rows(
    method: Method, name: str, pictures: Sequence[Pixels], truths: Sequence[Pixels] = ()
) -> list[Pixels]:
    """A row for each picture: the source, and what the averaged generator makes of it.

    The way back, the teacher's result and the truth follow, as far as the method has them.
    """
    model, back, teacher = method.averaged(name), method.back(name), method.teacher_of(name)
    rows = []
    for index, pixels in enumerate(pictures):
        cells = [pixels, model.convert(pixels)]
        if back is not None:
            cells.append(back.convert(cells[1]))
        if teacher is not None:
            cells.append(teacher.convert(pixels))
        if truths:
            cells.append(truths[index])
        rows.append(np.concatenate(cells, axis=1))
    return rows


def grid(rows: Sequence[Pixels]) -> Pixels:
    """Rows of pictures under each other on white, padded to one width."""
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 2), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return np.concatenate(padded, axis=0)


def tiles(pictures: Sequence[Pixels]) -> Pixels:
    """Pictures of one size in rows of about as many as there are rows."""
    across = max(1, math.ceil(math.sqrt(len(pictures))))
    rows = [pictures[first : first + across] for first in range(0, len(pictures), across)]
    return grid([np.concatenate(row, axis=1) for row in rows])


def write_picture(path: Path, pixels: Pixels) -> None:
    """Write uint8 RGB as a picture file of the format that its suffix says, whole or not at all."""
    data, _ = encode_picture(Picture(pixels), SUFFIXES[path.suffix.lower()])
    write_atomically(path, data)
