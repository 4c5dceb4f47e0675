"""Signals that stop a training: the step is finished and a checkpoint written first."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """The numbers of SIGINT and SIGTERM as they arrive; a second signal of a kind ends the process.

    Outside the main thread the list stays empty, and the caller handles signals.
    """
    received: list[int] = []
    previous: dict[int, Any] = {}

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, receive)
    except ValueError:  # not the main thread
        pass
    try:
        yield received
    finally:
        for stopping, handler in previous.items():
            signal.signal(stopping, handler)
