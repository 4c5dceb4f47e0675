"""Measure how well the stages of a video overlap, and whether memory grows with the video's length.

    python benchmarks/converter/pipeline.py

It draws clips and converts each in a process of its own.

- Overlap: a clip of 10 s at 960x540 with photo2monet. The figure is the wall time from the first translated
  frame to the finished file over the busy time of the busiest stage, the median of three runs. At 1.0 the
  overlap is perfect.
- Memory: the peak resident memory for 120 s over that for 10 s, at 320x180, where 120 s take minutes and not
  an hour. Channels are bounded in bytes, so the size of a frame does not change the question.

Writes results/pipeline.json.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common import option_parser, save

RUN = """
import json, os, resource, sys
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
import cgconvert
source, output, model = sys.argv[1:4]
options = cgconvert.VideoOptions(overwrite=True, work_size="1x")  # the network sees the video's own size
report = cgconvert.convert_video(source, output, model, options)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({**report.to_dict(), "peak_mib": peak}))
"""


def draw(path: Path, seconds: int, width: int, height: int) -> None:
    """A clip with moving noise and sound, quick to draw and not too easy to encode."""
    from fractions import Fraction

    import av
    import cv2
    import numpy as np

    random = np.random.default_rng(0)
    wide = cv2.resize(random.integers(0, 255, (height // 8, width // 4, 3), np.uint8), (2 * width, height))
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "20"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("aac", rate=48000, layout="stereo")
        for index in range(25 * seconds):
            left = (3 * index) % width
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(wide[:, left : left + width]), "rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(video.encode(frame))
            noise = random.standard_normal((2, 1920)).astype(np.float32) * 0.05
            sound = av.AudioFrame.from_ndarray(noise, "fltp", "stereo")
            sound.sample_rate, sound.pts, sound.time_base = 48000, 1920 * index, Fraction(1, 48000)
            container.mux(audio.encode(sound))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def convert(source: Path, model: str) -> dict[str, Any]:
    """Convert in a process of its own; the report with the peak memory in MiB."""
    output = source.with_name(f"out-{source.name}")
    command = [sys.executable, "-c", RUN, str(source), str(output), model]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def overlap(folder: Path) -> dict[str, Any]:
    """Wall over busiest stage for the 10 s clip."""
    clip = folder / "540p.mp4"
    draw(clip, 10, 960, 540)
    rows = []
    for _ in range(3):
        report = convert(clip, "photo2monet")
        wall = report["seconds"] - report["first_frame"]
        busiest = report["busiest_seconds"]
        rows.append(
            {"wall": round(wall, 2), "stages": report["stage_seconds"], "ratio": round(wall / busiest, 3)}
        )
    return {
        "clip": "960x540, 10 s, 250 frames",
        "engine": report["engine"],
        "frames_per_second": report["frames_per_second"],
        "runs": rows,
        "ratio_median": statistics.median(row["ratio"] for row in rows),
    }


def memory(folder: Path) -> dict[str, Any]:
    """Peak memory of a long and a short video."""
    peaks = {}
    for seconds in (10, 120):
        clip = folder / f"{seconds}s.mp4"
        draw(clip, seconds, 320, 180)
        peaks[seconds] = convert(clip, "photo2monet")["peak_mib"]
    return {
        "clip": "320x180",
        "peak_mib": {str(seconds): round(peak, 1) for seconds, peak in peaks.items()},
        "ratio": round(peaks[120] / peaks[10], 4),
    }


def main() -> None:
    """Run both and keep the figures."""
    arguments = option_parser(__doc__, "pipeline").parse_args()
    with tempfile.TemporaryDirectory() as name:
        figures = {"overlap": overlap(Path(name)), "memory": memory(Path(name))}
    print(json.dumps(figures, indent=2))
    print(save(arguments.name or "pipeline", figures))


if __name__ == "__main__":
    main()
