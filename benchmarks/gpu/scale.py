"""On what and how large the GPU job's tasks are: as they should be on a card, or small for a rehearsal."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import random_model
from cgconvert.doctor.limits import Limits
from cgconvert.models.loading import Model

Rows = Iterator[tuple[str, dict[str, Any]]]
"""What a task makes: the name of a row and its figures; `passed` in them says whether a check holds."""


class UnavailableHere(Exception):
    """This machine lacks what a task is about, such as NVENC or PyAV; no fault of ours."""


@dataclass(frozen=True)
class Bench:
    """The device and the sizes. Sizes are (height, width) by the name that tasks use."""

    device: torch.device
    sizes: Mapping[str, tuple[int, int]]
    networks: Mapping[str, tuple[str, Mapping[str, Any]]]
    frames: int
    """Of the videos that are measured."""
    seconds: float
    """That each rate is measured for."""
    limits: Limits | None

    def model(self, name: str) -> Model:
        """A network of the job with random weights."""
        architecture, arguments = self.networks[name]
        return random_model(name, architecture, **arguments)

    @property
    def small(self) -> bool:
        """Whether this is a rehearsal."""
        return self.device.type == "cpu"


def bench_for(device: str, limits: dict[str, Any] | None) -> Bench:
    """The job's sizes on a card; small ones on a CPU."""
    known = Limits(**limits) if limits else None
    if device == "cpu":
        sizes = {"256": (32, 32), "720p": (36, 64), "1080p": (48, 80)}
        networks = {
            "resnet9-ngf64": ("resnet", {"ngf": 4, "blocks": 1}),
            "h2-24-64-6": ("h2", {"half_channels": 4, "channels": 8, "blocks": 1}),
            "contract": ("resnet", {"ngf": 4, "blocks": 1}),
        }
        return Bench(torch.device("cpu"), sizes, networks, 6, 0.05, known)
    sizes = {"256": (256, 256), "720p": (720, 1280), "1080p": (1080, 1920)}
    networks = {
        "resnet9-ngf64": ("resnet", {}),
        "h2-24-64-6": ("h2", {}),
        "contract": ("resnet", {"ngf": 16, "blocks": 2}),
    }
    return Bench(torch.device("cuda", 0), sizes, networks, 240, 2.0, known)


def home() -> Path:
    """The folder in which the job keeps engines and clips (`CGCONVERT_HOME`)."""
    return Path(os.environ["CGCONVERT_HOME"])
