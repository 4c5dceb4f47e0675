"""Compare methods of training at equal time: the same seconds of one thread for each, on a processor.

    python benchmarks/training/comparison.py runs/comparison --data monet2photo --show photos --minutes 3

`--data` is a folder as the CycleGAN paper's sets are laid out: paintings in trainA and testA, photographs in
trainB and testB. Every method has the same generator (H2 24-64-6), PatchGAN, crops, batch and pictures, and
its own losses and optimizer. What is counted is the process's own time on the processor, not the clock's,
so that other programs change little. The learning rate falls to 0 over the last 40% of it, and the average of
the weights reaches back over a sixth of the steps. Reading pictures counts, finding them and measuring do
not.

Each run is a process of its own that leaves a file in the folder. What is there does not run again, so the
same command continues after a stop, with further seeds too. Writes results/training_comparison.json and, if
`--sheet FILE` says so, a picture of what the first seed makes of the pictures in `--show`: the photographs on
the left, then a column for each row of the table, in its order.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from benchmarks.common import option_parser, save
from cgconvert.host.files import write_atomically
from trainer.compute.precision import choose_precision
from trainer.config import Config
from trainer.data.batches import Batch
from trainer.data.domains import open_data
from trainer.data.loading import evenly, load_pictures
from trainer.data.pictures import read_image, scan_domain
from trainer.learn.plan import PAINTING_SCALES, PHOTO_SCALES
from trainer.methods import Method, build_method
from trainer.metrics.light import flat_light_error
from trainer.metrics.measures import Metrics, measure_generator, measure_set, open_networks
from trainer.metrics.swd import square
from trainer.reporting.samples import write_picture
from trainer.runs.setup import DEFAULTS, SMALL

GENERATOR = "gen_ab"  # A are photographs
ONE_SIDED = DEFAULTS["one_sided"]
COMMON: dict[str, Any] = {
    "run.batch": 4,
    "run.threads": 1,
    "run.device": "cpu",
    "data.preprocess": "scale_and_crop",
    "data.crop_size": 64,  # so that minutes are enough for some hundred steps
    "data.scale_a": list(PHOTO_SCALES),
    "data.scale_b": list(PAINTING_SCALES),
    "data.pictures_per_folder": 300,
    "network.generator": "h2",
    "network.arguments": SMALL,
    "network.ndf": ONE_SIDED["network.ndf"],
    "network.disc_layers": ONE_SIDED["network.disc_layers"],
}
PROJECTED = {key: ONE_SIDED[key] for key in ("loss.projected", "loss.lambda_gan")}
ROWS: dict[str, dict[str, Any]] = {
    "cyclegan": {"run.method": "cyclegan"},
    "cyclegan-projected": {"run.method": "cyclegan", **PROJECTED},
    "cut": {"run.method": "cut"},
    "one_sided": {"run.method": "one_sided", "network.arguments": SMALL | {"norm": "batch"}},
    "one_sided-no-noise": {
        "run.method": "one_sided",
        "network.arguments": SMALL | {"norm": "batch"},
        "network.noise": 0,
    },
    "one_sided-drawn": {
        "run.method": "one_sided",
        "network.arguments": SMALL | {"norm": "batch"},
        "network.init": "normal",
    },
    "one_sided-instance": {"run.method": "one_sided", "network.init": "normal"},
}
"""Settings of each row of the table, beyond those of its method and the common ones."""

MAIN = ("cyclegan", "cyclegan-projected", "cut", "one_sided")
"""Rows that every seed is run of; the others have the first `--minor-seeds` of them."""

DECAY = 0.4  # share of the time over which the learning rate falls to 0
EDGE = 256  # pixels, of what is measured and shown
SOURCES, TARGETS, SHOWN = 48, 64, 4
TRIED = 2  # steps that tell how many there will be
FIGURES = ("swd", "swd_common", "grid", "learned", "ssim", "light")


def settings(data: Path, row: str, seed: int) -> dict[str, Any]:
    """A run's settings that differ from the general defaults."""
    own = ROWS[row]
    return {
        **DEFAULTS.get(own["run.method"], {}),
        **COMMON,
        **own,
        "run.seed": seed,
        "data.a": str(data / "trainB"),
        "data.b": str(data / "trainA"),
        "data.holdout_a": str(data / "testB"),
        "data.holdout_b": str(data / "testA"),
    }


def seeded(config: Config) -> Method:
    """The method with weights and random numbers of the config's seed."""
    random.seed(config.run.seed)
    np.random.seed(config.run.seed)
    torch.manual_seed(config.run.seed)
    return build_method(config, choose_precision(config.run))


def steps_in(config: Config, seconds: float) -> int:
    """About how many steps a training makes in so many seconds of the processor, by the first ones."""
    method = seeded(config)
    edge = config.data.crop_size
    batch: Batch = {
        name: torch.randint(0, 256, (config.run.batch, 3, edge, edge), dtype=torch.uint8) for name in "ab"
    }
    method.train_step(batch)  # prepares kernels and memory
    began = time.process_time()
    for _ in range(TRIED):
        method.train_step(batch)
    return max(1, round(seconds * TRIED / (time.process_time() - began)))


