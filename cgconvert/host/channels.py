"""Threads that hand items on: bounded channels, workers that are always joined, errors that arrive."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Something that knows how much memory it keeps alive."""

    @property
    def nbytes(self) -> int:
        """Bytes."""
        ...


Item = TypeVar("Item", bound=Sized)


class Aborted(Exception):
    """The run is over because of an error elsewhere; whoever waits on a channel is sent home."""


class Channel(Generic[Item]):
    """A first-in first-out queue between two threads, bounded by the bytes in it.

    One item always fits, however large. Bytes rather than items bound it, so that memory stays the same
    from small to large frames and small packets do not crowd out frames.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.items: deque[Item] = deque()
        self.used = 0
        self.closed = False
        self.aborted = False
        self.changed = threading.Condition()

    def put(self, item: Item) -> None:
        """Add an item, waiting for room. Raises `Aborted`."""
        with self.changed:
            while self.items and self.used + item.nbytes > self.capacity and not self.aborted:
                self.changed.wait()
            if self.aborted:
                raise Aborted
            self.items.append(item)
            self.used += item.nbytes
            self.changed.notify_all()

    def close(self) -> None:
        """Say that no more items come."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def abort(self) -> None:
        """Wake everybody who waits; what is still in the channel is given up."""
        with self.changed:
            self.aborted = True
            self.items.clear()
            self.changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        """Items in order, waiting for them, until the channel is closed. Raises `Aborted`."""
        while True:
            with self.changed:
                while not self.items and not self.closed and not self.aborted:
                    self.changed.wait()
                if self.aborted:
                    raise Aborted
                if not self.items:
                    return
                item = self.items.popleft()
                self.used -= item.nbytes
                self.changed.notify_all()
            yield item


class StageClock:
    """Seconds that each stage was busy, as opposed to waiting for another."""

    def __init__(self, *stages: str) -> None:
        self.seconds = dict.fromkeys(stages, 0.0)

    @contextmanager
    def busy(self, stage: str) -> Iterator[None]:
        """Count the time of this block for a stage; one thread a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started

    @property
    def busiest(self) -> str:
        """The stage that limits the speed."""
        return max(self.seconds, key=lambda stage: self.seconds[stage])


class Workers:
    """Threads that stop together: the first error aborts every channel, and `join` raises it as it was."""

    def __init__(self, *channels: Channel) -> None:
        self.channels = channels
        self.threads: list[threading.Thread] = []
        self.error: BaseException | None = None

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Run `work` in a thread of its own."""

        def guarded() -> None:
            try:
                work()
            except Aborted:
                pass
            except BaseException as error:  # whatever it is, it must reach the caller
                self.fail(error)

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        self.threads.append(thread)
        thread.start()

    def fail(self, error: BaseException) -> None:
        """Remember the first error and send everybody home."""
        if self.error is None:
            self.error = error
        self.abort()

    def abort(self) -> None:
        """Wake every thread that waits on a channel and make it stop."""
        for channel in self.channels:
            channel.abort()

    def alive(self) -> bool:
        """Whether any thread still runs."""
        return any(thread.is_alive() for thread in self.threads)

    def join(self) -> None:
        """Wait for every thread, then raise the first error, with its own traceback."""
        for thread in self.threads:
            while thread.is_alive():
                thread.join(0.2)  # in slices, so that Ctrl-C is heard
        if self.error is not None:
            raise self.error
