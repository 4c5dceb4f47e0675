"""Shows progress as a live line on a terminal and as plain lines elsewhere, and nothing when quiet."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

import click

from cgconvert.cli.wording import logs_json, tell, tell_event, worded
from cgconvert.progress import Progress, Silent, counted, seconds_as_clock

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

NAME_WIDTH = 20
"""The most letters of a name on the live line, which has to fit into 80 columns."""

SETTLED = 2.0
"""Seconds after which a rate is good enough to predict the end."""

LINE_INTERVAL = 10.0
"""Seconds between two plain lines, which keep a log file readable."""


def create_progress(quiet: bool) -> Progress:
    """Return the progress that suits standard error: a live line on a terminal, lines in a file or pipe."""
    if quiet:
        return Silent()
    if logs_json():
        return JsonProgress()
    return LiveProgress() if sys.stderr.isatty() else LineProgress()


class Pace:
    """Units per second, counted from the first one, since until then the engine is made ready."""

    def __init__(self) -> None:
        self.first: tuple[float, int] | None = None

    def measure(self, done: int) -> float | None:
        """Return the units per second when `done` are done, or None while that says too little."""
        now = time.monotonic()
        if self.first is None and done:
            self.first = now, done
        if self.first is None or now - self.first[0] < SETTLED:
            return None
        return (done - self.first[1]) / (now - self.first[0])


def describe_pace(done: int, total: int | None, rate: float | None) -> tuple[str, str]:
    """Return units per second and the time left, such as ("4.0", "0:15"), or "" for what is not known."""
    if rate is None:
        return "", ""
    left = seconds_as_clock((total - done) / rate) if total and total > done and rate else ""
    return f"{rate:.1f}", left


def describe_left(seconds: float | None) -> str:
    """Return ", 1:15 left", or nothing where nothing is known."""
    return "" if seconds is None else f", {seconds_as_clock(seconds)} left"


class LineProgress:
    """Prints a line when a task starts and one every ten seconds. Short stages get none."""

    def __init__(self) -> None:
        self.over: threading.Event | None = None
        self.begun = False

    def stage(self, what: str | None) -> None:
        if self.over is not None:
            self.over.set()
            self.over = None
        if what is not None:
            self.over = threading.Event()
            threading.Thread(target=self._tell, args=(what, self.over), daemon=True).start()

    def _tell(self, what: str, over: threading.Event) -> None:
        """Name a stage that takes longer, then print how long it has taken. Runs in its own thread."""
        started = time.monotonic()
        if over.wait(SETTLED):
            return
        click.echo(what, err=True)
        while not over.wait(LINE_INTERVAL):
            click.echo(f"{what}: {seconds_as_clock(time.monotonic() - started)} so far", err=True)
        click.echo(f"{what}: took {seconds_as_clock(time.monotonic() - started)}", err=True)

    def begin(self, task: str, total: int | None, unit: str) -> None:
        self.begun, self.total, self.unit = True, total, unit
        self.pace, self.printed = Pace(), time.monotonic()
        of = f" {counted(total, unit)}" if total is not None else ""
        click.echo(f"{task}{':' if of else ''}{of}", err=True)

    def advance(self, done: int, busiest: str | None = None) -> None:
        if not self.begun or done == 0:
            return
        rate, left = describe_pace(done, self.total, self.pace.measure(done))
        now = time.monotonic()
        if now - self.printed < LINE_INTERVAL:
            return
        self.printed = now
        parts = [f"{done} of {counted(self.total, self.unit)}" if self.total else counted(done, self.unit)]
        parts += [f"{rate} {self.unit}s/s"] if rate else []
        parts += [f"{left} left"] if left else []
        parts += [f"busiest: {busiest}"] if busiest else []
        click.echo(", ".join(parts), err=True)

    def note(self, line: str) -> None:
        tell(line)

    def finish(self) -> None:
        self.stage(None)

    def series(self, done: int, total: int, left: float | None) -> None:
        if done < total:
            click.echo(f"video {done + 1} of {total}{describe_left(left)}", err=True)


class JsonProgress:
    """Prints lines of JSON: each begin and note at once, and how far it is every `interval` seconds."""

    interval = LINE_INTERVAL

    def __init__(self) -> None:
        self.begun = False

    def begin(self, task: str, total: int | None, unit: str) -> None:
        self.begun, self.total, self.unit = True, total, unit
        self.pace, self.printed = Pace(), time.monotonic()
        tell_event("begin", task=task, total=total, unit=unit)

    def advance(self, done: int, busiest: str | None = None) -> None:
        if not self.begun:  # the thread that shows progress may look before it has heard of the begin
            return
        rate, now = self.pace.measure(done), time.monotonic()
        if now - self.printed < self.interval:
            return
        self.printed = now
        told = round(rate, 3) if rate is not None else None
        tell_event("progress", done=done, total=self.total, unit=self.unit, rate=told, busiest=busiest)

    def note(self, line: str) -> None:
        tell(line, "note")

    def stage(self, what: str | None) -> None:
        if what is not None:
            tell_event("stage", task=what)

    def finish(self) -> None:
        pass

    def series(self, done: int, total: int, left: float | None) -> None:
        tell_event("videos", done=done, total=total, seconds_left=None if left is None else round(left, 1))


class LiveProgress:
    """Redraws one line with bar, count, rate, time left and the busiest stage."""

    def __init__(self) -> None:
        self.rich: RichProgress | None = None
        self.task: TaskID | None = None
        self.stage_task: TaskID | None = None
        self.of_series: tuple[int, int, float | None] | None = None
        self.series_task: TaskID | None = None

    def begin(self, task: str, total: int | None, unit: str) -> None:
        self.finish()
        self.unit, self.total, self.pace = unit, total, Pace()
        name = task if len(task) <= NAME_WIDTH else f"{task[: NAME_WIDTH - 1]}\N{HORIZONTAL ELLIPSIS}"
        self.task = self._open().add_task(name, total=total, status="starting")

    def _open(self) -> RichProgress:
        """Return the lines on the terminal, which redraw themselves ten times per second."""
        if self.rich is None:
            from rich.console import Console
            from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
            from rich.progress import Progress as RichProgress
            from rich.table import Column
            from rich.text import Text

            class Status(ProgressColumn):
                """Shows what is known of a task, or how long a stage has taken."""

                def render(self, task: Task) -> Text:
                    return Text(task.fields["status"] or seconds_as_clock(task.elapsed or 0.0))

            self.rich = RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=8),
                Status(table_column=Column(no_wrap=True)),
                console=Console(stderr=True),
                transient=True,
            )
            self.rich.start()
            if self.of_series is not None:
                self.series_task = self.rich.add_task("videos", status="")
                self._show_series()
        return self.rich

    def series(self, done: int, total: int, left: float | None) -> None:
        self.of_series = (done, total, left) if done < total else None
        self._show_series()

    def _show_series(self) -> None:
        """Bring the line of all videos up to date, if it is shown."""
        if self.rich is not None and self.series_task is not None and self.of_series is not None:
            done, total, left = self.of_series
            status = f"{done}/{total} videos{describe_left(left)}"
            self.rich.update(self.series_task, completed=done, total=total, status=status)

    def stage(self, what: str | None) -> None:
        if self.stage_task is not None and self.rich is not None:
            self.rich.remove_task(self.stage_task)
            self.stage_task = None
            if self.task is None:
                self.finish()
        if what is not None:
            self.stage_task = self._open().add_task(what, total=None, status="")

    def advance(self, done: int, busiest: str | None = None) -> None:
        if self.rich is None or self.task is None:
            return
        rate, left = describe_pace(done, self.total, self.pace.measure(done))
        status = f"{done}/{counted(self.total, self.unit)}" if self.total else counted(done, self.unit)
        status += f" {rate}/s" if rate else ""
        status += f" {left} left" if left else ""
        status += f" busiest: {busiest}" if busiest else ""
        self.rich.update(self.task, completed=done, status=status)

    def note(self, line: str) -> None:
        if self.rich is not None:
            self.rich.console.print(worded(line), markup=False, highlight=False)
        else:
            tell(line)

    def finish(self) -> None:
        if self.rich is not None:
            self.rich.stop()
        self.rich = self.task = self.stage_task = self.series_task = None
