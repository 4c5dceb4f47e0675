"""Tries each engine on a tiny network and picture, and finds out why some do not work."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from cgconvert.card import ModelCard
from cgconvert.doctor.measure import example_pixels
from cgconvert.engines.batches import free_memory
from cgconvert.engines.choose import (
    GPU_PRECISIONS,
    Candidate,
    build,
    engine_class,
    intel_gpu,
)
from cgconvert.engines.keys import cpu_name, device_name, driver_versions
from cgconvert.engines.verify import verify
from cgconvert.errors import CgconvertError, first_line
from cgconvert.generators import build_generator, size_rule
from cgconvert.host.cpu import has_bf16
from cgconvert.host.packages import package_version
from cgconvert.models.loading import Model
from cgconvert.options import ENGINES

EDGE = 64
LIBRARIES = (
    "cgconvert",
    "torch",
    "openvino",
    "nncf",
    "torch-tensorrt",
    "av",
    "opencv-python-headless",
    "numpy",
)

REMEDIES = {
    "eager": "pip install --force-reinstall --no-deps torch",
    "compile": "install g++ anew, or pip install --force-reinstall --no-deps torch",
    "tensorrt": "pip install --force-reinstall 'cgconvert[tensorrt]'",
    "openvino": "pip install --force-reinstall 'cgconvert[openvino]'",
}
"""What to try if an engine is installed but fails."""


@dataclass(frozen=True)
class Trial:
    """One trial: its kind and name, whether it works, and how well or why not."""

    kind: str
    name: str
    works: bool
    detail: str
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def tiny_model() -> Model:
    """Return a generator of a few thousand random weights, which are the same each time."""
    arguments = {"half_channels": 8, "channels": 16, "blocks": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = build_generator("h2", arguments).eval().requires_grad_(False)
    multiple, minimum = size_rule("h2", arguments)
    card = ModelCard("tiny", "h2", arguments, size_multiple=multiple, size_minimum=minimum)
    return Model(card, generator)


def describe_machine() -> dict[str, Any]:
    """Describe processor, memory, cards, drivers and the versions of libraries."""
    cards = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = torch.device("cuda", index)
        total = torch.cuda.get_device_properties(device).total_memory
        cards.append(
            {
                "name": device_name(device),
                "memory_bytes": total,
                "free_bytes": free_memory(device),
                **driver_versions(device),
            }
        )
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "free_memory_bytes": free_memory(torch.device("cpu")),
        "bf16_in_hardware": has_bf16(),
        "cards": cards,
        "no_cards_because": None if cards else why_no_cards(),
        "versions": {name: package_version(name) for name in LIBRARIES},
    }


def why_no_cards() -> str:
    """Say why torch sees no CUDA device, and what would change that."""
    if torch.version.cuda is None:
        return (
            "this torch is built without CUDA; with an NVIDIA card, install a CUDA build of torch "
            "(https://pytorch.org/get-started/locally)"
        )
    return f"torch is built for CUDA {torch.version.cuda} but sees no card: look at nvidia-smi and the driver"


def try_engines() -> Iterator[Trial]:
    """Run and compare every engine in every precision on the CPU and on the first card of each make."""
    devices = [torch.device("cpu")]
    if torch.cuda.is_available():
        devices.append(torch.device("cuda", 0))
    if torch.backends.mps.is_available():
        devices.append(torch.device("mps"))
    if torch.xpu.is_available():
        devices.append(torch.device("xpu", 0))
    for device in devices:
        for name in ENGINES:
            yield from _try_engine(name, device)
    yield from _try_intel_gpu()


def _try_intel_gpu() -> Iterator[Trial]:
    """Try OpenVINO on an Intel GPU, if it sees one."""
    host = torch.device("cpu")
    try:
        plugin = intel_gpu()
    except Exception as error:  # it may raise anything, as in `_run`
        yield Trial(
            "engine", "openvino on gpu", False, _told(error, Candidate("openvino", "fp16", host, "GPU"))
        )
        return
    for precision in GPU_PRECISIONS if plugin else ():
        yield _run(Candidate("openvino", precision, host, plugin or ""))


def _try_engine(name: str, device: torch.device) -> Iterator[Trial]:
    """Try each precision of an engine, or say once that it does not run on this kind of device."""
    kind = engine_class(name)
    precisions = kind.precisions(device)
    if not precisions:
        yield Trial("engine", f"{name} on {device}", False, kind.why_not(device, "fp32") or "")
    for precision in precisions:
        candidate, reason = Candidate(name, precision, device), kind.why_not(device, precision)
        yield Trial("engine", str(candidate), False, reason) if reason else _run(candidate)


def _run(candidate: Candidate) -> Trial:
    started = time.perf_counter()
    try:
        engine = build(tiny_model(), candidate, list(example_pixels(4, EDGE, EDGE)))
        try:
            pixels = example_pixels(2, EDGE, EDGE)
            engine.prepare(EDGE, EDGE, 2)
            result = verify(engine, pixels)
        finally:
            engine.close()
    except Exception as error:  # a broken driver or library may raise anything
        return Trial("engine", str(candidate), False, _told(error, candidate), time.perf_counter() - started)
    detail = result.describe() if result.passed else f"{result.describe()}; {remedy(candidate)}"
    return Trial("engine", str(candidate), result.passed, detail, time.perf_counter() - started)


def _told(error: Exception, candidate: Candidate) -> str:
    """Return an error in one line with a remedy, which our own errors already have."""
    text = first_line(error, 300)
    return text if isinstance(error, CgconvertError) else f"{text}; {remedy(candidate)}"


def remedy(candidate: Candidate) -> str:
    """Say what may repair an engine that fails here, and what works without it."""
    command = REMEDIES[candidate.engine]
    if candidate.device.type == "cuda":
        command = f"look at nvidia-smi and the driver, or {command}"
    elif candidate.plugin:
        command = f"look at Intel's compute driver, or {command}"
    if candidate.engine != "eager":
        return f'{command}; without it: `engine="eager"`'
    return command if candidate.device.type == "cpu" else f'{command}; without it: `device="cpu"`'
