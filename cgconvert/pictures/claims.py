"""Which run converts which picture, where several runs write to one folder: one run claims each picture."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from cgconvert.host.files import TEMPORARY_PREFIX
from cgconvert.host.locks import locked
from cgconvert.host.objects import AnyPath, ObjectPath
from cgconvert.pictures.files import ImageJob

State = tuple[int, int] | None


class Claims:
    """The pictures that this run has taken. Other processes see them as locks, which end with the process."""

    def __init__(self) -> None:
        self.held: dict[AnyPath, ExitStack] = {}

    def take(self, output: AnyPath) -> bool:
        """Take the picture whose result is `output`; False if another run, or this one still, has it.

        Objects have no locks. Of two runs that make the same one, the first puts it there.
        """
        if isinstance(output, ObjectPath):
            return True
        name = f"{TEMPORARY_PREFIX}{hashlib.sha256(os.fsencode(output.name)).hexdigest()[:16]}.claim"
        stack = ExitStack()
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            held = stack.enter_context(locked(output.parent / name, wait=False, remove=True))
        except OSError:  # writing the result will say what is wrong
            held = True
        if held:
            self.held[output] = stack
        else:
            stack.close()
        return held

    def give_back(self, output: AnyPath) -> None:
        """The result is there, or there will be none."""
        if output in self.held:
            self.held.pop(output).close()

    def close(self) -> None:
        """Give back all that is left of a run that has ended early."""
        for output in list(self.held):
            self.give_back(output)


@dataclass(frozen=True)
class Elsewhere:
    """A picture that another run has taken, and its result at that time."""

    job: ImageJob
    before: State

    def settle(self, claims: Claims, skip: Callable[[ImageJob], None]) -> bool | None:
        """What came of it: None while the other run has it, False if it is this run's now, True if skipped.

        It is skipped where the other run has written a result. It is taken where the other run has ended
        without one, by an error or because it was killed.
        """
        if not claims.take(self.job.output):
            return None
        if state_of(self.job.output) == self.before:
            return False
        claims.give_back(self.job.output)
        skip(self.job)
        return True


def state_of(output: AnyPath) -> State:
    """What changes when a result is written anew; None if there is none, or for an object."""
    if isinstance(output, ObjectPath):
        return None
    try:
        status = output.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
