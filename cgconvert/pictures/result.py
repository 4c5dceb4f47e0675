"""What happened to pictures: counts, failures with reasons, what could not be carried, seconds per stage."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cgconvert.pictures.files import ImageFailure, ImageJob, printable
from cgconvert.pictures.plan import ImagePlan

STAGES = ("load", "decode", "prepare", "build", "translate", "encode")


@dataclass(frozen=True)
class Loss:
    """Something that results do not hold: in how many pictures, and in which first."""

    what: str
    images: int
    first: Path


@dataclass(frozen=True)
class ImagesResult:
    """The outcome of a run over pictures.

    `skipped` results were there already, `stale` of them older than their source. `seconds` are wall
    seconds; `stage_seconds` what each stage was busy for, summed over its threads ("prepare" is loading the
    model and verifying the engine, "build" building it or loading what was built). `complete` is False if
    the run was broken off.
    """

    source: str
    output: str
    model: str
    converted: int
    skipped: int
    stale: int
    failures: list[ImageFailure]
    losses: list[Loss]
    seconds: float
    stage_seconds: Mapping[str, float]
    engine: Mapping[str, Any]
    complete: bool

    @property
    def failed(self) -> int:
        """How many pictures were not converted."""
        return len(self.failures)

    @property
    def images_per_second(self) -> float:
        """Converted pictures for each second of the run, loading and all but building the engine."""
        return self.converted / max(self.seconds - self.stage_seconds.get("build", 0.0), 1e-9)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; bytes of names that are no text are escaped."""
        return {
            "source": self.source,
            "output": self.output,
            "model": self.model,
            "converted": self.converted,
            "skipped": self.skipped,
            "stale": self.stale,
            "failed": self.failed,
            "complete": self.complete,
            "failures": [{"file": printable(f.file), "reason": f.reason} for f in self.failures],
            "not_carried": [
                {"what": loss.what, "images": loss.images, "first": printable(loss.first)}
                for loss in self.losses
            ],
            "seconds": round(self.seconds, 3),
            "images_per_second": round(self.images_per_second, 3),
            "stage_seconds": {stage: round(value, 3) for stage, value in self.stage_seconds.items()},
            "engine": dict(self.engine),
        }


@dataclass
class Tally:
    """Counts while a run is under way; written by the coordinator only."""

    plan: ImagePlan
    converted: int = 0
    skipped: int = 0
    stale: int = 0
    failures: list[ImageFailure] = field(default_factory=list)
    losses: dict[str, Loss] = field(default_factory=dict)
    engine: dict[str, Any] = field(default_factory=dict)
    stage_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    started: float = field(default_factory=time.perf_counter)
    seconds: float | None = None
    complete: bool = False

    @property
    def done(self) -> int:
        """Pictures that are dealt with."""
        return self.converted + self.skipped + len(self.failures)

    def add_seconds(self, stage: str, seconds: float) -> None:
        """A stage was busy."""
        self.stage_seconds[stage] += seconds

    def busiest(self, workers: int) -> str:
        """The stage that limits the speed: the network, or what `workers` threads share."""
        load = {name: self.stage_seconds[name] / workers for name in ("load", "decode", "encode")}
        if self.stage_seconds["translate"] >= sum(load.values()):
            return "translate"
        return max(load, key=lambda name: load[name])

    def convert(self, job: ImageJob, losses: tuple[str, ...]) -> None:
        """A picture has its result. One that failed before and was tried again is no failure any more."""
        self.converted += 1
        if self.plan.options.watch:
            self.failures = [failure for failure in self.failures if failure.file != job.source]
        for what in losses:
            known = self.losses.get(what, Loss(what, 0, job.source))
            self.losses[what] = Loss(what, known.images + 1, known.first)

    def skip(self, job: ImageJob) -> None:
        """A picture has its result from an earlier run."""
        self.skipped += 1
        with suppress(OSError):  # gone meanwhile, or a broken link
            self.stale += job.source.stat().st_mtime > job.output.stat().st_mtime

    def fail(self, source: Path, reason: str) -> None:
        """A picture could not be converted; in a watched folder the newest reason counts."""
        if self.plan.options.watch:
            self.failures = [failure for failure in self.failures if failure.file != source]
        self.failures.append(ImageFailure(source, reason))

    def stop(self, complete: bool) -> None:
        """The run is over."""
        self.seconds, self.complete = time.perf_counter() - self.started, complete

    def result(self) -> ImagesResult:
        """All of it, frozen."""
        plan = self.plan
        return ImagesResult(
            source=printable(plan.folder) if plan.folder else f"{len(plan.files)} files",
            output=plan.place(),
            model=plan.card.name,
            converted=self.converted,
            skipped=self.skipped,
            stale=self.stale,
            failures=sorted(self.failures, key=lambda failure: failure.file),
            losses=list(self.losses.values()),
            seconds=self.seconds if self.seconds is not None else time.perf_counter() - self.started,
            stage_seconds=dict(self.stage_seconds),
            engine=dict(self.engine),
            complete=self.complete,
        )
