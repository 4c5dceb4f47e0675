"""Tiles: rectangles of a picture, and what of the picture they have to be shown with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Tile:
    """A rectangle of a picture, in pixels; `bottom` and `right` are the first that are not in it."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.right - self.left

    def grown(self, reach: int, height: int, width: int) -> Tile:
        """With `reach` pixels on every side, as far as the picture goes."""
        return Tile(
            max(0, self.top - reach),
            max(0, self.left - reach),
            min(height, self.bottom + reach),
            min(width, self.right + reach),
        )

    def of_size(self, edge: int, reach: int, height: int, width: int) -> Tile:
        """With at least `reach` pixels around it as far as the picture goes, `edge` pixels a side in all.

        Where the picture ends there are more on the other side. A smaller picture is all in it.
        """
        top = max(0, min(self.top - reach, height - edge))
        left = max(0, min(self.left - reach, width - edge))
        return Tile(top, left, min(height, top + edge), min(width, left + edge))

    def scaled(self, scale: Fraction) -> Tile:
        """In points of which one stands for `scale` pixels along a side; its edges lie between points."""
        edges = [edge / scale for edge in (self.top, self.left, self.bottom, self.right)]
        if any(edge.denominator != 1 for edge in edges):
            raise ValueError(f"{self} does not begin and end between points of {scale} pixels")
        return Tile(*map(int, edges))

    def within(self, other: Tile) -> tuple[slice, slice]:
        """Its rows and columns in an array that holds another tile."""
        return (
            slice(self.top - other.top, self.bottom - other.top),
            slice(self.left - other.left, self.right - other.left),
        )


def tiles_of(height: int, width: int, edge: int) -> Iterator[Tile]:
    """Every tile of a picture, row by row; the last of a row and the last row may be smaller."""
    for top in range(0, height, edge):
        for left in range(0, width, edge):
            yield Tile(top, left, min(top + edge, height), min(left + edge, width))
