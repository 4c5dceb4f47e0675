"""Tasks of the GPU job about the card, the engines and their speed."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.common import machine as host
from benchmarks.gpu.scale import Bench, Rows, UnavailableHere, home
from cgconvert.doctor.limits import best_seconds, count_macs, measure_limits
from cgconvert.doctor.measure import example_pixels, measure
from cgconvert.engines.batches import choose_batch, free_memory
from cgconvert.engines.choose import Candidate, build, engine_class
from cgconvert.engines.eager import EagerEngine
from cgconvert.engines.fastest import MARGIN, WORTH_MEASURING
from cgconvert.engines.fuse import operate
from cgconvert.engines.job import EngineJob
from cgconvert.engines.on_card import forms_of, measured_forms, with_shifted_sums
from cgconvert.engines.pixels import convert_pixels
from cgconvert.engines.ready import create_job
from cgconvert.engines.toolkit import cuda_home, why_not_ahead
from cgconvert.engines.verify import verify
from cgconvert.options import ENGINES, EngineOptions
from cgconvert.progress import Silent
from cgconvert.tensors.images import images_to_pixels, pixels_to_images


def machine(bench: Bench, what: str) -> Rows:
    """The card, which engines say that they run on it, and the rates of its arithmetic and memory."""
    device = bench.device
    about: dict[str, Any] = {"torch": torch.__version__, "python": platform.python_version()}
    if device.type == "cuda":
        about["card"] = torch.cuda.get_device_name(device)
        about["capability"] = torch.cuda.get_device_capability(device)
        about["cudnn"] = torch.backends.cudnn.version()
    about["free_bytes"] = free_memory(device)
    yield "card", about
    yield "host", host()
    reasons = {
        f"{name} {precision}": engine_class(name).why_not(device, precision)
        for name in ENGINES
        for precision in engine_class(name).precisions(device)
    }
    # int8 is calibrated on the pictures of a job, which there are none of here.
    candidates = [name for name, why in reasons.items() if why is None and not name.endswith("int8")]
    yield "engines", {"why_not": reasons, "candidates": candidates}
    yield "compile", {"toolkit": str(cuda_home()), "why_not_ahead_of_time": why_not_ahead()}
    limits = measure_limits(device, engine_class("eager").precisions(device))
    yield "limits", {"macs": limits.macs, "copy_bytes": limits.copy_bytes}


def contract(bench: Bench, what: str) -> Rows:
    """Any size, any batch, the last partial batch, sizes in turn, opened again: equal to float32."""
    engine_name, precision = what.split()
    model = bench.model("contract")
    first: np.ndarray | None = None
    for opened in ("built", "opened again"):
        started = time.perf_counter()
        engine = build(model, Candidate(engine_name, precision, bench.device))
        job = EngineJob(engine, 3)
        engine.prepare(64, 96, 3)
        yield f"{opened}, prepared", {"seconds": round(time.perf_counter() - started, 2)}
        # The last size is the third: what is built one by one is for two, and for all others once.
        sizes = [(3, 64, 96), (1, 64, 96), (2, 64, 96), (2, 96, 64), (5, 61, 93), (2, 72, 80)]
        for count, height, width in sizes:
            found = verify(engine, example_pixels(count, height, width))
            yield f"{opened}, {count}x{width}x{height}", {"passed": found.passed, **found.to_dict()}
        pixels = convert_pixels(job, example_pixels(7, 61, 93))
        told = job.describe()
        job.close()
        first = pixels if first is None else first
        gap = int(np.abs(first.astype(int) - pixels).max())
        yield f"{opened}, same pixels", {"largest_difference": gap, "passed": gap == 0, "engine": told}


def speed(bench: Bench, what: str) -> Rows:
    """Pictures a second of a network and engine: `what` is like "resnet9-ngf64 1080p compile fp16"."""
    network, size, engine_name, precision = what.split()
    limits = bench.limits or measure_limits(bench.device, (precision,))
    for batch in (1, 4) if size == "256" else (1,):
        row = measure(
            bench.model(network),
            Candidate(engine_name, precision, bench.device),
            bench.sizes[size],
            batch,
            limits,
            Silent(),
            2 * bench.seconds,
        )
        yield f"batch {batch}", {**row.to_dict(), "passed": row.problem is None}


def auto(bench: Bench, what: str) -> Rows:
    """Which engine `auto` takes of those that have been built for a size, and what it has measured."""
    model, (height, width) = bench.model("h2-24-64-6"), bench.sizes["256"]
    precision = "fp32" if bench.small else "fp16"
    rivals = [n for n in ENGINES if engine_class(n).why_not(bench.device, precision) is None]
    for name in [n for n in rivals if engine_class(n).builds] if not bench.small else []:
        engine = build(model, Candidate(name, precision, bench.device))
        engine.prepare(height, width, 4)
        engine.close()
        yield f"{name} built", {}
    options = EngineOptions(str(bench.device), precision=precision, batch=4)
    pixels = example_pixels(4, height, width)
    job = create_job(model, options, pixels, pixels=WORTH_MEASURING)
    told = job.describe()
    job.close()
    rates = told.get("measured_pictures_per_second", {})
    # With one engine alone there is nothing to choose.
    good = not rates or MARGIN * rates[told["engine"]] >= max(rates.values())
    yield "auto", {"rates": rates, "engine": told["engine"], "notes": told["notes"], "passed": good}


def norms(bench: Bench, what: str) -> Rows:
    """Milliseconds of an instance norm of 256 channels at 270x480 in half precision, by form."""
    height, width = (27, 48) if bench.small else (270, 480)
    x = torch.randn(1, 256, height, width, device=bench.device, dtype=torch.float16)
    x = x.contiguous(memory_format=torch.channels_last)

    def explicit(x: torch.Tensor) -> torch.Tensor:
        variance, mean = torch.var_mean(x.float(), dim=(2, 3), keepdim=True, correction=0)
        scale = torch.rsqrt(variance + 1e-5)
        return F.relu(torch.addcmul(-mean * scale, x.float(), scale).to(x.dtype))

    forms: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "library instance norm, relu": lambda x: F.relu(F.instance_norm(x)),
        "group norm, relu": lambda x: F.relu(F.group_norm(x, x.shape[1])),
        "explicit float32, relu, eager": explicit,
        "explicit float32, relu, compiled": torch.compile(explicit, dynamic=False),
    }
    for name, form in forms.items():
        with torch.inference_mode():
            seconds = best_seconds(lambda form=form: form(x), bench.device)  # type: ignore[misc]
        yield name, {"milliseconds": 1000 * seconds, "bytes_read_and_written": 2 * x.nbytes}


def graphs(bench: Bench, what: str) -> Rows:
    """Batch 1 of the smallest size, where launches cost as much as arithmetic: with a CUDA graph or not."""
    if bench.device.type != "cuda":
        raise UnavailableHere("CUDA graphs need a GPU")
    model, (height, width) = bench.model("h2-24-64-6"), bench.sizes["256"]
    images = torch.rand(1, 3, height, width, device=bench.device) * 2 - 1
    for name, recorded in (("compiled", False), ("compiled, as a graph", True)):
        with ExitStack() as stack:
            if not recorded:
                stack.enter_context(
                    patch("cgconvert.engines.shaped.record_graph", lambda run, *examples: run)
                )
            engine = build(model, Candidate("compile", "fp16", bench.device))
            engine.prepare(height, width, 1)
            seconds = best_seconds(lambda engine=engine: engine(images), bench.device, 30)  # type: ignore[misc]
            engine.close()
        yield name, {"milliseconds": 1000 * seconds}
    eager = EagerEngine(model, bench.device, "fp16")
    yield "eager", {"milliseconds": 1000 * best_seconds(lambda: eager(images), bench.device, 30)}


def wide(bench: Bench, what: str) -> Rows:
    """Whether the last 7x7 convolution to RGB is faster in four phases on this card; eager fp16, 720p."""
    model = bench.model("resnet9-ngf64")
    channels = model.card.arguments.get("ngf", 64)
    height, width = bench.sizes["720p"]
    x = torch.randn(1, channels, height + 6, width + 6, device=bench.device, dtype=torch.float16)
    x = x.contiguous(memory_format=torch.channels_last)
    for name, generator in (("as it is", model.generator), ("in four phases", operate(model.generator))):
        layer = next(iter(generator.children()))[-2].to(bench.device, torch.float16)  # type: ignore[index]
        layer = layer.to(memory_format=torch.channels_last)
        with torch.inference_mode():
            seconds = best_seconds(lambda layer=layer: layer(x), bench.device)  # type: ignore[misc]
        yield name, {"milliseconds": 1000 * seconds}


def forms(bench: Bench, what: str) -> Rows:
    """Milliseconds of the layers of ResNet-9 that can take other forms, by form; half precision, 720p."""
    network = operate(bench.model("resnet9-ngf64").generator).to(bench.device, torch.float16)
    network = network.to(memory_format=torch.channels_last)
    height, width = bench.sizes["720p"]
    x = torch.randn(1, 3, height, width, device=bench.device, dtype=torch.float16)
    x = x.contiguous(memory_format=torch.channels_last)
    times: list[float] = []

    def seconds(work: Callable[[], object]) -> float:
        times.append(best_seconds(work, bench.device))
        return times[-1]

    with torch.inference_mode():
        chosen = measured_forms(network, x, seconds)
    for name, layer in network.named_modules():
        if found := forms_of(layer):
            named = {form: round(1000 * times.pop(0), 4) for form in ("as it is", *found)}
            yield name, {"milliseconds": named, "taken": chosen.get(name, "as it is")}


def filters(bench: Bench, what: str) -> Rows:
    """Milliseconds of the fixed filters of H2 at 1080p in half precision: convolutions, and shifted sums."""
    height, width = bench.sizes["1080p"]
    cases = {"up_blur": (24, height // 2, width // 2), "blur": (3, height, width)}
    network = bench.model("h2-24-64-6").generator
    summed = with_shifted_sums(network)
    for name, shape in cases.items():
        channels = shape[0] if name == "blur" else network.get_submodule("up").out_channels
        x = torch.randn(1, channels, *shape[1:], device=bench.device, dtype=torch.float16)
        x = x.contiguous(memory_format=torch.channels_last)
        for form, owner in (("convolution", network), ("shifted sums", summed)):
            layer = owner.get_submodule(name).to(bench.device, torch.float16)
            compiled = torch.compile(layer, dynamic=False)
            with torch.inference_mode():
                seconds = best_seconds(lambda run=compiled, x=x: run(x), bench.device)  # type: ignore[misc]
            yield f"{name}, {form}", {"milliseconds": 1000 * seconds}


def memory(bench: Bench, what: str) -> Rows:
    """With most of the card taken, a batch that does not fit is halved and every picture comes back."""
    if bench.device.type != "cuda":
        raise UnavailableHere("a card that is nearly full needs a GPU")
    engine = EagerEngine(bench.model("resnet9-ngf64"), bench.device, "fp16")
    job = EngineJob(engine)
    yield "chosen", {size: choose_batch(job, *edges) for size, edges in bench.sizes.items()}
    pixels = example_pixels(16, *bench.sizes["720p"])
    wanted = convert_pixels(job, pixels)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    convert_pixels(job, pixels[:1])
    one = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(bench.device)
    filler = torch.empty(max(0, free - 4 * one), dtype=torch.uint8, device=bench.device)
    job.batch = 16
    got = convert_pixels(job, pixels)
    del filler
    gap = int(np.abs(got.astype(int) - wanted).max())
    told = {"bytes_of_one": one, "batch_after": job.batch, "notes": job.notes}
    yield "halved", {**told, "largest_difference": gap, "passed": job.batch < 16 and gap <= 2}


def conversions(bench: Bench, what: str) -> Rows:
    """Milliseconds from pixels in host memory to images on the card at 1080p, and back."""
    card = bench.model("h2-24-64-6").card
    pixels = example_pixels(1, *bench.sizes["1080p"])
    with torch.inference_mode():
        images, crop = pixels_to_images(pixels, card, bench.device)
        there = best_seconds(lambda: pixels_to_images(pixels, card, bench.device), bench.device)
        yield "pixels to images", {"milliseconds": 1000 * there}
        back = best_seconds(lambda: images_to_pixels(images, crop, np.uint8), bench.device)
        yield "images to pixels", {"milliseconds": 1000 * back}


def hardware(bench: Bench, what: str) -> Rows:
    """Which encoders and decoders of the card PyAV opens: no failure where the card has none."""
    try:
        import av

        from benchmarks.gpu.video import write_clip
        from cgconvert.media.video.cuda import card_access
        from cgconvert.tensors.transfers import own_device
    except ImportError as error:
        raise UnavailableHere(f"{error}: lay PyAV's wheel into wheels/") from None
    path: Path | None = None
    for encoder in ("libx264", "h264_nvenc", "hevc_nvenc", "av1_nvenc"):
        try:
            path = write_clip(home() / f"{encoder}.mp4", 10, *bench.sizes["720p"], encoder=encoder)
            yield encoder, {"problem": None}
        except Exception as error:
            yield encoder, {"problem": str(error)[:300]}
    if bench.device.type == "cuda" and path is not None:
        own_device(bench.device)
        try:
            with av.open(str(path), hwaccel=card_access(0)) as container:
                frames = list(container.decode(video=0))
            planes = [torch.utils.dlpack.from_dlpack(plane.__dlpack__()) for plane in frames[0].planes]
            shapes, where = [list(plane.shape) for plane in planes], str(planes[0].device)
            yield "nvdec", {"problem": None, "frames": len(frames), "shapes": shapes, "device": where}
        except Exception as error:
            yield "nvdec", {"problem": str(error)[:300]}
    macs = count_macs(bench.model("resnet9-ngf64").generator, 3, *bench.sizes["1080p"])
    yield "ResNet-9 at 1080p", {"multiply_adds": macs}


SECTIONS: dict[str, Callable[[Bench, str], Rows]] = {
    "machine": machine,
    "contract": contract,
    "speed": speed,
    "auto": auto,
    "norms": norms,
    "graphs": graphs,
    "wide": wide,
    "forms": forms,
    "filters": filters,
    "memory": memory,
    "conversions": conversions,
    "hardware": hardware,
}
