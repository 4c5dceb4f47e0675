"""Every path that needs an NVIDIA GPU, checked and measured by one command, without the network.

`python benchmarks/gpu/job.py [--output FILE] [--minutes 8]` runs section after section, each on its own: one
that fails is recorded with its error and the next goes on; none starts after the minutes are over. It needs
torch with CUDA, numpy, OpenCV and this checkout (nothing has to be installed: it adds the checkout to the
path); torch-tensorrt and PyAV are used where they are there. Exit code 0 if every section passed.

With `--train RUN [--train-minutes 5] [--keep FOLDER]` it then begins or resumes the training in that run's
folder and leaves its checkpoint and report in FOLDER; `--sections none` does that alone.

Sections: machine; contract (every engine and precision: sizes, batches, close and reopen, PSNR to eager
float32); speed (ResNet-9 ngf 64 and H2 at 256, 720p and 1080p, share of the measured limit, ratio to eager
float32); norms (forms of instance norm); graphs (with and without CUDA graphs at batch 1); wide (the last
convolution as it is and widened); memory (short memory halves the batch and loses nothing); conversions
(pixels to images and back); hardware (NVDEC and NVENC through PyAV); planes (videos whose frames go to the
card as YUV planes: equal to the way by RGB, each step, whole videos); training (a CycleGAN step against the
published one).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.gpu.training import go_on, section_training
from benchmarks.gpu.video import section_planes
from cgconvert.card import ModelCard
from cgconvert.doctor.limits import best_seconds, count_macs, measure_limits, synchronise
from cgconvert.doctor.measure import example_pixels, measure
from cgconvert.engines.batches import choose_batch, convert_resilient, free_memory
from cgconvert.engines.choose import ENGINES, Candidate, build, engine_class
from cgconvert.engines.eager import EagerEngine
from cgconvert.engines.fuse import operate
from cgconvert.engines.verify import BOUNDS_DB, verify
from cgconvert.generators import build_generator, size_rule
from cgconvert.models.loading import Model
from cgconvert.progress import Silent
from cgconvert.tensors.images import images_to_pixels, pixels_to_images

CUDA = torch.device("cuda", 0)
SIZES = {"256x256": (256, 256), "1280x720": (720, 1280), "1920x1080": (1080, 1920)}


def model(architecture: str, **arguments: Any) -> Model:
    """A model with random weights; they do not change the speed."""
    torch.manual_seed(0)
    generator = build_generator(architecture, arguments).eval().requires_grad_(False)
    multiple, minimum = size_rule(architecture, arguments)
    card = ModelCard(architecture, architecture, arguments, size_multiple=multiple, size_minimum=minimum)
    return Model(card, generator)


def candidates() -> list[Candidate]:
    """Every engine and precision that says it can run on the card."""
    found = []
    for name in ENGINES:
        kind = engine_class(name)
        for precision in kind.precisions(CUDA):
            if kind.why_not(CUDA, precision) is None:
                found.append(Candidate(name, precision, CUDA))
    return found


def section_machine() -> dict[str, Any]:
    limits = measure_limits(CUDA, ("fp32", "fp16", "bf16"))
    kinds = {f"{name} {p}": engine_class(name).why_not(CUDA, p) for name in ENGINES for p in BOUNDS_DB}
    return {
        "card": torch.cuda.get_device_name(CUDA),
        "capability": torch.cuda.get_device_capability(CUDA),
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
        "free_bytes": free_memory(CUDA),
        "convolution_tflops": {name: 2 * rate / 1e12 for name, rate in limits.macs.items()},
        "copy_gb_per_second": limits.copy_bytes / 1e9,
        "why_not": kinds,
    }


def section_contract() -> dict[str, Any]:
    """Any size, any batch, the last partial batch, two sizes in turn, close and reopen."""
    rows = {}
    tiny = model("resnet", ngf=16, blocks=2)
    for candidate in candidates():
        started = time.perf_counter()
        try:
            rows[str(candidate)] = _contract(tiny, candidate)
        except Exception as error:
            rows[str(candidate)] = {"problem": f"{type(error).__name__}: {str(error)[:500]}"}
        rows[str(candidate)]["seconds"] = round(time.perf_counter() - started, 1)
    problems = [name for name, row in rows.items() if row.get("problem")]
    return {"rows": rows, "passed": not problems, "failed": problems}


def _contract(tiny: Model, candidate: Candidate) -> dict[str, Any]:
    lowest, first = float("inf"), None
    for _ in range(2):
        engine = build(tiny, candidate)
        engine.batch = 3
        engine.prepare(64, 96, 3)
        for count, height, width in [(3, 64, 96), (1, 64, 96), (2, 64, 96), (2, 96, 64), (5, 61, 93)]:
            result = verify(engine, example_pixels(count, height, width))
            if not result.passed:
                return {"problem": f"{count}x{width}x{height}: {result.describe()}"}
            lowest = min(lowest, result.psnr_db)
        pixels = convert_resilient(engine, example_pixels(7, 61, 93))
        told = engine.describe()
        engine.close()
        if first is not None and not np.array_equal(first, pixels):
            return {
                "problem": f"reopened it gives other pixels, by {np.abs(first.astype(int) - pixels).max()}"
            }
        first = pixels
    return {"psnr_db": None if lowest == float("inf") else round(lowest, 1), "told": told}


def section_speed() -> dict[str, Any]:
    """Pictures a second on the card; ResNet-9 at 1080p compiled against eager float32 is what counts."""
    limits = measure_limits(CUDA, ("fp32", "fp16", "bf16"))
    rows = []
    for name, network in (("resnet9-ngf64", model("resnet")), ("h2-24-64-6", model("h2"))):
        for size, edges in SIZES.items():
            for candidate in candidates():
                for batch in (1, 4) if size == "256x256" else (1,):
                    row = measure(network, candidate, edges, batch, limits, Silent(), 1.0).to_dict()
                    rows.append({"model": name, **row})
                    print(f"  {name} {size} {candidate}: {row['network']} {row['problem'] or ''}", flush=True)
    eager, fast = (
        [r for r in rows if r["model"] == "resnet9-ngf64" and r["height"] == 1080 and r["precision"] == p]
        for p in ("fp32", "fp16")
    )
    base = next((r["network"] for r in eager if r["engine"] == "eager"), None)
    ratios = {r["engine"]: r["network"] / base for r in fast if base and r["network"]}
    return {"rows": rows, "resnet9_1080p_fp16_over_eager_fp32": ratios}


def section_norms() -> dict[str, Any]:
    """Milliseconds of an instance norm of 256 channels at 270x480 in half precision, by form."""
    x = torch.randn(1, 256, 270, 480, device=CUDA, dtype=torch.float16)
    x = x.contiguous(memory_format=torch.channels_last)

    def explicit(x: torch.Tensor) -> torch.Tensor:
        variance, mean = torch.var_mean(x.float(), dim=(2, 3), keepdim=True, correction=0)
        scale = torch.rsqrt(variance + 1e-5)
        return F.relu(torch.addcmul(-mean * scale, x.float(), scale).to(x.dtype))

    forms = {
        "library instance norm, relu": lambda: F.relu(F.instance_norm(x)),
        "group norm, relu": lambda: F.relu(F.group_norm(x, x.shape[1])),
        "explicit float32, relu, eager": lambda: explicit(x),
    }
    compiled = torch.compile(explicit, dynamic=False)
    forms["explicit float32, relu, compiled"] = lambda: compiled(x)
    with torch.inference_mode():
        times = {name: 1000 * best_seconds(work, CUDA) for name, work in forms.items()}
    return {"milliseconds": times, "bytes_read_and_written": 2 * x.nbytes}


def section_graphs() -> dict[str, Any]:
    """Batch 1 at 256x256, where launches cost as much as arithmetic: eager, compiled, compiled as a graph."""
    from cgconvert.engines import shaped

    network = model("h2")
    images = torch.rand(1, 3, 256, 256, device=CUDA) * 2 - 1
    times = {}
    true_record = shaped.record_graph
    for name, record in (("compiled", lambda run, example: run), ("compiled as a graph", true_record)):
        shaped.record_graph = record  # type: ignore[assignment]
        try:
            engine = build(network, Candidate("compile", "fp16", CUDA))
            engine.prepare(256, 256, 1)
            times[name] = 1000 * best_seconds(lambda e=engine: e(images), CUDA, 30)  # type: ignore[misc]
            engine.close()
        finally:
            shaped.record_graph = true_record
    eager = EagerEngine(network, CUDA, "fp16")
    times["eager"] = 1000 * best_seconds(lambda: eager(images), CUDA, 30)
    return {"milliseconds": times}


def section_wide() -> dict[str, Any]:
    """Whether the last 7x7 convolution to RGB is faster in four phases on this card too; eager fp16, 720p."""
    network = model("resnet")
    x = torch.randn(1, 64, 726, 1286, device=CUDA, dtype=torch.float16)
    x = x.contiguous(memory_format=torch.channels_last)
    times = {}
    for name, generator in (("as it is", network.generator), ("widened", operate(network.generator))):
        layer = next(iter(generator.children()))[-2].to(CUDA, torch.float16)  # type: ignore[index]
        layer = layer.to(memory_format=torch.channels_last)
        with torch.inference_mode():
            times[name] = 1000 * best_seconds(lambda run=layer: run(x), CUDA)  # type: ignore[misc]
    return {"milliseconds": times}


def section_memory() -> dict[str, Any]:
    """With most of the card taken, a batch that does not fit is halved and every picture comes back."""
    network = model("resnet")
    engine = EagerEngine(network, CUDA, "fp16")
    chosen = {size: choose_batch(engine, *edges) for size, edges in SIZES.items()}
    pixels = example_pixels(16, 720, 1280)
    engine.batch = 1
    wanted = convert_resilient(engine, pixels)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    engine.convert(pixels[:1])
    one = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    filler = torch.empty(max(0, torch.cuda.mem_get_info(CUDA)[0] - 4 * one), dtype=torch.uint8, device=CUDA)
    try:
        engine.batch = 16
        got = convert_resilient(engine, pixels)
    finally:
        del filler
        torch.cuda.empty_cache()
    difference = int(np.abs(got.astype(int) - wanted).max())
    told = {"chosen": chosen, "bytes_of_one": one, "batch_after": engine.batch, "notes": engine.notes}
    return {**told, "largest_difference": difference, "passed": engine.batch < 16 and difference <= 2}


def section_conversions() -> dict[str, Any]:
    """Milliseconds for 1080p from pixels in host memory to images on the card, and back."""
    card = model("h2").card
    pixels = example_pixels(1, 1080, 1920)
    with torch.inference_mode():
        images, crop = pixels_to_images(pixels, card, CUDA)
        there = best_seconds(lambda: pixels_to_images(pixels, card, CUDA), CUDA)
        back = best_seconds(lambda: images_to_pixels(images, crop, np.uint8), CUDA)
    return {"milliseconds": {"pixels to images": 1000 * there, "images to pixels": 1000 * back}}


def section_hardware() -> dict[str, Any]:
    """NVENC and NVDEC: a clip encoded and decoded on the card where driver and card have them."""
    import av

    from cgconvert.media.video.cuda import card_access
    from cgconvert.tensors.transfers import own_device

    told: dict[str, Any] = {"pyav": av.__version__}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        for encoder in ("h264_nvenc", "libx264"):
            try:
                with av.open(str(path), "w") as container:
                    stream = container.add_stream(encoder, rate=25)
                    stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
                    for picture in example_pixels(10, 720, 1280):
                        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
                    container.mux(stream.encode(None))
                told[encoder] = "works"
            except Exception as error:
                told[encoder] = str(error)[:300]
        try:
            own_device(CUDA)
            with av.open(str(path), hwaccel=card_access(0)) as container:
                frames = list(container.decode(video=0))
            planes = [torch.utils.dlpack.from_dlpack(plane.__dlpack__()) for plane in frames[0].planes]
            told["nvdec"] = {
                "frames": len(frames),
                "shapes": [list(plane.shape) for plane in planes],
                "device": str(planes[0].device),
            }
        except Exception as error:
            told["nvdec"] = str(error)[:300]
    return told


SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "machine": section_machine,
    "contract": section_contract,
    "graphs": section_graphs,
    "norms": section_norms,
    "wide": section_wide,
    "memory": section_memory,
    "conversions": section_conversions,
    "hardware": section_hardware,
    "planes": section_planes,
    "speed": section_speed,
    "training": section_training,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results" / "gpu.json")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--sections", default=",".join(SECTIONS), help="some of them, or none")
    parser.add_argument("--train", type=Path, metavar="RUN", help="a run's folder: begin or go on with it")
    parser.add_argument("--train-minutes", type=float, default=5.0)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for its files; default: beside --output")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device: this job is for a machine that has one", file=sys.stderr)
        return 2
    os.environ.setdefault("CGCONVERT_HOME", tempfile.mkdtemp(prefix="cgconvert-gpu-job-"))
    finish = time.monotonic() + 60 * arguments.minutes
    results: dict[str, Any] = {}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    jobs = {name: SECTIONS[name] for name in arguments.sections.split(",") if name != "none"}
    if arguments.train:
        keep = arguments.keep or arguments.output.with_suffix("")
        jobs["train"] = partial(go_on, arguments.train.resolve(), arguments.train_minutes, keep)
    for name, job in jobs.items():
        if time.monotonic() > finish and name != "train":
            results[name] = {"skipped": "out of time", "passed": False}
            continue
        started = time.perf_counter()
        print(f"{name} ...", flush=True)
        try:
            results[name] = {"passed": True, **job()}
        except Exception as error:
            results[name] = {"passed": False, "error": str(error)[:500], "traceback": traceback.format_exc()}
        synchronise(CUDA)
        results[name]["seconds"] = round(time.perf_counter() - started, 1)
        print(f"{name}: {'passed' if results[name]['passed'] else 'FAILED'}", flush=True)
        arguments.output.write_text(json.dumps(results, indent=2, default=str) + "\n")
    macs = count_macs(model("resnet").generator, 3, 1080, 1920)
    results["macs_resnet9_1080p"] = macs
    arguments.output.write_text(json.dumps(results, indent=2, default=str) + "\n")
    return 0 if all(results[name]["passed"] for name in jobs) else 1


if __name__ == "__main__":
    sys.exit(main())
