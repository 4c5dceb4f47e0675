"""Progress for a person: a live line on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from cgconvert.progress import Progress, Silent

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

NAME_WIDTH = 20
"""Letters of a name on the live line, which must fit into 80 columns with all that it says."""

SETTLED = 2.0
"""Seconds after which a rate says enough to foretell the end."""

LINE_INTERVAL = 10.0
"""Seconds between two plain lines, so that a log file stays readable."""


def create_progress(quiet: bool) -> Progress:
    """What suits standard error: live on a terminal, lines in a file or pipe, nothing if quiet."""
    if quiet:
        return Silent()
    return LiveProgress() if sys.stderr.isatty() else LineProgress()


def seconds_as_clock(seconds: float) -> str:
    """75 -> "1:15", 4000 -> "1:06:40"."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def counted(number: int, unit: str) -> str:
    """ "1 frame", "2 frames"."""
    return f"{number} {unit}{'s' * (number != 1)}"


class LineProgress:
    """One line when a task starts, one every ten seconds, one when it is over."""

    def begin(self, task: str, total: int | None, unit: str) -> None:
        self.total, self.unit = total, unit
        self.started = self.printed = time.monotonic()
        of = f" {counted(total, unit)}" if total is not None else ""
        click.echo(f"{task}{':' if of else ''}{of}", err=True)

    def advance(self, done: int, busiest: str | None = None) -> None:
        now = time.monotonic()
        if now - self.printed < LINE_INTERVAL or done == 0:
            return
        self.printed = now
        rate = done / (now - self.started)
        text = f"{done}{f' of {self.total}' if self.total else ''} {self.unit}s, {rate:.1f} {self.unit}s/s"
        if self.total and self.total > done:
            text += f", {seconds_as_clock((self.total - done) / rate)} left"
        click.echo(f"{text}{f', busiest: {busiest}' if busiest else ''}", err=True)

    def note(self, line: str) -> None:
        click.echo(line, err=True)

    def finish(self) -> None:
        pass


class LiveProgress:
    """A line that is drawn anew: bar, count, rate, time left, the busiest stage."""

    def __init__(self) -> None:
        self.rich: RichProgress | None = None
        self.task: TaskID | None = None

    def begin(self, task: str, total: int | None, unit: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self.finish()
        self.unit, self.total, self.started = unit, total, time.monotonic()
        self.rich = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=8),
            TextColumn("{task.fields[status]}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )
        name = task if len(task) <= NAME_WIDTH else f"{task[: NAME_WIDTH - 1]}\N{HORIZONTAL ELLIPSIS}"
        self.task = self.rich.add_task(name, total=total, status="starting")
        self.rich.start()

    def advance(self, done: int, busiest: str | None = None) -> None:
        if self.rich is None or self.task is None:
            return
        elapsed = max(time.monotonic() - self.started, 1e-6)
        rate = done / elapsed
        status = f"{done}/{self.total} {self.unit}s" if self.total else counted(done, self.unit)
        status += f" {rate:.1f}/s"
        if self.total and self.total > done > 0 and elapsed > SETTLED:
            status += f" {seconds_as_clock((self.total - done) / rate)} left"
        if busiest:
            status += f" busiest: {busiest}"
        self.rich.update(self.task, completed=done, status=status)

    def note(self, line: str) -> None:
        if self.rich is not None:
            self.rich.console.print(line, markup=False, highlight=False)
        else:
            click.echo(line, err=True)

    def finish(self) -> None:
        if self.rich is not None:
            self.rich.stop()
            self.rich = None
