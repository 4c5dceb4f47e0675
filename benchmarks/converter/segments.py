"""What encoding in closed segments costs against a single pass: bytes, and likeness to the source.

    python benchmarks/converter/segments.py [CLIP...] [--size WxH] [--codecs h264,h265] [--name NAME]

Each clip is converted with the `identity` model, at the encoder's default settings: once in a single pass
(`--no-resume`), and in segments of several lengths. The reference is the same conversion into FFV1, which
loses nothing. PSNR and SSIM are those of luma: PSNR of the mean squared error over all frames, SSIM after
Wang et al. 2004 with a window of 11x11, the mean over frames. The exit code is 1 if segments of the default
length make the video more than 1% larger, or PSNR or SSIM more than 1% smaller. Without clips two are drawn.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cgconvert
from benchmarks.common import option_parser, save
from benchmarks.converter.pipeline import draw
from cgconvert.video import resume

LENGTHS = (250, 500, 1000)
EXACT = cgconvert.EngineOptions(device="cpu", engine="eager", precision="fp32")
LIMIT = 1.0
"""Percent."""


def luma(path: Path) -> Iterator[np.ndarray]:
    """The luma of every frame, float32 (H, W)."""
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.video[0]):
            plane = frame.planes[0]
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)
            yield rows[:, : plane.width].astype(np.float32)


def ssim(one: np.ndarray, other: np.ndarray) -> float:
    """The structural similarity of two planes of 8 bits (Wang et al. 2004), with sigma 1.5."""

    def blurred(plane: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(plane, (11, 11), 1.5)

    first, second = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = blurred(one), blurred(other)
    var_a, var_b = blurred(one * one) - mean_a**2, blurred(other * other) - mean_b**2
    both = blurred(one * other) - mean_a * mean_b
    above = (2 * mean_a * mean_b + first) * (2 * both + second)
    return float((above / ((mean_a**2 + mean_b**2 + first) * (var_a + var_b + second))).mean())


def video_bytes(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(packet.size for packet in container.demux(video=0))


def measured(path: Path, reference: Path) -> dict[str, Any]:
    """Bytes of a video's pictures, and their likeness to the reference."""
    errors, likeness = [], []
    for frame, wanted in zip_longest(luma(path), luma(reference)):
        errors.append(float(np.mean((frame - wanted) ** 2)))
        likeness.append(ssim(frame, wanted))
    return {
        "frames": len(errors),
        "bytes": video_bytes(path),
        "psnr_db": round(float(10 * np.log10(255**2 / np.mean(errors))), 4),
        "ssim": round(float(np.mean(likeness)), 6),
    }


def compared(clip: Path, codec: str, size: str | None, folder: Path) -> dict[str, Any]:
    """A single pass and segments of every length, with the differences in percent of the single pass."""

    def convert(output: Path, name: str, resumable: bool) -> Path:
        options = cgconvert.VideoOptions(codec=name, size=size, resume=resumable, overwrite=True)
        cgconvert.convert_video(clip, output, "identity", options, EXACT)
        return output

    reference = convert(folder / "reference.mkv", "ffv1", False)
    single = measured(convert(folder / "single.mkv", codec, False), reference)
    row: dict[str, Any] = {"clip": clip.name, "codec": codec, "size": size, "single": single, "segments": {}}
    usual = resume.SEGMENT_FRAMES
    for length in LENGTHS:
        resume.SEGMENT_FRAMES = length
        try:
            figures = measured(convert(folder / "segments.mkv", codec, True), reference)
        finally:
            resume.SEGMENT_FRAMES = usual
        for name in ("bytes", "psnr_db", "ssim"):
            figures[f"{name}_percent"] = round(100 * (figures[name] / single[name] - 1), 3)
        row["segments"][str(length)] = figures
        print(f"{clip.name} {codec}, {length} frames a segment: {figures}", flush=True)
    return row


def failed(row: dict[str, Any]) -> bool:
    """Whether segments of the default length cost more than `LIMIT`."""
    own = row["segments"][str(resume.SEGMENT_FRAMES)]
    return own["bytes_percent"] > LIMIT or min(own["psnr_db_percent"], own["ssim_percent"]) < -LIMIT


def main() -> None:
    parser = option_parser(__doc__, "segments")
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--size", help="size at which they are encoded (default: their own)")
    parser.add_argument("--codecs", default="h264", help="default: %(default)s")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clips = arguments.clips
        if not clips:
            clips = [folder / "noise40s.mp4", folder / "noise60s.mp4"]
            draw(clips[0], 40, 480, 270)
            draw(clips[1], 60, 320, 180)
        for clip in clips:
            for codec in arguments.codecs.split(","):
                rows.append(compared(clip, codec, arguments.size, folder))
    print(
        save(
            arguments.name or "segments",
            {"limit_percent": LIMIT, "default_frames": resume.SEGMENT_FRAMES, "rows": rows},
        )
    )
    sys.exit(any(map(failed, rows)))


if __name__ == "__main__":
    main()
