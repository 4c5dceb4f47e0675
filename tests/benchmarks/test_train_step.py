"""Our CycleGAN step is a plain transcription of the published one, on networks of every kind.

Both compute in double precision, where joined passes and other kernels differ by less than the bounds.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.training.train_step import PublishedStep, summarise
from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.methods import build_method

NETWORKS: dict[str, dict[str, Any]] = {
    "resnet": {"network.generator": "resnet", "network.arguments": {"ngf": 4, "blocks": 2}},
    "resnet-batch-norm": {
        "network.generator": "resnet",
        "network.arguments": {"ngf": 4, "blocks": 2, "norm": "batch"},
        "network.disc_norm": "batch",
    },
    "unet-batch-norm": {
        "network.generator": "unet",
        "network.arguments": {"ngf": 4, "depth": 5, "dropout": False},
    },
    "h2": {"network.generator": "h2", "network.arguments": {"half_channels": 4, "channels": 8, "blocks": 1}},
    "pixel": {
        "network.generator": "h2",
        "network.arguments": {"half_channels": 4, "channels": 8, "blocks": 1},
        "network.discriminator": "pixel",
        "network.disc_norm": "none",
    },
}


@pytest.mark.parametrize("name", NETWORKS)
def test_ours_is_the_published_step(name: str) -> None:
    torch.manual_seed(0)
    base = {"run.device": "cpu", "data.crop_size": 64, "network.ndf": 4, "loss.pool": 0}
    config = Config().with_changes({**base, **NETWORKS[name]})
    ours = build_method(config, Precision(torch.device("cpu"), "fp64"))
    theirs = copy.deepcopy(ours)
    published = PublishedStep(theirs)
    order = ["identity_b", "identity_a", "gan_ab", "gan_ba", "cycle_a", "cycle_b", "disc_b", "disc_a"]
    for step in range(3):
        a, b = (torch.rand(2, 3, 64, 64, dtype=torch.float64) * 2 - 1 for _ in range(2))
        wanted = dict(zip(order, map(float, published(a, b)), strict=True))
        found = {loss: float(value) for loss, value in ours.train_step({"a": a, "b": b}).items()}
        assert found == pytest.approx(wanted, rel=1e-9), step
    for network, module in ours.networks.items():
        other = theirs.networks[network].state_dict()
        for key, tensor in module.state_dict().items():
            assert (tensor - other[key]).abs().max() <= 1e-6, (network, key)


def test_the_transcription_uses_its_own_norm() -> None:
    torch.manual_seed(0)
    config = Config().with_changes({"run.device": "cpu", "data.crop_size": 64, **NETWORKS["h2"]})
    method = build_method(config, Precision(torch.device("cpu"), "bf16"))
    assert not any(type(m) is nn.InstanceNorm2d for m in method.networks["gen_ab"].modules())
    PublishedStep(method)
    norms = [m for m in method.networks["gen_ab"].modules() if isinstance(m, nn.InstanceNorm2d)]
    assert norms
    assert all(type(norm) is nn.InstanceNorm2d for norm in norms)


def test_speeds_are_compared_within_their_rounds() -> None:
    def found(published: float, ours: float) -> dict[str, dict[str, float]]:
        speeds = {"published": published, "ours": ours}
        return {k: {"images_per_second": v, "peak_memory_mib": v, "steps": 2} for k, v in speeds.items()}

    rows = summarise([found(1.0, 2.0), found(2.0, 3.0), found(4.0, 8.4)])  # the machine got faster meanwhile
    assert rows["ours"]["speedup"] == pytest.approx(2.0)
    assert rows["published"]["speedup"] == 1.0
    assert rows["ours"]["images_per_second"] == 3.0
    assert rows["ours"]["peak_memory_mib"] == 8.4
    assert rows["ours"]["steps"] == 6
