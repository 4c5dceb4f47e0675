"""Carries the jobs of the queue out, one after the other, in a process that outlives page and server.

    python -m cgconvert.ui.runner FOLDER

Each job is a process of its own again, so that one that is killed takes no other with it. The runner ends
when nothing waits.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from cgconvert.errors import CgconvertError
from cgconvert.host.folders import data_folder
from cgconvert.host.interrupts import hear_termination
from cgconvert.host.locks import locked
from cgconvert.models.catalog import installed_path
from cgconvert.ui.queue import Queue, QueuedJob

LOOK = 0.3
"""Seconds between two looks at the wishes of users, while a job runs."""
MOST_NOTES = 50
LAST_WORDS = 120.0
"""Seconds within which a job that is to stop has to end; then it is killed."""


def start_runner(queue: Queue) -> None:
    """Start a runner in a session of its own, unless one lives."""
    if queue.has_runner():
        return
    with (queue.folder / "runner.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "cgconvert.ui.runner", str(queue.folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def run_queue(queue: Queue) -> None:
    """Carry out every job that waits. Returns at once if another runner lives."""
    with locked(queue.lock, wait=False) as held:
        if not held:
            return
        for left in queue.jobs():
            if left.state == "running" and left.pid:
                _wait_for_the_end_of(left.pid)
            if left.state == "running" and left.wish == "cancel":
                remove_what_is_kept(left)
        queue.recover()
        while (job := queue.claim()) is not None:
            run_job(queue, job)


def _wait_for_the_end_of(pid: int) -> None:
    """A job whose runner was killed hears that and stops; until then it holds its result's lock."""
    end = time.monotonic() + LAST_WORDS
    while time.monotonic() < end and _is_a_job(pid):
        time.sleep(LOOK)


def _is_a_job(pid: int) -> bool:
    """Whether a process is one of ours. Elsewhere than on Linux: whether there is such a process."""
    command = Path(f"/proc/{pid}/cmdline")
    if Path("/proc/self/cmdline").exists():
        with suppress(OSError):
            return b"cgconvert.cli.job" in command.read_bytes()
        return False
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def arguments_of(job: QueuedJob) -> list[str]:
    """The command line of a job; that of a look which has been begun continues it."""
    arguments = list(job.arguments)
    if job.kind == "learn" and (learning_folder(job) / "checkpoint.pt").exists():
        if "--minutes" in arguments:  # it ends when it would have ended
            place = arguments.index("--minutes")
            del arguments[place : place + 2]
        arguments.append("--continue")
    return arguments


def learning_folder(job: QueuedJob) -> Path:
    """Where the training of a look lives, with its preview."""
    return data_folder() / "learn" / job.title


def run_job(queue: Queue, job: QueuedJob) -> None:
    """Run one job to its end and record how it went."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cgconvert.cli.job", *arguments_of(job)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    queue.change(job.id, pid=process.pid)
    lines: SimpleQueue[str] = SimpleQueue()

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line)

    threading.Thread(target=read, daemon=True).start()
    told = Told(job.total if job.kind == "video" else None)
    stop_by: float | None = None
    wish = ""
    try:
        while process.poll() is None or not lines.empty():
            changes: dict[str, Any] = {}
            with suppress(Empty):
                changes |= told.hear(lines.get(timeout=LOOK))
                while not lines.empty():
                    changes |= told.hear(lines.get())
            if changes:
                with suppress(sqlite3.OperationalError):  # on a full disk the job itself may still end well
                    queue.change(job.id, **changes)
            wish = queue.get(job.id).wish
            if wish and stop_by is None:
                process.terminate()
                stop_by = time.monotonic() + LAST_WORDS
            if stop_by is not None and time.monotonic() > stop_by:
                process.kill()
    except KeyboardInterrupt:  # the machine goes down: the job goes on when a runner starts again
        process.terminate()
        process.wait()
        queue.change(job.id, state="waiting", text="", pid=None)
        raise
    code = process.wait()
    _record(queue, job, code, wish, told)


def _record(queue: Queue, job: QueuedJob, code: int, wish: str, told: Told) -> None:
    """Write down how a job has ended. While the disk is full, this waits until there is room again."""
    from cgconvert.video.jobs import read_job

    more: dict[str, Any] = {}
    if code == 0:
        state, why = "done", told.outcome or "done"
    elif wish == "cancel":
        remove_what_is_kept(job)
        state = why = "cancelled"
    elif wish == "pause" or code in (130, -signal.SIGINT):
        state = why = "paused"
        if job.kind == "video":  # a segment that was begun is made again
            kept = read_job(Path(job.output))
            more = {"done": kept.frames if kept is not None else 0}
    else:
        state = "failed"
        why = told.error or (
            f"its process was ended by signal {-code}; perhaps memory was short"
            if code < 0
            else told.last or f"it ended with code {code}"
        )
    while True:
        try:
            queue.change(
                job.id, state=state, text=why, ended=time.time(), pid=None, rate=None, wish="", **more
            )
            return
        except sqlite3.OperationalError:
            time.sleep(1)


def remove_what_is_kept(job: QueuedJob) -> None:
    """Remove what is finished of a job that is cancelled. A look that was installed before stays."""
    from cgconvert.video.jobs import read_job, remove_job

    if job.kind == "learn" and not installed_path(job.title).exists():
        shutil.rmtree(learning_folder(job), ignore_errors=True)
    kept = read_job(Path(job.output)) if job.kind == "video" else None
    if kept is not None:
        with suppress(CgconvertError):
            remove_job(kept)


class Told:
    """What a job has told, line by line; `hear` returns what of it changes the job's row.

    A video that goes on counts only what is left. With `whole`, the frames that its first run counted, those
    that are kept count as done.
    """

    def __init__(self, whole: int | None = None) -> None:
        self.whole, self.kept = whole, 0
        self.notes: list[str] = []
        self.error = self.outcome = self.last = ""

    def hear(self, line: str) -> dict[str, Any]:
        """Take one line of a job's output, which is JSON unless something went wrong."""
        try:
            event: dict[str, Any] = json.loads(line)
            kind = event["event"]
        except (ValueError, KeyError, TypeError):
            self.last = line.strip() or self.last
            return {}
        match kind:
            case "begin":
                total = event.get("total")
                self.kept = max(0, self.whole - total) if self.whole and total else 0
                return {
                    "text": "",
                    "done": self.kept,
                    "total": self.kept + total if total else None,
                    "unit": event.get("unit") or "frame",
                    "rate": None,
                }
            case "progress":
                return {"done": self.kept + event["done"], "rate": event.get("rate"), "text": ""}
            case "stage":
                return {"text": event["task"]}
            case "error":
                self.error = event["text"]
            case "done":
                self.outcome = f"{self.outcome}\n{event['text']}".strip()
            case "note" | "message":
                self.notes = [*self.notes, event["text"]][-MOST_NOTES:]
                return {"notes": json.dumps(self.notes)}
        return {}


if __name__ == "__main__":
    hear_termination()
    with suppress(KeyboardInterrupt):
        run_queue(Queue(Path(sys.argv[1])))
