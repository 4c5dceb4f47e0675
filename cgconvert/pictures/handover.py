"""What a device that fails leaves to the others that work on the same folder. No torch."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

from cgconvert.host.channels import check_worker

Item = TypeVar("Item")

LOOK = 0.1
"""Seconds between two looks of a waiting thread at whether the run is over."""


class Handover(Generic[Item]):
    """Items of devices that failed. Until every device is done or gone, more of them may come."""

    def __init__(self, devices: int) -> None:
        self.changed = threading.Condition()
        self.left: deque[Item] = deque()
        self.working = self.there = devices

    def leave(self, items: Iterable[Item]) -> bool:
        """A working device is gone and leaves its items; False if no other is there to take them."""
        with self.changed:
            self.working -= 1
            self.there -= 1
            if self.there:
                self.left.extend(items)
            self.changed.notify_all()
            return self.there > 0

    def take(self) -> Item | None:
        """An item that was left, or None at once."""
        with self.changed:
            return self.left.popleft() if self.left else None

    def wait(self) -> Item | None:
        """For a device that has nothing else to do: an item that is left, None when none will be any more.

        Raises `Aborted`.
        """
        with self.changed:
            self.working -= 1
            self.changed.notify_all()
            while not self.left and self.working:
                self.changed.wait(LOOK)
                check_worker()
            if not self.left:
                return None
            self.working += 1
            return self.left.popleft()
