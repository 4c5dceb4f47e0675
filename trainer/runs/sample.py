"""What the generator of a run makes of some pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cgconvert.errors import UsageError
from cgconvert.media.picture.formats import SUFFIXES
from trainer.config import Config, config_from_checkpoint
from trainer.data.loading import load_pictures
from trainer.data.pictures import Picture
from trainer.exporting.export import best_checkpoint, choose_generator, trained_model
from trainer.methods.gan import NAME, generate, new_dcgan
from trainer.networks.building import generator_card
from trainer.reporting.gan_watch import images_to_list
from trainer.reporting.samples import grid, tiles, write_picture
from trainer.storage.checkpoint import load_checkpoint
from trainer.storage.folder import RunFolder


def sample_run(
    run: Path,
    pictures: Sequence[Path],
    output: Path,
    generator: str,
    longest: int,
    best: bool = False,
    count: int = 64,
    seed: int = 0,
    labels: Sequence[str] = (),
) -> None:
    """Write sources and the averaged generator's results side by side. Raises as reading and writing do.

    `longest` is the edge in pixels that larger pictures are reduced to; `best` takes the checkpoint that was
    best for the generator instead of the last one. Of a gan `count` pictures are made from the noise of
    `seed`, of `labels` in turn (all that there are, if none is given).
    """
    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{output}: its name must end in {', '.join(SUFFIXES)}")
    folder = RunFolder(run)
    checkpoint = best_checkpoint(folder, generator) if best else folder.checkpoint
    state = load_checkpoint(checkpoint)
    config = config_from_checkpoint(state, str(checkpoint))
    if config.run.method == "gan":
        if pictures:
            raise UsageError(f"{run}: is of a gan, which makes pictures from noise and takes none")
        network = new_dcgan(config).eval()
        network.load_state_dict(state["method"]["ema"]["weights"][NAME])
        chosen = [_label(config, name) for name in labels or config.data.labels]
        write_picture(output, tiles(images_to_list(generate(network, count, seed, chosen))))
        return
    if not pictures:
        raise UsageError("name the pictures to convert")
    name = choose_generator(state, generator, checkpoint)
    model = trained_model(generator_card(config, name), state["method"]["ema"]["weights"][name])
    sources = load_pictures([Picture(path) for path in pictures], longest)
    rows = [np.concatenate([source, model.convert(source)], axis=1) for source in sources]
    write_picture(output, grid(rows))


def _label(config: Config, name: str) -> int:
    if name not in config.data.labels:
        known = ", ".join(config.data.labels) or "none"
        raise UsageError(f"unknown label {name!r}; known: {known}")
    return config.data.labels.index(name)
