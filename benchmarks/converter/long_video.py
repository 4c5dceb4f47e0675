"""A video of half an hour: whether memory, descriptors and threads stay flat, and sound stays with pictures.

    python benchmarks/converter/long_video.py [--minutes N] [--name NAME]

A video of 64x48 with sound is drawn, in which the picture flashes and the sound clicks at the same moment of
every tenth second. It is converted with the `identity` model in a process of its own, in segments as by
default. That process is looked at several times a second: resident memory, open files, threads. Then the
first and the last flash and click of the result are found, and all timestamps are compared with those of the
source. The exit code is 1 if anything grows or moves.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common import option_parser, save

RATE, SOUND_RATE = 25, 48000
EVERY = 10
"""Seconds between two flashes. Each lasts a frame, and its click as long."""

CONVERT = """
import sys
import cgconvert
engine = cgconvert.EngineOptions(device="cpu", engine="eager", precision="fp32")
print("ready", flush=True)
report = cgconvert.convert_video(sys.argv[1], sys.argv[2], "identity", engine_options=engine)
print(report.frames_out)
"""
MOST_GROWTH = 8 * 2**20
"""Bytes by which memory may grow from a fifth of the way to the end: pages that the allocator keeps."""


def draw(path: Path, seconds: int) -> Path:
    """The video: grey pictures that differ, and a soft tone, with flashes and clicks."""
    y, x = np.mgrid[0:48, 0:64]
    block = SOUND_RATE // RATE
    tone = 0.05 * np.sin(np.arange(block) * 2 * np.pi * 4 / block)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "crf": "25"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        for index in range(RATE * seconds):
            marked = index % (RATE * EVERY) == RATE * EVERY // 2
            shade = (
                np.full((48, 64), 235, np.uint8) if marked else (64 + (x + y + index) % 64).astype(np.uint8)
            )
            planes = np.concatenate([shade, np.full((24, 64), 128, np.uint8)])
            frame = av.VideoFrame.from_ndarray(planes, "yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(video.encode(frame))
            sound = np.where(np.arange(block) % 48 < 24, 0.8, -0.8) if marked else tone
            heard = av.AudioFrame.from_ndarray(sound.astype(np.float32)[None], "fltp", "mono")
            heard.sample_rate, heard.pts, heard.time_base = SOUND_RATE, index * block, Fraction(1, SOUND_RATE)
            container.mux(audio.encode(heard))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


def look(process: int) -> dict[str, int]:
    """Bytes of memory, descriptors and threads of a process now."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines() if ":" in line
    )
    return {
        "memory": int(status["VmRSS"].split()[0]) * 1024,
        "descriptors": len(list(Path(f"/proc/{process}/fd").iterdir())),
        "threads": int(status["Threads"]),
    }


def converted(source: Path, output: Path, interval: float) -> list[dict[str, int]]:
    """Convert in a process of its own; what was seen of it while frames went through."""
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", CONVERT, str(source), str(output)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert process.stdout is not None
    process.stdout.readline()
    seen = []
    part = output.with_name(output.name + ".part")
    while process.poll() is None:
        time.sleep(interval)
        if part.exists() and any(part.glob("*.packets")):  # it is under way
            try:
                seen.append(look(process.pid))
            except (OSError, KeyError):
                break
    if process.wait():
        raise SystemExit(f"the conversion ended with {process.returncode}")
    return seen


def times(path: Path, kind: str) -> list[Fraction]:
    """When the packets of a stream are shown, in seconds and in order."""
    with av.open(str(path)) as container:
        stream = container.streams.best(kind)
        assert stream is not None
        found = [p.pts * p.time_base for p in container.demux(stream) if p.size and p.pts is not None]
    return sorted(Fraction(time) for time in found)


def flashes(path: Path) -> list[float]:
    """Seconds at which the picture flashes."""
    with av.open(str(path)) as container:
        found = []
        for frame in container.decode(video=0):
            plane = frame.planes[0]  # whose lines may be longer than the picture is wide
            luma = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)[:, : plane.width]
            if luma.mean() > 180:
                found.append(float(frame.pts * frame.time_base))
    return found


def clicks(path: Path) -> list[float]:
    """Seconds at which the sound clicks."""
    found: list[float] = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            loud = np.flatnonzero(np.abs(frame.to_ndarray()[0]) > 0.4)
            at = float(frame.pts * frame.time_base) + (int(loud[0]) / SOUND_RATE if loud.size else 0)
            if loud.size and (not found or at - found[-1] > 1):
                found.append(at)
    return found


def measure(seconds: int, folder: Path, interval: float = 0.25) -> dict[str, Any]:
    """Draw and convert a video of so many seconds; what grew and what moved, with `wrong` in words."""
    source = draw(folder / "long.mp4", seconds)
    output = folder / "result.mp4"
    begun = time.monotonic()
    seen = converted(source, output, interval)
    took = time.monotonic() - begun
    early, late = seen[len(seen) // 5 : len(seen) // 5 + 5], seen[-6:-1]
    # What the threads hold at the moment goes up and down; the least of some looks does not.
    growth = min(one["memory"] for one in late) - min(one["memory"] for one in early)
    offs = {}
    for kind in ("video", "audio"):
        before, after = times(source, kind), times(output, kind)
        if len(before) != len(after):
            raise SystemExit(f"{len(before)} packets of {kind} became {len(after)}")
        offs[kind] = max(float(abs(a - b)) for a, b in zip(before, after, strict=True))
    apart = [flash - click for flash, click in zip(flashes(output), clicks(output), strict=True)]
    source_apart = [flash - click for flash, click in zip(flashes(source), clicks(source), strict=True)]
    figures = {
        "seconds": seconds,
        "frames": len(times(output, "video")),
        "took_seconds": round(took, 1),
        "looks": len(seen),
        "memory_mib": [round(one["memory"] / 2**20, 1) for one in seen[:: max(1, len(seen) // 20)]],
        "memory_growth_bytes": growth,
        "descriptors": [min(one["descriptors"] for one in seen), max(one["descriptors"] for one in seen)],
        "threads": [min(one["threads"] for one in seen), max(one["threads"] for one in seen)],
        "descriptors_early_late": [max(one["descriptors"] for one in some) for some in (early, late)],
        "threads_early_late": [max(one["threads"] for one in some) for some in (early, late)],
        "largest_pts_error_seconds": offs,
        "marks": len(apart),
        "flash_before_click_seconds": {"first": round(apart[0], 5), "last": round(apart[-1], 5)},
        "in_the_source": {"first": round(source_apart[0], 5), "last": round(source_apart[-1], 5)},
    }
    wrong = []
    if growth > MOST_GROWTH:
        wrong.append(f"memory grew by {growth} bytes")
    for name in ("descriptors", "threads"):
        before, after = figures[f"{name}_early_late"]
        if after > before:
            wrong.append(f"{before} {name} became {after}")
    if any(offs.values()):
        wrong.append(f"times moved by {offs} s")
    if apart != source_apart or len(apart) != seconds // EVERY:
        wrong.append("the flashes and clicks are not those of the source")
    return {**figures, "wrong": wrong}


def main() -> None:
    parser = option_parser(__doc__, "long_video")
    parser.add_argument("--minutes", type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        figures = measure(60 * arguments.minutes, Path(temporary))
    for name, value in figures.items():
        print(f"{name}: {value}")
    print(save(arguments.name or "long_video", figures))
    sys.exit(bool(figures["wrong"]))


if __name__ == "__main__":
    main()
