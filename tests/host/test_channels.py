"""Channels and workers: bounded, joined, and no error lost."""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import dataclass

import pytest

from cgconvert.host.channels import Aborted, Channel, StageClock, Workers


@dataclass(frozen=True)
class Thing:
    number: int
    nbytes: int = 10


def test_items_arrive_in_order_and_then_the_end() -> None:
    channel: Channel[Thing] = Channel(1000)
    for number in range(5):
        channel.put(Thing(number))
    channel.close()
    assert [thing.number for thing in channel] == [0, 1, 2, 3, 4]


def test_a_full_channel_makes_the_producer_wait() -> None:
    channel: Channel[Thing] = Channel(25)
    put: list[int] = []

    def produce() -> None:
        for number in range(4):
            channel.put(Thing(number))
            put.append(number)
        channel.close()

    thread = threading.Thread(target=produce)
    thread.start()
    time.sleep(0.2)
    assert put == [0, 1]  # 20 of 25 bytes; a third thing does not fit
    assert [thing.number for thing in channel] == [0, 1, 2, 3]
    thread.join(2)
    assert not thread.is_alive()


def test_one_item_larger_than_the_channel_still_passes() -> None:
    channel: Channel[Thing] = Channel(5)
    channel.put(Thing(1, nbytes=500))
    channel.close()
    assert [thing.number for thing in channel] == [1]


def test_an_abort_wakes_producer_and_consumer() -> None:
    full: Channel[Thing] = Channel(5)
    full.put(Thing(0))
    empty: Channel[Thing] = Channel(5)
    outcomes: list[str] = []

    def wait(work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except Aborted:
            outcomes.append("aborted")

    threads = [
        threading.Thread(target=wait, args=(lambda: full.put(Thing(1)),)),
        threading.Thread(target=wait, args=(lambda: next(iter(empty)),)),
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    full.abort()
    empty.abort()
    for thread in threads:
        thread.join(2)
    assert outcomes == ["aborted", "aborted"]


def test_the_first_error_arrives_with_its_own_traceback() -> None:
    channel: Channel[Thing] = Channel(5)
    workers = Workers(channel)

    def this_function_fails() -> None:
        raise ZeroDivisionError("on purpose")

    def waits() -> None:
        list(channel)

    workers.start("waits", waits)
    workers.start("fails", this_function_fails)
    with pytest.raises(ZeroDivisionError, match="on purpose") as caught:
        workers.join()
    assert "this_function_fails" in "".join(traceback.format_tb(caught.value.__traceback__))
    assert not workers.alive()


def test_the_busiest_stage_is_the_one_that_worked_longest() -> None:
    clock = StageClock("decode", "translate", "encode")
    with clock.busy("translate"):
        time.sleep(0.03)
    with clock.busy("encode"):
        time.sleep(0.01)
    assert clock.busiest == "translate"
    assert clock.seconds["decode"] == 0
    assert 0.03 <= clock.seconds["translate"] < 0.5
