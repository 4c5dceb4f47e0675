"""How many pictures go together, and what is taken from those that wait."""

from __future__ import annotations

import pytest

from cgconvert.image_batching import Groups, memory_per_pixel, scaled_batch
from cgconvert.models.card import ModelCard

H2 = ModelCard("h2", "h2")
RESNET = ModelCard("r", "resnet", {"ngf": 64})


@pytest.mark.parametrize(
    ("size", "enough", "most", "expected"),
    [
        ((256, 256), 65536, 65536, 1),
        ((256, 257), 65536, 65536, 1),
        ((128, 128), 65536, 65536, 4),
        ((100, 128), 65536, 65536, 5),  # what fits counts, not what would be enough
        ((8, 8), 65536, 65536, 64),
        ((256, 256), 8_000_000, 8_000_000, 64),
        ((1080, 1920), 8_000_000, 20_000_000, 4),
        ((1080, 1920), 8_000_000, 1_000_000, 1),
    ],
)
def test_scaled_batch(size: tuple[int, int], enough: int, most: int, expected: int) -> None:
    assert scaled_batch(*size, enough, most, 64) == expected


def test_memory_grows_with_the_network() -> None:
    wide = ModelCard("w", "resnet", {"ngf": 128})
    assert memory_per_pixel(H2) < memory_per_pixel(RESNET) < memory_per_pixel(wide)
    assert memory_per_pixel(H2, "bf16") < memory_per_pixel(H2)
    assert memory_per_pixel(ModelCard("x", "not known here")) > 0


def test_groups_keep_order_and_rest() -> None:
    groups: Groups[int] = Groups()
    for number in range(7):
        groups.add("even" if number % 2 == 0 else "odd", number, 3)
    assert len(groups) == 7
    assert groups.take_full() == [0, 2, 4]
    assert groups.take_full() == [1, 3, 5]
    assert groups.take_full() is None
    assert groups.take_oldest() == [6] and groups.take_oldest() is None and len(groups) == 0
