"""Several videos, one after the other, with one engine; a video that fails does not stop the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cgconvert.engines.kept import KeptEngine
from cgconvert.engines.verify import VerificationError
from cgconvert.errors import (
    BusyError,
    CgconvertError,
    InputError,
    Interrupted,
    ModelError,
    OutputError,
    UsageError,
    printable,
)
from cgconvert.host.files import concerns_all, file_sha256
from cgconvert.host.interrupts import Stop, listening
from cgconvert.host.objects import AnyPath, ObjectPath, as_place
from cgconvert.media.video.probe import VideoProbe, sample_pixels
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.progress import Progress, Silent
from cgconvert.scale.files import Failure
from cgconvert.scale.marker import look_of, write_marker
from cgconvert.scale.results import ResultLines
from cgconvert.scale.shards import Shard
from cgconvert.sizes import network_size, parse_size
from cgconvert.video.folder import VideoJob, VideosPlan, plan_videos
from cgconvert.video.pipeline import run_video
from cgconvert.video.report import VideoReport
from cgconvert.video.staging import staged

POLL_SECONDS = 1.0
"""Between two looks at videos that other processes are converting."""


@dataclass(frozen=True)
class VideosResult:
    """The outcome of several videos.

    `skipped` results were there already, `stale` of them older than their source. `seconds` are wall
    seconds. `videos` are the reports of those that were converted, in their order. `complete` is False if
    the run was broken off.
    """

    source: str
    output: str
    model: str
    skipped: int
    stale: int
    failures: list[Failure]
    videos: list[VideoReport]
    seconds: float
    complete: bool
    notes: Sequence[str] = ()

    @property
    def converted(self) -> int:
        """How many videos have got their result."""
        return len(self.videos)

    @property
    def failed(self) -> int:
        """How many videos were not converted, and folders not read."""
        return len(self.failures)

    @property
    def frames(self) -> int:
        """Frames of all results of this run."""
        return sum(video.frames_out for video in self.videos)

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
            "frames": self.frames,
            "seconds": round(self.seconds, 3),
            "notes": list(self.notes),
            "videos": [video.to_dict() for video in self.videos],
        }


@dataclass
class VideosTally:
    """What has happened so far, also where `run_videos` raises.

    `results` gets a line for each video that is dealt with.
    """

    plan: VideosPlan
    results: ResultLines | None = None
    skipped: int = 0
    stale: int = 0
    failures: list[Failure] = field(default_factory=list)
    videos: list[VideoReport] = field(default_factory=list)
    complete: bool = False
    started: float = field(default_factory=time.perf_counter)

    @property
    def done(self) -> int:
        """Videos that are dealt with."""
        return self.skipped + len(self.failures) + len(self.videos) - len(self.plan.failures)

    def tell(
        self,
        status: str,
        job: VideoJob,
        output: AnyPath | str | None,
        reason: str | None = None,
        **facts: Any,
    ) -> None:
        """Add a line of results. Raises `OutputError` if it cannot be written."""
        if self.results is not None:
            row = {} if job.row is None else {"row": job.row}
            self.results.write(status, job.source, output, reason, **row, **facts)

    def result(self) -> VideosResult:
        """All of it, frozen."""
        return VideosResult(
            source=self.plan.told_source,
            output=self.plan.told_output,
            model=self.plan.card.name,
            skipped=self.skipped,
            stale=self.stale,
            failures=list(self.failures),
            videos=list(self.videos),
            seconds=time.perf_counter() - self.started,
            complete=self.complete,
            notes=self.plan.notes,
        )


def run_videos(
    plan: VideosPlan,
    progress: Progress,
    tally: VideosTally | None = None,
    kept: KeptEngine | None = None,
) -> VideosResult:
    """Convert every video of the plan that has no result yet, with one engine.

    `tally` tells what has happened also where this raises. `kept` is an engine that stays the caller's.
    Raises `Interrupted`, `OutputError`, `ModelError` and `UnavailableError` for what would stop every video;
    a single one that fails is in the result.
    """
    tally = tally or VideosTally(plan)
    tally.failures += plan.failures
    pace = _Pace()
    elsewhere: list[VideoJob] = []
    left = unfinished(plan, tally)
    total = len(plan.jobs)
    sizes = {job.key: _size(job.source) for job in left}

    def convert(job: VideoJob, engines: KeptEngine) -> None:
        """One video, from its plan to its report."""
        progress.series(tally.done, total, pace.left(sum(sizes.values())))
        pace.begin()
        own = job.options or plan.options
        with ExitStack() as stack:
            try:
                files = stack.enter_context(staged(job))
                video = plan.plan(job, files.source, files.place)
            except (BusyError, ModelError):
                raise
            except CgconvertError as error:
                if isinstance(error, OutputError) and concerns_all(error):
                    raise
                raise _OfOne(error) from error
            if job.root is not None:
                write_marker(job.root, plan.card, look_of(plan.options))
            for warning in video.warnings:
                progress.note(f"Note: {printable(job.source.name)}: {warning}")
            report = run_video(video, progress, engines)
            for warning in report.warnings[len(video.warnings) :]:
                progress.note(f"Note: {printable(job.source.name)}: {warning}")
            result = Path(report.output)
            facts: dict[str, Any] = {}
            if tally.results is not None:
                facts = {
                    "seconds": report.seconds,
                    "frames": report.frames_out,
                    "width": report.size[0],
                    "height": report.size[1],
                    "source_bytes": files.source.stat().st_size,
                    "output_bytes": result.stat().st_size,
                    "sha256": file_sha256(result),
                }
            output = files.deliver(result, own.overwrite)
        tally.videos.append(replace(report, source=str(job.source), output=str(output)))
        tally.tell("converted", job, output, **facts)
        pace.end(sizes[job.key])

    def attempt(job: VideoJob, engines: KeptEngine) -> bool:
        """Convert a video, and note where it fails; False where another process is at it."""
        try:
            convert(job, engines)
        except BusyError:
            return False
        except CgconvertError as error:
            cause = error.error if isinstance(error, _OfOne) else error
            is_model = isinstance(error, ModelError) and not isinstance(error, VerificationError)
            if isinstance(error, Interrupted) or is_model or error is engines.refusal:
                raise
            if isinstance(error, OutputError) and concerns_all(error):
                raise
            reason = str(cause).removeprefix(f"{job.source}: ")  # which is said beside it
            tally.failures.append(Failure(job.source, reason))
            tally.tell("failed", job, None, reason)
            progress.note(f"failed: {cause}")
        sizes.pop(job.key, None)
        return True

    try:
        owned = nullcontext(kept) if kept is not None else KeptEngine(calibration(plan))
        with listening() as stop, owned as engines:
            for job in left:
                _check(stop)
                if job.finished_as(plan.options) is not None:  # another process has made it meanwhile
                    _skip(job, plan, tally)
                elif not attempt(job, engines):
                    elsewhere.append(job)
            while elsewhere:
                progress.stage(f"waiting for other processes: {len(elsewhere)} videos")
                _wait(stop)
                progress.stage(None)
                for job in elsewhere.copy():
                    if job.finished_as(plan.options) is not None:
                        _skip(job, plan, tally)
                        elsewhere.remove(job)
                    elif attempt(job, engines):
                        elsewhere.remove(job)
            progress.series(total, total, None)
        tally.complete = True
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {finished_so_far(tally)}") from None
    except Interrupted as error:
        raise Interrupted(f"{error}; {finished_so_far(tally)}") from None
    except OutputError as error:
        raise OutputError(f"{error}; {finished_so_far(tally)}") from error
    finally:
        progress.finish()
    return tally.result()


class _OfOne(CgconvertError):
    """Wraps an error of one video's plan, which says nothing about the other videos."""

    def __init__(self, error: CgconvertError) -> None:
        super().__init__(str(error))
        self.error = error


