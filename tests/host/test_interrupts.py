"""Interrupts: signals set a request, threads are broken off only where they say so."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from cgconvert.host.interrupts import Aborted, Breakable, break_off, deferring, listening


def test_a_signal_sets_a_request_and_raises_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)
    with listening() as stop:
        assert not stop.requested
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with listening() as inner:
            assert inner is stop
    assert signal.getsignal(signal.SIGINT) is before
    with listening() as stop:
        assert not stop.requested, "the next run begins anew"


def test_only_what_would_raise_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program with handlers of its own keeps them; SIGTERM kills unless the program has asked for more."""
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with listening() as stop:
            signal.raise_signal(signal.SIGINT)
            assert heard == [signal.SIGINT] and not stop.requested
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)
    terminate = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with listening() as stop:
            signal.raise_signal(signal.SIGTERM)
            assert stop.requested
    finally:
        signal.signal(signal.SIGTERM, terminate)


def test_an_interrupt_waits_for_the_end_of_an_import() -> None:
    done = False
    with pytest.raises(KeyboardInterrupt), deferring():
        signal.raise_signal(signal.SIGINT)
        done = True
    assert done
    with deferring():
        pass


def test_in_another_thread_nothing_is_changed() -> None:
    seen = []

    def work() -> None:
        with listening() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, signal.getsignal(signal.SIGINT))]


class Computing(threading.Thread):
    """Computes in a breakable block, then goes on outside of it; `outcome` tells how the block ended."""

    def __init__(self, seconds: float) -> None:
        super().__init__(daemon=True)
        self.seconds = seconds
        self.inside = threading.Event()
        self.cancelled = 0
        self.outcome = ""
        self.start()

    def cancel(self) -> None:
        self.cancelled += 1

    def run(self) -> None:
        try:
            with Breakable(self.cancel):
                self.inside.set()
                end = time.monotonic() + self.seconds
                while time.monotonic() < end:
                    pass
            self.outcome = "done"
            for _ in range(1000):  # nothing may arrive here
                pass
            self.outcome = "done and gone on"
        except Aborted:
            self.outcome = "aborted"


def test_a_thread_is_broken_off_in_its_block() -> None:
    thread = Computing(60)
    thread.inside.wait()
    assert thread.ident is not None
    break_off(thread.ident)
    thread.join(5)
    assert (thread.outcome, thread.cancelled) == ("aborted", 1)


def test_nothing_arrives_outside_of_the_block() -> None:
    """Broken off again and again around the end of a block: it ends it or nothing."""
    outcomes = set()
    for number in range(100):
        thread = Computing(0.0005 * (number % 3))
        assert thread.ident is not None
        while thread.is_alive():
            break_off(thread.ident)
            time.sleep(0.0001)
        thread.join()
        outcomes.add(thread.outcome)
    assert outcomes <= {"aborted", "done and gone on"}


def test_a_block_within_a_block_is_a_part_of_it() -> None:
    with Breakable(), Breakable():
        pass
    break_off(threading.get_ident())
    break_off(12345)
    for _ in range(1000):  # no `Aborted` arrives here
        pass