def train_for(config: Config, seconds: float, base: Path) -> tuple[Method, float]:
    """Train for so many seconds of this process on the processor; returns what they were in the end, too."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(config.run.threads)
    decay = round(min(0.998, max(0.9, 1 - 6 / steps_in(config, seconds))), 4)
    config = config.with_changes({"network.ema": decay})
    data = open_data(config, base)
    method = seeded(config)
    began = time.process_time()
    with closing(data.source.stream(0)) as batches:
        for batch in batches:
            passed = (time.process_time() - began) / seconds
            if passed >= 1:
                break
            method.set_rate(min(1.0, (1 - passed) / DECAY))
            method.set_progress(passed)
            method.train_step(batch)
    return method, time.process_time() - began


def one(options: argparse.Namespace, row: str, seed: int) -> None:
    """Train and measure one run, and leave its figures and what it makes of the shown pictures."""
    config = Config().with_changes(settings(options.data, row, seed))
    method, seconds = train_for(config, 60 * options.minutes, options.folder)
    convert = method.averaged(GENERATOR).convert
    figures = {
        "images": method.images_seen,
        "cpu_seconds": round(seconds, 1),
        "ema": method.config.network.ema,
        "metrics": measured(options.data, convert) | {"light": flat_light_error(convert)},
    }
    write_picture(place(options, row, seed, "png"), column([convert(photo) for photo in shown(options)]))
    write_atomically(place(options, row, seed, "json"), json.dumps(figures, indent=2).encode())


def measured(data: Path, convert: Callable[[np.ndarray], np.ndarray]) -> Metrics:
    """The trainer's metrics of a generator on the held-out pictures."""
    sources, targets = held_out(data)
    networks = open_networks("", "", True, torch.device("cpu"))
    return measure_generator(convert, sources, targets, EDGE, networks=networks)


def held_out(data: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Photographs and paintings that no run learns from."""
    sources, targets = (scan_domain(str(data / name), warn=False).pictures for name in ("testB", "testA"))
    return load_pictures(evenly(sources, SOURCES), EDGE), load_pictures(evenly(targets, TARGETS), EDGE)


def bounds(options: argparse.Namespace) -> dict[str, Metrics]:
    """What the figures are for the photographs as they are, and for other paintings."""
    sources, targets = held_out(options.data)
    others = evenly(scan_domain(str(options.data / "trainA"), warn=False).pictures, len(sources))
    networks = open_networks("", "", True, torch.device("cpu"))
    return {
        name: measure_set(pictures, targets, EDGE, networks)
        for name, pictures in (("photographs", sources), ("paintings", load_pictures(others, EDGE)))
    }


def shown(options: argparse.Namespace) -> list[np.ndarray]:
    """The squares of the pictures that are shown."""
    found = evenly(scan_domain(str(options.show), warn=False).pictures, SHOWN)
    return [square(pixels, EDGE) for pixels in load_pictures(found, 4 * EDGE)]


def column(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures under each other."""
    return np.concatenate(pictures, axis=0)


def place(options: argparse.Namespace, row: str, seed: int, suffix: str) -> Path:
    """Where a run's file is."""
    folder: Path = options.folder
    return folder / f"{row}-{seed}.{suffix}"


def plan(options: argparse.Namespace) -> list[tuple[str, int]]:
    """All runs, those of the first seed first, so that a table that is cut short has every row."""
    return [
        (row, seed)
        for seed in range(options.seeds)
        for row in ROWS
        if row in MAIN or seed < options.minor_seeds
    ]


def table(options: argparse.Namespace) -> dict[str, Any]:
    """Rows with the means of their seeds and what each seed gave, as far as there are runs."""
    rows: dict[str, Any] = {}
    for row, seed in plan(options):
        path = place(options, row, seed, "json")
        if path.exists():
            rows.setdefault(row, {"seeds": {}})["seeds"][str(seed)] = json.loads(path.read_text())
    for row in rows.values():
        runs = row["seeds"].values()
        row["mean"] = {
            "images": mean(run["images"] for run in runs),
            **{name: mean(run["metrics"][name] for run in runs) for name in FIGURES},
        }
    return rows


def sheet(options: argparse.Namespace) -> None:
    """Write the picture of the first seed, half as large as what is measured."""
    columns = [column(shown(options))]
    for row in ROWS:
        path = place(options, row, 0, "png")
        if path.exists():
            columns.append(read_image(path))
    joined = torch.from_numpy(np.concatenate(columns, axis=1)).permute(2, 0, 1)[None].float()
    half = torch.nn.functional.avg_pool2d(joined, 2)[0].permute(1, 2, 0)
    write_picture(options.sheet, half.round().to(torch.uint8).numpy())


def main() -> None:
    parser = option_parser(__doc__, "training_comparison")
    parser.add_argument("folder", type=Path, help="where the runs leave their files")
    parser.add_argument("--data", type=Path, required=True, help="a folder like monet2photo")
    parser.add_argument("--show", type=Path, required=True, help="pictures that the sheet shows results of")
    parser.add_argument("--sheet", type=Path, help="picture file to write")
    parser.add_argument("--minutes", type=float, default=3.0, help="of the processor, for each run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minor-seeds", type=int, default=1, help="of the rows beside the main ones")
    parser.add_argument("--one", nargs=2, metavar=("ROW", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.one:
        one(options, options.one[0], int(options.one[1]))
        return
    for row, seed in plan(options):
        if place(options, row, seed, "json").exists():
            continue
        print(f"{row}, seed {seed}", flush=True)
        subprocess.run([sys.executable, *sys.argv, "--one", row, str(seed)], check=True)
    rows = table(options)
    for name, row in rows.items():
        print(name, {key: round(value, 2) for key, value in row["mean"].items()})
    figures = {"minutes": options.minutes, "bounds": bounds(options), "rows": rows}
    print(save(options.name or "training_comparison", figures))
    if options.sheet:
        sheet(options)


if __name__ == "__main__":
    main()
