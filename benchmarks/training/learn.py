"""A look learned in ten minutes on one core: how near it is to its paintings, and what it does to a video.

    python benchmarks/training/learn.py PAINTINGS --held-out PAINTINGS --photos PHOTOS --video CLIP

`cgconvert learn` runs as a user runs it, with `--count` of the paintings, for the clip, in a process that has
one core. The look's results of PHOTOS are then compared with the held-out paintings as `cgconvert train
evaluate` does it: `texture` is the sliced Wasserstein distance of normalised pictures (Karras et al. 2018),
beside that of the unchanged photographs and of the paintings learned from. The clip is
converted with every option at its default: its warp error over the source's own (Lai et al. 2018), and the
mean light of its last frames where the clip fades to black. Writes results/learn.json.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common import option_parser, save
from benchmarks.training.model_quality import video
from cgconvert import VideoOptions, convert_video
from cgconvert.media.picture.codec import to_8_bit
from trainer.data.pictures import scan_domain, video_frames
from trainer.metrics.evaluate import EvaluateOptions, evaluate

FADE = 24
"""Frames in which a clip fades to black; as many follow that are black."""


def some_of(folder: Path, count: int, target: Path) -> None:
    """Copy so many pictures, from all over a folder."""
    target.mkdir(parents=True)
    pictures = sorted(path for path in folder.iterdir() if path.is_file())
    for index in range(count):
        shutil.copy(pictures[index * len(pictures) // count], target)


def fading(clip: Path, target: Path) -> list[float]:
    """Write the beginning of a clip as it fades to black. Returns the share of light of each frame."""
    light = [1 - index / FADE for index in range(FADE)] + [0.0] * FADE
    with av.open(str(clip)) as source, av.open(str(target), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "12"})
        first = source.streams.video[0]
        stream.width, stream.height, stream.pix_fmt = first.width, first.height, "yuv420p"
        for index, frame in zip(range(2 * FADE), source.decode(video=0), strict=False):
            pixels = np.rint(frame.to_ndarray(format="rgb24") * light[index]).astype(np.uint8)
            made = av.VideoFrame.from_ndarray(pixels, "rgb24")
            made.pts, made.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(made))
        container.mux(stream.encode(None))
    return light


def mean_light(path: Path, frames: range) -> list[float]:
    """Mean of all values of frames, in levels of 255."""
    return [round(float(to_8_bit(pixels).mean()), 2) for _, pixels in video_frames(path).read(frames)]


def main() -> None:
    parser = option_parser(__doc__, "learn")
    parser.add_argument("paintings", type=Path)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--keep", type=Path, help="copy the model and the preview to this folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        some_of(arguments.paintings, arguments.count, work / "paintings")
        os.environ["CGCONVERT_HOME"] = str(work / "home")
        command = [sys.executable, "-m", "cgconvert", "learn", work / "paintings", "--for", arguments.video]
        command += ["--name", "sketch", "--minutes", str(arguments.minutes), "--quiet"]
        root = str(Path(__file__).resolve().parents[2])
        core = sorted(os.sched_getaffinity(0))[:1]
        started = time.monotonic()
        done = subprocess.run(
            [str(part) for part in command],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root},
            preexec_fn=lambda: os.sched_setaffinity(0, core),
            capture_output=True,
            text=True,
            check=True,
        )
        seconds = round(time.monotonic() - started, 1)
        print(done.stdout, seconds, flush=True)
        if arguments.keep:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            for path in (work / "home").rglob("*"):
                if path.suffix in (".safetensors", ".png", ".jpg"):
                    shutil.copy(path, arguments.keep)
        photos, held_out = scan_domain(str(arguments.photos)), scan_domain(str(arguments.held_out))
        table = evaluate(["sketch"], str(arguments.photos), str(arguments.held_out), EvaluateOptions())
        own = evaluate([], str(work / "paintings"), str(arguments.held_out), EvaluateOptions())
        texture = {
            "look": table.rows["sketch"]["swd"],
            "unchanged": table.rows["unchanged"]["swd"],
            "paintings": own.rows["unchanged"]["swd"],
        }
        faded = work / "faded.mp4"
        share = fading(arguments.video, faded)
        report = convert_video(faded, work / "faded-look.mp4", "sketch", VideoOptions())
        result = {
            "paintings": arguments.count,
            "minutes": arguments.minutes,
            "cores": 1,
            "seconds": seconds,
            "told": [line for line in done.stdout.splitlines() if "/" not in line],
            "pictures": {"photographs": len(photos.pictures), "held_out": len(held_out.pictures)},
            "texture": {name: round(value, 2) for name, value in texture.items()},
            "texture_over_unchanged": round(texture["look"] / texture["unchanged"], 3),
            "rows": table.rows,
            "clip": arguments.video.name,
            "warp": {level: video("sketch", arguments.video, 48, level) for level in ("auto", "off")},
            "fade": {
                "share_of_light": share[-4:],
                "source": mean_light(faded, range(2 * FADE - 4, 2 * FADE)),
                "result": mean_light(Path(report.output), range(2 * FADE - 4, 2 * FADE)),
                "result_before": mean_light(Path(report.output), range(0, FADE, 6)),
                "source_before": mean_light(faded, range(0, FADE, 6)),
            },
        }
        print(json.dumps({key: value for key, value in result.items() if key != "rows"}, indent=1))
        print(save(arguments.name or "learn", result))


if __name__ == "__main__":
    main()
