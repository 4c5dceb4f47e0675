"""Instance norms with their statistics read out and frozen."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cgconvert.generators import build_generator
from cgconvert.generators.layers import InstanceNorm2d
from cgconvert.generators.statistics import freeze_statistics, read_statistics
from tests.models import reference_networks as reference

ARCHITECTURES = {
    "h2": {"half_channels": 4, "channels": 8, "blocks": 2},
    "resnet": {"ngf": 4, "blocks": 2},
}


def network(architecture: str) -> nn.Module:
    return reference.randomised(build_generator(architecture, ARCHITECTURES[architecture])).eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_frozen_on_its_own_picture_a_generator_gives_the_same(architecture: str) -> None:
    generator, image = network(architecture), torch.rand(1, 3, 48, 40) * 2 - 1
    frozen = freeze_statistics(generator, read_statistics(generator, [image]))
    assert not any(isinstance(layer, nn.InstanceNorm2d) for layer in frozen.modules())
    with torch.inference_mode():
        # Float32 rounding, through some ten layers.
        assert torch.allclose(frozen(image), generator(image), atol=2e-5)


def test_a_frozen_generator_sees_only_the_neighbourhood() -> None:
    """A tile of a picture comes out as the picture does there; a generator with live norms differs."""
    generator, image = network("h2"), torch.rand(1, 3, 128, 128) * 2 - 1
    image[..., 64:] *= 0.1
    frozen = freeze_statistics(generator, read_statistics(generator, [image]))
    middle = (..., slice(40, 56), slice(12, 24))  # further from the tile's border than the network looks
    with torch.inference_mode():
        whole, tile = frozen(image), frozen(image[..., :96, :64])
        live = generator(image), generator(image[..., :96, :64])
    assert torch.allclose(whole[middle], tile[middle], atol=1e-5)
    assert (live[0][middle] - live[1][middle]).abs().max() > 1e-2


def test_statistics_are_those_of_all_images_together() -> None:
    layer = nn.Sequential(InstanceNorm2d(2))
    images = torch.randn(5, 2, 6, 7) * torch.tensor([1.0, 3.0]).view(1, 2, 1, 1) + 4
    found = read_statistics(layer, [images[:3], images[3:]])["0"]
    assert torch.allclose(found.mean, images.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(found.variance, images.var((0, 2, 3), correction=0), rtol=1e-5)


def test_affine_terms_stay() -> None:
    layer = nn.Sequential(InstanceNorm2d(2, affine=True))
    with torch.no_grad():
        layer[0].weight.copy_(torch.tensor([2.0, -1.0]))
        layer[0].bias.copy_(torch.tensor([0.5, 3.0]))
    image = torch.randn(1, 2, 8, 8)
    frozen = freeze_statistics(layer, read_statistics(layer, [image]))
    assert torch.allclose(frozen(image), layer(image), atol=1e-6)


def test_what_cannot_be_frozen_is_named() -> None:
    generator = network("h2")
    with pytest.raises(KeyError, match="no statistics of head_norm"):
        freeze_statistics(generator, {})
    with pytest.raises(ValueError, match="at least one image"):
        read_statistics(generator, [])
