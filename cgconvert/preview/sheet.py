"""A contact sheet of frames or pictures in looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cgconvert.errors import UsageError
from cgconvert.finish import Finish
from cgconvert.media.picture.sheet import contact_sheet
from cgconvert.models.files import read_card
from cgconvert.preview.looks import Looks, shrunk
from cgconvert.preview.shots import Shot
from cgconvert.progress import Progress

MOST_CELLS = 400
"""Pictures of one sheet. More would be gigabytes."""


@dataclass(frozen=True)
class SheetOptions:
    """What a sheet shows: `models`, each at each of the `strengths`, in pictures of `edge` pixels at most."""

    models: Sequence[Path]
    strengths: Sequence[float] = (1.0,)
    keep_colours: bool = False
    stroke: str | float | None = None
    work_size: str | None = None
    edge: int = 480


def make_sheet(
    title: str, shots: Sequence[Shot], options: SheetOptions, looks: Looks, progress: Progress
) -> np.ndarray:
    """Return the sheet, uint8 RGB (H, W, 3): a row for each shot, and the source as the first column.

    Raises `UsageError`, `ModelError`, and what making an engine ready raises.
    """
    finishes = [Finish(strength, options.keep_colours) for strength in options.strengths]
    count = len(shots) * len(options.models) * len(finishes)
    if count > MOST_CELLS:
        raise UsageError(f"{count} pictures are too many for one sheet: {MOST_CELLS} at most")
    columns = ["source"]
    for model in options.models:
        name = read_card(model).name
        columns += [name if finish.strength == 1 else f"{name} {finish.strength:g}" for finish in finishes]
    progress.begin("preview", count, "picture")
    try:
        # One look after the other, so that its engine is made ready once.
        cells = [[shrunk(shot.pixels, options.edge)] for shot in shots]
        done = 0
        for model in options.models:
            for row, shot in zip(cells, shots, strict=True):
                for finish in finishes:
                    picture = looks.paint(
                        shot, model, finish, options.stroke, options.work_size, options.edge
                    )
                    row.append(picture)
                    done += 1
                    progress.advance(done)
    finally:
        progress.finish()
    return contact_sheet(title, columns, [shot.label for shot in shots], cells)
