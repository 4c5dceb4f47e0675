"""Work dealt to Ray's workers: again where a worker dies, set aside where it kills one after the other."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from cgconvert.cluster.connection import Cluster
from cgconvert.errors import UnavailableError, first_line
from cgconvert.host.interrupts import Stop

Work = TypeVar("Work")

DEATHS = 3
"""Workers that an input may take with it before it is set aside."""
FAILED_STARTS = 3
"""Workers that may die one after the other before any of them is ready."""
TICK = 0.2
"""Seconds between two looks at whether the run is to stop."""
PATIENCE = 20.0
"""Seconds without any worker after which people are told why nothing happens."""


@dataclass
class Task(Generic[Work]):
    """Work for one worker. `deaths` counts the workers that died over it."""

    work: Work
    deaths: int = 0


@dataclass(frozen=True)
class Aside(Generic[Work]):
    """Work that is given up, since worker after worker died over it. `reason` says how the last did."""

    work: Work
    reason: str


@dataclass(eq=False)
class _Worker(Generic[Work]):
    number: int
    handle: Any
    is_ready: bool = False
    tasks: list[Task[Work]] = field(default_factory=list)

    def takes(self, task: Task[Work], in_flight: int) -> bool:
        """What took a worker with it before is alone with the next, so that nothing else suffers for it."""
        if not self.is_ready or any(mine.deaths for mine in self.tasks):
            return False
        return not self.tasks if task.deaths else len(self.tasks) < in_flight


class Pool(Generic[Work]):
    """Workers of one kind. Each has the methods `ready()` and `convert(work, again)`.

    `create` starts one. `in_flight` tasks are with a worker at once. `split` parts work that may hold what
    kills workers into single inputs. `tell` takes what people should know.
    """

    def __init__(
        self,
        cluster: Cluster,
        create: Callable[[], Any],
        in_flight: int,
        split: Callable[[Work], list[Work]],
        tell: Callable[[str], None],
    ) -> None:
        self.ray, self.count = cluster.ray, cluster.workers
        self.create, self.in_flight, self.split, self.tell = create, in_flight, split, tell
        self.workers: list[_Worker[Work]] = []
        self.again: deque[Task[Work]] = deque()
        self.calls: dict[Any, tuple[_Worker[Work], Task[Work] | None]] = {}
        self.failed_starts = self.started = self.died = 0

    def run(self, work: Iterator[Work], stop: Stop) -> Iterator[tuple[int, Work, Any] | Aside[Work]]:
        """Yield the number of a worker, work and its result as they come, or what is set aside.

        Raises `KeyboardInterrupt` once `stop` is requested, `UnavailableError` if workers die before they
        are ready, and what a worker raises that is no input's fault.
        """
        fresh = (Task(each) for each in work)
        upcoming = next(fresh, None)
        idle_since, told = time.monotonic(), False
        try:
            while upcoming is not None or self.again or any(worker.tasks for worker in self.workers):
                if stop.requested:
                    raise KeyboardInterrupt
                self._fill_up(upcoming is not None)
                upcoming = self._deal(upcoming, fresh)
                if any(worker.is_ready for worker in self.workers):
                    idle_since, told = time.monotonic(), False
                elif not told and time.monotonic() - idle_since > PATIENCE:
                    told = True
                    self.tell("waiting for workers: the cluster has no room for one, or is still starting it")
                done, _ = self.ray.wait(list(self.calls), num_returns=1, timeout=TICK)
                for call in done:
                    if call in self.calls:  # not gone with its worker
                        yield from self._finished(call)
        finally:
            self.close()

    def add(self, work: Work) -> None:
        """Give out more work, before what has not been begun. For who takes the outcomes of `run`."""
        self.again.append(Task(work))

    def _fill_up(self, more_comes: bool) -> None:
        """Start workers, as many as are wanted, but no more than there is work for."""
        busy = sum(len(worker.tasks) for worker in self.workers) + len(self.again)
        wanted = self.count if more_comes else min(self.count, busy)
        while len(self.workers) < wanted:
            worker: _Worker[Work] = _Worker(self.started, self.create())
            self.started += 1
            self.workers.append(worker)
            self.calls[worker.handle.ready.remote()] = worker, None

    def _deal(self, upcoming: Task[Work] | None, fresh: Iterator[Task[Work]]) -> Task[Work] | None:
        """Give out what can be; returns the task that waits.

        The worker that will be free first gets nothing new while something waits that must be alone with one.
        """
        ready = sorted((one for one in self.workers if one.is_ready), key=lambda one: len(one.tasks))
        for place, worker in enumerate(ready):
            if self.again and worker.takes(self.again[0], self.in_flight):
                self._give(worker, self.again.popleft())
            if self.again and not place:
                continue
            while upcoming is not None and worker.takes(upcoming, self.in_flight):
                self._give(worker, upcoming)
                upcoming = next(fresh, None)
        return upcoming

    def _give(self, worker: _Worker[Work], task: Task[Work]) -> None:
        worker.tasks.append(task)
        self.calls[worker.handle.convert.remote(task.work, task.deaths > 0)] = worker, task

    def _finished(self, call: Any) -> Iterator[tuple[int, Work, Any] | Aside[Work]]:
        """A call has returned, or its worker is gone."""
        from ray.exceptions import RayError, RayTaskError

        worker, task = self.calls[call]
        try:
            result = self.ray.get(call)
        except RayTaskError as error:  # what our own code raised there
            raise getattr(error, "cause", None) or error from None
        except RayError as error:
            yield from self._lost(worker, error)
            return
        del self.calls[call]
        if task is None:
            worker.is_ready, self.failed_starts = True, 0
            return
        worker.tasks.remove(task)
        yield worker.number, task.work, result

    def _lost(self, worker: _Worker[Work], error: Exception) -> Iterator[Aside[Work]]:
        """A worker is gone: another takes its place and its work."""
        self.calls = {call: it for call, it in self.calls.items() if it[0] is not worker}
        self.workers.remove(worker)
        self.died += 1
        if not worker.is_ready:
            self.failed_starts += 1
            if self.failed_starts >= FAILED_STARTS:
                reason = first_line(error, 300)
                raise UnavailableError(f"Ray's workers end before they are ready: {reason}") from error
        self.tell(f"worker {worker.number} is gone, and another takes over its work")
        for task in worker.tasks:
            deaths = task.deaths + 1
            parts = self.split(task.work)
            if deaths >= DEATHS and len(parts) == 1:
                reason = f"{deaths} workers died over it, the last with: {first_line(error)}"
                yield Aside(task.work, reason)
            else:
                self.again.extend(Task(part, deaths) for part in parts)

    def close(self) -> None:
        """End the workers, whatever they do."""
        for worker in self.workers:
            self.ray.kill(worker.handle)
        self.workers.clear()
        self.calls.clear()
