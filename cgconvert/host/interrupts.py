"""Interrupts: how Ctrl-C reaches a run without an exception inside a lock.

Python raises `KeyboardInterrupt` in the main thread between any two of its instructions, also between taking
a lock and entering the block that gives it back; whoever waits for that lock then waits for ever. So while a
run is under way the signal handler raises nothing. It notes that the run is to stop, and the loops of the
run look at that note. A thread that computes for long between two looks does so in a `Breakable` block, in
which another thread may end it between two lines of Python.
"""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType


class Aborted(BaseException):
    """The run is over, for a reason that is told elsewhere; its threads end with this error.

    It is no `Exception`, so that code which survives whatever a library raises does not survive this.
    """


class Stop:
    """Whether a run is to stop. A plain attribute: a signal handler must not take a lock."""

    def __init__(self) -> None:
        self.requested = False


_listening: Stop | None = None


@contextmanager
def listening() -> Iterator[Stop]:
    """Turn interrupts into a request to stop for as long as this block runs; more of them change nothing.

    An interrupt is a signal that would raise `KeyboardInterrupt`: Ctrl-C, and SIGTERM after
    `hear_termination`. Blocks may be nested: the inner one shares the outer one's `Stop`. Python hears
    signals in the main thread only, so in another thread nothing is changed.
    """
    global _listening
    if threading.current_thread() is not threading.main_thread():
        yield Stop()
        return
    if _listening is not None:
        yield _listening
        return
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        stop.requested = True

    raising = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is signal.default_int_handler
    ]
    _listening = stop
    try:
        for number in raising:
            signal.signal(number, handle)
        yield stop
    finally:
        for number in raising:
            signal.signal(number, signal.default_int_handler)
        _listening = None


@contextmanager
def deferring() -> Iterator[None]:
    """Hold an interrupt back until this block has ended; then it raises `KeyboardInterrupt`.

    For imports of large libraries: while Python code of theirs runs from within their native code, the
    exception of an interrupt can be lost.
    """
    with listening() as stop:
        yield
    if stop.requested:
        raise KeyboardInterrupt


def hear_termination() -> None:
    """For a program: SIGTERM is an interrupt like Ctrl-C, so that nothing half-written is left."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def end_by_signal() -> None:
    """End the program as an unheard Ctrl-C ends it; for shells that is exit code 130.

    For a thread that a library does not give back: Python cannot end in order while one runs.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.raise_signal(signal.SIGINT)


_lock = threading.Lock()
_breakable: dict[int, Breakable] = {}
"""The block that each thread is in now, by the identity of the thread."""


class Breakable:
    """A block of a thread's code that `break_off` may end by `Aborted`, between two lines of Python.

    It is for what computes for long and holds nothing that has to be given back by hand. A library's own call
    goes on until it returns, unless `cancel`, which `break_off` calls as well, ends it. A block within a
    block is a part of the outer one.
    """

    def __init__(self, cancel: Callable[[], None] = lambda: None) -> None:
        self.cancel = cancel
        self.outermost = False

    def __enter__(self) -> None:
        thread = threading.get_ident()
        with _lock:
            self.outermost = thread not in _breakable
            if self.outermost:
                _breakable[thread] = self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.outermost:
            return
        thread = threading.get_ident()
        with _lock:
            _breakable.pop(thread, None)
            # An `Aborted` that is on its way must not arrive behind the block.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)


def break_off(thread: int) -> None:
    """End the `Breakable` block that a thread, told by its identity, is in; nothing if it is in none."""
    with _lock:
        block = _breakable.pop(thread, None)
        if block is None:
            return
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Aborted))
    block.cancel()
