"""A job on one device or several: batches are dealt out whole, results come in the order of the frames."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic

import torch

from cgconvert.engines.together import described_together
from cgconvert.engines.translator import AnyFrame, Translator
from cgconvert.errors import first_line
from cgconvert.host.channels import Worker, check_worker
from cgconvert.host.interrupts import Aborted

LOOK = 0.1
"""Seconds between two looks of a waiting thread at whether the run is over."""

AHEAD = 2
"""Batches for each device that are given and not back: one that it works on, and one that it finds then."""

Make = Callable[[int, int | None], Translator[AnyFrame]]
"""Makes a job ready on the device of a number, in the thread that will use it, for batches of so many frames;
None: it chooses. Its maker closes it, once all devices are closed."""


@dataclass
class Share(Generic[AnyFrame]):
    """A batch on its way: its frames, and the results that are back and not handed on yet."""

    frames: Sequence[AnyFrame]
    results: deque[AnyFrame] = field(default_factory=deque)
    done: int = 0


@dataclass
class Place(Generic[AnyFrame]):
    """A device at work. `given` are the batches that its translator has, `waiting` those that follow."""

    device: torch.device
    number: int
    translator: Translator[AnyFrame] | None = None
    given: deque[Share[AnyFrame]] = field(default_factory=deque)
    waiting: deque[Share[AnyFrame]] = field(default_factory=deque)
    frames: int = 0
    error: Exception | None = None
    told: dict[str, Any] | None = None


class Spread(Generic[AnyFrame]):
    """The translators of a job's devices as one.

    With a single device it is its translator, in the calling thread. Of several each has a thread of its
    own, and all have the batch of the first, so that equal devices give the same bits as one of them. What a
    device that fails has not given back goes to the others, and the notes say so; the error of the last one
    is raised.
    """

    def __init__(
        self,
        devices: Sequence[torch.device],
        make: Make[AnyFrame],
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Makes every device ready. Raises as `make` does for any of them. `note` is told of what fails."""
        self.make, self.note = make, note
        self.changed = threading.Condition()
        self.order: deque[Share[AnyFrame]] = deque()
        self.places: list[Place[AnyFrame]] = [Place(device, number) for number, device in enumerate(devices)]
        self.notes: list[str] = []
        self.failures: list[Exception] = []
        self.closed = False
        self.threads: list[Worker] = []
        first = self.places[0]
        if len(devices) == 1:
            first.translator = make(first.number, None)
            return
        try:
            self._start(first, None)
            self._wait_for([first])
            for place in self.places[1:]:  # at the same time; what the first has built they find built
                self._start(place, self.batch)
            self._wait_for(self.places)
        except BaseException:
            self.close()
            raise

    def _start(self, place: Place[AnyFrame], batch: int | None) -> None:
        self.threads.append(Worker(str(place.device), partial(self._work, place, batch)))
        self.threads[-1].start()

    def _wait_for(self, places: Sequence[Place[AnyFrame]]) -> None:
        """Until devices are ready. Raises the error of the first that cannot be."""
        with self.changed:
            while any(place.translator is None and place.error is None for place in places):
                self.changed.wait(LOOK)
                check_worker()
        for place in places:
            if place.error is not None:
                raise place.error

    @property
    def alive(self) -> list[Place[AnyFrame]]:
        """The devices that work."""
        return [place for place in self.places if place.error is None]

    @property
    def failed(self) -> list[int]:
        """The numbers of the devices that failed."""
        return [place.number for place in self.places if place.error is not None]

    def tile_choice(self, frames: Sequence[AnyFrame]) -> int | str | None:
        """The tiles that frames go in, as `EngineOptions.tile` has them; None: they go whole."""
        first = self.places[0].translator
        assert first is not None, "asked before the devices are ready"
        tiling, size = first.job.tiling, first.kind.network_size(frames)
        return None if tiling is None else tiling.choice_for(*size)

    @property
    def batch(self) -> int:
        """How many frames go together best; fewer once memory has run short on any device."""
        places = self.alive or self.places  # the last one may fail between two batches
        return min(place.translator.job.batch for place in places if place.translator is not None)

    def translate(self, batch: Sequence[AnyFrame]) -> Iterator[AnyFrame]:
        """Give a batch to the device with the fewest, and yield what is back in order. Waits if much is out.

        Raises as `Translator.translate` does, and the error of the last device that fails.
        """
        if not self.threads:
            alone = self.places[0].translator
            assert alone is not None, "the devices are closed"
            yield from alone.translate(batch)
            return
        with self.changed:
            share = Share(list(batch))
            self.order.append(share)
            self._deal(share)
        yield from self._merged(AHEAD * len(self.alive))

    def finish(self) -> Iterator[AnyFrame]:
        """Yield the results of everything that is out. Raises as `translate`."""
        if not self.threads:
            alone = self.places[0].translator
            assert alone is not None, "the devices are closed"
            yield from alone.finish()
            return
        yield from self._merged(0)

    def _deal(self, share: Share[AnyFrame]) -> None:
        """To the device with the fewest batches, the earlier of equals; called with the lock held."""
        if not self.alive:
            raise self.failures[-1]
        least = min(self.alive, key=lambda place: len(place.given) + len(place.waiting))
        least.waiting.append(share)
        self.changed.notify_all()

    def _merged(self, most: int) -> Iterator[AnyFrame]:
        """Results in order, as far as they are back; waits while more than `most` batches are out."""
        while True:
            with self.changed:
                while self.order and self.order[0].done == len(self.order[0].frames):
                    if self.order[0].results:
                        break
                    self.order.popleft()
                if not self.order:
                    return
                head = self.order[0]
                if not head.results:
                    if len(self.order) <= most:
                        return
                    if not self.alive:
                        raise self.failures[-1]
                    self.changed.wait(LOOK)
                ready = list(head.results)
                head.results.clear()
            check_worker()
            yield from ready

    def _work(self, place: Place[AnyFrame], batch: int | None) -> None:
        """The thread of a device: batch after batch, one in flight; it lands when no other follows."""
        try:
            translator = self.make(place.number, batch)
            with self.changed:
                place.translator = translator
                self.changed.notify_all()
            while True:
                share = self._next(place, wait=translator.flight is None)
                if share is not None:
                    results = translator.translate(share.frames[share.done :])
                elif translator.flight is not None:
                    results = translator.finish()
                else:
                    return
                for result in results:
                    self._give_back(place, result)
        except Aborted:
            raise
        except Exception as error:  # whatever a driver or a library makes of a device that is lost
            self._fail(place, error)

    def _next(self, place: Place[AnyFrame], wait: bool) -> Share[AnyFrame] | None:
        """The next batch of a device; None if there is none, and nothing is waited for or to come."""
        with self.changed:
            while wait and not place.waiting and not self.closed:
                self.changed.wait(LOOK)
                check_worker()
            if self.closed or not place.waiting:
                return None
            place.given.append(place.waiting.popleft())
            return place.given[-1]

    def _give_back(self, place: Place[AnyFrame], result: AnyFrame) -> None:
        with self.changed:
            share = place.given[0]
            share.results.append(result)
            share.done += 1
            place.frames += 1
            if share.done == len(share.frames):
                place.given.popleft()
            self.changed.notify_all()

    def _fail(self, place: Place[AnyFrame], error: Exception) -> None:
        """Leave a device; what it has not given back is dealt out again, the oldest first."""
        with self.changed:
            place.error = error
            self.failures.append(error)
            if place.translator is not None:
                place.told = place.translator.job.describe()
            left = [*place.given, *place.waiting]
            place.given.clear()
            place.waiting.clear()
            if self.alive and place.translator is not None and not self.closed:
                lost = sum(len(share.frames) - share.done for share in left)
                went = f"{lost} frames that it had went to the others"
                self.notes.append(f"{place.device} failed ({first_line(error, 200)}): {went}")
                self.note(self.notes[-1])
                for share in left:
                    self._deal(share)
            self.changed.notify_all()

    def describe(self) -> dict[str, Any]:
        """The engine for the report; of several devices what each has done too."""
        told = [place.told or self._told(place) for place in self.places]
        shares = [
            {"device": str(place.device), "frames": place.frames, "failed": place.error is not None}
            for place in self.places
        ]
        return described_together(told, shares, self.notes)

    def _told(self, place: Place[AnyFrame]) -> dict[str, Any]:
        assert place.translator is not None, "a device that was never ready"
        return place.translator.job.describe()

    def close(self) -> None:
        """End the threads of the devices. Calling it twice is harmless."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        for thread in self.threads:
            thread.join()
