"""The noise that strokes hang on: the same numbers everywhere, and white."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch

from cgconvert.card import ModelCard
from cgconvert.errors import ModelError
from cgconvert.tensors import noise
from cgconvert.tensors.images import pixels_to_images
from cgconvert.tensors.noise import LEVELS, PRIME, ROUNDS, noise_field, round_keys, with_noise

KEYS = [3642, 3697, 1325, 1755, 1988]  # of seed 0, channel 0
FIELD = [[-255, 139, 5, 147], [187, 231, -109, -249]]  # its first two rows, in units of 1/256
SHIFTS = [(0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (4, 0), (0, 8), (3, 5)]


def by_hand(seed: int, channel: int, row: int, column: int) -> float:
    """One value, in Python's whole numbers."""
    left, right = row % PRIME, column % PRIME
    for key in round_keys(seed, channel):
        assert left + right * ((right + key) % PRIME) < 2**24
        left, right = right, (left + right * ((right + key) % PRIME)) % PRIME
    return (2 * (right * LEVELS // PRIME) - (LEVELS - 1)) / LEVELS


def test_the_field_is_its_definition_and_stays_it() -> None:
    assert round_keys(0, 0) == KEYS
    field = noise_field(0, 2, 3, 4)
    assert field.dtype == torch.float32
    assert (field[0, :2] * LEVELS).int().tolist() == FIELD
    for channel, row, column in ((0, 0, 0), (1, 2, 3), (1, 0, 2)):
        assert float(field[channel, row, column]) == by_hand(0, channel, row, column)
    assert float(noise_field(7, 1, 1, 1, 40_000, 65_535)) == by_hand(7, 0, 40_000, 65_535)


def test_intermediate_numbers_are_whole_in_float32() -> None:
    most = PRIME - 1
    assert most + most * most < 2**24
    assert most * LEVELS < 2**24
    assert len(round_keys(3, 1)) == ROUNDS


def test_a_part_of_the_field_is_that_part() -> None:
    whole = noise_field(5, 2, 40, 50)
    assert torch.equal(noise_field(5, 2, 10, 20, 30, 25), whole[:, 30:40, 25:45])
    assert not torch.equal(noise_field(6, 2, 40, 50), whole)
    assert not torch.equal(whole[0], whole[1])


def test_the_field_is_white_and_uniform() -> None:
    field = noise_field(1, 2, 256, 256).double().numpy()
    count = field[0].size
    assert abs(field.mean()) < 5 / np.sqrt(3 * 2 * count)
    counts = np.bincount(((field[0] * LEVELS + LEVELS - 1) / 2).round().astype(int).ravel(), minlength=LEVELS)
    share = np.bincount(np.arange(PRIME) * LEVELS // PRIME) * count / PRIME
    chi = ((counts - share) ** 2 / share).sum()
    assert abs(chi - (LEVELS - 1)) < 5 * np.sqrt(2 * (LEVELS - 1))

    def correlation(one: np.ndarray, other: np.ndarray) -> float:
        return float((one * other).mean() / (one.std() * other.std()) * np.sqrt(one.size))

    pairs = [(field[0], field[1])]
    pairs += [(field[0][dy:, dx:], field[0][: 256 - dy, : 256 - dx]) for dy, dx in SHIFTS]
    assert max(abs(correlation(one, other)) for one, other in pairs) < 4.5
    power = np.abs(np.fft.fft2(field[0])) ** 2 / (count / 3)
    assert power.max() < np.log(count) + 8, "no period"


def test_images_get_the_field_of_their_card() -> None:
    card = ModelCard(
        name="painter", architecture="h2", arguments={"in_channels": 5}, size_multiple=4, size_minimum=16,
        noise={"channels": 2, "seed": 3},
    )  # fmt: skip
    assert (card.in_channels, card.network_channels) == (3, 5)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 18, 21, 3), dtype=np.uint8)
    images, crop = pixels_to_images(pixels, card, torch.device("cpu"))
    assert images.shape == (2, 5, 20, 24)
    assert (crop.height, crop.width) == (18, 21)
    assert torch.equal(images[0, 3:], noise_field(3, 2, 20, 24))
    assert torch.equal(images[1, 3:], images[0, 3:]), "the same for each picture of a batch"
    half, _ = pixels_to_images(pixels, card, torch.device("cpu"), torch.bfloat16)
    assert torch.equal(half[:, 3:].float(), images[:, 3:]), "bfloat16 holds it exactly"


def test_a_tile_gets_its_part_of_the_field() -> None:
    images = torch.zeros(1, 3, 24, 32).contiguous(memory_format=torch.channels_last)
    whole = with_noise(images, 2, 4)
    assert whole.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(with_noise(images[:, :, 8:, 4:12], 2, 4, top=8, left=4), whole[:, :, 8:, 4:12])


def test_kept_fields_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "KEPT_BYTES", 4 * (64 * 64 + 48 * 48))
    monkeypatch.setattr(noise, "_fields", OrderedDict())
    for edge in (64, 32, 64, 48):
        with_noise(torch.zeros(1, 3, edge, edge), 1, 0)
    assert [field.shape[1] for field in noise._fields.values()] == [64, 48]
    with_noise(torch.zeros(1, 3, 128, 128), 1, 0)
    assert [field.shape[1] for field in noise._fields.values()] == [128], "the last one is kept"


def test_kept_fields_may_be_used_where_gradients_are_wanted() -> None:
    images = torch.zeros(1, 3, 8, 8)
    with torch.inference_mode():
        with_noise(images, 1, 9)
    joined = with_noise(images.requires_grad_(True), 1, 9)
    (joined * joined).sum().backward()
    assert images.grad is not None


@pytest.mark.parametrize(
    "wrong", [{"channels": 5}, {"channels": 0}, {"channels": 2, "seed": -1}, {"channels": True}, {"seed": 1}]
)
def test_a_card_with_impossible_noise_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ModelError, match="noise must be empty or channels"):
        ModelCard(name="painter", architecture="h2", arguments={"in_channels": 5}, noise=wrong)
