"""Frames of an animation, which are stored as changed rectangles, made into whole pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from cgconvert.errors import InputError


@dataclass(frozen=True)
class Patch:
    """Where a frame is drawn, in pixels of the canvas, and what happens around it.

    With `blend` its alpha lets the canvas shine through, otherwise it replaces the rectangle. `disposal` says
    what becomes of the rectangle before the next frame: "keep", "clear" (transparent) or "restore" (as it
    was before this frame).
    """

    left: int
    top: int
    width: int
    height: int
    blend: bool = True
    disposal: str = "keep"


def draw_all(
    frames: Iterable[tuple[Patch, np.ndarray]], width: int, height: int, depth: type = np.uint8
) -> Iterator[np.ndarray]:
    """Yield the whole canvas (height, width, 4) of RGBA after each frame, which is given as RGBA.

    `depth` is the type of the samples. The canvas begins transparent. A yielded array is valid until the
    next is taken. A patch that leaves the canvas is cut off at its edge.
    """
    canvas: np.ndarray = np.zeros((height, width, 4), depth)
    for patch, samples in frames:
        if samples.shape[:2] != (patch.height, patch.width):
            raise InputError("damaged: a frame has another size than its header says")
        place = (
            slice(patch.top, min(patch.top + patch.height, height)),
            slice(patch.left, min(patch.left + patch.width, width)),
        )
        part = canvas[place]
        drawn = samples[: part.shape[0], : part.shape[1]]
        before = part.copy() if patch.disposal == "restore" else None
        part[...] = _over(drawn, part) if patch.blend else drawn
        yield canvas
        if patch.disposal == "clear":
            part[...] = 0
        elif before is not None:
            part[...] = before


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return RGBA pixels drawn over others, by the operator "over" (Porter and Duff 1984)."""
    peak = np.iinfo(above.dtype).max
    alpha = above[:, :, 3:]
    if ((alpha == 0) | (alpha == peak)).all():
        return np.where(alpha == 0, below, above)
    upper = alpha / peak
    lower = below[:, :, 3:] / peak * (1 - upper)
    total = upper + lower
    colours = (above[:, :, :3] * upper + below[:, :, :3] * lower) / np.maximum(total, 1e-12)
    mixed = np.rint(np.concatenate([colours, total * peak], axis=2)).astype(above.dtype)
    return np.where(alpha == 0, below, np.where(alpha == peak, above, mixed))


def changed_part(before: np.ndarray, after: np.ndarray, even: bool = False) -> tuple[slice, slice]:
    """Return rows and columns of the smallest rectangle in which two pictures (H, W, C) differ.

    It has at least one pixel. With `even` it begins at even coordinates, as WebP demands.
    """
    differs = (before != after).any(axis=2)
    edges = []
    for axis in (1, 0):
        found = np.flatnonzero(differs.any(axis=axis))
        first, last = (int(found[0]), int(found[-1])) if found.size else (0, 0)
        edges.append(slice(first - first % 2 if even else first, last + 1))
    return edges[0], edges[1]
