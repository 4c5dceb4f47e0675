"""Engines tried on a tiny network and picture: what works on this machine, and why the rest does not."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from cgconvert.engines.batches import free_memory
from cgconvert.engines.choose import ENGINES, Candidate, build, cpu_has_bf16, engine_class
from cgconvert.engines.keys import cpu_name, device_name, driver_versions, package_version
from cgconvert.engines.measure import example_pixels
from cgconvert.engines.verify import verify
from cgconvert.generators import build_generator, size_rule
from cgconvert.models.card import ModelCard
from cgconvert.models.loading import Model
from cgconvert.progress import Silent

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


@dataclass(frozen=True)
class Trial:
    """One thing that was tried: what kind, its name, whether it works, and how well or why not."""

    kind: str
    name: str
    works: bool
    detail: str
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def tiny_model() -> Model:
    """A generator of a few thousand weights, random but the same each time."""
    arguments = {"half_channels": 8, "channels": 16, "blocks": 1}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = build_generator("h2", arguments).eval().requires_grad_(False)
    multiple, minimum = size_rule("h2", arguments)
    card = ModelCard("tiny", "h2", arguments, size_multiple=multiple, size_minimum=minimum)
    return Model(card, generator)


def describe_machine() -> dict[str, Any]:
    """Processor, memory, cards, drivers and the versions of what does the work."""
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
        "bf16_in_hardware": cpu_has_bf16(),
        "cards": cards,
        "no_cards_because": None if cards else why_no_cards(),
        "versions": {name: package_version(name) for name in LIBRARIES},
    }


def why_no_cards() -> str:
    """Why torch sees no CUDA device, with what would change it."""
    if torch.version.cuda is None:
        return (
            "this torch is built without CUDA; with an NVIDIA card, install a CUDA build of torch "
            "(https://pytorch.org/get-started/locally)"
        )
    return f"torch is built for CUDA {torch.version.cuda} but sees no card: look at nvidia-smi and the driver"


def try_engines() -> Iterator[Trial]:
    """Every engine in every precision on the CPU and on the first card, each built, run and compared."""
    devices = [torch.device("cpu")]
    if torch.cuda.is_available():
        devices.append(torch.device("cuda", 0))
    for device in devices:
        for name in ENGINES:
            yield from _try_engine(name, device)


def _try_engine(name: str, device: torch.device) -> Iterator[Trial]:
    """The precisions of one engine, or one line where it does not run on this kind of device at all."""
    kind = engine_class(name)
    precisions = kind.precisions(device)
    if not precisions:
        yield Trial("engine", f"{name} on {device}", False, kind.why_not(device, "fp32") or "")
    for precision in precisions:
        label, reason = f"{name} {precision} on {device}", kind.why_not(device, precision)
        yield Trial("engine", label, False, reason) if reason else _run(name, precision, device, label)


def _run(name: str, precision: str, device: torch.device, label: str) -> Trial:
    started = time.perf_counter()
    try:
        engine = build(tiny_model(), Candidate(name, precision, device))
        try:
            pixels = example_pixels(2, EDGE, EDGE)
            engine.calibrate(lambda count: list(example_pixels(4, EDGE, EDGE)), Silent())
            engine.prepare(EDGE, EDGE, 2)
            result = verify(engine, pixels)
        finally:
            engine.close()
    except Exception as error:  # a broken driver or library may raise anything; all of it is an answer
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return Trial("engine", label, False, lines[0][:300], time.perf_counter() - started)
    return Trial("engine", label, result.passed, result.describe(), time.perf_counter() - started)
