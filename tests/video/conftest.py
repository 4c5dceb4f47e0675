"""Models and shortcuts for tests that convert videos."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgconvert.card import ModelCard
from cgconvert.models.catalog import installed_path
from cgconvert.models.files import write_model
from cgconvert.options import EngineOptions


@pytest.fixture
def exact() -> EngineOptions:
    """Float32 on the CPU: what comes out of `identity` is what went in."""
    return EngineOptions(device="cpu", engine="eager", precision="fp32")


@pytest.fixture
def small_model(own_home: Path) -> str:
    """The name of an installed model with a small random network: its pictures are not its inputs."""
    import torch

    from cgconvert.generators import build_generator

    arguments = {"half_channels": 4, "channels": 8, "blocks": 1}
    torch.manual_seed(0)
    generator = build_generator("h2", arguments)
    card = ModelCard("small", "h2", arguments=arguments, size_multiple=4, size_minimum=16)
    write_model(installed_path("small"), card, generator.state_dict())
    return "small"
