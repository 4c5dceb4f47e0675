"""A loaded model converts single pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cgconvert.models.importing import import_checkpoint
from cgconvert.models.loading import find_misfit, load_model
from tests.models import reference_networks as reference


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(1, 1), (7, 31), (48, 40)])
def test_identity_returns_the_picture(dtype: type, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, np.iinfo(dtype).max, (*size, 3), dtype=dtype, endpoint=True)
    result = load_model("identity").convert(image)
    assert result.dtype == dtype
    assert np.array_equal(result, image)


@pytest.mark.parametrize("channels", [(3, 3), (1, 1), (1, 3), (3, 1)])
def test_any_size_comes_back_at_its_size(tmp_path: Path, channels: tuple[int, int]) -> None:
    path = tmp_path / "net.pth"
    network = reference.randomised(reference.resnet(*channels))
    torch.save(network.state_dict(), path)
    import_checkpoint(path, "net")
    model = load_model("net")
    assert not model.generator.training
    assert not any(weight.requires_grad for weight in model.generator.parameters())
    image = np.random.default_rng(1).integers(0, 256, (21, 38, 3), dtype=np.uint8)
    result = model.convert(image)
    assert result.shape == image.shape
    assert result.dtype == np.uint8
    assert (channels[1] == 3) or np.array_equal(result[..., 0], result[..., 2])


def test_a_picture_of_fitting_size_is_what_the_network_returns(tmp_path: Path) -> None:
    network = reference.randomised(reference.resnet())
    torch.save(network.state_dict(), tmp_path / "net.pth")
    import_checkpoint(tmp_path / "net.pth", "net")
    image = np.random.default_rng(2).integers(0, 256, (32, 24, 3), dtype=np.uint8)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1)[0]
    pixels = (wanted.permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(load_model("net").convert(image) - pixels).max() <= 0.51  # rounded


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.int16),
    ],
)
def test_what_is_no_rgb_picture_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        load_model("identity").convert(image)


def test_misfits_in_words() -> None:
    shapes = {"a": (2, 3), "b": ()}
    assert find_misfit(shapes, shapes) is None
    assert find_misfit(shapes, {"a": (2, 3)}) == "'b' is missing (the only one)"
    assert find_misfit(shapes, {}) == "'a' is missing (one of 2)"
    assert find_misfit(shapes, {"a": (2, 4), "b": ()}) == "'a' is 2x4 instead of 2x3"
    assert find_misfit(shapes, {"a": (2, 3), "b": (1,)}) == "'b' is 1 instead of a single number"
    assert find_misfit(shapes, {**shapes, "c": ()}) == "'c' has no place in it (the only one)"
