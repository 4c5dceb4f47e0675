"""How much memory pictures take, and which are taken of those that wait."""

from __future__ import annotations

from cgconvert.card import ModelCard
from cgconvert.pictures.batching import Groups, memory_per_pixel

H2 = ModelCard("h2", "h2")
RESNET = ModelCard("r", "resnet", {"ngf": 64})


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
