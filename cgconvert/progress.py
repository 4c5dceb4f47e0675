"""How far a run is: the interface that pipelines report to. What a person sees is `cgconvert.cli.status`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


def counted(number: int, unit: str) -> str:
    """Return a number with its unit in words, such as "1 frame" or "2 frames"."""
    return f"{number} {unit}{'s' * (number != 1)}"


def seconds_as_clock(seconds: float) -> str:
    """Return seconds as on a clock: 75 as "1:15", 4000 as "1:06:40"."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def size_in_words(size: float) -> str:
    """Return bytes as "812 MiB"."""
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1000:
            return f"{size:.1f} {unit}" if size < 10 else f"{size:.0f} {unit}"
    return f"{size / 1024:.1f} TiB"


class Progress(Protocol):
    """Told by a pipeline, from one thread, what it does and how far it is."""

    def begin(self, task: str, total: int | None, unit: str) -> None:
        """A task starts: `total` in `unit`s ("frame", "picture"), None if unknown."""

    def advance(self, done: int, busiest: str | None = None) -> None:
        """`done` units are finished since `begin`; `busiest` names the stage that limits the speed."""

    def note(self, line: str) -> None:
        """Something a person should know now: a stage without units, a skipped file."""

    def stage(self, what: str | None) -> None:
        """Something without units begins that may take minutes, such as a compiler; None: it is over.

        A person sees what it is and the seconds that it has taken. It may be within a task or before one.
        """

    def finish(self) -> None:
        """The task is over, well or not."""

    def series(self, done: int, total: int, left: float | None) -> None:
        """`done` of the `total` videos of a run are dealt with; the others take about `left` seconds more.

        Each video is a task of its own. None for `left`: nothing is known yet.
        """


@contextmanager
def shown_stage(progress: Progress, what: str) -> Iterator[None]:
    """Show `what` as a stage while this block runs."""
    progress.stage(what)
    try:
        yield
    finally:
        progress.stage(None)


class Silent:
    """Progress that nobody watches."""

    def begin(self, task: str, total: int | None, unit: str) -> None:
        pass

    def advance(self, done: int, busiest: str | None = None) -> None:
        pass

    def note(self, line: str) -> None:
        pass

    def stage(self, what: str | None) -> None:
        pass

    def finish(self) -> None:
        pass

    def series(self, done: int, total: int, left: float | None) -> None:
        pass
