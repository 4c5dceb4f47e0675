"""A lock between processes that the system releases when the process that holds it ends in any way."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

POLL_SECONDS = 0.1

WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Errors of a file system that has no locks."""


@contextmanager
def locked(
    path: Path, wait: bool = True, waiting: Callable[[], None] = lambda: None, remove: bool = False
) -> Iterator[bool]:
    """Hold the lock file `path` for this block; False if another holds it and `wait` is False.

    `waiting` is called once before the wait. The lock file stays unless `remove` is True. On a file system
    without locks the block runs as if the lock were held. Raises `OSError` if the file cannot be made.
    """
    from filelock import FileLock, Timeout  # imported here, since a plan needs no lock

    # The block may be left in another thread than it was entered in.
    lock = FileLock(path, fallback_to_soft=False, thread_local=False)
    held = True
    try:
        lock.acquire(blocking=False)
    except Timeout:
        held = wait
        if wait:
            waiting()
            lock.acquire(poll_interval=POLL_SECONDS)
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
    try:
        yield held
    finally:
        if lock.is_locked:
            if remove:  # before the release: a process that waits finds it gone and makes a new one
                with suppress(OSError):
                    path.unlink()
            lock.release()
