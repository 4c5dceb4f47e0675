"""Measure `cgconvert video` on real clips: frames a second, seconds by stage, and time spent waiting.

    python benchmarks/converter/end_to_end.py CLIP...

Each conversion is a process of its own. The figures are wall seconds, the seconds that each stage was busy,
the seconds that each thread waited for the others, the network's share of all busy seconds, the time to the
first frame, and the time from the first translated frame on over that of the busiest thread, where 1.0 is
perfect overlap. Writes results/end_to_end.json.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common import busy_seconds, option_parser, save


def convert(clip: Path, model: str, more: list[str], folder: Path) -> dict[str, Any]:
    """One run; its report's figures and the wall seconds of the process."""
    report, target = folder / "report.json", folder / f"out{clip.suffix}"
    command = [sys.executable, "-m", "cgconvert", "video", str(clip), "-o", str(target), "-m", model]
    started = time.perf_counter()
    done = subprocess.run(
        [*command, "--overwrite", "--quiet", "--report", str(report), *more],
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{clip}: {done.stderr[-2000:]}")
    data = json.loads(report.read_text())
    stages = data["stage_seconds"]
    threads = busy_seconds(stages)
    running = data["seconds"] - data["first_frame"]
    return {
        "process_seconds": round(seconds, 3),
        "seconds": data["seconds"],
        "first_frame": data["first_frame"],
        "frames": data["frames_out"],
        "frames_per_second": data["frames_per_second"],
        "work_size": data["work_size"],
        "stage_seconds": stages,
        "busiest": data["busiest"],
        "waited_seconds": {name: round(max(0.0, running - busy), 3) for name, busy in threads.items()},
        "network_share": round(threads["translate"] / sum(threads.values()), 3),
        "over_busiest": round(running / data["busiest_seconds"], 3),
        "engine": data["engine"],
    }


def main() -> None:
    parser = option_parser(__doc__, "end_to_end")
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--model", default="photo2monet")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--options", default="", help="More options for `cgconvert video`.")
    arguments = parser.parse_args()
    os.environ["OMP_WAIT_POLICY"] = "passive"
    clips = {}
    for clip in arguments.clips:
        with tempfile.TemporaryDirectory() as text:
            runs = [
                convert(clip, arguments.model, arguments.options.split(), Path(text))
                for _ in range(arguments.runs)
            ]
        middle = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
        over = statistics.median(run["over_busiest"] for run in runs)
        clips[clip.name] = {"median_run": middle, "over_busiest": over, "runs": runs}
        print(f"{clip.name}: {middle['frames_per_second']:.2f} frames/s, {over:.2f} of the busiest stage")
    figures = {"model": arguments.model, "clips": clips, "load_after": round(os.getloadavg()[0], 2)}
    print(save(arguments.name or "end_to_end", figures))


if __name__ == "__main__":
    main()
