"""`cgconvert live`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cgconvert.cli.common import (
    complete_model,
    engine_options,
    look_options,
    read_engine_options,
    save_report,
)
from cgconvert.cli.status import create_progress
from cgconvert.cli.wording import say, tell
from cgconvert.host.interrupts import deferring
from cgconvert.host.threads import wait_without_spinning
from cgconvert.options import LiveOptions
from cgconvert.progress import seconds_as_clock

if TYPE_CHECKING:
    from cgconvert.live.report import LiveReport
    from cgconvert.live.run import Status

ON_TERMINAL, ELSEWHERE = 0.5, 10.0
"""Seconds between two lines that say how it goes."""


@click.command(short_help="Convert a camera, a screen or a stream as it comes.")
@click.argument("source", metavar="SOURCE")
@click.option(
    "-o",
    "--output",
    default="window",
    show_default=True,
    metavar="SINK",
    help="window, /dev/videoN (v4l2loopback), rtsp://, rtmp://, srt://, udp://, tcp://, whip:https://..., or "
    "a file (.mp4, .mkv, .mov, .ts).",
)
@click.option(
    "-m",
    "--model",
    default="photo2monet-fast",
    show_default=True,
    shell_complete=complete_model,
    help="Name of a model or path of its file.",
)
@look_options
@click.option(
    "--rate",
    type=float,
    metavar="N",
    help="Convert at most N pictures per second, at a larger size.  [default: all that come]",
)
@click.option("--seconds", type=float, metavar="N", help="End after so many seconds.")
@click.option("--loop", is_flag=True, help="Play a file again and again.")
@click.option("--listen", is_flag=True, help="Wait for a stream (rtsp, rtmp, srt, tcp) that somebody sends.")
@engine_options
@click.option("--overwrite", is_flag=True, help="Replace SINK if it is a file that exists.")
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a JSON report of the run.",
)
@click.option("--quiet", is_flag=True, help="Print errors only.")
def live(
    source: str,
    output: str,
    model: str,
    strength: float,
    keep_colours: bool,
    stroke: str | None,
    work_size: str | None,
    rate: float | None,
    seconds: float | None,
    loop: bool,
    listen: bool,
    device: str,
    engine: str,
    precision: str,
    batch: str,
    overwrite: bool,
    report: Path | None,
    quiet: bool,
) -> None:
    """Convert SOURCE as it comes and show the result at once. Sound is not taken.

    SOURCE is camera or camera:N, screen or screen:N, a device such as /dev/video0, an address (rtsp, rtmp,
    srt, udp, tcp, http), or a file, which is played in real time. The newest picture is converted, and those
    that came meanwhile are dropped. The size at which the network sees them is chosen so that it keeps up.
    What breaks off is connected again. It ends with Ctrl-C, Escape in the window, or --seconds.
    """
    options = LiveOptions(work_size, stroke, strength, keep_colours, rate, seconds, loop, listen, overwrite)
    choice = read_engine_options(device, engine, precision, batch)
    wait_without_spinning()  # before the imports below bring torch in
    with deferring():
        from cgconvert.live.run import run_live

    progress = create_progress(quiet)
    shown = _Line(quiet)
    try:
        result = run_live(source, output, model, options, choice, progress, shown)
    finally:
        shown.finish()
        progress.finish()
    if not quiet:
        say(summary(result))
    save_report(report, result.to_dict(), "the live conversion has ended")


class _Line:
    """The line that says how it goes: renewed on a terminal, a new one now and then elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self.renews = sys.stderr.isatty()
        self.quiet, self.width, self.told = quiet, 0, time.monotonic()

    def __call__(self, status: Status) -> None:
        now = time.monotonic()
        if self.quiet or not status.shown or now - self.told < (ON_TERMINAL if self.renews else ELSEWHERE):
            return
        self.told = now
        text = status.describe()
        if self.renews:
            click.echo(f"\r{text.ljust(self.width)}", err=True, nl=False)
            self.width = len(text)
        else:
            tell(text)

    def finish(self) -> None:
        """Leave the line."""
        if self.width:
            click.echo(err=True)
            self.width = 0


def summary(result: LiveReport) -> str:
    """Say in one line what was done."""
    late = result.latency_ms
    behind = f", {late['median']:.0f} ms behind ({late['p95']:.0f} at most for 95%)" if late else ""
    return (
        f"Showed {result.pictures_out} of {result.pictures_in} pictures in "
        f"{seconds_as_clock(result.seconds)} ({result.rate:.1f} pictures/s{behind}) -> {result.output}"
    )
