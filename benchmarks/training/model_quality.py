"""Measure how good a model is: distances to its target domain, grid, structure, and steadiness of videos.

    python benchmarks/training/model_quality.py MODEL... --source PHOTOS --target PAINTINGS --video CLIP ...

Pictures are measured as in `cgconvert train evaluate`. The first frames of videos are converted with
`cgconvert.convert_video`, with `--steady auto` and `off` and all else at its defaults, work size and encoder
included, and compared frame by frame with their sources at their size (warp error, Lai et al. 2018, with the
flow of the source). Writes results/model_quality.json.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common import option_parser, save
from cgconvert import VideoOptions, convert_video
from cgconvert.media.picture.codec import to_8_bit
from cgconvert.media.video.probe import probe
from cgconvert.models.catalog import find_model
from trainer.data.pictures import video_frames
from trainer.metrics.evaluate import EvaluateOptions, evaluate
from trainer.metrics.motion import warp_error


def video(model: str, clip: Path, frames: int, steady: str) -> dict[str, Any]:
    """Warp error of the converted clip beside its own, over its first frames, at the clip's size."""
    end = (frames - 0.5) / float(probe(clip).rate)
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / f"result{clip.suffix}"
        report = convert_video(clip, result, model, VideoOptions(end=end, steady=steady))
        wanted = range(report.frames_out)
        source, converted = (
            [to_8_bit(pixels) for _, pixels in video_frames(path).read(wanted)] for path in (clip, result)
        )
    error = warp_error(source, converted)
    return {**asdict(error), "ratio": error.ratio, "frames": len(source), "work_size": report.work_size}


def main() -> None:
    parser = option_parser(__doc__, "model_quality")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--source", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--video", action="append", default=[], type=Path)
    parser.add_argument("--frames", type=int, default=24, help="from the beginning of each video")
    arguments = parser.parse_args()
    table = evaluate(arguments.models, arguments.source, arguments.target, EvaluateOptions())
    for name, row in table.rows.items():
        plain = {key: round(value, 4) for key, value in row.items() if isinstance(value, float)}
        print(name, plain, flush=True)
    videos: dict[str, dict[str, Any]] = {}
    for model in arguments.models:
        for clip in arguments.video:
            levels = {level: video(model, clip, arguments.frames, level) for level in ("auto", "off")}
            videos.setdefault(model, {})[clip.name] = levels
            print(model, clip.name, levels, flush=True)
    sizes = {model: find_model(model).stat().st_size for model in arguments.models}
    figures = {"rows": table.rows, "sources": table.sources, "targets": table.targets}
    print(save(arguments.name or "model_quality", {**figures, "videos": videos, "file_bytes": sizes}))


if __name__ == "__main__":
    main()
