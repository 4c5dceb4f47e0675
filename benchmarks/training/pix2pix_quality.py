"""Compare a pix2pix model with baselines on held-out pairs: L1 and SSIM against the truth.

    python benchmarks/training/pix2pix_quality.py runs/facades facades/train facades/test

The averaged generator in the run's checkpoint converts the test pairs. The baselines are the mean of the
training truths, their mean colour, each source in the colours of a training truth (Reinhard et al. 2001),
and the source itself. Writes results/facades_pix2pix.json.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common import option_parser, save
from trainer.config import config_from_checkpoint
from trainer.data.augment import Pixels
from trainer.data.loading import load_pictures
from trainer.data.pictures import Picture, find_images
from trainer.exporting.export import trained_model
from trainer.metrics.colour import ReinhardTransfer
from trainer.metrics.measures import measure_truth
from trainer.networks.building import generator_card
from trainer.storage.checkpoint import load_checkpoint


def halves(folder: Path, half: str, edge: int) -> list[Pixels]:
    """One side of all side-by-side pictures of a folder."""
    return load_pictures([Picture(path) for path in find_images(folder)], edge, half)


def compare(run: Path, train: Path, test: Path) -> dict[str, Any]:
    """L1 in [0, 255] and SSIM of luminance of the model and of each baseline."""
    state = load_checkpoint(run / "checkpoint.pt")
    config = config_from_checkpoint(state, str(run))
    source, target = ("a", "b") if config.data.direction == "a_to_b" else ("b", "a")
    name = f"gen_{source}{target}"
    model = trained_model(generator_card(config, name), state["method"]["ema"]["weights"][name])
    edge = config.data.crop_size
    learned = halves(train, target, edge)
    sources, truths = halves(test, source, edge), halves(test, target, edge)
    mean = np.mean([picture.astype(np.float64) for picture in learned], axis=0)
    colour = np.broadcast_to(mean.mean(axis=(0, 1)), mean.shape)
    transfer = ReinhardTransfer(learned)
    rows = {
        "model": [model.convert(picture) for picture in sources],
        "mean image": [mean.round().astype(np.uint8)] * len(truths),
        "mean colour": [colour.round().astype(np.uint8)] * len(truths),
        "colour transfer": [transfer.convert(picture, index) for index, picture in enumerate(sources)],
        "unchanged": sources,
    }
    return {
        "direction": config.data.direction,
        "edge": edge,
        "train_pairs": len(learned),
        "test_pairs": len(truths),
        "images_seen": state["method"]["images_seen"],
        "hours": round(state["elapsed"] / 3600, 3),
        "settings": {"network": config.to_dict()["network"], "loss": config.to_dict()["loss"]},
        "rows": {row: measure_truth(results, truths) for row, results in rows.items()},
    }


def main() -> None:
    parser = option_parser(__doc__, "facades_pix2pix")
    parser.add_argument("run", type=Path)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    arguments = parser.parse_args()
    figures = compare(arguments.run, arguments.train, arguments.test)
    for row, metrics in figures["rows"].items():
        print(f"{row:16} L1 {metrics['l1']:6.2f}   SSIM {metrics['truth_ssim']:.4f}")
    print(save(arguments.name or "facades_pix2pix", figures))


if __name__ == "__main__":
    main()
