"""Workers: threads that hand items on through bounded channels, are always joined, and lose no error."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from cgconvert.host.interrupts import Aborted, Stop, break_off, listening
from cgconvert.progress import Progress

GRACE = 2.0
"""Seconds that a run which is broken off waits for its threads."""

LOOK = 0.1
"""Seconds between two looks at whether the run is to stop."""


class Sized(Protocol):
    """Something that knows how much memory it keeps alive."""

    @property
    def nbytes(self) -> int:
        """Bytes."""
        ...


class Abortable(Protocol):
    """Something that threads wait at."""

    def abort(self) -> None:
        """Make everybody who waits, now or later, raise `Aborted`."""
        ...


Item = TypeVar("Item", bound=Sized)
Result = TypeVar("Result")


class Channel(Generic[Item]):
    """A first-in first-out queue between threads, bounded by the bytes in it.

    One item always fits, however large. Bytes rather than items bound it, so that memory stays the same
    from small to large frames and small packets do not crowd out frames. It is closed when each of its
    `producers` has closed it.
    """

    def __init__(self, capacity: int, producers: int = 1) -> None:
        self.capacity = capacity
        self.producers = producers
        self.items: deque[Item] = deque()
        self.used = 0
        self.aborted = False
        self.changed = threading.Condition()

    @property
    def finished(self) -> bool:
        """Whether it is closed and empty."""
        with self.changed:
            return not self.items and self.producers < 1

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
        """Say, once for each producer, that no more items come from it."""
        with self.changed:
            self.producers -= 1
            self.changed.notify_all()

    def abort(self) -> None:
        """Wake everybody who waits; what is still in the channel is given up."""
        with self.changed:
            self.aborted = True
            self.items.clear()
            self.used = 0
            self.changed.notify_all()

    def take(self, timeout: float | None = None) -> Item | None:
        """The next item; None if it is closed and empty, or after `timeout` seconds. Raises `Aborted`."""
        with self.changed:
            self.changed.wait_for(lambda: self.items or self.producers < 1 or self.aborted, timeout)
            if self.aborted:
                raise Aborted
            if not self.items:
                return None
            item = self.items.popleft()
            self.used -= item.nbytes
            self.changed.notify_all()
            return item

    def __iter__(self) -> Iterator[Item]:
        """Items in order, waiting for them, until the channel is closed. Raises `Aborted`."""
        while (item := self.take()) is not None:
            yield item


class Budget:
    """Bytes of memory that many threads share: each takes what it needs and gives it back."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self.aborted = False
        self.changed = threading.Condition()

    def take(self, count: int) -> None:
        """Take bytes, waiting until there are as many; more than the limit, when all else is given back.

        Raises `Aborted`.
        """
        with self.changed:
            self.changed.wait_for(lambda: not self.taken or self.taken + count <= self.limit or self.aborted)
            if self.aborted:
                raise Aborted
            self.taken += count

    def give_back(self, count: int) -> None:
        """Give back what was taken."""
        with self.changed:
            self.taken -= count
            self.changed.notify_all()

    def abort(self) -> None:
        """Wake everybody who waits."""
        with self.changed:
            self.aborted = True
            self.changed.notify_all()


