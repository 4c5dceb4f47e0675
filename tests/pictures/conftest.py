"""Models and shortcuts for tests that convert pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgconvert.card import ModelCard
from cgconvert.models.catalog import installed_path
from cgconvert.models.files import write_model
from cgconvert.options import EngineOptions


@pytest.fixture
def exact() -> EngineOptions:
    """Float32 on the CPU: what comes out of `same` is what went in."""
    return EngineOptions(device="cpu", engine="eager", precision="fp32")


@pytest.fixture
def same(own_home: Path) -> str:
    """The name of an installed model that changes nothing."""
    write_model(installed_path("same"), ModelCard("same", "identity"), {})
    return "same"


@pytest.fixture
def small(own_home: Path) -> str:
    """The name of an installed model with a small random network: its pictures are not its inputs."""
    return install_h2("small", {"half_channels": 4, "channels": 8, "blocks": 1})


def install_h2(name: str, arguments: dict[str, int]) -> str:
    """Install a random H2 network."""
    import torch

    from cgconvert.generators import build_generator

    torch.manual_seed(0)
    generator = build_generator("h2", arguments)
    card = ModelCard(name, "h2", arguments=arguments, size_multiple=4, size_minimum=16)
    write_model(installed_path(name), card, generator.state_dict())
    return name
