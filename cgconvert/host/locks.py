"""A lock between processes that the system releases when its holder dies, however it dies."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


POLL_SECONDS = 0.1


@contextmanager
def locked(path: Path, wait: bool = True, waiting: Callable[[], None] = lambda: None) -> Iterator[bool]:
    """Hold the lock file `path` for this block; False if another holds it and `wait` is False.

    `waiting` is called once before waiting. The file stays, empty: to remove it while others wait on it
    would let two of them in. Raises `OSError` where it cannot be made.
    """
    with path.open("ab") as file:
        held = _try_lock(file)
        if not held and wait:
            waiting()
            while not (held := _try_lock(file)):
                time.sleep(POLL_SECONDS)
        yield held  # closing the file releases it