def unfinished(plan: VideosPlan, tally: VideosTally) -> list[VideoJob]:
    """The videos without a result; the others are counted as skipped."""
    left = []
    for job in plan.jobs:
        if job.finished_as(plan.options) is None:
            left.append(job)
        else:
            _skip(job, plan, tally)
    return left


def _skip(job: VideoJob, plan: VideosPlan, tally: VideosTally) -> None:
    """A video has its result from an earlier run, or from another process."""
    tally.skipped += 1
    result = job.finished_as(plan.options)
    tally.tell("skipped", job, result)
    with suppress(OSError):  # of a file that is gone meanwhile, or a broken link
        if isinstance(job.source, Path) and isinstance(result, Path):
            tally.stale += job.source.stat().st_mtime > result.stat().st_mtime


def finished_so_far(tally: VideosTally) -> str:
    done = len(tally.videos) + tally.skipped
    return f"{done} of {len(tally.plan.jobs)} videos are finished, the same command goes on from here"


def _check(stop: Stop) -> None:
    if stop.requested:
        raise KeyboardInterrupt


def _wait(stop: Stop) -> None:
    """Pause, but hear an interrupt soon."""
    end = time.monotonic() + POLL_SECONDS
    while time.monotonic() < end:
        _check(stop)
        time.sleep(0.1)


