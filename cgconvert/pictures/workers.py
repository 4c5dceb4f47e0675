"""Threads that read, decode and encode pictures beside the network, and tell what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")
Work = Callable[[Item], None]

THREAD_NAME = "cgconvert-image-worker"


@dataclass(frozen=True)
class Done(Generic[Item]):
    """A piece of work is done; `then` is what the coordinator does next with the item."""

    stage: str
    item: Item
    seconds: float
    then: Work[Item]


@dataclass(frozen=True)
class Failed(Generic[Item]):
    """A piece of work raised `error`."""

    stage: str
    item: Item
    error: BaseException


class Workers(Generic[Item]):
    """`count` threads that take work in order; each result arrives through `tell` as `Done` or `Failed`.

    Daemons: an interrupted program waits for them a moment, not for as long as a codec likes.
    """

    def __init__(self, count: int, tell: Callable[[Done[Item] | Failed[Item]], None]) -> None:
        self.count = count
        self.tell = tell
        self.stopping = False
        self.tasks: SimpleQueue[tuple[str, Work[Item], Item, Work[Item]] | None] = SimpleQueue()
        self.threads = [
            threading.Thread(target=self._run, name=THREAD_NAME, daemon=True) for _ in range(count)
        ]
        for thread in self.threads:
            thread.start()

    def submit(self, stage: str, work: Work[Item], item: Item, then: Work[Item]) -> None:
        """Do `work(item)` in one of the threads."""
        self.tasks.put((stage, work, item, then))

    def _run(self) -> None:
        while (task := self.tasks.get()) is not None:
            if self.stopping:
                continue
            stage, work, item, then = task
            started = time.perf_counter()
            try:
                work(item)
            except BaseException as error:  # whatever it is, the coordinator decides
                self.tell(Failed(stage, item, error))
            else:
                self.tell(Done(stage, item, time.perf_counter() - started, then))

    def close(self, timeout: float | None = None) -> None:
        """End the threads after what they are doing now, and wait for that at most `timeout` seconds."""
        self.stopping = True
        for _ in self.threads:
            self.tasks.put(None)
        end = None if timeout is None else time.monotonic() + timeout
        for thread in self.threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
