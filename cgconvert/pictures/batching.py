"""Pictures that wait to go through the network together, and how much memory that takes. No torch."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from cgconvert.card import ModelCard

# Bytes of float32 a pixel at the peak of one run: a constant part, and one for each channel of the argument
# that widens the generator (with its default). Measured with eager torch on a CPU at 1 to 4 megapixels.
_MEMORY = {
    "h2": ("half_channels", 24, 60, 2.0),
    "resnet": ("ngf", 64, 75, 6.7),
    "unet": ("ngf", 64, 70, 3.4),
    "identity": ("", 0, 30, 0.0),
}


def memory_per_pixel(card: ModelCard, precision: str = "fp32") -> float:
    """Bytes that the network needs for one pixel of (padded) input, roughly."""
    argument, default, constant, factor = _MEMORY.get(card.architecture, ("", 0, 100, 0.0))
    bytes_needed = constant + factor * int(card.arguments.get(argument, default))
    return bytes_needed if precision == "fp32" else 0.6 * bytes_needed


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
        """A full batch, or None."""
        for key, items in self.waiting.items():
            if len(items) >= self.sizes[key]:
                return self._take(key)
        return None

    def take_oldest(self) -> list[Item] | None:
        """What there is of the group that has waited longest, or None if nothing waits."""
        return self._take(next(iter(self.waiting))) if self.waiting else None

    def _take(self, key: Hashable) -> list[Item]:
        items, count = self.waiting.pop(key), self.sizes[key]
        if items[count:]:
            self.waiting[key] = items[count:]
        return items[:count]
