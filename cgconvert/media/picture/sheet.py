"""A contact sheet: pictures in rows and columns, with labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP, MARGIN = 10, 16
TEXT_SIZE = 18
LINE = 28
"""Pixels between pictures, around all of them, and the height of letters and of a line of text."""
PAPER, INK, QUIET = (255, 255, 255), (28, 28, 30), (110, 110, 116)


def contact_sheet(
    title: str, columns: Sequence[str], rows: Sequence[str], cells: Sequence[Sequence[np.ndarray]]
) -> np.ndarray:
    """Return a sheet, uint8 RGB (H, W, 3), of `cells[row][column]`, each uint8 RGB (h, w, 3).

    Labels of columns are above their pictures and labels of rows above their rows. A label that is
    too long is cut and ends in an ellipsis.
    """
    widths = [max(row[number].shape[1] for row in cells) for number in range(len(columns))]
    heights = [max(cell.shape[0] for cell in row) for row in cells]
    width = 2 * MARGIN + sum(widths) + GAP * (len(widths) - 1)
    height = 2 * MARGIN + 2 * LINE + sum(heights) + LINE * len(heights) + GAP * (len(heights) - 1)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(TEXT_SIZE)

    def write(text: str, x: int, y: int, room: int, colour: tuple[int, int, int]) -> None:
        while len(text) > 1 and draw.textlength(text, font) > room:
            text = text.rstrip("\N{HORIZONTAL ELLIPSIS}")[:-1] + "\N{HORIZONTAL ELLIPSIS}"
        draw.text((x, y), text, colour, font)

    write(title, MARGIN, MARGIN, width - 2 * MARGIN, INK)
    x = MARGIN
    for column, name in enumerate(columns):
        write(name, x, MARGIN + LINE, widths[column], INK)
        x += widths[column] + GAP
    y = MARGIN + 2 * LINE
    for row, label in enumerate(rows):
        write(label, MARGIN, y, width - 2 * MARGIN, QUIET)
        y += LINE
        x = MARGIN
        for column, cell in enumerate(cells[row]):
            sheet.paste(Image.fromarray(cell), (x, y))
            x += widths[column] + GAP
        y += heights[row] + GAP
    return np.asarray(sheet)
