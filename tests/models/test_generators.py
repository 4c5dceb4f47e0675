"""The networks: sizes they promise, arguments they refuse, and the norm that they share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from cgconvert.doctor.limits import count_macs
from cgconvert.errors import ModelError
from cgconvert.generators import ARCHITECTURES, build_generator, generator_shapes, size_rule
from cgconvert.generators.layers import GridFilter, InstanceNorm2d, NarrowGridFilter
from tests.models import reference_networks as reference

SMALL: dict[str, dict[str, Any]] = {
    "resnet": {"ngf": 4, "blocks": 2},
    "unet": {"ngf": 2, "depth": 5},
    "h2": {"half_channels": 4, "channels": 8, "blocks": 1},
    "mobile_resnet": {"ngf": 4, "blocks": 2},
    "pix2pixhd": {"ngf": 4, "downs": 2, "blocks": 1, "local_blocks": 1},
    "resnet_attention": {"ngf": 4, "blocks": 1, "masks": 3},
    "animegan2": {"ngf": 4},
    "identity": {},
}


def small(architecture: str) -> dict[str, Any]:
    """Arguments that make a network small; those of one this file does not know are its defaults."""
    return SMALL.get(architecture, {})


# The size rules of the other two are in their files: tests/models/test_graphs.py.
@pytest.mark.parametrize("architecture", [n for n in ARCHITECTURES if n not in ("onnx", "torchscript")])
def test_every_size_that_the_rule_allows_is_kept(architecture: str) -> None:
    arguments = small(architecture)
    multiple, minimum = size_rule(architecture, arguments)
    assert minimum % multiple == 0
    network = reference.randomised(build_generator(architecture, arguments))
    edges = [minimum, minimum + multiple, minimum + 3 * multiple]
    for height in edges:
        for width in edges:
            with torch.inference_mode():
                result = network(torch.rand(1, 3, height, width) * 2 - 1)
            assert result.shape == (1, 3, height, width)
            assert bool(result.isfinite().all())


@pytest.mark.parametrize("architecture", ["resnet", "mobile_resnet", "unet", "h2"])
def test_a_size_that_the_rule_forbids_is_not_kept(architecture: str) -> None:
    arguments = small(architecture)
    multiple, minimum = size_rule(architecture, arguments)
    network = build_generator(architecture, arguments).eval()
    edge = minimum + multiple // 2
    try:
        kept = network(torch.zeros(1, 3, edge + 1, edge + 1)).shape[2:] == (edge + 1, edge + 1)
    except RuntimeError:
        kept = False
    assert not kept


def test_the_default_depth_is_in_the_size_rule() -> None:
    defaults = ARCHITECTURES["unet"]()
    levels = sum(1 for name in defaults.state_dict() if name.endswith(".model.1.weight")) + 1
    assert size_rule("unet", {}) == (2**levels, 2**levels)
    with pytest.raises(ModelError, match="unknown architecture 'x'"):
        size_rule("x", {})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_shapes_are_known_without_allocating(architecture: str) -> None:
    arguments = small(architecture)
    state = build_generator(architecture, arguments).state_dict()
    assert generator_shapes(architecture, arguments) == {k: tuple(v.shape) for k, v in state.items()}


def test_the_mobile_resnet_is_the_published_one() -> None:
    network = build_generator("mobile_resnet", {})
    assert sum(p.numel() for p in network.parameters()) == 137_347, "OMGD 1.0x: 0.137 M"
    macs = count_macs(network, 3, 256, 256)
    assert macs == 954_728_448
    # The papers' 1.41 G charge each transposed convolution for every output, four times as many.
    transposed = 64 * 64 * 64 * 32 * 9 + 128 * 128 * 32 * 16 * 9
    assert round((macs + 3 * transposed) / 1e9, 2) == 1.41


@pytest.mark.parametrize("padding", ["reflect", "replicate", "zero"])
def test_the_mobile_resnet_reads_published_files(padding: Any) -> None:
    theirs = reference.randomised(reference.mobile_resnet(padding=padding, blocks=3))
    ours = build_generator("mobile_resnet", {"ngf": 8, "blocks": 3, "padding": padding}).eval()
    ours.load_state_dict(theirs.state_dict())
    images = reference.picture(32)
    with torch.inference_mode():
        assert torch.allclose(ours(images), theirs(images), atol=1e-5)


WRONG = [
    ("resnet", {"ngf": 0}, "ngf must be a whole number from 1 to 4096, got 0"),
    ("resnet", {"ngf": 64.0}, "ngf must be a whole number"),
    ("resnet", {"ngf": True}, "ngf must be a whole number"),
    ("resnet", {"dropout": 1}, "dropout must be true or false"),
    ("resnet", {"bias": "no"}, "bias must be true, false or null"),
    ("resnet", {"padding": "mirror"}, "padding must be one of reflect, replicate, zero"),
    ("resnet", {"depth": 8}, "has no argument 'depth'; known: in_channels"),
    ("unet", {"depth": 4}, "depth must be a whole number from 5 to 12"),
    ("unet", {"depth": 40}, "depth must be a whole number from 5 to 12"),
    ("identity", {"out_channels": 1}, "identity keeps its channels"),
    ("hypernet", {}, "unknown architecture 'hypernet'; known: resnet"),
]


@pytest.mark.parametrize(("architecture", "arguments", "words"), WRONG)
def test_arguments_out_of_bounds(architecture: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        build_generator(architecture, arguments)


@pytest.mark.parametrize("affine", [False, True])
def test_instance_norm_is_the_usual_one(affine: bool) -> None:
    ours = reference.randomised(InstanceNorm2d(5, affine=affine))
    usual = nn.InstanceNorm2d(5, affine=affine)
    usual.load_state_dict(ours.state_dict())
    images = torch.randn(2, 5, 12, 9) * 3 + 1
    assert torch.allclose(ours(images), usual(images), atol=1e-5)


@pytest.mark.needs_cuda
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_instance_norm_on_a_gpu(affine: bool, dtype: torch.dtype) -> None:
    ours = reference.randomised(InstanceNorm2d(5, affine=affine))
    images = torch.randn(2, 5, 64, 48) * 3 + 1
    wanted = ours(images)
    got = ours.to("cuda", dtype)(images.to("cuda", dtype))
    assert got.dtype == dtype
    bound = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}[dtype]
    assert float((got.float().cpu() - wanted).abs().max()) < bound


@pytest.mark.parametrize("layer", [GridFilter(3), NarrowGridFilter(3)], ids=["binomial", "narrow"])
def test_grid_filters_remove_period_two_and_keep_what_is_smooth(layer: nn.Module) -> None:
    y, x = torch.meshgrid(torch.arange(24), torch.arange(20), indexing="ij")
    signs = torch.tensor([1.0, -1.0])
    for grid in (signs[x % 2], signs[y % 2], signs[(x + y) % 2]):
        assert layer(grid.expand(1, 3, -1, -1)).abs().max() < 1e-5
    ramp = (x / 20 + y / 12).expand(1, 3, -1, -1)
    inner = (..., slice(4, -4), slice(4, -4))
    assert torch.allclose(layer(ramp)[inner], ramp[inner], atol=1e-5)
    wave = torch.cos(torch.pi / 2 * x).expand(1, 3, -1, -1)  # period 4: half is left, and nearly all
    share = 0.5 if isinstance(layer, GridFilter) else 0.9375
    assert torch.allclose(layer(wave)[inner], share * wave[inner], atol=1e-5)


def test_h2_leaves_no_grid_of_period_two_however_wild_its_weights() -> None:
    network = reference.randomised(build_generator("h2", small("h2")))
    with torch.no_grad():
        network.get_submodule("tail").weight.mul_(20)  # deep into the tanh
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    grid = torch.tensor([1.0, -1.0])[(x + y) % 2]
    with torch.inference_mode():
        result = network(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3)) * 2 - 1)
    assert result.std() > 0.2
    # The clamp, and nothing else, may leave a trace; a tanh after the filter left some percent.
    assert (result * grid).mean().abs() < 2e-3


def kept_and_plain(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Results of one H2 generator with black kept and without."""
    arguments = small("h2") | {"in_channels": images.shape[1]}
    network = reference.randomised(build_generator("h2", {**arguments, "keep_black": True}))
    plain = reference.randomised(build_generator("h2", arguments))
    plain.load_state_dict(network.state_dict())
    with torch.inference_mode():
        return network(images), plain(images)


