"""What happened to pictures: counts, failures with reasons, what could not be carried, seconds per stage."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cgconvert.engines.together import described_together
from cgconvert.errors import printable
from cgconvert.host.channels import StageClock
from cgconvert.host.objects import AnyPath
from cgconvert.pictures.files import ImageJob
from cgconvert.pictures.plan import ImagePlan
from cgconvert.scale.files import Failure
from cgconvert.scale.results import ResultLines

STAGES = {
    "load": "decode",
    "decode": "decode",
    "prepare": "",
    "build": "",
    "preprocess": "translate",
    "translate": "translate",
    "postprocess": "translate",
    "finish": "encode",
    "encode": "encode",
}
"""The stages of a picture in the order of its way, and the threads that each works in."""

SHOWN = ("load", "decode", "prepare", "build", "translate", "finish", "encode")
"""The stages of the report; "translate" there is all that the network's thread does."""


@dataclass(frozen=True)
class Dropped:
    """Something that results do not hold: in how many pictures, and in which first."""

    what: str
    images: int
    first: AnyPath


@dataclass(frozen=True)
class ImagesResult:
    """The outcome of a run over pictures.

    `converted` counts files, and `frames` their pictures: one each, but for animations and TIFFs of several
    pages. `skipped` results were there already, `stale` of them older than their source. `seconds` are wall
    seconds; `stage_seconds` what each stage was busy for, summed over its threads ("prepare" is loading the
    model and verifying the engine, "build" building it or loading what was built). `look` is what
    besides the model decides on results: strength, colours and sizes. `complete` is False if the run was
    broken off.
    """

    source: str
    output: str
    model: str
    converted: int
    frames: int
    skipped: int
    stale: int
    failures: list[Failure]
    dropped: list[Dropped]
    seconds: float
    stage_seconds: Mapping[str, float]
    engine: Mapping[str, Any]
    complete: bool
    look: Mapping[str, Any]

    @property
    def failed(self) -> int:
        """How many pictures were not converted."""
        return len(self.failures)

    @property
    def images_per_second(self) -> float:
        """Converted frames for each second of the run, loading included but not building the engine."""
        return self.frames / max(self.seconds - self.stage_seconds.get("build", 0.0), 1e-9)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; bytes of names that are no text are escaped."""
        return {
            "source": self.source,
            "output": self.output,
            "model": self.model,
            "converted": self.converted,
            "frames": self.frames,
            "skipped": self.skipped,
            "stale": self.stale,
            "failed": self.failed,
            "complete": self.complete,
            "failures": [{"file": printable(f.file), "reason": f.reason} for f in self.failures],
            "not_carried": [
                {"what": part.what, "images": part.images, "first": printable(part.first)}
                for part in self.dropped
            ],
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 3),
            "stage_seconds": {stage: round(value, 3) for stage, value in self.stage_seconds.items()},
            "engine": dict(self.engine),
            "look": dict(self.look),
        }


class Tally:
    """Counts while a run is under way; all its threads write to it.

    `frames` counts pictures that were written, those of animations and the pages of documents each.
    `results` gets a line for each file that is dealt with.
    """

    def __init__(self, plan: ImagePlan, results: ResultLines | None = None) -> None:
        self.plan, self.results = plan, results
        self.converted = self.skipped = self.stale = self.frames = 0
        self.failures: list[Failure] = []
        self.dropped: dict[str, Dropped] = {}
        self.engines: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
        self.clock = StageClock(STAGES)
        self.started = time.perf_counter()
        self.seconds: float | None = None
        self.complete = False
        self.lock = threading.Lock()

    @property
    def done(self) -> int:
        """Pictures that are dealt with."""
        return self.converted + self.skipped + len(self.failures)

    def convert(self, job: ImageJob, dropped: tuple[str, ...], frames: int = 1, **facts: Any) -> None:
        """A file has its result. One that failed before and was tried again is no failure any more.

        `facts` go into its line of results. Raises `OutputError` if that cannot be written.
        """
        self._tell("converted", job, frames=frames, **facts)
        with self.lock:
            self.converted += 1
            self.frames += frames
            self._forget_failure(job.source)
            for what in dropped:
                known = self.dropped.get(what, Dropped(what, 0, job.source))
                self.dropped[what] = Dropped(what, known.images + 1, known.first)

    def add(self, dropped: Sequence[Dropped], stage_seconds: Mapping[str, float]) -> None:
        """What another process, which did a part of this run, did not keep, and what its stages took."""
        with self.lock:
            for part in dropped:
                known = self.dropped.get(part.what, Dropped(part.what, 0, part.first))
                self.dropped[part.what] = replace(known, images=known.images + part.images)
        for stage, seconds in stage_seconds.items():
            self.clock.add(stage, seconds)

    def tell_engine(self, number: int, told: dict[str, Any], share: dict[str, Any]) -> None:
        """How the engine of a device did, and a row of what the device has done."""
        with self.lock:
            self.engines[number] = told, share

    def skip(self, job: ImageJob) -> None:
        """A picture has its result from an earlier run."""
        self._tell("skipped", job)
        with self.lock, suppress(OSError):  # of a file that is gone meanwhile, or a broken link
            self.skipped += 1
            if isinstance(job.source, Path) and isinstance(job.output, Path):
                self.stale += job.source.stat().st_mtime > job.output.stat().st_mtime

    def fail(self, source: AnyPath, reason: str) -> None:
        """A picture could not be converted; in a watched folder the newest reason counts."""
        with self.lock:
            self._forget_failure(source)
            self.failures.append(Failure(source, reason))

    def give_up(self, job: ImageJob, reason: str) -> None:
        """As `fail`, with a line of results."""
        self._tell("failed", job, reason)
        self.fail(job.source, reason)

    def _tell(self, status: str, job: ImageJob, reason: str | None = None, **facts: Any) -> None:
        if self.results is not None:
            row = {} if job.row is None else {"row": job.row}
            self.results.write(status, job.source, job.output, reason, **row, **facts)

    def _forget_failure(self, source: AnyPath) -> None:
        """In a watched folder a picture may come again."""
        if self.plan.options.watch:
            self.failures = [failure for failure in self.failures if failure.file != source]

    def stop(self, complete: bool) -> None:
        """The run is over."""
        self.seconds, self.complete = time.perf_counter() - self.started, complete

    def result(self) -> ImagesResult:
        """All of it, frozen."""
        plan, seconds, loads = self.plan, self.clock.seconds, self.clock.loads()
        with self.lock:
            engines = [self.engines[number] for number in sorted(self.engines)]
            return ImagesResult(
                source=plan.told_source(),
                output=plan.place(),
                model=plan.card.name,
                converted=self.converted,
                frames=self.frames,
                skipped=self.skipped,
                stale=self.stale,
                failures=sorted(self.failures, key=lambda failure: str(failure.file)),
                dropped=list(self.dropped.values()),
                seconds=self.seconds if self.seconds is not None else time.perf_counter() - self.started,
                stage_seconds={**{stage: seconds[stage] for stage in SHOWN}, "translate": loads["translate"]},
                engine=described_together([told for told, _ in engines], [share for _, share in engines]),
                complete=self.complete,
                look=plan.look(),
            )
