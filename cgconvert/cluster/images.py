"""Pictures on a cluster: the driver deals blocks, and each worker has one pipeline that stays warm."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from cgconvert.cluster.connection import ClusterOptions, connected
from cgconvert.cluster.models import ModelFile
from cgconvert.cluster.pool import Aside, Pool
from cgconvert.errors import Interrupted, OutputError
from cgconvert.host.channels import check_worker
from cgconvert.host.files import file_sha256
from cgconvert.host.interrupts import listening
from cgconvert.host.objects import AnyPath
from cgconvert.pictures.files import ImageJob, is_finished
from cgconvert.pictures.plan import ImagePlan
from cgconvert.pictures.result import Dropped, ImagesResult, Tally
from cgconvert.progress import Progress, Silent, counted
from cgconvert.scale.marker import write_marker
from cgconvert.scale.results import ResultLines
from cgconvert.scale.shards import Shard

BLOCK = 32
"""Pictures that are dealt together. What a worker was at when it dies is done again."""
BLOCKS_AHEAD = 2
"""Blocks with one worker at once, so that it need not wait for the next."""
LOOK = 0.05
"""Seconds that a worker's pipeline waits for more pictures before it looks at those of other runs."""

Key = tuple[str, str]


@dataclass(frozen=True)
class Settled:
    """What has become of a picture: as a line of results has it."""

    status: str
    reason: str | None
    facts: dict[str, Any]


@dataclass(frozen=True)
class BlockResult:
    """What has become of a block's pictures, and of a worker so far: its engine, and what was not kept."""

    settled: list[tuple[ImageJob, Settled]]
    engine: dict[str, Any]
    dropped: list[Dropped]
    stage_seconds: dict[str, float]


def key_of(job: ImageJob) -> Key:
    """What tells a block's pictures apart: a source may have several results."""
    return str(job.source), str(job.output)


class ImageWorker:
    """An actor: the pipeline of pictures, fed with blocks, so that its engine is prepared once."""

    def __init__(self, plan: ImagePlan, model: ModelFile) -> None:
        self.jobs: queue.SimpleQueue[ImageJob] = queue.SimpleQueue()
        self.settled: dict[Key, Settled] = {}
        self.changed = threading.Condition()
        self.error: BaseException | None = None
        # Without a folder: results are where the jobs say, and the driver has looked which are there.
        self.plan = replace(
            plan, folder=None, files=(), output=None, model=model.here(), shard=None, rows=self._feed, total=0
        )
        self.tally = Tally(self.plan, _Told(self))
        threading.Thread(target=self._run, daemon=True).start()

    def __repr__(self) -> str:
        return f"ImageWorker({self.plan.card.name})"

    def ready(self) -> bool:
        """Whether it is there."""
        return True

    def convert(self, jobs: list[ImageJob], again: bool) -> BlockResult:
        """Convert a block. With `again` a worker died over it: what it had finished counts as converted."""
        for job in jobs:
            self.jobs.put(job)
        with self.changed:
            self.changed.wait_for(lambda: self.error or all(key_of(job) in self.settled for job in jobs))
            if self.error is not None:
                raise self.error
            settled = [(job, self.settled.pop(key_of(job))) for job in jobs]
        if again:
            settled = [(job, _made_before(job, one)) for job, one in settled]
        result = self.tally.result()
        return BlockResult(settled, dict(result.engine), result.dropped, dict(result.stage_seconds))

    def settle(self, key: Key, settled: Settled) -> None:
        """A picture is dealt with."""
        with self.changed:
            self.settled[key] = settled
            self.changed.notify_all()

    def _feed(self, shard: Shard | None) -> Iterator[ImageJob]:
        """Jobs as they come, for ever; None whenever there is none just now."""
        while True:
            check_worker()
            try:
                yield self.jobs.get(timeout=LOOK)
            except queue.Empty:
                yield None  # type: ignore[misc]

    def _run(self) -> None:
        from cgconvert.pictures.pipeline import run_images

        try:
            run_images(self.plan, Silent(), self.tally)
        except BaseException as error:
            with self.changed:
                self.error = error
                self.changed.notify_all()


class _Told(ResultLines):
    """Takes the lines of a worker's results, instead of a file."""

    def __init__(self, worker: ImageWorker) -> None:
        self.worker = worker

    def write(
        self,
        status: str,
        path: AnyPath | str,
        output: AnyPath | str | None,
        reason: str | None = None,
        **facts: Any,
    ) -> None:
        facts.pop("row", None)
        self.worker.settle((str(path), str(output)), Settled(status, reason, facts))

    def close(self) -> None:
        pass


