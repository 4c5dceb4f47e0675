"""A channel of one between threads, in which a new item takes the place of one that nobody has taken."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

from cgconvert.host.interrupts import Aborted

Item = TypeVar("Item")


class Latest(Generic[Item]):
    """The newest item. `put` never waits, so whoever takes slowly gets fewer items and no older ones."""

    def __init__(self) -> None:
        self.item: Item | None = None
        self.dropped = 0
        """Items that were replaced before anybody took them."""
        self.closed = False
        self.aborted = False
        self.changed = threading.Condition()

    def put(self, item: Item) -> None:
        """Make an item the newest. Raises `Aborted`."""
        with self.changed:
            if self.aborted:
                raise Aborted
            self.dropped += self.item is not None
            self.item = item
            self.changed.notify_all()

    def take(self, timeout: float | None = None) -> Item | None:
        """The newest item, waited for; None once closed and empty, or after `timeout` seconds.

        Raises `Aborted`.
        """
        with self.changed:
            self.changed.wait_for(lambda: self.item is not None or self.closed or self.aborted, timeout)
            if self.aborted:
                raise Aborted
            item, self.item = self.item, None
            return item

    def close(self) -> None:
        """Say that no more items come; one that is there can still be taken."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def abort(self) -> None:
        """Make everybody who waits, now or later, raise `Aborted`."""
        with self.changed:
            self.aborted = True
            self.item = None
            self.changed.notify_all()
