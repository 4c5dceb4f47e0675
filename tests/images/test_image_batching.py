"""How many pictures go together, and what is taken from those that wait."""

from __future__ import annotations

import pytest

from cgconvert.image_batching import Groups, available_memory, choose_batch, memory_per_pixel
from cgconvert.models.card import ModelCard

H2 = ModelCard("h2", "h2")
RESNET = ModelCard("r", "resnet", {"ngf": 64})


@pytest.mark.parametrize(
    ("device", "size", "free", "expected"),
    [
        ("cpu", (256, 256), None, 1),
        ("cpu", (2000, 3000), None, 1),
        ("cpu", (32, 32), None, 16),
        ("cpu", (1, 1), None, 64),
        ("cuda", (256, 256), None, 61),
        ("cuda:1", (1080, 1920), None, 1),
        ("cuda", (256, 256), 2 * 503.8 * 256 * 256 * 10, 10),
        ("cuda", (256, 256), 0, 1),
    ],
)
def test_choose_batch(device: str, size: tuple[int, int], free: int | None, expected: int) -> None:
    assert choose_batch(RESNET, device, *size, free) == expected


def test_memory_grows_with_the_network() -> None:
    wide = ModelCard("w", "resnet", {"ngf": 128})
    assert memory_per_pixel(H2) < memory_per_pixel(RESNET) < memory_per_pixel(wide)
    assert memory_per_pixel(H2, "bf16") < memory_per_pixel(H2)
    assert memory_per_pixel(ModelCard("x", "not known here")) > 0


def test_available_memory_is_sensible() -> None:
    free = available_memory()
    assert free is None or 10_000_000 < free < 1 << 50


def test_groups_keep_order_and_rest() -> None:
    groups: Groups[int] = Groups()
    for number in range(7):
        groups.add("even" if number % 2 == 0 else "odd", number, 3)
    assert len(groups) == 7
    assert groups.take_full() == [0, 2, 4]
    assert groups.take_full() == [1, 3, 5]
    assert groups.take_full() is None
    assert groups.take_oldest() == [6] and groups.take_oldest() is None and len(groups) == 0
