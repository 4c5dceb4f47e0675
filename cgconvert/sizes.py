"""Sizes as users write them, and the size at which the network sees a picture."""

from __future__ import annotations

import math
import re
from fractions import Fraction

from cgconvert.card import ModelCard
from cgconvert.errors import UsageError

_SIZE = re.compile(r"(?P<width>\d+)x(?P<height>\d+)|(?P<lines>\d+)p|(?P<factor>\d*\.?\d+)x", re.IGNORECASE)
MAX_EDGE = 16384
MOST_ASPECT = 255
"""The most of numerator and denominator of a pixel's shape that every codec can store (MPEG-4 has 8 bits)."""
STROKES = {"fine": 0.5, "medium": 1.0, "large": 2.0}
"""Sizes of strokes by name: how many times as large as the model's own they are."""
STROKE_RANGE = 0.1, 10.0


def parse_size(text: str, width: int, height: int, name: str) -> tuple[int, int]:
    """Return "1280x720", "720p" (the shorter side) or "0.5x" as (width, height). Raises `UsageError`.

    `name` is the parameter that the text was given for. Derived sizes are rounded to even numbers, which
    every codec takes; "1x" is the size itself.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise UsageError(f"`{name}={text!r}` is not a size: use WIDTHxHEIGHT, 720p or 0.5x")
    if match["width"]:
        size = int(match["width"]), int(match["height"])
    else:
        factor = float(match["factor"]) if match["factor"] else int(match["lines"]) / min(width, height)
        if match["factor"] and factor == 1:
            return width, height
        if factor == 0:
            raise UsageError(f"`{name}={text!r}` leaves no pixel: use a factor or a size above 0")
        size = max(2, round(width * factor / 2) * 2), max(2, round(height * factor / 2) * 2)
    if not (0 < size[0] <= MAX_EDGE and 0 < size[1] <= MAX_EDGE):
        raise UsageError(
            f"`{name}={text!r}` is {size[0]}x{size[1]}: both sides must be from 1 to {MAX_EDGE} pixels"
        )
    return size


def pixel_aspect(aspect: Fraction | None, source: tuple[int, int], size: tuple[int, int]) -> Fraction | None:
    """Return the shape of pixels with which a picture of another size is shown in the shape of its source.

    `aspect` is that of the source's pixels, width by height, or None for square ones. Sizes are
    (width, height). What a size is off by because pixels are whole changes nothing.
    """
    square = aspect or Fraction(1)
    for kept in dict.fromkeys((aspect, Fraction(1))):
        shown = source[0] * square / (kept or 1)
        if abs(size[0] / shown - Fraction(size[1], source[1])) <= 1 / shown + Fraction(1, source[1]):
            return kept
    wanted = square * Fraction(source[0] * size[1], source[1] * size[0])
    narrow = max(min(wanted, 1 / wanted), Fraction(1, MOST_ASPECT)).limit_denominator(MOST_ASPECT)
    return narrow if wanted < 1 else 1 / narrow


def stroke_factor(asked: str | float) -> float:
    """Return how many times as large as the model's own strokes are to be. Raises `UsageError`."""
    low, high = STROKE_RANGE
    try:
        factor = STROKES[asked] if asked in STROKES else float(asked)
    except ValueError:
        factor = math.nan
    if not low <= factor <= high:
        raise UsageError(
            f"`stroke={asked!r}` is unknown: use {', '.join(STROKES)}, or a number from {low:g} to {high:g}"
        )
    return factor


def check_work_size(work_size: str | None, stroke: str | float | None) -> None:
    """Raise `UsageError` for a size of the network or of strokes that no picture can have."""
    if work_size is not None and stroke is not None:
        raise UsageError("`work_size` and `stroke` say the same in two ways: use one of them")
    if work_size is not None:
        parse_size(work_size, 1000, 1000, "work_size")
    if stroke is not None:
        stroke_factor(stroke)


def network_size(
    asked: str | None,
    stroke: str | float | None,
    card: ModelCard,
    size: tuple[int, int],
    source: tuple[int, int],
) -> tuple[int, int]:
    """Return the size at which the network sees a picture. Sizes are (width, height); `size` is the result's.

    It is as `asked`, of which "0.5x" and "540p" derive from `source`. Otherwise the model's own number of
    lines is divided by the factor of `stroke`: a network paints strokes of a fixed size in pixels, so in a
    smaller picture they are larger. The own number is the card's `work_size`. A card without one leaves
    pictures as they are, and if a `stroke` is asked for, its `native_size` counts. No picture is
    enlarged. Raises `UsageError` if `asked` is no size.
    """
    if asked:
        return parse_size(asked, *source, "work_size")
    lines: float | None = card.work_size
    if stroke is not None:
        lines = (card.work_size or card.native_size or min(size)) / stroke_factor(stroke)
    if lines is None or lines >= min(size):
        return size
    return parse_size(f"{max(2, round(lines))}p", *size, "work_size")
