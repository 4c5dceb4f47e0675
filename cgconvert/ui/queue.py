"""The queue of jobs: a table that the page's server and the runner share, and that survives both.

A job is a command line of cgconvert. Its states are

    waiting -> running -> done | failed | paused | cancelled
    paused -> waiting (resumed),   running -> waiting (its runner has died)
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgconvert.errors import OutputError, UsageError
from cgconvert.host.folders import data_folder
from cgconvert.host.locks import locked

ATTEMPTS = 3
"""How often a job is begun again whose process has died, before it counts as failed."""

COLUMNS = (
    "id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT, title TEXT, source TEXT, output TEXT, arguments TEXT, "
    "report TEXT, state TEXT DEFAULT 'waiting', wish TEXT DEFAULT '', text TEXT DEFAULT '', "
    "notes TEXT DEFAULT '[]', done INTEGER DEFAULT 0, total INTEGER, unit TEXT DEFAULT 'frame', rate REAL, "
    "created REAL, started REAL, ended REAL, attempts INTEGER DEFAULT 0, pid INTEGER"
)


@dataclass(frozen=True)
class QueuedJob:
    """A job as it is now. `arguments` are those of `cgconvert`; `wish` is "", "pause" or "cancel".

    `text` says in words what it does, or why it failed. `done` of `total` are in `unit`s, `rate` is per
    second, and times are seconds since 1970.
    """

    id: int
    kind: str
    title: str
    source: str
    output: str
    arguments: Sequence[str]
    report: str
    state: str
    wish: str
    text: str
    notes: Sequence[str]
    done: int
    total: int | None
    unit: str
    rate: float | None
    created: float
    started: float | None
    ended: float | None
    attempts: int
    pid: int | None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ("done", "failed", "cancelled")

    @property
    def seconds_left(self) -> float | None:
        """Seconds to its end; None while nothing is known."""
        if self.state != "running" or not self.rate or self.total is None:
            return None
        return max(0.0, (self.total - self.done) / self.rate)


class Queue:
    """The table in a folder, which is made if it is not there. Each call is a transaction of its own."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or data_folder() / "ui"
        try:
            (self.folder / "reports").mkdir(parents=True, exist_ok=True)
            with self._open() as table:
                table.execute(f"CREATE TABLE IF NOT EXISTS jobs ({COLUMNS})")
        except (OSError, sqlite3.Error) as error:
            raise OutputError(f"cannot write the queue of jobs in {self.folder}: {error}") from error

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.folder / "queue.sqlite", timeout=20)) as table:
            table.row_factory = sqlite3.Row
            with table:
                yield table

    def add(self, kind: str, title: str, source: Path, output: str, arguments: Sequence[str]) -> QueuedJob:
        """Add a job at the end. With kinds "video" and "pictures" it gets a report."""
        with self._open() as table:
            cursor = table.execute(
                "INSERT INTO jobs (kind, title, source, output, arguments, report, created) "
                "VALUES (?, ?, ?, ?, '[]', '', ?)",
                (kind, title, str(source), output, time.time()),
            )
            number = cursor.lastrowid
            assert number is not None
            report = str(self.folder / "reports" / f"{number}.json") if kind != "learn" else ""
            full = [*arguments, *(["--report", report] if report else [])]
            table.execute(
                "UPDATE jobs SET arguments = ?, report = ? WHERE id = ?", (json.dumps(full), report, number)
            )
        return self.get(number)

    def jobs(self) -> list[QueuedJob]:
        """Every job, in the order in which they were added."""
        with self._open() as table:
            return [_job(row) for row in table.execute("SELECT * FROM jobs ORDER BY id")]

    def get(self, number: int) -> QueuedJob:
        """A job by its number. Raises `UsageError`."""
        with self._open() as table:
            row = table.execute("SELECT * FROM jobs WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise UsageError(f"there is no job {number}")
        return _job(row)

    def claim(self) -> QueuedJob | None:
        """Take the first job that waits; it is running now. None if none waits."""
        with self._open() as table:
            row = table.execute(
                "UPDATE jobs SET state = 'running', wish = '', text = 'starting', started = ?, ended = NULL, "
                "attempts = attempts + 1, rate = NULL, done = 0 WHERE id = "
                "(SELECT id FROM jobs WHERE state = 'waiting' ORDER BY id LIMIT 1) RETURNING *",
                (time.time(),),
            ).fetchone()
        return _job(row) if row else None

    def change(self, number: int, **values: Any) -> None:
        """Set columns of a job."""
        names = ", ".join(f"{name} = ?" for name in values)
        with self._open() as table:
            table.execute(f"UPDATE jobs SET {names} WHERE id = ?", (*values.values(), number))

    def pause(self, number: int) -> None:
        """Stop a job so that it can go on; what is finished of it is kept. Raises `UsageError`."""
        if not self._move(number, "waiting", state="paused", text="paused") and not self._move(
            number, "running", wish="pause"
        ):
            raise UsageError(f"job {number} is {self.get(number).state} and cannot be paused")

    def resume(self, number: int) -> None:
        """Let a paused, failed or cancelled job wait again. Raises `UsageError`."""
        for state in ("paused", "failed", "cancelled"):
            if self._move(number, state, state="waiting", text="", attempts=0, wish="", ended=None):
                return
        raise UsageError(f"job {number} is {self.get(number).state} and cannot go on")

    def cancel(self, number: int) -> None:
        """End a job for good; what was kept of it is removed by the runner. Raises `UsageError`."""
        if self._move(number, "running", wish="cancel"):
            return
        for state in ("waiting", "paused"):
            if self._move(number, state, state="cancelled", text="cancelled", ended=time.time()):
                return
        raise UsageError(f"job {number} is {self.get(number).state} and cannot be cancelled")

    def remove(self, number: int) -> None:
        """Take a job that is over off the list; results stay. Raises `UsageError`."""
        job = self.get(number)
        if not job.is_over:
            raise UsageError(f"job {number} is {job.state}: cancel it first")
        with self._open() as table:
            table.execute("DELETE FROM jobs WHERE id = ?", (number,))
        if job.report:
            Path(job.report).unlink(missing_ok=True)

    def recover(self) -> None:
        """Let jobs wait again that were running when their runner died. For a runner, under its lock."""
        for job in self.jobs():
            if job.state != "running":
                continue
            if job.wish == "cancel":
                self.change(job.id, state="cancelled", text="cancelled", ended=time.time())
            elif job.wish == "pause":
                self.change(job.id, state="paused", text="paused")
            elif job.attempts >= ATTEMPTS:
                why = f"its process ended without a word {ATTEMPTS} times; perhaps memory was short"
                self.change(job.id, state="failed", text=why, ended=time.time())
            else:
                self.change(job.id, state="waiting", text="")

    def _move(self, number: int, was: str, **values: Any) -> bool:
        """Set columns of a job if it is in this state; whether it was."""
        names = ", ".join(f"{name} = ?" for name in values)
        with self._open() as table:
            cursor = table.execute(
                f"UPDATE jobs SET {names} WHERE id = ? AND state = ?", (*values.values(), number, was)
            )
        return cursor.rowcount == 1

    @property
    def lock(self) -> Path:
        """Held by the runner for as long as it lives."""
        return self.folder / "runner.lock"

    def has_runner(self) -> bool:
        """Whether a runner lives."""
        with locked(self.lock, wait=False) as free:
            return not free


def _job(row: sqlite3.Row) -> QueuedJob:
    values = dict(row)
    values["arguments"] = json.loads(values["arguments"])
    values["notes"] = json.loads(values["notes"])
    return QueuedJob(**values)
