"""A contact sheet of frames or pictures in looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cgconvert.card import ModelCard
from cgconvert.errors import ModelError, UsageError
from cgconvert.finish import Finish
from cgconvert.media.picture.sheet import contact_sheet
from cgconvert.models.catalog import find_model, list_models
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


def takes_pictures(card: ModelCard) -> bool:
    """Whether a model makes a picture of a picture, and another one than it was given."""
    return card.in_channels in (1, 3) and card.out_channels in (1, 3) and card.architecture != "identity"


def chosen_models(asked: str) -> list[Path]:
    """Return the models of a list such as "photo2monet,photo2vangogh"; "all" is every one that is installed.

    Raises `ModelError` for one that is unknown or makes no pictures of pictures.
    """
    if asked == "all":
        found = [model for model in list_models() if model.card is not None and takes_pictures(model.card)]
        if not found:
            raise ModelError("no model is installed")
        return [model.path for model in found]
    paths = []
    for name in dict.fromkeys(part.strip() for part in asked.split(",")):
        path = find_model(name)
        card = read_card(path)
        if card.in_channels not in (1, 3) or card.out_channels not in (1, 3):
            raise ModelError(
                f"{card.name} has {card.in_channels} -> {card.out_channels} channels: a preview needs 1 or 3"
            )
        paths.append(path)
    return paths


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