class StageClock:
    """Seconds that each stage was busy, as opposed to waiting for another.

    `groups` names the threads that work on stages, or how many of them there are: stages of one group
    share its threads. A stage of the group "" limits no speed, such as loading.
    """

    def __init__(self, groups: Mapping[str, str], threads: Mapping[str, int] | None = None) -> None:
        self.groups = groups
        self.threads = threads or {}
        self.seconds = dict.fromkeys(groups, 0.0)
        self.lock = threading.Lock()

    def add(self, stage: str, seconds: float) -> None:
        """A stage was busy for so long."""
        with self.lock:
            self.seconds[stage] += seconds

    @contextmanager
    def busy(self, stage: str) -> Iterator[None]:
        """Count the time of this block for a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - started)

    def loads(self) -> dict[str, float]:
        """Seconds that each thread of a group was busy on average."""
        with self.lock:
            loads = dict.fromkeys((group for group in self.groups.values() if group), 0.0)
            for stage, seconds in self.seconds.items():
                if group := self.groups[stage]:
                    loads[group] += seconds / self.threads.get(group, 1)
        return loads

    @property
    def busiest(self) -> str:
        """The group that limits the speed."""
        loads = self.loads()
        return max(loads, key=lambda group: loads[group])


class Worker(threading.Thread):
    """A thread of a crew. One that a worker starts in turn belongs to the same crew."""

    def __init__(self, name: str, work: Callable[[], None], crew: Workers | None = None) -> None:
        super().__init__(name=f"cgconvert-{name}", target=work, daemon=True)
        self.crew = crew or getattr(threading.current_thread(), "crew", None)

    def run(self) -> None:
        """Do the work; `Aborted` is an end like another."""
        with suppress(Aborted):
            super().run()


class Workers:
    """Threads that end together. Use: `with Workers(...) as workers`, `start` each, then `watch`.

    The first error in a thread aborts everything that the others wait at, and `watch` raises it with its own
    traceback. However the block ends, the threads are joined; those of a run that is broken off for
    at most `GRACE` seconds, since a call into a library cannot always be ended (`left`).
    """

    def __init__(self, *waited_at: Abortable) -> None:
        self.waited_at = waited_at
        self.threads: list[Worker] = []
        self.error: BaseException | None = None
        self.aborted = False
        self.calls: SimpleQueue[Callable[[], object]] = SimpleQueue()

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Run `work` in a thread of its own."""

        def guarded() -> None:
            try:
                work()
            except Aborted:
                raise
            except BaseException as error:  # whatever it is, it must reach the caller
                if self.error is None:
                    self.error = error
                self.abort()
            finally:
                self.calls.put(lambda: None)  # wakes the watching thread

        thread = Worker(name, guarded, self)
        self.threads.append(thread)
        thread.start()

    def abort(self) -> None:
        """Make every thread end at the next thing that it waits at."""
        self.aborted = True
        for one in self.waited_at:
            one.abort()

    def check(self) -> None:
        """For loops that wait at nothing. Raises `Aborted`."""
        if self.aborted:
            raise Aborted

    def in_watching_thread(self, call: Callable[[], object]) -> None:
        """Let `watch` make a call in its own thread, in the order of these requests."""
        self.calls.put(call)

    def watch(self, stop: Stop, look: Callable[[], None] = lambda: None) -> None:
        """Wait until every thread has ended, and call `look` a few times a second.

        Raises the first error of a thread; `KeyboardInterrupt` once `stop` is requested.
        """
        while True:
            running = any(thread.is_alive() for thread in self.threads)
            try:
                call = self.calls.get(timeout=LOOK if running else 0)
            except Empty:
                if not running:
                    break
                call = look
            if stop.requested:
                raise KeyboardInterrupt
            call()
        if self.error is not None:
            raise self.error

    @property
    def left(self) -> bool:
        """Whether a thread of the crew still runs, those that workers have started included."""
        return any(thread.is_alive() for thread in self._all())

    def _all(self) -> list[Worker]:
        found = [t for t in threading.enumerate() if isinstance(t, Worker) and t.crew is self]
        return [*self.threads, *(thread for thread in found if thread not in self.threads)]

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()
        end = time.monotonic() + GRACE
        while self.left and time.monotonic() < end:
            for thread in self._all():
                if thread.ident is not None:
                    break_off(thread.ident)
                thread.join(LOOK / 10)


def check_worker() -> None:
    """For what takes long in whatever thread. Raises `Aborted` in a worker whose run is over."""
    crew = getattr(threading.current_thread(), "crew", None)
    if crew is not None:
        crew.check()


def in_worker(name: str, work: Callable[[Progress], Result], progress: Progress) -> Result:
    """What `work` returns, done in a worker while this thread hears interrupts.

    `work` is given a progress that this thread shows. Raises what it raises, and `KeyboardInterrupt`.
    """
    results: list[Result] = []
    with listening() as stop, Workers() as workers:
        relayed = Relayed(workers, progress)
        workers.start(name, lambda: results.append(work(relayed)))
        workers.watch(stop)
    return results[0]


class Relayed:
    """Progress that is told by workers and shown by the thread that watches them."""

    def __init__(self, workers: Workers, progress: Progress) -> None:
        self.pass_on, self.progress = workers.in_watching_thread, progress

    def begin(self, task: str, total: int | None, unit: str) -> None:
        self.pass_on(lambda: self.progress.begin(task, total, unit))

    def advance(self, done: int, busiest: str | None = None) -> None:
        self.pass_on(lambda: self.progress.advance(done, busiest))

    def note(self, line: str) -> None:
        self.pass_on(lambda: self.progress.note(line))

    def stage(self, what: str | None) -> None:
        self.pass_on(lambda: self.progress.stage(what))

    def finish(self) -> None:
        self.pass_on(self.progress.finish)

    def series(self, done: int, total: int, left: float | None) -> None:
        self.pass_on(lambda: self.progress.series(done, total, left))
