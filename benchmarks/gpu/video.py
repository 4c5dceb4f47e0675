"""A section of `job.py`: videos whose frames go to the card as YUV planes, checked and measured.

Each part stands alone: one that fails is recorded with its error and the next goes on. Needs PyAV.
"""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cgconvert.doctor.limits import best_seconds
from cgconvert.doctor.measure import example_pixels
from cgconvert.engines.choose import Candidate, build
from cgconvert.frames import PlaneFrame
from cgconvert.models.catalog import find_model
from cgconvert.models.loading import load_model
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.progress import Silent
from cgconvert.tensors.images import images_to_rgb, rgb_to_images
from cgconvert.tensors.transfers import transfers_for
from cgconvert.tensors.yuv import planes_to_rgb, rgb_to_planes
from cgconvert.video.translators import PlaneTarget, PlaneTranslator

CUDA = torch.device("cuda", 0)
FRAMES = 240
EXACT = EngineOptions("cuda", "eager", "fp32", 4)
BOUND = 3
"""Levels of 255 by which both ways may differ: each rounds, and RGB between is rounded by one of them."""


def section_planes() -> dict[str, Any]:
    """Equality with the way by RGB, milliseconds of each step at 1080p, frames/s of whole videos."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "equality": lambda: equality(folder),
            "milliseconds at 1080p": steps,
            "frames a second at 1080p": lambda: videos(folder),
        }
        told: dict[str, Any] = {}
        for part, work in parts.items():
            try:
                told[part] = {"passed": True, **work()}
            except Exception as error:
                told[part] = {
                    "passed": False,
                    "error": str(error)[:500],
                    "traceback": traceback.format_exc()[-2000:],
                }
    return {**told, "passed": all(part["passed"] for part in told.values())}


def write_clip(path: Path, count: int, height: int, width: int, pixel_format: str = "yuv420p") -> Path:
    """Pictures that move, in H.264; written with few different ones, so that it does not take minutes."""
    import av

    pictures = example_pixels(8, height, width)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "18"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        for number in range(count):
            picture = np.roll(pictures[number % 8], 4 * number, axis=1)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def run(
    source: Path, output: Path, model: str, options: VideoOptions, engine: EngineOptions, as_planes: bool
) -> dict[str, Any]:
    """One video by one of the two ways: frames/s, seconds of the stages, and what was chosen."""
    from cgconvert.video.pipeline import run_video
    from cgconvert.video.plan import plan_video
    from cgconvert.video.route import choose_route

    started = time.perf_counter()
    plan = plan_video(source, output, model, options, engine)
    report = run_video(choose_route(plan, plan.route.device, as_planes), Silent())
    return {
        "frames_per_second": report.frames_per_second,
        "frames": [report.frames_in, report.frames_out],
        "busiest": report.busiest,
        "stage_seconds": dict(report.stage_seconds),
        "first_frame": report.first_frame,
        "wall_seconds": time.perf_counter() - started,
        "path": report.path,
        "engine": report.engine,
    }


def equality(folder: Path) -> dict[str, Any]:
    """Identity in float32 by planes, decoded on the processor and on the card, and by RGB: the same video."""
    import av

    def stored(path: Path) -> tuple[list[int | None], list[np.ndarray]]:
        with av.open(str(path)) as container:
            frames = list(container.decode(video=0))
            return [frame.pts for frame in frames], [frame.to_ndarray().astype(int) for frame in frames]

    rows: dict[str, Any] = {}
    for pixel_format, bound in (("yuv420p", BOUND), ("yuv420p10le", BOUND + 2)):
        source = write_clip(folder / f"{pixel_format}.mp4", 30, 360, 640, pixel_format)
        ways = {"rgb": ("cpu", False), "planes, cpu": ("cpu", True), "planes, auto": ("auto", True)}
        wanted: tuple[list[int | None], list[np.ndarray]] | None = None
        for name, (decoder, as_planes) in ways.items():
            output = folder / f"{pixel_format} {name}.mkv"
            options = VideoOptions(codec="ffv1", decoder=decoder)
            row = run(source, output, "identity", options, EXACT, as_planes)
            times, pictures = stored(output)
            wanted = wanted or (times, pictures)
            gaps = [int(np.abs(new - old).max()) for new, old in zip(pictures, wanted[1], strict=True)]
            good = max(gaps) <= bound and times == wanted[0]
            rows[f"{pixel_format} {name}"] = {"largest": max(gaps), "passed": good, "path": row["path"]}
    return {"rows": rows, "passed": all(row["passed"] for row in rows.values())}


def steps() -> dict[str, Any]:
    """Each step of one 1080p frame through photo2monet at its own working size, waited for one by one."""
    from cgconvert.media.video.planes import yuv_format
    from cgconvert.media.video.probe import probe

    with tempfile.TemporaryDirectory() as name:
        info = probe(write_clip(Path(name) / "clip.mp4", 2, 1080, 1920))
    form = yuv_format("yuv420p", info)
    assert form is not None
    random = np.random.default_rng(0)
    planes = [random.integers(16, 235, shape, np.uint8) for shape in form.shapes(1080, 1920)]
    frame = PlaneFrame(planes, form, 1920, 1080, 0)
    model = load_model(find_model("photo2monet"))
    engine = build(model, Candidate("eager", "fp16", CUDA))
    translator = PlaneTranslator(transfers_for(CUDA), PlaneTarget(form, (1920, 1080), (640, 360)))
    with torch.inference_mode():
        there = translator._uploaded([frame])
        rgb = planes_to_rgb(there, form, 360, 640)
        images, crop = rgb_to_images(rgb, model.card)
        results = engine(images)
        back = rgb_to_planes(images_to_rgb(results, crop), form, 1080, 1920)
        times = {
            "pack and upload": best_seconds(lambda: translator._uploaded([frame]), CUDA),
            "planes to RGB 640x360": best_seconds(lambda: planes_to_rgb(there, form, 360, 640), CUDA),
            "planes to RGB 1920x1080": best_seconds(lambda: planes_to_rgb(there, form, 1080, 1920), CUDA),
            "network (eager fp16)": best_seconds(lambda: engine(images), CUDA),
            "RGB 640x360 to planes": best_seconds(
                lambda: rgb_to_planes(images_to_rgb(results, crop), form, 1080, 1920), CUDA
            ),
            "download": best_seconds(lambda: translator.transfers.download(back).wait(), CUDA),
        }
    engine.close()
    return {name: round(1000 * seconds, 3) for name, seconds in times.items()}


def videos(folder: Path) -> dict[str, Any]:
    """photo2monet end to end: by both ways, decoders and encoders as far as there are any, two sizes."""
    from cgconvert.media.video.cuda import why_not_decoding
    from cgconvert.media.video.probe import probe

    source = write_clip(folder / "video.mp4", FRAMES, 1080, 1920)
    fast = VideoOptions(codec="h264", preset="ultrafast", overwrite=True)
    engine = EngineOptions("cuda")
    asked: dict[str, tuple[VideoOptions, bool]] = {
        "rgb": (replace(fast, decoder="cpu"), False),
        "planes, decoded on the processor": (replace(fast, decoder="cpu"), True),
        "planes, decoded on the card": (replace(fast, decoder="nvdec"), True),
        "planes, card to card": (VideoOptions(codec="h264_nvenc", overwrite=True), True),
        "planes, network at 1920x1080": (replace(fast, work_size="1920x1080"), True),
    }
    rows: dict[str, Any] = {"why not NVDEC": why_not_decoding(source, probe(source), 0)}
    for name, (options, as_planes) in asked.items():
        try:
            rows[name] = run(source, folder / "out.mp4", "photo2monet", options, engine, as_planes)
        except Exception as error:  # what this card does not have is no failure; it is told
            rows[name] = {"problem": f"{type(error).__name__}: {str(error)[:300]}"}
    needed = ("rgb", "planes, decoded on the processor")
    whole = [rows[name].get("frames") == [FRAMES, FRAMES] for name in needed]
    return {"rows": rows, "passed": all(whole)}
