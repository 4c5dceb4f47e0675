"""Measure pictures a second by engine, precision, size and batch, and the share of this machine's limit.

    python benchmarks/converter/engines.py [--sizes 256x256,512x512] [--batches 1,4]

The models are the ResNet-9 of the CycleGAN paper with random weights, which do not change the speed, and
photo2monet. Rates leave out building, loading and verifying, which `ready_seconds` gives. On a machine that
is shared, compare `processor_seconds` rather than rates; `load` is the machine's load average after each
measurement. Writes results/engines.json after every measurement.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common import RESNET, load, option_parser, save
from cgconvert.doctor.limits import count_macs, measure_limits
from cgconvert.doctor.measure import example_pixels, measure
from cgconvert.engines.choose import Candidate, choose_device, engine_class
from cgconvert.host.memory import keep_freed_memory
from cgconvert.options import ENGINES
from cgconvert.progress import Silent

Combination = tuple[str, tuple[int, int], int, Candidate]
SIZES = "256x256,512x512,1280x720,1920x1080"


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
            name: count_macs(model.generator, model.card.network_channels, 256, 256)
            for name, model in models.items()
        },
        "results": [],
    }
    path = save(arguments.name or "engines", figures)
    for name, size, batch, candidate in combinations(arguments, device):
        result = measure(models[name], candidate, size, batch, limits, Silent(), arguments.seconds, samples)
        busy = round(os.getloadavg()[0], 2)
        figures["results"].append({"model": name, **result.to_dict(), "load": busy})
        path = save(arguments.name or "engines", figures)
        if result.convert is None or result.processor_seconds is None:
            told = str(result.problem)
        else:
            told = f"{result.convert:.2f} pictures/s, {1000 * result.processor_seconds:.0f} processor ms"
        print(f"{name} {candidate} {size[1]}x{size[0]} batch {batch}: {told}, load {busy}", flush=True)
    return path


def main() -> None:
    parser = option_parser(__doc__, "engines")
    parser.add_argument("--models", default=f"{RESNET},photo2monet")
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--batches", default="1")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--precisions", default="")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    print(run(arguments))


if __name__ == "__main__":
    main()