def _made_before(job: ImageJob, settled: Settled) -> Settled:
    """A result that was there when a worker looked again is that of the worker that died."""
    if settled.status != "skipped":
        return settled
    facts: dict[str, Any] = {}
    if isinstance(job.output, Path):
        facts = {"output_bytes": job.output.stat().st_size, "sha256": file_sha256(job.output)}
    return Settled("converted", None, facts)


def run_images_on_cluster(
    plan: ImagePlan, options: ClusterOptions, progress: Progress, tally: Tally | None = None
) -> ImagesResult:
    """Convert every picture of the plan that has no result yet, with workers of a Ray cluster.

    Sources, results and the model's folders have to be reachable for all workers: on a shared file system or
    in a bucket. Raises as `run_images`, and `UnavailableError` if there are no workers.
    """
    tally = tally or Tally(plan)
    run = _ImagesOnCluster(plan, progress, tally)
    complete = False
    try:
        with listening() as stop, ExitStack() as opened:
            progress.begin("Converting", plan.total, "picture")
            blocks = run.blocks()
            first = next(blocks, None)
            if first is not None:  # else nothing is to be done, and no cluster needed for it
                cluster = opened.enter_context(connected(options))
                progress.note(cluster.describe())
                model = cluster.ray.put(ModelFile.of(plan.model))
                sent = replace(plan, files=(), rows=None)
                pool: Pool[list[ImageJob]] = Pool(
                    cluster,
                    lambda: cluster.start(ImageWorker, BLOCKS_AHEAD + 1, sent, model),
                    BLOCKS_AHEAD,
                    lambda block: [[job] for job in block],
                    progress.note,
                )
                for outcome in pool.run(_with(first, blocks), stop):
                    run.take(outcome)
        complete = True
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {run.finished_so_far()}") from None
    except OutputError as error:
        raise OutputError(f"{error}; {run.finished_so_far()}") from error
    finally:
        run.add_up()
        progress.finish()
        tally.stop(complete)
    return tally.result()


def _with(first: list[ImageJob], rest: Iterator[list[ImageJob]]) -> Iterator[list[ImageJob]]:
    yield first
    yield from rest


class _ImagesOnCluster:
    """The driver's side of a run."""

    def __init__(self, plan: ImagePlan, progress: Progress, tally: Tally) -> None:
        self.plan, self.progress, self.tally = plan, progress, tally
        self.pictures: dict[int, int] = {}
        self.so_far: dict[int, BlockResult] = {}

    def blocks(self) -> Iterator[list[ImageJob]]:
        """The pictures without a result in blocks; the others are counted as skipped."""
        left = self._left()
        while block := list(islice(left, BLOCK)):
            yield block

    def _left(self) -> Iterator[ImageJob]:
        there, marked = self.plan.names(), False
        for job in self.plan.jobs(self.tally.failures):
            if is_finished(job, self.plan.options, there):
                self.tally.skip(job)
                self.progress.advance(self.tally.done)
                continue
            if not marked and self.plan.folder is not None and self.plan.output is not None:
                write_marker(self.plan.output, self.plan.card, self.plan.look())
                marked = True
            yield job

    def take(self, outcome: tuple[int, list[ImageJob], BlockResult] | Aside[list[ImageJob]]) -> None:
        """Count what has become of a block. Raises `OutputError` if a line of results cannot be written."""
        if isinstance(outcome, Aside):
            for job in outcome.work:
                self.tally.give_up(job, outcome.reason)
            return self.progress.advance(self.tally.done)
        number, _, block = outcome
        for job, settled in block.settled:
            if settled.status == "failed":
                self.tally.give_up(job, settled.reason or "")
            elif settled.status == "skipped":
                self.tally.skip(job)
            else:
                facts = dict(settled.facts)
                self.tally.convert(job, (), facts.pop("frames", 1), **facts)
        self.pictures[number] = self.pictures.get(number, 0) + len(block.settled)
        self.so_far[number] = block
        return self.progress.advance(self.tally.done)

    def add_up(self) -> None:
        """Put what each worker told of itself into the report."""
        for number, block in self.so_far.items():
            share = {"device": f"worker {number}", "pictures": self.pictures[number], "failed": False}
            if block.engine:
                self.tally.tell_engine(number, block.engine, share)
            self.tally.add(block.dropped, block.stage_seconds)

    def finished_so_far(self) -> str:
        """In words, what a run that ends early has done."""
        done = self.tally.converted + self.tally.skipped
        finished = f"{counted(done, 'picture')} {'is' if done == 1 else 'are'} finished"
        return f"{finished}, nothing half-written is left, the same command goes on from here"