def _size(path: AnyPath) -> int:
    """Bytes of a source, 0 if it is not there: trying to open it will say why. Objects count one each."""
    if isinstance(path, ObjectPath):
        return 1
    try:
        return path.stat().st_size
    except OSError:
        return 0


class _Pace:
    """How long the rest will take, by the bytes of the sources and the time that those before have taken."""

    def __init__(self) -> None:
        self.bytes, self.seconds, self.begun = 0, 0.0, 0.0

    def begin(self) -> None:
        self.begun = time.monotonic()

    def end(self, size: int) -> None:
        self.bytes += size
        self.seconds += time.monotonic() - self.begun

    def left(self, size: int) -> float | None:
        """Seconds for so many bytes, None if nothing has been converted yet."""
        return self.seconds * size / self.bytes if self.bytes else None


def calibration(plan: VideosPlan) -> Callable[[int], list[np.ndarray]] | None:
    """Pictures from all over the videos of all shards, so that every process calibrates int8 alike.

    None if they are in a bucket: then it is calibrated on the first one.
    """
    sources = [source for source in plan.sources if isinstance(source, Path)]
    if not sources:
        return None

    def samples(count: int) -> list[np.ndarray]:
        step = max(1, len(sources) // count)
        chosen = sources[::step][:count]
        pictures: list[np.ndarray] = []
        for source in chosen:
            with suppress(InputError, UsageError):  # it will be told when its turn comes
                with VideoProbe(source) as video:
                    info = video.info
                size = own = info.width, info.height
                if plan.options.size:
                    size = parse_size(plan.options.size, *own, "size")
                seen = network_size(plan.options.work_size, plan.options.stroke, plan.card, size, own)
                pictures += sample_pixels(source, info, seen, -(-count // len(chosen)))
        return pictures[:count]

    return samples


def convert_videos(
    sources: Sequence[str | AnyPath],
    output: str | AnyPath | None = None,
    model: str | Path = "photo2monet",
    options: VideoOptions | None = None,
    engine_options: EngineOptions | None = None,
    progress: Progress | None = None,
    shard: Shard | None = None,
) -> VideosResult:
    """Convert the videos of files, folders and patterns such as `clips/*.mp4`, one after the other.

    The tree of a folder is mirrored in `output`; None: `FOLDER.MODEL` beside it. Results that are there
    already are skipped, so a run that was broken off goes on. Videos that cannot be converted are in the
    result's `failures`; the others are done. `shard` takes that part of the videos alone. Raises
    `UsageError`, `ModelError`, `OutputError`, `Interrupted` (on Ctrl-C).
    """
    plan = plan_videos(
        [as_place(source) for source in sources],
        as_place(output) if output is not None else None,
        model,
        options or VideoOptions(),
        engine_options or EngineOptions(),
        shard,
    )
    return run_videos(plan, progress or Silent())
