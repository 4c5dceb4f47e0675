"""A command as a job of the page's queue: it tells its progress as JSON, and ends with who has started it.

    python -m cgconvert.cli.job video in.mp4 -o out.mp4

Its standard input is a pipe that stays open as long as the process lives that watches the job. When that is
gone, the job stops as by Ctrl-C, so that a later one goes on from what it has kept.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from cgconvert.cli import cgconvert, run
from cgconvert.cli.status import JsonProgress
from cgconvert.cli.wording import log_as
from cgconvert.host.interrupts import hear_termination
from cgconvert.host.memory import keep_freed_memory
from cgconvert.host.threads import wait_without_spinning

INTERVAL = 0.5
"""Seconds between two lines of progress, which a page shows."""


def _end_with_the_watcher() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    wait_without_spinning()
    keep_freed_memory()
    hear_termination()
    log_as("json")
    JsonProgress.interval = INTERVAL
    threading.Thread(target=_end_with_the_watcher, daemon=True).start()
    run(cgconvert, "cgconvert", sys.argv[1:])
