"""Pictures a second by engine, precision, size and batch, and the share of the machine's measured limit.

`python benchmarks/engines.py` measures ResNet-9 ngf 64 (CycleGAN's own, random weights: they do not change
the speed) and the shipped photo2monet on this machine, one engine after the other, and writes
results/engines.json. Nothing of building, loading or verifying is in a rate; it stands beside, as
`ready_seconds`. `--sizes 256x256,512x512`, `--batches 1,4`, `--engines`, `--models`, `--seconds` narrow it.

On a machine that others use too, compare `processor_seconds` rather than rates; `load` stands beside each.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from common import save

from cgconvert.card import ModelCard
from cgconvert.doctor.limits import count_macs, measure_limits
from cgconvert.doctor.measure import example_pixels, measure
from cgconvert.engines.choose import ENGINES, Candidate, choose_device, engine_class
from cgconvert.generators import build_generator, size_rule
from cgconvert.host.memory import keep_freed_memory
from cgconvert.models.loading import Model, load_model
from cgconvert.progress import Silent

Combination = tuple[str, tuple[int, int], int, Candidate]
SIZES = "256x256,512x512,1280x720,1920x1080"
RESNET = "resnet9-ngf64"


def load(name: str) -> Model:
    """A model by name; the ResNet-9 of CycleGAN with random weights."""
    if name != RESNET:
        return load_model(name)
    torch.manual_seed(0)
    generator = build_generator("resnet", {}).eval().requires_grad_(False)
    multiple, minimum = size_rule("resnet", {})
    card = ModelCard(RESNET, "resnet", {}, size_multiple=multiple, size_minimum=minimum)
    return Model(card, generator)


def samples(count: int) -> list[np.ndarray]:
    """Pictures to calibrate int8 on; not those that are verified."""
    return list(example_pixels(count + 2, 256, 256)[2:])


def combinations(arguments: argparse.Namespace, device: torch.device) -> Iterator[Combination]:
    """Model, (height, width), batch and candidate, in the order in which they are measured."""
    asked = arguments.precisions.split(",") if arguments.precisions else None
    for name in arguments.models.split(","):
        for size in arguments.sizes.split(","):
            width, height = map(int, size.split("x"))
            for batch in map(int, arguments.batches.split(",")):
                for engine in arguments.engines.split(","):
                    for precision in engine_class(engine).precisions(device):
                        if asked is None or precision in asked:
                            yield name, (height, width), batch, Candidate(engine, precision, device)


def run(arguments: argparse.Namespace) -> Path:
    """Measure one after the other; what is known is written after each, in case the run is broken off."""
    keep_freed_memory()  # as the command line does
    device = choose_device(arguments.device)
    limits = measure_limits(device, engine_class("eager").precisions(device))
    models = {name: load(name) for name in arguments.models.split(",")}
    figures: dict[str, Any] = {
        "limits": {"macs_per_second": limits.macs, "copy_bytes_per_second": limits.copy_bytes},
        "macs_at_256x256": {
            name: count_macs(model.generator, model.card.in_channels, 256, 256)
            for name, model in models.items()
        },
        "results": [],
    }
    path = save(arguments.name, figures)
    for name, size, batch, candidate in combinations(arguments, device):
        result = measure(models[name], candidate, size, batch, limits, Silent(), arguments.seconds, samples)
        busy = round(os.getloadavg()[0], 2)
        figures["results"].append({"model": name, **result.to_dict(), "load": busy})
        path = save(arguments.name, figures)
        if result.convert is None or result.processor_seconds is None:
            told = str(result.problem)
        else:
            told = f"{result.convert:.2f} pictures/s, {1000 * result.processor_seconds:.0f} processor ms"
        print(f"{name} {candidate} {size[1]}x{size[0]} batch {batch}: {told}, load {busy}", flush=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=f"{RESNET},photo2monet")
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--batches", default="1")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--precisions", default="")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--name", default="engines", help="The result's name, without .json.")
    arguments = parser.parse_args()
    print(run(arguments))


if __name__ == "__main__":
    main()
