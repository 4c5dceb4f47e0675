"""A picture in tiles is the picture of the untiled network, whatever network, size and tile."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cgconvert.engines.tiles.exact import ExactTiling, Stages, Storage, TensorSink, TensorSource
from cgconvert.engines.tiles.geometry import Tile, tiles_of
from cgconvert.engines.tiles.stages import StagedNetwork, as_one_stage, cut_into_stages
from cgconvert.errors import ModelError
from cgconvert.generators import build_generator, size_rule

NETWORKS = {
    "h2": ("h2", {"half_channels": 8, "channels": 16, "blocks": 2}),
    "h2-kept": (
        "h2",
        {"half_channels": 8, "channels": 16, "blocks": 2, "keep_black": True, "keep_detail": True},
    ),
    "resnet": ("resnet", {"ngf": 8, "blocks": 2}),
    "resnet affine": (
        "resnet",
        {"ngf": 8, "blocks": 2, "norm": "instance_affine", "padding": "zero", "upsampling": "resize"},
    ),
    "resnet batch": ("resnet", {"ngf": 8, "blocks": 1, "norm": "batch"}),
    "resnet none": ("resnet", {"ngf": 8, "blocks": 1, "norm": "none", "padding": "replicate"}),
    "mobile_resnet": ("mobile_resnet", {"ngf": 8, "blocks": 2}),
    "resnet blur": ("resnet", {"ngf": 8, "blocks": 1, "downsampling": "blur", "upsampling": "blur"}),
    "resnet_attention": ("resnet_attention", {"ngf": 8, "blocks": 1, "masks": 3}),
    "pix2pixhd": ("pix2pixhd", {"ngf": 4, "downs": 2, "blocks": 2, "local_blocks": 1}),
    "unet": ("unet", {"ngf": 8, "depth": 5, "norm": "instance"}),
    "identity": ("identity", {}),
}
TOLERANCE = 1e-4
"""What was promised; sums in another order differ by some 5e-6 here."""


def network(name: str) -> tuple[torch.nn.Module, StagedNetwork, int, int]:
    """A generator whose weights are not those it starts with, its stages, its size rule."""
    architecture, arguments = NETWORKS[name]
    torch.manual_seed(3)
    generator = build_generator(architecture, arguments).eval()
    with torch.no_grad():
        for tensor in generator.parameters():
            tensor.add_(0.05 * torch.randn_like(tensor))
        for layer in generator.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1.0
        generator.train()(picture(64, 64))  # the statistics of batch norms
        generator.eval()
    multiple, minimum = size_rule(architecture, arguments)
    return generator, cut_into_stages(generator, 3, multiple, minimum), multiple, minimum


def picture(height: int, width: int) -> Tensor:
    """Noise on a slope: its statistics are other ones in every corner."""
    torch.manual_seed(height * 1000 + width)
    slope = torch.linspace(-0.8, 0.8, width) * torch.linspace(0.2, 1, height)[:, None]
    return (slope + 0.3 * torch.randn(1, 3, height, width)).clamp(-1, 1)


def tiled(stages: StagedNetwork, images: Tensor, edge: int, storage: Storage | None = None) -> Tensor:
    sink = TensorSink(torch.full((1, 3, *images.shape[2:]), torch.nan))
    ready = Stages(stages, torch.device("cpu"), torch.float32)
    ExactTiling(ready, *images.shape[2:], edge, storage or Storage()).run(TensorSource(images), sink)
    return sink.whole


def untiled(generator: torch.nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return generator(images.clone())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(64, 96, 32), (84, 44, 16), (20, 20, 64), (32, 132, 32)], ids=str)
def test_tiles_make_the_untiled_picture(name: str, size: tuple[int, int, int]) -> None:
    """Several tiles, small ones at the ends, a picture smaller than a tile, a single row of tiles."""
    generator, stages, multiple, minimum = network(name)
    height, width, edge = (max(minimum, -(-value // multiple) * multiple) for value in size)
    images = picture(height, width)
    wanted = untiled(generator, images)
    got = tiled(stages, images, edge)
    assert wanted.std() > 0.02
    assert (got - wanted).abs().max().item() < TOLERANCE


def test_borders_of_tiles_are_like_their_insides() -> None:
    generator, stages, _, _ = network("h2")
    images = picture(96, 96)
    error = (tiled(stages, images, 32) - untiled(generator, images)).abs().amax((0, 1))
    at_borders = torch.zeros(96, 96, dtype=torch.bool)
    for edge in (31, 32, 63, 64):
        at_borders[edge] = at_borders[:, edge] = True
    assert error[at_borders].max() < 3 * error[~at_borders].max() < TOLERANCE


@pytest.mark.parametrize("name", ["h2", "pix2pixhd"])
def test_files_hold_the_same_values_as_memory(name: str, tmp_path: Path) -> None:
    _, stages, multiple, _ = network(name)
    images, edge = picture(64, 80), -(-24 // multiple) * multiple
    on_disk = tiled(stages, images, edge, Storage(folder=tmp_path))
    assert torch.equal(on_disk, tiled(stages, images, edge))
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]


def test_bf16_storage_costs_its_rounding_only() -> None:
    generator, stages, _, _ = network("resnet")
    images = picture(64, 64)
    wanted = untiled(generator, images)
    error = (tiled(stages, images, 32, Storage(torch.bfloat16)) - wanted).abs()
    # Seven bits behind the point in each of seven stored values, whose errors partly cancel.
    assert TOLERANCE < error.max().item() < 0.1
    assert error.mean().item() < 0.01


class Broken(Exception):
    """A run that ends in the middle."""


@pytest.mark.parametrize("after", [0, 1, 7, 8, 26, 35])
def test_a_run_that_was_broken_off_goes_on(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cgconvert.engines.tiles.exact.SECONDS_BETWEEN_RECORDS", 0.0)
    _, stages, _, _ = network("resnet")
    images = picture(64, 64)
    wanted = tiled(stages, images, 32)
    ready = Stages(stages, torch.device("cpu"), torch.float32)
    sink = TensorSink(torch.full_like(images, torch.nan))
    shares: list[float] = []

    def advance(share: float) -> None:
        shares.append(share)
        if len(shares) == after + 1:
            raise Broken

    storage = Storage(folder=tmp_path, identity="one")
    with pytest.raises(Broken):
        ExactTiling(ready, 64, 64, 32, storage, advance).run(TensorSource(images), sink)
    first = len(shares)
    ExactTiling(ready, 64, 64, 32, storage, shares.append).run(TensorSource(images), sink)
    assert len(shares) == 4 * len(stages.stages)
    assert shares[first] > shares[first - 1]
    assert torch.equal(sink.whole, wanted)


def test_a_state_of_something_else_is_not_gone_on_from(tmp_path: Path) -> None:
    _, stages, _, _ = network("resnet")
    ready = Stages(stages, torch.device("cpu"), torch.float32)
    for identity in ("one", "another"):
        images = picture(32, 32) * (1 if identity == "one" else -1)
        sink = TensorSink(torch.full_like(images, torch.nan))
        shares: list[float] = []
        storage = Storage(folder=tmp_path, identity=identity)
        ExactTiling(ready, 32, 32, 16, storage, shares.append).run(TensorSource(images), sink)
        assert len(shares) == 4 * len(stages.stages)
        assert torch.isfinite(sink.whole).all()


def test_the_largest_values_are_computed_again_instead_of_stored() -> None:
    """Those after the first 7x7 convolution, 64 for each pixel, come from the picture at little cost."""
    with torch.device("cpu"):
        generator = build_generator("resnet", {"blocks": 1})
    stages = cut_into_stages(generator, 3, 4, 16)
    assert [stage.outputs for stage in stages.stages[:2]] == [(), ("model_4",)]
    assert stages.stages[1].inputs == ("",)
    # At the last norm: 128 channels at half size go in, 64 at full size come out.
    assert stages.peak_values == 32 + 64


def test_how_far_networks_see() -> None:
    for name, wanted in (("identity", 0), ("resnet none", 20)):
        architecture, arguments = NETWORKS[name]
        stage = as_one_stage(build_generator(architecture, arguments), 3, *size_rule(architecture, arguments))
        assert stage.stages[0].reach == wanted


def test_tiles_cover_a_picture_once() -> None:
    covered = torch.zeros(70, 50)
    for tile in tiles_of(70, 50, 32):
        covered[tile.top : tile.bottom, tile.left : tile.right] += 1
    assert torch.equal(covered, torch.ones(70, 50))
    assert Tile(32, 0, 64, 32).grown(8, 70, 50) == Tile(24, 0, 70, 40)


def test_a_norm_over_all_channels_cannot_be_cut() -> None:
    with pytest.raises(ModelError, match="normalises over all channels at once"):
        cut_into_stages(build_generator("animegan2", {"ngf": 4}), 3, 4, 16)
