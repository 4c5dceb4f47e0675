"""Which pictures are taken of those that wait."""

from __future__ import annotations

from cgconvert.pictures.batching import Groups


def test_groups_keep_order_and_rest() -> None:
    groups: Groups[int] = Groups()
    for number in range(7):
        groups.add("even" if number % 2 == 0 else "odd", number, 3)
    assert len(groups) == 7
    assert groups.take_full() == [0, 2, 4]
    assert groups.take_full() == [1, 3, 5]
    assert groups.take_full() is None
    assert groups.take_oldest() == [6] and groups.take_oldest() is None and len(groups) == 0


def test_many_sizes_do_not_wait_for_ever() -> None:
    """Where every picture has a size of its own no batch fills, and memory must not."""
    groups: Groups[int] = Groups()
    taken = []
    for number in range(40):
        groups.add(number, number, 4)
        if batch := groups.take_full():
            taken.append(batch)
        assert len(groups) <= 8
    assert taken == [[number] for number in range(32)]
