"""A folder that is watched: pictures become jobs when they have arrived whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cgconvert.errors import printable
from cgconvert.host.objects import AnyPath
from cgconvert.pictures.files import ImageJob, is_finished
from cgconvert.pictures.plan import ImagePlan
from cgconvert.scale.files import Failure

INTERVAL = 1.0
"""Seconds between two looks; longer where a look itself takes long."""
QUIET = 10.0
"""Seconds after its last change from which a file counts as whole at the first look."""

Signature = tuple[int, int, int]


def watched(
    plan: ImagePlan,
    skip: Callable[[ImageJob], None],
    fail: Callable[[AnyPath, str], None],
    interval: float = INTERVAL,
) -> Iterator[ImageJob | None]:
    """Jobs as their files arrive, for ever; None whenever there is none just now.

    A file has arrived when its size and time of change are the same in two looks. One that failed comes
    again when it has changed, so a file that was caught half-written is no loss. What was finished before
    the watch began goes to `skip` once; a file whose result would replace another file's goes to `fail`.
    """
    seen: dict[AnyPath, Signature] = {}
    given: dict[AnyPath, Signature] = {}
    outputs: dict[AnyPath, AnyPath] = {}
    refused: set[AnyPath] = set()
    first_look = True
    while True:
        started = time.monotonic()
        present: dict[AnyPath, Signature] = {}
        problems: list[Failure] = []
        for job in plan.jobs(problems):
            owner = outputs.get(job.output, job.source)
            if owner != job.source:
                if job.source not in refused:
                    refused.add(job.source)
                    fail(job.source, f"its result would replace that of {printable(owner)}")
                continue
            if job.source not in given and is_finished(job, plan.options):
                outputs[job.output] = job.source
                if first_look:
                    skip(job)
                continue
            signature = _signature(job.source)
            if signature is None or given.get(job.source) == signature:
                continue
            present[job.source] = signature
            settled = first_look and time.time() - signature[1] / 1e9 > QUIET
            if settled or seen.get(job.source) == signature:
                given[job.source] = signature
                outputs[job.output] = job.source
                yield job
        for problem in problems:
            fail(problem.file, problem.reason)
        seen, first_look = present, False
        pause = max(interval, 5 * (time.monotonic() - started))
        while time.monotonic() - started < pause:
            yield None


def _signature(path: AnyPath) -> Signature | None:
    """What changes when a file changes; None if it is gone."""
    assert isinstance(path, Path)  # objects are not watched
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino
