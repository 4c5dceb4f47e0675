"""Channels and workers: bounded, joined, no error lost, interrupts heard."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from cgconvert.host.channels import Budget, Channel, Relayed, StageClock, Workers
from cgconvert.host.interrupts import Aborted, Breakable, Stop
from cgconvert.progress import Silent


@dataclass(frozen=True)
class Thing:
    number: int
    nbytes: int = 10


def numbers(channel: Channel[Thing]) -> list[int]:
    return [thing.number for thing in channel]


def waiting(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Wait until something is so; a test that waits for a thread must not depend on its speed."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it has not come about"
        time.sleep(0.002)


def test_items_arrive_in_order_and_then_the_end() -> None:
    channel: Channel[Thing] = Channel(1000)
    for number in range(5):
        channel.put(Thing(number))
    channel.close()
    assert numbers(channel) == [0, 1, 2, 3, 4]
    assert channel.finished and channel.take() is None


def test_a_full_channel_makes_the_producer_wait() -> None:
    channel: Channel[Thing] = Channel(25)
    put: list[int] = []

    def produce() -> None:
        for number in range(4):
            channel.put(Thing(number))
            put.append(number)
        channel.close()

    with Workers(channel) as workers:
        workers.start("produce", produce)
        waiting(lambda: len(channel.items) == 2)
        time.sleep(0.05)
        assert put == [0, 1]  # 20 of 25 bytes; a third thing does not fit
        assert numbers(channel) == [0, 1, 2, 3]
        workers.watch(Stop())


def test_one_item_larger_than_the_channel_still_passes() -> None:
    channel: Channel[Thing] = Channel(5)
    channel.put(Thing(1, nbytes=500))
    channel.close()
    assert numbers(channel) == [1]


def test_it_ends_when_all_its_producers_have_closed_it() -> None:
    channel: Channel[Thing] = Channel(100, producers=2)
    channel.close()
    channel.put(Thing(1))
    assert not channel.finished and channel.take() == Thing(1)
    assert channel.take(0) is None and not channel.finished, "nothing now is not the end"
    channel.close()
    assert channel.finished


def test_an_abort_wakes_producer_and_consumer() -> None:
    full: Channel[Thing] = Channel(5)
    full.put(Thing(0))
    empty: Channel[Thing] = Channel(5)
    spent = Budget(5)
    spent.take(5)
    outcomes: list[str] = []

    def wait(work: Callable[[], object]) -> None:
        try:
            work()
        except Aborted:
            outcomes.append("aborted")

    works: list[Callable[[], object]] = [lambda: full.put(Thing(1)), empty.take, lambda: spent.take(1)]
    threads = [threading.Thread(target=wait, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for one in (full, empty, spent):
        one.abort()
    for thread in threads:
        thread.join(5)
    assert outcomes == ["aborted"] * 3


def test_a_budget_waits_for_what_is_given_back_and_lets_one_large_piece_through() -> None:
    budget = Budget(10)
    budget.take(500)
    took: list[int] = []

    def take(count: int) -> None:
        budget.take(count)
        took.append(count)

    with Workers(budget) as workers:
        workers.start("take", lambda: take(6))
        workers.start("take", lambda: take(5))
        time.sleep(0.05)
        assert took == []
        budget.give_back(500)
        waiting(lambda: len(took) == 1)
        time.sleep(0.05)
        assert len(took) == 1, "6 and 5 are more than 10"
        budget.give_back(took[0])
        workers.watch(Stop())
    assert sorted(took) == [5, 6]


def test_the_first_error_arrives_with_its_own_traceback() -> None:
    channel: Channel[Thing] = Channel(5)

    def this_function_fails() -> None:
        raise ZeroDivisionError("on purpose")

    with pytest.raises(ZeroDivisionError, match="on purpose") as caught, Workers(channel) as workers:
        workers.start("waits", lambda: print(numbers(channel)))
        workers.start("fails", this_function_fails)
        workers.watch(Stop())
    assert "this_function_fails" in "".join(traceback.format_tb(caught.value.__traceback__))
    assert not workers.left


def test_a_request_to_stop_ends_all_threads() -> None:
    channel: Channel[Thing] = Channel(5)
    stop = Stop()

    def counts() -> None:
        while True:
            workers.check()
            time.sleep(0.001)

    def computes() -> None:
        with Breakable():
            while True:
                pass

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Workers(channel) as workers:
        workers.start("waits", lambda: print(numbers(channel)))
        workers.start("counts", counts)
        workers.start("computes", computes)
        threading.Timer(0.05, lambda: setattr(stop, "requested", True)).start()
        workers.watch(stop)
    assert not workers.left
    assert time.monotonic() - started < 3


def test_a_call_that_cannot_be_ended_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread in a library's own code does not keep an interrupt waiting."""
    monkeypatch.setattr("cgconvert.host.channels.GRACE", 0.05)
    release = threading.Event()
    stop = Stop()
    stop.requested = True
    with pytest.raises(KeyboardInterrupt), Workers() as workers:
        workers.start("stuck", release.wait)
        workers.watch(stop)
    assert workers.left
    release.set()
    waiting(lambda: not workers.left)


def test_what_a_worker_starts_belongs_to_its_crew() -> None:
    from cgconvert.host.channels import Worker

    inner: list[Worker] = []

    def computes() -> None:
        with Breakable():
            while True:
                pass

    def starts() -> None:
        inner.append(Worker("inner", computes))
        inner[0].start()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Workers() as workers:
        workers.start("starts", starts)
        workers.watch(Stop())
    assert not inner[0].is_alive()


def test_progress_is_shown_by_the_watching_thread() -> None:
    calls: list[tuple[str, object, threading.Thread]] = []

    class Shown(Silent):
        def note(self, line: str) -> None:
            calls.append(("note", line, threading.current_thread()))

        def advance(self, done: int, busiest: str | None = None) -> None:
            calls.append(("advance", done, threading.current_thread()))

    def tells() -> None:
        relayed.note("a")
        relayed.advance(1)
        relayed.note("b")

    with Workers() as workers:
        relayed = Relayed(workers, Shown())
        workers.start("tells", tells)
        workers.watch(Stop())
    here = threading.current_thread()
    assert calls == [("note", "a", here), ("advance", 1, here), ("note", "b", here)]


def test_the_busiest_group_is_the_one_whose_threads_worked_longest() -> None:
    clock = StageClock({"load": "", "read": "decode", "decode": "decode", "encode": "encode"}, {"decode": 4})
    for stage, seconds in (("load", 9.0), ("read", 1.0), ("decode", 2.0), ("encode", 0.5), ("decode", 0.6)):
        clock.add(stage, seconds)
    assert clock.seconds == {"load": 9.0, "read": 1.0, "decode": 2.6, "encode": 0.5}
    assert clock.loads() == {"decode": 0.9, "encode": 0.5}
    assert clock.busiest == "decode"
    with clock.busy("encode"):
        time.sleep(0.02)
    assert 0.52 <= clock.seconds["encode"] < 3
