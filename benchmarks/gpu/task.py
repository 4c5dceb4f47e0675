"""One task of the GPU job, in a process of its own: `job.py` starts it and reads what it prints.

    python benchmarks/gpu/task.py NAME --device cuda --seconds 60

Every row is printed as a line of JSON behind a record separator (RFC 7464) as soon as it is there. The first
record says which card this is, the last how the task ended. Between two rows the task ends if its seconds are
over.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from benchmarks.gpu.job import RECORD
from benchmarks.gpu.scale import Bench, UnavailableHere, bench_for

STARTED = time.monotonic()


def record(**content: Any) -> None:
    """Print a record for the job."""
    print(f"{RECORD}{json.dumps(content, default=str)}", flush=True)


def rows_of(name: str, bench: Bench, arguments: argparse.Namespace) -> Any:
    """The rows of a task, as pairs of a name and its figures, made one after the other."""
    section, _, what = name.partition("/")
    if section == "train":
        from benchmarks.gpu.training import go_on

        return iter([("run", go_on(arguments.run, arguments.minutes, arguments.keep))])
    if section == "training":
        from benchmarks.gpu.training import step

        return step(bench, what)
    if section in ("equality", "video", "steps"):
        from benchmarks.gpu import video

        return {"equality": video.equality, "video": video.video, "steps": video.steps}[section](bench, what)
    from benchmarks.gpu.sections import SECTIONS

    return SECTIONS[section](bench, what)


def carry_out(name: str, bench: Bench, arguments: argparse.Namespace) -> dict[str, Any]:
    """Print the rows of a task; how it ended."""
    passed = True
    try:
        for row, figures in rows_of(name, bench, arguments):
            record(row=row, figures=figures)
            passed &= figures.get("passed", True)
            if time.monotonic() - STARTED > arguments.seconds:
                return {"state": "late"}
    except UnavailableHere as error:
        return {"state": "unavailable", "error": str(error)}
    except Exception as error:
        told = f"{type(error).__name__}: {error}"[:500]
        return {"state": "failed", "error": told, "traceback": traceback.format_exc()[-4000:]}
    return {"state": "passed" if passed else "failed"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--limits", type=json.loads, help="the rates that `machine` measured")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        record(about=None)
        return
    bench = bench_for(arguments.device, arguments.limits)
    card = torch.cuda.get_device_name(bench.device) if bench.device.type == "cuda" else "none"
    record(about={"card": card, "torch": torch.__version__})
    record(**carry_out(arguments.name, bench, arguments))


if __name__ == "__main__":
    main()
