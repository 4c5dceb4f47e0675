"""What the generator of a run makes of some pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cgconvert.errors import UsageError
from cgconvert.media.picture.formats import SUFFIXES
from trainer.config import config_from_checkpoint
from trainer.data.loading import load_pictures
from trainer.data.pictures import Picture
from trainer.exporting.export import best_checkpoint, choose_generator, trained_model
from trainer.networks.building import generator_card
from trainer.reporting.samples import grid, write_picture
from trainer.storage.checkpoint import load_checkpoint
from trainer.storage.folder import RunFolder


def sample_run(
    run: Path, pictures: Sequence[Path], output: Path, generator: str, longest: int, best: bool = False
) -> None:
    """Write sources and the averaged generator's results side by side. Raises as reading and writing do.

    `longest` is the edge in pixels that larger pictures are reduced to; `best` takes the checkpoint that was
    best for the generator instead of the last one.
    """
    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{output}: its name must end in {', '.join(SUFFIXES)}")
    folder = RunFolder(run)
    checkpoint = best_checkpoint(folder, generator) if best else folder.checkpoint
    state = load_checkpoint(checkpoint)
    config = config_from_checkpoint(state, str(checkpoint))
    name = choose_generator(state, generator, checkpoint)
    model = trained_model(generator_card(config, name), state["method"]["ema"]["weights"][name])
    sources = load_pictures([Picture(path) for path in pictures], longest)
    rows = [np.concatenate([source, model.convert(source)], axis=1) for source in sources]
    write_picture(output, grid(rows))
