"""Pictures that wait to go through the network together. No torch."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Groups(Generic[Item]):
    """Items that wait to become a batch, by what they must have in common; groups in order of age."""

    def __init__(self) -> None:
        self.waiting: dict[Hashable, list[Item]] = {}
        self.sizes: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self.waiting.values()))

    def add(self, key: Hashable, item: Item, batch: int) -> None:
        """Put an item to those of its key, of which `batch` make a full batch."""
        self.waiting.setdefault(key, []).append(item)
        self.sizes[key] = batch

    def take_full(self) -> list[Item] | None:
        """A full batch, or None. If too many items wait for their batches to fill, the oldest group's."""
        for key, items in self.waiting.items():
            if len(items) >= self.sizes[key]:
                return self._take(key)
        crowded = len(self) > 2 * max(self.sizes.values(), default=0)
        return self.take_oldest() if crowded else None

    def take_oldest(self) -> list[Item] | None:
        """What there is of the group that has waited longest, or None if nothing waits."""
        return self._take(next(iter(self.waiting))) if self.waiting else None

    def _take(self, key: Hashable) -> list[Item]:
        items, count = self.waiting.pop(key), self.sizes[key]
        if items[count:]:
            self.waiting[key] = items[count:]
        else:
            del self.sizes[key]
        return items[:count]
