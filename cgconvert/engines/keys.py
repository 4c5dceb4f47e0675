"""The parts of the name under which a built engine is kept in the cache."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cgconvert.host.cpu import processor_name
from cgconvert.host.packages import package_version
from cgconvert.models.loading import Model

MAKERS = ("generators", "engines")
"""Our own folders whose code makes an engine out of a model."""


def engine_parts(
    model: Model, engine: str, device: torch.device, precision: str, **more: Any
) -> dict[str, Any]:
    """Everything that makes an engine, as JSON values; `more` holds shapes and options of its kind."""
    return {
        "engine": engine,
        "precision": precision,
        "architecture": model.card.architecture,
        "arguments": dict(model.card.arguments),
        "weights_sha256": weights_sha256(model.generator),
        "device": device_name(device),
        "versions": {
            "cgconvert": package_version("cgconvert"),
            "code_sha256": code_sha256(),
            "torch": torch.__version__,
            **driver_versions(device),
        },
        **more,
    }


@functools.cache
def code_sha256() -> str:
    """The checksum of the code that makes engines: a network that computes otherwise is another engine."""
    sha = hashlib.sha256()
    package = Path(__file__).parents[1]
    for path in sorted(path for folder in MAKERS for path in (package / folder).rglob("*.py")):
        sha.update(path.relative_to(package).as_posix().encode())
        sha.update(path.read_bytes())
    return sha.hexdigest()


def weights_sha256(network: nn.Module) -> str:
    """The checksum of a network's weights as they are in memory, names included, whatever its file."""
    sha = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def pixels_sha256(pictures: list[np.ndarray]) -> str:
    """The checksum of pictures that an engine was calibrated on."""
    sha = hashlib.sha256()
    for picture in pictures:
        sha.update(f"{picture.shape} {picture.dtype}".encode())
        sha.update(np.ascontiguousarray(picture).tobytes())
    return sha.hexdigest()


def device_name(device: torch.device) -> str:
    """The model of the device: an engine built for one card is not taken to another."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "xpu":
        return torch.xpu.get_device_name(device)
    return cpu_name() if device.type == "cpu" else f"{processor_name()} ({device.type})"


def cpu_name() -> str:
    """The processor's name and the widest instructions that torch uses on it."""
    return f"{processor_name()} ({torch.backends.cpu.get_cpu_capability()})"


def driver_versions(device: torch.device) -> dict[str, Any]:
    """CUDA's, cuDNN's and the driver's version where the device needs them."""
    if device.type != "cuda":
        return {}
    driver = Path("/proc/driver/nvidia/version")
    return {
        "cuda": torch.version.cuda or f"rocm {torch.version.hip}",
        "cudnn": torch.backends.cudnn.version(),
        "driver": driver.read_text().splitlines()[0] if driver.is_file() else "unknown",
        "capability": list(torch.cuda.get_device_capability(device)),
    }
