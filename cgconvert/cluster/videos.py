"""Videos on a cluster: each goes to a worker, which converts it as `cgconvert video` does."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cgconvert.cluster.connection import ClusterOptions, connected
from cgconvert.cluster.models import ModelFile
from cgconvert.cluster.pool import Aside, Pool
from cgconvert.errors import Interrupted, OutputError
from cgconvert.host.interrupts import listening
from cgconvert.host.objects import AnyPath
from cgconvert.progress import Progress, Silent
from cgconvert.scale.files import Failure
from cgconvert.scale.results import ResultLines
from cgconvert.video.folder import VideoJob, VideosPlan
from cgconvert.video.report import VideoReport

if TYPE_CHECKING:
    from cgconvert.video.series import VideosResult, VideosTally


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

    def convert(self, job: VideoJob, again: bool) -> VideoOutcome:
        """Convert a video, or go on with it where a worker that died had got to."""
        from cgconvert.video.series import VideosTally, run_videos

        told = _Told()
        plan = replace(self.plan, jobs=(job,))
        result = run_videos(plan, Silent(), VideosTally(plan, told), self.engines)
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
    total = len(plan.jobs)

    def take(outcome: tuple[int, VideoJob, VideoOutcome] | Aside[VideoJob]) -> None:
        job = outcome.work if isinstance(outcome, Aside) else outcome[1]
        found = VideoOutcome(None, outcome.reason, None, {}) if isinstance(outcome, Aside) else outcome[2]
        if found.report is not None:
            tally.videos.append(found.report)
            tally.tell("converted", job, found.output, **found.facts)
            progress.note(f"converted: {found.output}")
        elif found.reason is not None:
            tally.failures.append(Failure(job.source, found.reason))
            tally.tell("failed", job, None, found.reason)
            progress.note(f"failed: {job.source}: {found.reason}")
        else:
            tally.skipped += 1
            tally.tell("skipped", job, found.output)
        progress.advance(tally.done)

    try:
        with listening() as stop, ExitStack() as opened:
            left = unfinished(plan, tally)
            progress.begin("Converting", total, "video")
            progress.advance(tally.done)
            if left:
                cluster = opened.enter_context(connected(options))
                progress.note(cluster.describe())
                model = cluster.ray.put(ModelFile.of(plan.model))
                pool: Pool[VideoJob] = Pool(
                    cluster,
                    lambda: cluster.start(VideoWorker, 1, plan, model),
                    1,
                    lambda job: [job],
                    progress.note,
                )
                for outcome in pool.run(iter(left), stop):
                    take(outcome)
        tally.complete = True
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {finished_so_far(tally)}") from None
    except OutputError as error:
        raise OutputError(f"{error}; {finished_so_far(tally)}") from error
    finally:
        progress.finish()
    return tally.result()
