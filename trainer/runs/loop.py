"""The loop of every training: one function from the first batch to the last."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch

from cgconvert.errors import CgconvertError, Interrupted
from trainer.compute.distributed import World, mean_over_processes
from trainer.config import Config
from trainer.data.domains import TrainingData
from trainer.methods import Method
from trainer.reporting.watch import Watch
from trainer.runs.health import Health, advice
from trainer.runs.schedule import Schedule
from trainer.storage.checkpoint import load_checkpoint, random_state, restore_random_state, save_checkpoint
from trainer.storage.folder import RunFolder

log = logging.getLogger("trainer")


class CollapsedError(CgconvertError):
    """A training has gone wrong twice and was stopped; its last good checkpoint is kept."""

    exit_code = 1


@dataclass
class Training:
    """A run in progress: all its moving parts, and where in the data it is.

    `skipped` images of the stream were passed over after a roll-back, so that the same batches do not lead
    to the same end. `stopped` says that it ended before its end, since it was told to.
    """

    folder: RunFolder
    config: Config
    method: Method
    data: TrainingData
    schedule: Schedule
    health: Health
    watch: Watch
    world: World = field(default_factory=World)
    skipped: int = 0
    stopped: bool = False

    def own_state_dict(self) -> dict[str, Any]:
        """This process's state, from which the run could go on were it the only one."""
        return {
            "config": self.config.to_dict(),
            "method": self.method.state_dict(),
            "elapsed": self.schedule.seconds(),
            "health": self.health.state_dict(),
            "watch": self.watch.state_dict(),
            "skipped": self.skipped,
            "random": random_state(),
        }

    def state_dict(self) -> dict[str, Any]:
        """The state of the whole run; called by all processes at once."""
        return self.world.gather_state(self.own_state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        state = self.world.own_state(state)
        self.method.load_state_dict(state["method"])
        self.schedule = Schedule(self.config.run, elapsed=state["elapsed"])
        self.health.load_state_dict(state["health"])
        self.watch.load_state_dict(state["watch"])
        self.skipped = int(state["skipped"])
        restore_random_state(state["random"])

    def save(self) -> None:
        """Write the checkpoint, from the first process, if the state is one to go back to."""
        state = self.state_dict()
        if self.world.first:
            save_checkpoint(self.folder.checkpoint, state)

    def report(self, state: str, why: str = "") -> None:
        """Write the report, from the first process, with how the run is doing."""
        if self.world.first:
            self.watch.report(self, state, why)

    def rate(self) -> float:
        """The factor of the learning rate for the step that begins now, the same in every process."""
        rate = self.schedule.rate(self.method.images_seen)
        return self.world.same(rate) if self.config.run.hours > 0 else rate

    def progress(self) -> float:
        """How far the run is, from 0 to 1, the same in every process."""
        progress = self.schedule.progress(self.method.images_seen)
        return self.world.same(progress) if self.config.run.hours > 0 else progress

    def done(self) -> bool:
        """Whether this process sees the end; by the clock that is the first one's to say."""
        by_clock = self.config.run.hours > 0
        return (self.world.first or not by_clock) and self.schedule.done(self.method.images_seen)

    def agreed_good(self) -> bool:
        """Whether no process sees anything wrong: only the first one looks at results."""
        return not self.world.agree(not (self.health.good and _finite(self.method)))


def train(training: Training) -> None:
    """Run until the schedule ends. The last checkpoint holds the end.

    Raises `Interrupted` after a signal (with a checkpoint written), `CollapsedError` where a roll-back
    did not help, `OutputError` where something cannot be written (the checkpoint before stays whole).
    """
    with _stop_signals() as stop:
        if not training.folder.checkpoint.exists():
            training.save()  # something to go back to from the first step on
        training.report("running")
        while True:
            problem = _until_problem(training, stop)
            if problem is None:
                break
            _roll_back(training, problem)
    if training.stopped:
        training.report("interrupted")
        raise Interrupted(
            f"stopped after {training.method.images_seen} images; "
            f"go on with `cgconvert train resume {training.folder.path}`"
        )


def _until_problem(training: Training, stop: list[int]) -> str | None:
    """The steps themselves; returns what went wrong, or None at the end or when stopped."""
    method, watch, settings = training.method, training.watch, training.config.watch
    sums: dict[str, torch.Tensor] = {}
    summed, last_time, last_images = 0, time.monotonic(), method.images_seen
    last_saved = time.monotonic()
    stream = training.data.source.stream(method.images_seen + training.skipped)
    for batch in stream:
        if training.world.agree(bool(stop) or training.done()):
            break
        rate = training.rate()
        method.set_rate(rate)
        method.set_progress(training.progress())
        before = method.images_seen
        losses = method.train_step(batch)
        for name, value in losses.items():
            sums[name] = sums[name] + value if name in sums else value
        summed += 1
        if _crossed(before, method.images_seen, settings.log_every):
            means = mean_over_processes(
                {name: float(value) / summed for name, value in sums.items()}, training.world
            )
            now = time.monotonic()
            speed = (method.images_seen - last_images) / max(now - last_time, 1e-9)
            sums, summed, last_time, last_images = {}, 0, now, method.images_seen
            watch.log_losses(training, means, rate, speed)
            problem = _look_at_losses(training, means) if settings.collapse else None
            if problem:
                stream.close()  # type: ignore[attr-defined]
                return problem
        problem = _look(training, before) if training.world.first else None
        problem = training.world.share(problem)
        if problem:
            stream.close()  # type: ignore[attr-defined]
            return problem
        due = _crossed(before, method.images_seen, settings.checkpoint_every)
        late = time.monotonic() - last_saved > 60 * settings.checkpoint_minutes
        if training.world.agree(due or late) and training.agreed_good():
            training.save()
            training.report("running")
            last_saved = time.monotonic()
    return _end(training, stop)


def _end(training: Training, stop: list[int]) -> str | None:
    if training.world.agree(not _finite(training.method)):
        return "weights are not finite"
    training.save()
    # Where only another process was told to stop, this one stops with it; who is told later has ended.
    training.stopped = training.world.agree(bool(stop))
    if not training.stopped:
        if training.world.first:
            training.watch.finish(training)
        training.save()  # once more, with the last metrics, which a model's card tells
    return None


def _look_at_losses(training: Training, means: dict[str, float]) -> str | None:
    problem, warning = training.health.look_at_losses(means), training.health.warning()
    if warning and training.world.first:
        log.warning("at %d images: %s", training.method.images_seen, warning)
    return problem


def _look(training: Training, before: int) -> str | None:
    """Samples and metrics when they are due; says what is wrong with the results."""
    settings, seen = training.config.watch, training.method.images_seen
    problem = None
    if _crossed(before, seen, settings.sample_every):
        problem = training.watch.sample(training)
    if _crossed(before, seen, settings.metrics_every):
        training.watch.measure(training)
    return problem if settings.collapse else None


def _roll_back(training: Training, problem: str) -> None:
    """Back to the last good checkpoint, once; `CollapsedError` at the second time."""
    reached = training.method.images_seen
    state = load_checkpoint(training.folder.checkpoint)
    good = int(training.world.own_state(state)["method"]["images_seen"])
    if training.health.rolled_back:
        training.report("collapsed", problem)
        raise CollapsedError(
            f"stopped at {reached} images, after one roll-back: {problem}. "
            f"The checkpoint of {good} images is kept in {training.folder.checkpoint}. "
            f"Try: {advice(training.config.loss.gan)}"
        )
    log.warning("at %d images: %s; going back to %d images, once", reached, problem, good)
    best = dict(training.watch.best)
    training.load_state_dict(state)
    training.watch.best |= best  # the files of the best are still there, and nothing worse may replace them
    training.skipped += reached - good
    training.health.rolled_back = True
    # Other random numbers too: the same ones would lead to the same place.
    torch.manual_seed(training.config.run.seed + 1 + reached + 7919 * training.world.rank)
    if training.world.first:
        training.folder.append({"kind": "roll-back", "images": good, "reached": reached, "problem": problem})
    training.save()


def _finite(method: Method) -> bool:
    """Whether all weights are numbers."""
    totals = [p.detach().sum() for network in method.networks.values() for p in network.parameters()]
    return math.isfinite(float(torch.stack(totals).sum())) if totals else True


def _crossed(before: int, after: int, every: int) -> bool:
    return before // every != after // every


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM, so that a step is finished and a checkpoint written; a second kills."""
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    previous: dict[int, Any] = {}
    try:
        for stopping in (signal.SIGINT, signal.SIGTERM):
            previous[stopping] = signal.signal(stopping, handle)
    except ValueError:  # not in the main thread: the caller handles signals
        pass
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
