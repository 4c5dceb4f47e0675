"""Pictures through `load_model(...)`, one at a time and in batches, beside the engine itself and a folder.

    python benchmarks/converter/python.py [--models photo2monet-fast,photo2monet] [--pictures 200]

`engine` is the engine's own time for a picture of 256x256 that lies in its tensor already; `one` what a call
with a uint8 array takes, `batch` a picture's share of a call with 32. `dir` is the time between the first and
the last result of a folder of the same pictures, which are read from and written to PNG there. All in
milliseconds, as medians of rounds in turn. Writes results/python.json.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cgconvert
from benchmarks.common import option_parser, save
from cgconvert.doctor.measure import example_pixels
from cgconvert.engines.ready import create_job
from cgconvert.models.loading import load_model
from cgconvert.options import EngineOptions, ImageOptions
from cgconvert.pictures.pipeline import run_images
from cgconvert.pictures.plan import plan_dir
from cgconvert.pictures.result import Tally
from cgconvert.progress import Silent
from cgconvert.scale.results import ResultLines
from cgconvert.tensors.images import pixels_to_images

EDGE, BATCH = 256, 32


def milliseconds(work: Callable[[], object], count: int) -> float:
    """Of a call, as the mean of so many."""
    started = time.perf_counter()
    for _ in range(count):
        work()
    return 1000 * (time.perf_counter() - started) / count


class Moments(ResultLines):
    """Notes when each result came, instead of writing lines."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def write(self, *arguments: Any, **facts: Any) -> None:
        self.times.append(time.perf_counter())


def folder(model: str, source: Path, target: Path) -> float:
    """Milliseconds from one result to the next."""
    plan = plan_dir(source, target, model, ImageOptions(), EngineOptions())
    moments = Moments()
    run_images(plan, Silent(), Tally(plan, moments))
    return 1000 * (moments.times[-1] - moments.times[0]) / (len(moments.times) - 1)


def measure(model: str, pictures: int) -> dict[str, Any]:
    """Rounds of all ways in turn."""
    pixels = example_pixels(BATCH, EDGE, EDGE)
    api = cgconvert.load_model(model)
    loaded = load_model(model)
    job = create_job(loaded, EngineOptions(batch=1), pixels[:1], Silent(), lambda count: [pixels[0]] * count)
    images, _ = pixels_to_images(pixels[:1], loaded.card, job.engine.device)
    api.convert(pixels[0])
    api.convert(pixels)
    found: dict[str, list[float]] = {"engine": [], "one": [], "batch": [], "dir": []}
    with tempfile.TemporaryDirectory() as work:
        source = Path(work) / "in"
        source.mkdir()
        for index in range(pictures):
            Image.fromarray(pixels[index % BATCH]).save(source / f"{index:04}.png")
        with torch.inference_mode():
            for number in range(5):
                found["engine"].append(milliseconds(lambda: job.engine(images), 50))
                found["one"].append(milliseconds(lambda: api.convert(pixels[0]), 50))
                found["batch"].append(milliseconds(lambda: api.convert(pixels), 4) / BATCH)
                if number < 3:
                    found["dir"].append(folder(model, source, Path(work) / f"out{number}"))
    described = job.describe()
    job.close()
    middle = {name: round(statistics.median(values), 3) for name, values in found.items()}
    return {
        "engine": {key: described[key] for key in ("engine", "precision")},
        "milliseconds": middle,
        "one_over_engine": round(middle["one"] / middle["engine"], 3),
        "batch_over_dir": round(middle["batch"] / middle["dir"], 3),
    }


def main() -> None:
    parser = option_parser(__doc__, "python")
    parser.add_argument("--models", default="photo2monet-fast,photo2monet")
    parser.add_argument("--pictures", type=int, default=200)
    arguments = parser.parse_args()
    models = {name: measure(name, arguments.pictures) for name in arguments.models.split(",")}
    for name, figures in models.items():
        print(name, figures)
    print(save(arguments.name or "python", {"edge": EDGE, "batch": BATCH, "models": models}))


if __name__ == "__main__":
    main()
