"""Videos on a cluster: each goes to a worker, a long one in chunks to several, the largest first."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cgconvert.cluster.connection import ClusterOptions, connected
from cgconvert.cluster.models import ModelFile
from cgconvert.cluster.pool import Aside, Pool
from cgconvert.errors import CgconvertError, Interrupted, OutputError
from cgconvert.host.files import concerns_all
from cgconvert.host.interrupts import listening
from cgconvert.host.objects import AnyPath, ObjectPath
from cgconvert.progress import Progress, Silent
from cgconvert.scale.files import Failure
from cgconvert.scale.results import ResultLines
from cgconvert.video.folder import VideoJob, VideosPlan
from cgconvert.video.report import VideoReport

if TYPE_CHECKING:
    from cgconvert.video.chunks import Chunk
    from cgconvert.video.series import VideosResult, VideosTally

LOOKS = 16
"""Sources whose size is asked for at the same time."""


@dataclass(frozen=True)
class VideoWork:
    """A video for a worker: `one` of its chunks, or all of it, of which the `chunks` have been made."""

    job: VideoJob
    one: Chunk | None = None
    chunks: tuple[Chunk, ...] = ()


@dataclass(frozen=True)
class VideoOutcome:
    """What has become of a video: its report, or why there is none; `facts` as a line of results has them.

    With neither it had its result already.
    """

    report: VideoReport | None
    reason: str | None
    output: AnyPath | str | None
    facts: dict[str, Any]


class VideoWorker:
    """An actor that converts one video after the other with an engine that it keeps."""

    def __init__(self, plan: VideosPlan, model: ModelFile) -> None:
        from cgconvert.engines.kept import KeptEngine
        from cgconvert.video.series import calibration

        self.plan = replace(plan, model=model.here(), failures=(), notes=(), shard=None)
        self.engines = KeptEngine(calibration(plan))

    def __repr__(self) -> str:
        return f"VideoWorker({self.plan.card.name})"

    def ready(self) -> bool:
        """Whether it is there."""
        return True

    def convert(self, work: VideoWork, again: bool) -> VideoOutcome:
        """Convert a video or a chunk of one, or go on with it where a worker that died had got to."""
        return self._convert_chunk(work.job, work.one) if work.one else self._convert(work.job, work.chunks)

    def _convert_chunk(self, job: VideoJob, chunk: Chunk) -> VideoOutcome:
        """What fails here, the whole video will meet again, and tell; but for what every video would meet."""
        from cgconvert.video.chunks import convert_chunk

        try:
            convert_chunk(self.plan.plan(job), chunk, Silent(), self.engines)
        except CgconvertError as error:
            if isinstance(error, OutputError) and concerns_all(error):
                raise
            return VideoOutcome(None, str(error), None, {})
        return VideoOutcome(None, None, None, {})

    def _convert(self, job: VideoJob, chunks: tuple[Chunk, ...]) -> VideoOutcome:
        from cgconvert.video.chunks import lay_together, remove_chunks
        from cgconvert.video.series import VideosTally, run_videos

        if chunks:
            with suppress(CgconvertError):  # the video is then made from where it is
                lay_together(self.plan.plan(job), list(chunks))
        told = _Told()
        plan = replace(self.plan, jobs=(job,))
        result = run_videos(plan, Silent(), VideosTally(plan, told), self.engines)
        if chunks and not result.failures:
            remove_chunks(self.plan.plan(replace(job, options=_overwriting(job, plan))), list(chunks))
        if result.failures:
            return VideoOutcome(None, result.failures[0].reason, None, {})
        if result.videos:
            return VideoOutcome(result.videos[0], None, result.videos[0].output, told.facts)
        return VideoOutcome(None, None, job.finished_as(plan.options), {})


class _Told(ResultLines):
    """Takes the line of a video's result, instead of a file."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}

    def write(
        self,
        status: str,
        path: AnyPath | str,
        output: AnyPath | str | None,
        reason: str | None = None,
        **facts: Any,
    ) -> None:
        facts.pop("row", None)
        self.facts = facts

    def close(self) -> None:
        pass


def _overwriting(job: VideoJob, plan: VideosPlan) -> Any:
    """The options of a job with which a plan is made although its result is there."""
    return replace(job.options or plan.options, overwrite=True)