def test_h2_keeps_black_where_it_is_asked_to() -> None:
    """Up to a light of 4 the picture as it is, from 32 on the result, and half of both between them."""
    images = torch.full((1, 5, 16, 20), -1.0)
    images[:, 3:] = torch.rand(1, 2, 16, 20)
    for column, light in enumerate((0, 4, 18, 32, 255)):
        images[:, 1, :, 4 * column : 4 * column + 4] = light / 127.5 - 1
    result, look = kept_and_plain(images)
    source = images[:, :3]
    expected = torch.cat([source[..., :8], (source + look)[..., 8:12] / 2, look[..., 12:]], 3)
    inner = [column for column in range(20) if column % 4 in (1, 2)]  # a step darkens the pixels beside it
    assert torch.allclose(result[..., inner], expected[..., inner], atol=1e-5)
    assert (look[..., :8] - source[..., :8]).abs().max() > 0.1


def test_a_bar_ends_exactly_where_it_ends() -> None:
    images = torch.full((1, 3, 32, 16), 0.5)
    images[:, :, :8] = -1
    result, look = kept_and_plain(images)
    assert torch.equal(result[:, :, :8], images[:, :, :8])
    assert torch.allclose(result[:, :, 8:], look[:, :, 8:], atol=1e-6)
    assert (look[:, :, 7] + 1).abs().max() > 0.1


def test_a_dark_pixel_is_not_cut_out_of_a_lighter_place() -> None:
    """Black is kept where a place is black: single pixels would leave a grid in the result."""
    images = torch.zeros(1, 3, 16, 16)
    images[:, :, 8, 8] = -1
    result, look = kept_and_plain(images)
    assert torch.allclose(result, look, atol=1e-6)


def test_h2_keeps_the_finest_detail_where_it_is_asked_to() -> None:
    """A pattern of period two, which the filter takes out of every result, comes through as it was."""
    network = reference.randomised(build_generator("h2", small("h2") | {"keep_detail": True}))
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    grid = 0.2 * torch.tensor([1.0, -1.0])[(x + y) % 2]
    with torch.inference_mode():
        network.get_submodule("tail").weight.mul_(0.01)  # nothing near the clamp
        result = network(grid.expand(1, 3, 32, 32))
    assert (result * grid.sign()).mean() == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize("kept", ["keep_black", "keep_detail"])
def test_nothing_can_be_kept_of_colours_that_are_not_there(kept: str) -> None:
    with pytest.raises(ModelError, match=f"{kept} needs as many channels in as out"):
        build_generator("h2", {"in_channels": 1, "out_channels": 3, kept: True})
