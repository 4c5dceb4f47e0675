"""What the benchmarks share: their options, models with random weights, and the files under results/."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgconvert.host.cpu import processor_name

if TYPE_CHECKING:
    from cgconvert.models.loading import Model

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("torch", "av", "opencv-python-headless", "numpy", "openvino", "onnxruntime", "torch-tensorrt")
RESNET = "resnet9-ngf64"
"""The generator of the CycleGAN paper, with random weights: they do not change the speed."""
NORMS = {
    f"h2-{norm}": {"half_channels": 24, "channels": 64, "blocks": 6, "norm": norm}
    for norm in ("instance", "none")
}
"""The generator of the shipped looks with and without instance norms, alike in all else; random weights."""


def option_parser(doc: str | None, name: str) -> argparse.ArgumentParser:
    """A parser whose help is the script's docstring, and whose file under results/ is `name` by default."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--name", help=f"write results/NAME.json instead of results/{name}.json")
    return parser


def random_model(name: str, architecture: str, **arguments: Any) -> Model:
    """A model called `name` of an architecture in `cgconvert.generators`, with random weights (seed 0)."""
    import torch

    from cgconvert.card import ModelCard
    from cgconvert.generators import build_generator, size_rule
    from cgconvert.models.loading import Model

    torch.manual_seed(0)
    generator = build_generator(architecture, arguments).eval().requires_grad_(False)
    multiple, minimum = size_rule(architecture, arguments)
    card = ModelCard(name, architecture, arguments, size_multiple=multiple, size_minimum=minimum)
    return Model(card, generator)


def load(name: str) -> Model:
    """A model by its name or path, or one with random weights: `RESNET`, or one of `NORMS`."""
    from cgconvert.models.loading import load_model

    if name in NORMS:
        return random_model(name, "h2", **NORMS[name])
    return random_model(RESNET, "resnet") if name == RESNET else load_model(name)


def busy_seconds(stage_seconds: Mapping[str, float]) -> dict[str, float]:
    """The busy seconds of a video's three threads, from those of its report's stages."""
    network = ("preprocess", "translate", "postprocess")
    return {
        "decode": stage_seconds["decode"],
        "translate": sum(stage_seconds[stage] for stage in network),
        "encode": stage_seconds["encode"],
    }


def machine() -> dict[str, Any]:
    """Processor, cores, memory in GiB, GPU if there is one, and the versions that matter."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    facts: dict[str, Any] = {
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "versions": versions,
        "load_before": round(os.getloadavg()[0], 2),
    }
    try:
        import torch

        if torch.cuda.is_available():
            facts["gpu"] = torch.cuda.get_device_name()
            facts["driver"] = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    except ImportError:
        pass
    return facts


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def commit() -> str:
    """The commit of this checkout, empty where git does not know one."""
    return _output("git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD")


def save(name: str, figures: dict[str, Any]) -> Path:
    """Write `results/NAME.json`: the figures, the machine, the commit and the day."""
    data = {
        "benchmark": name,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": machine(),
        **figures,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(data, indent=2) + "\n")
    return path
