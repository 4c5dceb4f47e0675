"""Tasks of the GPU job about videos: the ways that frames take are equal, and how fast each is."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.common import busy_seconds
from benchmarks.gpu.scale import Bench, Rows, UnavailableHere, home
from cgconvert.doctor.limits import best_seconds
from cgconvert.doctor.measure import example_pixels
from cgconvert.engines.choose import Candidate, build
from cgconvert.engines.whole import IN_ONE
from cgconvert.errors import UnavailableError
from cgconvert.models.catalog import find_model
from cgconvert.models.loading import load_model
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.progress import Silent
from cgconvert.tensors.images import images_to_rgb, rgb_to_images
from cgconvert.tensors.yuv import planes_to_rgb, rgb_to_planes
from cgconvert.video.report import VideoReport

BOUND = 3
"""Levels of 255 by which two ways may differ: both round, and the way by RGB rounds the RGB between too."""


def write_clip(
    path: Path, count: int, height: int, width: int, pixel_format: str = "yuv420p", encoder: str = "libx264"
) -> Path:
    """A clip of moving pictures, written once; few of them differ, so that it takes seconds."""
    import av

    if path.exists():
        return path
    beside = path.with_name(f".{os.getpid()}-{path.name}")
    options = {"preset": "ultrafast", "crf": "18"} if encoder == "libx264" else {}
    pictures = example_pixels(8, height, width)
    try:
        with av.open(str(beside), "w", format="mp4") as container:
            stream = container.add_stream(encoder, rate=25, options=options)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
            for number in range(count):
                picture = np.roll(pictures[number % 8], 4 * number, axis=1)
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def clip(bench: Bench, count: int, size: str, pixel_format: str = "yuv420p") -> Path:
    """A clip of the job in the folder that it keeps."""
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise UnavailableHere(f"{error}: lay PyAV's wheel into wheels/") from None
    height, width = bench.sizes[size]
    path = home() / f"{width}x{height}-{count}-{pixel_format}.mp4"
    return write_clip(path, count, height, width, pixel_format)


def run(
    source: Path, output: Path, model: str, options: VideoOptions, engine: EngineOptions, as_planes: bool
) -> VideoReport:
    """Convert a clip, its frames as YUV planes or as RGB."""
    from cgconvert.video.pipeline import run_video
    from cgconvert.video.plan import plan_video
    from cgconvert.video.route import choose_route

    plan = plan_video(source, output, model, options, engine)
    return run_video(choose_route(plan, plan.route.device, as_planes), Silent())


def stored(path: Path) -> tuple[list[int | None], list[np.ndarray]]:
    """The times and the planes of all frames of a clip."""
    import av

    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return [frame.pts for frame in frames], [frame.to_ndarray().astype(int) for frame in frames]


def equality(bench: Bench, pixel_format: str) -> Rows:
    """Identity in float32 by RGB, by planes, and by planes decoded on the card: the same video."""
    source = clip(bench, 30, "720p", pixel_format)
    bound = BOUND + 2 if pixel_format.endswith("10le") else BOUND
    engine = EngineOptions(str(bench.device), "eager", "fp32", 4)
    wanted: tuple[list[int | None], list[np.ndarray]] | None = None
    for way, decoder, as_planes in (
        ("rgb", "cpu", False),
        ("planes", "cpu", True),
        ("planes, decoder auto", "auto", True),
    ):
        output = home() / f"equality {pixel_format}.mkv"
        options = VideoOptions(codec="ffv1", decoder=decoder, overwrite=True)
        report = run(source, output, "identity", options, engine, as_planes)
        times, pictures = stored(output)
        output.unlink()
        wanted = wanted or (times, pictures)
        gap = max(int(np.abs(new - old).max()) for new, old in zip(pictures, wanted[1], strict=True))
        good = gap <= bound and times == wanted[0]
        yield way, {"largest_difference": gap, "bound": bound, "passed": good, "path": report.path}


def video(bench: Bench, way: str) -> Rows:
    """A 1080p video with photo2monet from file to file, by one of the ways that frames can take."""
    source = clip(bench, bench.frames, "1080p")
    fast = VideoOptions(codec="h264", preset="ultrafast", overwrite=True)
    height, width = bench.sizes["1080p"]
    ways: dict[str, tuple[VideoOptions, bool]] = {
        "rgb": (replace(fast, decoder="cpu"), False),
        "planes": (replace(fast, decoder="cpu"), True),
        "in-one": (fast, True),
        "nvdec": (replace(fast, decoder="nvdec"), True),
        "nvenc": (VideoOptions(codec="h264_nvenc", overwrite=True), True),
        "whole-frame": (replace(fast, work_size=f"{width}x{height}"), True),
    }
    options, as_planes = ways[way]
    if options.decoder == "nvdec" and bench.device.type != "cuda":
        raise UnavailableHere("NVDEC needs a GPU")
    # What goes from planes to planes in one is built for longer videos than this one.
    enough = 0 if way == "in-one" else 1 << 60
    engine = EngineOptions(str(bench.device))
    if bench.small and way == "in-one":
        raise UnavailableHere(
            "planes to planes in one is for a GPU; on a CPU tests/engines/test_whole.py does it"
        )
    try:
        output = home() / f"{way}.mp4"
        with patch("cgconvert.engines.whole.WORTH_BUILDING", enough):
            report = run(source, output, "photo2monet", options, engine, as_planes)
    except UnavailableError as error:
        raise UnavailableHere(str(error)) from None
    output.unlink()
    busy = busy_seconds(report.stage_seconds)
    figures = {key: asdict(report)[key] for key in ("busiest", "stage_seconds", "first_frame", "seconds")}
    yield (
        "video",
        {
            **figures,
            "frames": [report.frames_in, report.frames_out],
            "frames_per_second": round(report.frames_per_second, 2),
            "network_share": round(busy["translate"] / sum(busy.values()), 3),
            "work_size": report.work_size,
            "path": report.path,
            "engine": report.engine,
            "passed": report.frames_in == report.frames_out == bench.frames
            and (way != "in-one" or IN_ONE in report.engine["notes"]),
        },
    )


def steps(bench: Bench, what: str) -> Rows:
    """Milliseconds of each step of one 1080p frame through photo2monet, waited for one by one."""
    from cgconvert.media.video.planes import yuv_format
    from cgconvert.media.video.probe import probe

    source = clip(bench, 2, "1080p")
    form = yuv_format("yuv420p", probe(source))
    assert form is not None
    height, width = bench.sizes["1080p"]
    small = (height // 3 // 8 * 8, width // 3 // 8 * 8)
    random = np.random.default_rng(0)
    host = [
        torch.from_numpy(random.integers(16, 235, (1, *shape), np.uint8))
        for shape in form.shapes(height, width)
    ]
    if bench.device.type == "cuda":
        host = [plane.pin_memory() for plane in host]
    model = load_model(find_model("photo2monet"))
    engine = build(model, Candidate("eager", "fp32" if bench.small else "fp16", bench.device))

    def upload() -> list[torch.Tensor]:
        return [plane.to(bench.device, non_blocking=True) for plane in host]

    with torch.inference_mode():
        there = upload()
        images, crop = rgb_to_images(planes_to_rgb(there, form, *small), model.card)
        results = engine(images)
        back = rgb_to_planes(images_to_rgb(results, crop), form, height, width)
        work: dict[str, Callable[[], object]] = {
            "upload": upload,
            "planes to RGB, work size": lambda: planes_to_rgb(there, form, *small),
            "planes to RGB, whole frame": lambda: planes_to_rgb(there, form, height, width),
            "network, eager": lambda: engine(images),
            "RGB to planes": lambda: rgb_to_planes(images_to_rgb(results, crop), form, height, width),
            "download": lambda: [plane.cpu() for plane in back],
        }
        for name, one in work.items():
            yield name, {"milliseconds": round(1000 * best_seconds(one, bench.device), 3)}
    engine.close()
