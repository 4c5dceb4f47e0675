"""Measure what `--steady` does to real clips: warp error, sharpness, ghosting and frames a second by level.

    python benchmarks/converter/steadiness.py CLIP... [--model NAME] [--levels off,auto,1]

Each conversion is a process of its own with all other options at their defaults. Its frames are read back
and compared with those of the source, both at the size that the network sees. "warp_error_ratio" is the warp
error (Lai et al. 2018, with the flow of the source) over that of the source itself. "sharpness" is the mean
gradient over that of the result without steadying. "ghosting" is how far squares of 8x8 pixels are from that
result, in levels of 255, where the source uncovers what was hidden, and "ghosting_elsewhere" the same in all
other places. "cpu_ms_per_frame" is the processor time of steadying alone.

"speed" compares whole runs over the first clip without steadying and with `auto`, one after the other so that
both meet the same load. "rate" is frames a second with steadying over those without, by the clock.
"processor_rate" is the same by processor time, without what a run takes to start: it is what the clock shows
where nothing else runs and the network keeps all cores busy.
Writes results/steadiness.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common import option_parser, save
from cgconvert.media.picture.codec import to_8_bit
from cgconvert.media.picture.filters import mean_gradient
from cgconvert.media.picture.resize import resized
from cgconvert.media.video.probe import probe
from cgconvert.media.video.steady import Steadier
from cgconvert.models.catalog import find_model
from cgconvert.models.files import read_card
from cgconvert.sizes import network_size
from cgconvert.video.steadiness import choose_steadiness, parse_steady
from trainer.data.pictures import video_frames
from trainer.metrics.motion import ghosting, warp_error


def convert(clip: Path, model: str, level: str, end: float, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The result of one run over the clip's first seconds, and the run's report."""
    target, report = folder / f"{level}.mkv", folder / "report.json"
    command = [sys.executable, "-m", "cgconvert", "video", str(clip), "-o", str(target), "-m", model]
    command += ["--steady", level, "--end", f"{end:.4f}", "--overwrite", "--quiet", "--report", str(report)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{clip}: {done.stderr[-2000:]}")
    return target, json.loads(report.read_text())


def measure(clip: Path, model: str, levels: list[str], frames: int) -> dict[str, Any]:
    """All levels of one clip; "off" is one of them, with which the others are compared."""
    rate = probe(clip).rate
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as text:
        plain: list[np.ndarray] = []
        for level in ["off", *(level for level in levels if level != "off")]:
            path, report = convert(clip, model, level, (frames - 0.5) / float(rate), Path(text))
            width, height = report["work_size"]
            source, result = (
                [resized(to_8_bit(p), width, height) for _, p in video_frames(file).read(range(frames))]
                for file in (clip, path)
            )
            plain = plain or result
            error = warp_error(source, result)
            behind, elsewhere = ghosting(source, result, plain)
            figures[level] = {
                "warp_error_ratio": round(error.ratio, 3),
                "warp_error_source": error.source,
                "sharpness": round(sum(map(mean_gradient, result)) / sum(map(mean_gradient, plain)), 3),
                "ghosting": round(behind, 2),
                "ghosting_elsewhere": round(elsewhere, 2),
                "frames": len(result),
                "frames_per_second": report["frames_per_second"],
                "work_size": [width, height],
                "load": round(os.getloadavg()[0], 2),
            }
            print(clip.name, level, figures[level], flush=True)
    return figures


def speed(clip: Path, model: str, rounds: int, frames: int) -> dict[str, Any]:
    """Rates with steadying over those without: the median of some rounds, by clock and by processor."""
    rate = float(probe(clip).rate)
    taken: dict[str, list[list[float]]] = {"off": [], "auto": []}
    with tempfile.TemporaryDirectory() as text:
        for turn in range(rounds):
            for level in ("off", "auto") if turn % 2 == 0 else ("auto", "off"):
                figures = []
                for count in (2, frames):
                    before = os.times()
                    _, report = convert(clip, model, level, (count - 0.5) / rate, Path(text))
                    after = os.times()
                    figures += [
                        after.children_user
                        + after.children_system
                        - before.children_user
                        - before.children_system
                    ]
                seconds = (figures[1] - figures[0]) / (frames - 2)
                taken[level].append([report["frames_per_second"], seconds])
                print(clip.name, level, taken[level][-1], flush=True)
    pairs = list(zip(taken["off"], taken["auto"], strict=True))
    return {
        "frames": frames,
        "frames_per_second": {level: [round(run[0], 3) for run in runs] for level, runs in taken.items()},
        "processor_ms_per_frame": {
            level: [round(1000 * run[1], 1) for run in runs] for level, runs in taken.items()
        },
        "rate": round(float(np.median([auto[0] / off[0] for off, auto in pairs])), 3),
        "processor_rate": round(float(np.median([off[1] / auto[1] for off, auto in pairs])), 3),
    }


def cost(clip: Path, model: str, levels: list[str], frames: int) -> dict[str, float]:
    """Milliseconds of processor time that steadying takes for each frame, at the size that the network sees.

    Unlike frames a second it does not depend on what else runs on the machine.
    """
    card = read_card(find_model(model))
    info = probe(clip)
    own = info.width, info.height
    width, height = network_size(None, None, card, own, own)
    seen = [resized(to_8_bit(p), width, height) for _, p in video_frames(clip).read(range(frames))]
    figures = {}
    for level in levels:
        steadiness = choose_steadiness(parse_steady(level), card)
        if steadiness is None:
            continue
        steadier = Steadier(steadiness.strength, exact=steadiness.exact)
        steadier.step(seen[0], seen[0])
        started = time.process_time()
        for frame in seen[1:]:
            steadier.step(frame, frame)
        figures[level] = round(1000 * (time.process_time() - started) / (len(seen) - 1), 1)
    return figures


def main() -> None:
    parser = option_parser(__doc__, "steadiness")
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--model", default="photo2monet")
    parser.add_argument("--levels", default="off,auto,1")
    parser.add_argument("--frames", type=int, default=16, help="from the beginning of each clip")
    parser.add_argument("--rounds", type=int, default=4, help="runs of 60 frames with and without, for speed")
    arguments = parser.parse_args()
    os.environ["OMP_WAIT_POLICY"] = "passive"
    levels = arguments.levels.split(",")
    milliseconds = cost(arguments.clips[0], arguments.model, levels, arguments.frames)
    rates = speed(arguments.clips[0], arguments.model, arguments.rounds, 60)
    clips: dict[str, Any] = {}
    for clip in arguments.clips:
        clips[clip.name] = measure(clip, arguments.model, levels, arguments.frames)
        # After each, so that nothing is lost if the rest takes too long.
        figures = {"model": arguments.model, "cpu_ms_per_frame": milliseconds, "speed": rates}
        figures["clips"] = clips
        path = save(arguments.name or "steadiness", figures)
    print(path)


if __name__ == "__main__":
    main()