def largest_first(jobs: list[VideoJob]) -> list[VideoJob]:
    """The jobs by the size of their sources, so that none is left over for one worker at the end.

    A large video that is dealt last keeps one worker busy while all others wait (Graham 1969). What cannot
    be looked at comes last: the worker that gets it will say why.
    """

    def size(job: VideoJob) -> int:
        try:
            if isinstance(job.source, ObjectPath):
                return int(job.source.version()["size"])
            return job.source.stat().st_size
        except (CgconvertError, OSError):
            return 0

    with ThreadPoolExecutor(LOOKS) as pool:  # a bucket takes its time to answer
        sizes = list(pool.map(size, jobs))
    order = sorted(range(len(jobs)), key=lambda index: -sizes[index])
    return [jobs[index] for index in order]


def run_videos_on_cluster(
    plan: VideosPlan, options: ClusterOptions, progress: Progress, tally: VideosTally | None = None
) -> VideosResult:
    """Convert every video of the plan that has no result yet, with workers of a Ray cluster.

    Sources and results have to be reachable for all workers: on a shared file system or in a bucket. Raises
    as `run_videos`, and `UnavailableError` if there are no workers.
    """
    from cgconvert.video.series import VideosTally, finished_so_far, unfinished

    tally = tally or VideosTally(plan)
    tally.failures += plan.failures
    run = _VideosOnCluster(plan, progress, tally)
    try:
        with listening() as stop, ExitStack() as opened:
            left = unfinished(plan, tally)
            progress.begin("Converting", len(plan.jobs), "video")
            progress.advance(tally.done)
            if left:
                cluster = opened.enter_context(connected(options))
                progress.note(cluster.describe())
                model = cluster.ray.put(ModelFile.of(plan.model))
                pool: Pool[VideoWork] = Pool(
                    cluster,
                    lambda: cluster.start(VideoWorker, 1, plan, model),
                    1,
                    lambda work: [work],
                    progress.note,
                )
                for outcome in pool.run(run.work(largest_first(left)), stop):
                    for more in run.take(outcome):
                        pool.add(more)
        tally.complete = True
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {finished_so_far(tally)}") from None
    except OutputError as error:
        raise OutputError(f"{error}; {finished_so_far(tally)}") from error
    finally:
        progress.finish()
    return tally.result()


@dataclass
class _VideosOnCluster:
    """The driver's side of a run. `parted` are the videos whose chunks are being made, with those left."""

    plan: VideosPlan
    progress: Progress
    tally: VideosTally
    parted: dict[str, set[int]] = field(default_factory=dict)
    chunks: dict[str, tuple[Chunk, ...]] = field(default_factory=dict)

    def work(self, left: list[VideoJob]) -> Iterator[VideoWork]:
        """The videos without a result, long ones in chunks."""
        for job in left:
            chunks = self._chunks(job)
            if not chunks:
                yield VideoWork(job)
                continue
            self.parted[job.key] = {chunk.number for chunk in chunks}
            self.chunks[job.key] = chunks
            self.progress.note(f"{job.source}: {len(chunks)} chunks")
            for chunk in chunks:
                yield VideoWork(job, chunk)

    def _chunks(self, job: VideoJob) -> tuple[Chunk, ...]:
        from cgconvert.video.chunks import chunks_of

        if job.is_remote:
            return ()
        try:
            return tuple(chunks_of(self.plan.plan(job)))
        except CgconvertError:  # the worker that gets it will say it
            return ()

    def take(self, outcome: tuple[int, VideoWork, VideoOutcome] | Aside[VideoWork]) -> list[VideoWork]:
        """Count what has become of a video or a chunk. Returns what can be done now: joining its chunks."""
        work = outcome.work if isinstance(outcome, Aside) else outcome[1]
        found = VideoOutcome(None, outcome.reason, None, {}) if isinstance(outcome, Aside) else outcome[2]
        job = work.job
        if work.one is not None:
            left = self.parted.get(job.key)
            if left is None:  # the video has been set aside
                return []
            if not isinstance(outcome, Aside):
                left.discard(work.one.number)
                if left:
                    return []
                del self.parted[job.key]
                return [VideoWork(job, None, self.chunks.pop(job.key))]
            del self.parted[job.key]
        self._count(job, found)
        return []

    def _count(self, job: VideoJob, found: VideoOutcome) -> None:
        tally = self.tally
        if found.report is not None:
            tally.videos.append(found.report)
            tally.tell("converted", job, found.output, **found.facts)
            self.progress.note(f"converted: {found.output}")
        elif found.reason is not None:
            tally.failures.append(Failure(job.source, found.reason))
            tally.tell("failed", job, None, found.reason)
            self.progress.note(f"failed: {job.source}: {found.reason}")
        else:
            tally.skipped += 1
            tally.tell("skipped", job, found.output)
        self.progress.advance(tally.done)
