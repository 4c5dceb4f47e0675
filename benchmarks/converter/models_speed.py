"""Compare how long models take for a frame, in every engine, one beside the other.

    python benchmarks/converter/models_speed.py BASE MODEL... [--size 960x540] [--rounds 15]

In each round every model converts the same frame once, so that another program on the machine disturbs all
of them alike. A model's figure is the median over the rounds of its processor time over that of BASE (below
1 is faster). Building, loading and verifying are left out. Writes results/models_speed.json engine by engine.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common import load, option_parser, save
from cgconvert.doctor.measure import example_pixels
from cgconvert.engines.choose import engine_class
from cgconvert.engines.job import EngineJob
from cgconvert.engines.pixels import convert_pixels
from cgconvert.engines.ready import create_job
from cgconvert.errors import CgconvertError
from cgconvert.host.memory import keep_freed_memory
from cgconvert.options import EngineOptions


def compared(models: list[str], engine: str, precision: str, size: str, rounds: int) -> dict[str, Any]:
    """Milliseconds of the processor and of the clock for a frame of each model, and the ratios to the first.

    An engine that a model does not work in has its `problem` instead.
    """
    width, height = map(int, size.split("x"))
    frame, samples = example_pixels(1, height, width), example_pixels(8, 256, 256, seed=1)
    jobs: dict[str, EngineJob] = {}
    spent: dict[str, list[float]] = {name: [] for name in models}
    passed: dict[str, list[float]] = {name: [] for name in models}
    options = EngineOptions("cpu", engine, precision, 1, tile="off")
    try:
        for name in models:
            jobs[name] = create_job(load(name), options, frame, samples=lambda count: list(samples[:count]))
            convert_pixels(jobs[name], frame)
        for _ in range(rounds):
            for name, job in jobs.items():
                clock, processor = time.perf_counter(), time.process_time()
                convert_pixels(job, frame)
                passed[name].append(time.perf_counter() - clock)
                spent[name].append(time.process_time() - processor)
    except CgconvertError as error:
        return {"engine": engine, "precision": precision, "problem": str(error)}
    finally:
        for job in jobs.values():
            job.close()
    base = spent[models[0]]
    rows = {
        Path(name).stem: {
            "processor_ms": round(1000 * statistics.median(spent[name]), 1),
            "clock_ms": round(1000 * statistics.median(passed[name]), 1),
            "ratio": round(statistics.median(a / b for a, b in zip(spent[name], base, strict=True)), 3),
        }
        for name in models
    }
    return {"engine": engine, "precision": precision, "models": rows}


def main() -> None:
    parser = option_parser(__doc__, "models_speed")
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="the first is what the others are compared with"
    )
    parser.add_argument("--size", default="960x540")
    parser.add_argument("--engines", default="eager,openvino,compile")
    parser.add_argument("--precisions", default="", help="the default is all of each engine")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    keep_freed_memory()  # as the command line does
    results: list[dict[str, Any]] = []
    for engine in arguments.engines.split(","):
        known = engine_class(engine).precisions(torch.device("cpu"))
        for precision in arguments.precisions.split(",") if arguments.precisions else known:
            if precision in known:
                row = compared(arguments.models, engine, precision, arguments.size, arguments.rounds)
                results.append(row)
                print(row, flush=True)
                figures = {"size": arguments.size, "rounds": arguments.rounds, "results": results}
                save(arguments.name or "models_speed", figures)


if __name__ == "__main__":
    main()
