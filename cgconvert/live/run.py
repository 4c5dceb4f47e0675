"""Converts live pictures: a thread reads, one converts the newest picture, and one shows or sends results.

Between them are channels of one, in which a new item takes the place of one that nobody has taken. So what is
shown is never older than one picture being converted and one being shown, however slow the network is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from cgconvert.engines.job import EngineJob
from cgconvert.engines.pixels import convert_pixels
from cgconvert.engines.ready import create_job
from cgconvert.errors import UsageError
from cgconvert.finish import Finish
from cgconvert.frames import StreamInfo
from cgconvert.host.channels import Relayed, Workers, in_worker
from cgconvert.host.interrupts import Stop, listening
from cgconvert.host.latest import Latest
from cgconvert.live.report import Latencies, LiveReport
from cgconvert.live.size import choose_size, possible_sizes
from cgconvert.media.live.places import sink_place, source_place
from cgconvert.media.live.sink import StreamSink
from cgconvert.media.live.source import Arrival, LiveSource, check_readable, noise_like
from cgconvert.media.live.window import Window
from cgconvert.media.picture.finish import finished
from cgconvert.media.video.colour import ToPixels
from cgconvert.models.loading import Model, load_model
from cgconvert.options import EngineOptions, LiveOptions, check_engine_options
from cgconvert.progress import Progress
from cgconvert.sizes import check_work_size, network_size

PATIENCE = 3.0
"""Seconds that threads have to finish what they do, once it is to end."""

WINDOW = 2.0
"""Seconds over which the network has to be too slow before its pictures get smaller."""

TOO_SLOW = 0.95
"""Of the time between two pictures: a network that takes more does not keep up."""

MOST_RATE = 240.0


@dataclass(frozen=True)
class Result:
    """A converted picture (H, W, 3), when its source came, and its time in the source in seconds."""

    pixels: np.ndarray
    at: float
    seconds: float


@dataclass(frozen=True)
class Status:
    """How it goes just now. `latency_ms` is the median of the last pictures, None before the first."""

    shown: int
    rate: float
    latency_ms: float | None
    dropped: float
    work_size: tuple[int, int]

    def describe(self) -> str:
        """One line."""
        late = f", {self.latency_ms:.0f} ms behind" if self.latency_ms is not None else ""
        width, height = self.work_size
        return f"{self.rate:.1f} pictures/s{late}, {self.dropped:.0%} dropped, network at {width}x{height}"


class _Ended(Exception):
    """All is shown or sent, or there is no more patience."""


def check_live_options(options: LiveOptions, engine: EngineOptions) -> None:
    """Raise `UsageError` for options that make no sense."""
    check_engine_options(engine)
    check_work_size(options.work_size, options.stroke)
    Finish(options.strength, options.keep_colours)  # which checks them
    for name, value in (("rate", options.rate), ("seconds", options.seconds)):
        if value is not None and not 0 < value < 1e9:
            raise UsageError(f"`{name}={value:g}` is not above 0")
    if engine.batch not in (None, 1):
        raise UsageError("live pictures go through the network one by one: leave `batch` out")


def run_live(
    source: str,
    output: str,
    model: str,
    options: LiveOptions,
    engine: EngineOptions,
    progress: Progress,
    tell: Callable[[Status], None] = lambda status: None,
) -> LiveReport:
    """Convert a source until it ends, the time is over, the window is closed, or Ctrl-C is pressed.

    `source` and `output` are places as `source_place` and `sink_place` take them. `tell` is called several
    times a second, in the calling thread, which has to be the main one for a window. A file at `output`
    appears whole at the end. Raises `UsageError`, `InputError`, `ModelError`, `OutputError`, and
    `KeyboardInterrupt` for an interrupt before the first picture.
    """
    check_live_options(options, engine)
    place, target = source_place(source, options.listen), sink_place(output)
    check_readable(place)
    with listening() as stop:
        ending = threading.Event()
        live = LiveSource(place, ending, progress.note, options.loop)
        session = in_worker(
            "prepare",
            lambda relayed: _Session(live, model, options, engine, relayed),
            progress,
        )
        try:
            info = session.info
            sink = (
                StreamSink(target, info, progress.note, options.overwrite)
                if target.kind != "window"
                else None
            )
            title = f"cgconvert: {session.model.card.name}"
            window = None if sink is not None else Window(title, *session.full_size)
            try:
                session.run(stop, sink, window, progress, tell)
            finally:
                if window is not None:
                    window.close()
            return session.report(source, output, sink)
        finally:
            session.job.close()


class _Session:
    """Everything of one live conversion, ready to run."""

    def __init__(
        self,
        live: LiveSource,
        model: str,
        options: LiveOptions,
        engine: EngineOptions,
        progress: Progress,
    ) -> None:
        """Open the source, load the model, make its engine ready, and choose the size that it keeps up at."""
        self.live, self.options = live, options
        self.model: Model = load_model(model)
        progress.stage(f"opening {live.place.text}")
        self.info: StreamInfo = live.open()
        progress.stage(None)
        self.full_size = self.info.width, self.info.height
        rate = float(self.info.rate) if 0 < self.info.rate <= MOST_RATE else 30.0
        self.rate = min(rate, options.rate or rate)
        self.finish = Finish(options.strength, options.keep_colours)
        self.is_fixed = options.work_size is not None or options.stroke is not None
        card = self.model.card
        largest = network_size(options.work_size, options.stroke, card, self.full_size, self.full_size)
        self.sizes = [largest] if self.is_fixed else possible_sizes(*largest)
        example = noise_like(self.info)  # content does not change what a picture costs
        middle = self.sizes[len(self.sizes) // 2]
        first = ToPixels(self.info, *middle)(example)
        self.job: EngineJob = create_job(self.model, replace(engine, batch=1), first[None], progress)
        progress.stage("choosing the size")
        pixels = ToPixels(self.info, *largest)(example)
        try:
            self.size_number, self.network_seconds = choose_size(self.job, pixels, self.sizes, 1 / self.rate)
        except BaseException:
            self.job.close()
            raise
        progress.stage(None)
        if not self.is_fixed and self.size_number:
            width, height = self.sizes[self.size_number]
            progress.note(f"the network keeps up with {self.rate:g} pictures/s at {width}x{height}")
        self.work_sizes = [self.sizes[self.size_number]]
        self.notes: list[str] = []
        self.waiting: Latest[Arrival] = Latest()
        self.results: Latest[Result] = Latest()
        self.latencies = Latencies()
        self.arrived = 0
        self.began = self.ended = time.monotonic()
        self.sent = threading.Event()

    # ---- threads

    def read(self) -> None:
        """Take pictures as they come, at most `rate` a second."""
        due = 0.0
        try:
            for arrival in self.live.arrivals():
                if self.options.rate is not None:
                    if arrival.at < due:
                        continue
                    due = max(due, arrival.at - 0.5 / self.rate) + 1 / self.rate
                self.arrived += 1
                self.waiting.put(arrival)
        finally:
            self.live.close()
            self.waiting.close()

    def convert(self, note: Callable[[str], None]) -> None:
        """Convert the newest picture, again and again."""
        to_pixels = ToPixels(self.info, *self.sizes[self.size_number])
        to_full = ToPixels(self.info, *self.full_size)
        busy, taken, since = 0.0, 0, time.monotonic()
        try:
            while (arrival := self.waiting.take()) is not None:
                started = time.monotonic()
                result = convert_pixels(self.job, to_pixels(arrival.frame)[None])[0]
                if not self.finish.is_plain:
                    result = finished(to_full(arrival.frame), result, self.finish)
                self.results.put(Result(result, arrival.at, arrival.seconds))
                now = time.monotonic()
                busy, taken = busy + now - started, taken + 1
                if now - since < WINDOW:
                    continue
                if busy / taken > TOO_SLOW / self.rate and self._shrink():
                    width, height = self.sizes[self.size_number]
                    note(f"the network does not keep up: {width}x{height} from now on")
                    to_pixels = ToPixels(self.info, width, height)
                busy, taken, since = 0.0, 0, now
        finally:
            self.results.close()

    def _shrink(self) -> bool:
        """Take the next smaller size, if there is one and the user has named none."""
        if self.is_fixed or self.size_number == len(self.sizes) - 1:
            return False
        self.size_number += 1
        self.work_sizes.append(self.sizes[self.size_number])
        return True

    def send(self, sink: StreamSink) -> None:
        """Send results as they come."""
        sink.open()
        try:
            while (result := self.results.take()) is not None:
                if sink.put(result.pixels, result.seconds):
                    self.latencies.add(time.monotonic() - result.at)
        finally:
            self.sent.set()

    def show(self, window: Window, workers: Workers, look: Callable[[], None]) -> None:
        """Show results as they come, each by the main thread, whose windows they are."""
        done = threading.Event()

        def shown(result: Result) -> None:
            window.show(result.pixels, f"{self.model.card.name}: {self.status().describe()}")
            self.latencies.add(time.monotonic() - result.at)
            done.set()
            look()  # which otherwise waits until nothing is to be shown

        try:
            while (result := self.results.take()) is not None:
                done.clear()
                workers.in_watching_thread(partial(shown, result))
                while not done.wait(0.1):
                    workers.check()
        finally:
            self.sent.set()

    # ---- the main thread

    def run(
        self,
        stop: Stop,
        sink: StreamSink | None,
        window: Window | None,
        progress: Progress,
        tell: Callable[[Status], None],
    ) -> None:
        """Run until it ends."""
        ending = self.live.ending
        asked_at: float | None = None

        def look() -> None:
            nonlocal asked_at
            now = time.monotonic()
            if window is not None:
                window.tend()
            over = self.options.seconds is not None and now - self.began > self.options.seconds
            if asked_at is None and (stop.requested or over or (window is not None and window.closed)):
                asked_at = now
                ending.set()
                self.waiting.close()
            if asked_at is not None and (self.sent.is_set() or now - asked_at > PATIENCE):
                raise _Ended
            tell(self.status())

        keep = False
        self.began = time.monotonic()
        try:
            with Workers(self.waiting, self.results) as workers:
                relayed = Relayed(workers, progress)
                self.live.note = self._noting(relayed.note)
                if sink is not None:
                    sink.note = self._noting(relayed.note)
                workers.start("read", self.read)
                workers.start("convert", partial(self.convert, self._noting(relayed.note)))
                if sink is not None:
                    workers.start("send", partial(self.send, sink))
                elif window is not None:
                    workers.start("show", partial(self.show, window, workers, look))
                with suppress(_Ended):
                    workers.watch(Stop(), look)
            keep = True
        finally:
            self.ended = time.monotonic()
            ending.set()
            if sink is not None:
                sink.close(keep)

    def _noting(self, tell: Callable[[str], None]) -> Callable[[str], None]:
        def note(line: str) -> None:
            if line not in self.notes and len(self.notes) < 50:
                self.notes.append(line)
            tell(line)

        return note

    def status(self) -> Status:
        """How it goes just now."""
        elapsed = max(time.monotonic() - self.began, 1e-3)
        return Status(
            self.latencies.count,
            self.latencies.count / elapsed,
            self.latencies.now(),
            self._dropped() / max(self.arrived, 1),
            self.sizes[self.size_number],
        )

    def _dropped(self) -> int:
        return self.waiting.dropped + self.results.dropped

    def report(self, source: str, output: str, sink: StreamSink | None) -> LiveReport:
        """What has been done."""
        seconds = self.ended - self.began
        return LiveReport(
            source=source,
            output=output,
            model=self.model.card.name,
            size=self.full_size,
            seconds=round(seconds, 3),
            pictures_in=self.arrived,
            pictures_out=self.latencies.count,
            dropped=self._dropped(),
            lost=sink.lost if sink is not None else 0,
            reconnections=self.live.reconnections + (sink.reconnections if sink is not None else 0),
            source_rate=round(self.rate, 3),
            rate=round(self.latencies.count / max(seconds, 1e-3), 3),
            latency_ms=self.latencies.describe(),
            work_sizes=self.work_sizes,
            engine=self.job.describe(),
            notes=self.notes,
        )
