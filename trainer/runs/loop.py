"""The loop of every training, from the first batch to the last."""

from __future__ import annotations

import logging
import time
from contextlib import closing

import torch

from cgconvert.errors import CgconvertError, Interrupted
from trainer.compute.distributed import mean_over_processes
from trainer.runs.health import advice
from trainer.runs.meter import Meter
from trainer.runs.signals import stop_signals
from trainer.runs.training import Training
from trainer.storage.checkpoint import load_checkpoint

log = logging.getLogger("trainer")
FIRST_LINE = 20.0  # seconds, after which the speed is told even if no log line is due
FIRST_CHECKPOINT = 2.0  # minutes, after which there is one in any case


class CollapsedError(CgconvertError):
    """A training went wrong twice and was stopped; its last good checkpoint is kept."""

    exit_code = 1


def train(training: Training) -> None:
    """Run until the schedule ends. The last checkpoint holds the end.

    Raises `Interrupted` after a signal (with a checkpoint written), `CollapsedError` where going back to the
    last good checkpoint did not help, and `OutputError` where something cannot be written (the checkpoint
    before stays whole).
    """
    with stop_signals() as stop:
        if not training.folder.checkpoint.exists():
            training.save()  # something to go back to from the first step on
        training.report("running")
        while (problem := train_until_problem(training, stop)) is not None:
            _roll_back(training, problem)
    if training.stopped:
        training.report("interrupted")
        raise Interrupted(
            f"stopped after {training.method.images_seen} images; go on with `{training.command}`"
        )


def train_until_problem(training: Training, stop: list[int]) -> str | None:
    """All steps from where the training is. Returns what went wrong, or None at the end or after a signal.

    `stop` holds the signals that have arrived. What is due is counted in images, so that it means the same at
    every batch size. With several processes each works on its own part of a batch; whatever depends on one of
    them alone (signals, clocks, results) is agreed on, so that all take the same branches.
    """
    method, world, settings = training.method, training.world, training.config.watch
    meter, saved = Meter(method.images_seen), time.monotonic()
    quiet, early = True, True
    first_image = method.images_seen + training.skipped
    with closing(training.data.source.stream(first_image)) as batches:
        for batch in batches:
            if world.agree(bool(stop) or training.done()):
                break

            # The step. Rates and weights depend on how far the run is, not on how often it was continued.
            rate = training.rate()
            method.set_rate(rate)
            method.set_progress(training.progress())
            before = method.images_seen
            meter.add(method.train_step(batch))
            seen = method.images_seen

            # A person who has just started a long training wants to know that it runs, and how fast.
            if quiet and meter.seconds() > FIRST_LINE and world.first:
                quiet = False
                speed = meter.speed(seen)
                training.watch.log_speed(speed, training.schedule.seconds_left(seen, speed))

            # Losses show what goes wrong first: a value that is no number, a discriminator that wins.
            problem = None
            if _due(before, seen, settings.log_every):
                quiet = False
                means, speed = meter.read(seen)
                means = mean_over_processes(means, world)
                if world.first:
                    seconds, left = training.schedule.seconds(), training.schedule.seconds_left(seen, speed)
                    training.watch.log_losses(means, rate, speed, seconds, left)
                    training.take_wishes()
                if settings.collapse:
                    problem = training.health.look_at_losses(means)
                    warning = training.health.warning()
                    if warning and world.first:
                        log.warning("at %d images: %s", seen, warning)

            # Results on the hold-out pictures, which only the first process makes and looks at.
            if problem is None and world.first:
                problem = _look_at_results(training, before)
            problem = world.share(problem)
            if problem is not None:
                return problem

            # A checkpoint, unless something looks wrong: a roll-back must lead to a good state.
            minutes = min(settings.checkpoint_minutes, FIRST_CHECKPOINT if early else float("inf"))
            late = time.monotonic() - saved > 60 * minutes
            if world.agree(_due(before, seen, settings.checkpoint_every) or late):
                good = training.health.good and training.finite()
                if not world.agree(not good):
                    training.save()
                    training.report("running")
                    saved, early = time.monotonic(), False

    if world.agree(not training.finite()):
        return "weights are not finite"
    training.save()
    # A signal to one process stops all of them. One that arrives from here on finds the run ended.
    training.stopped = world.agree(bool(stop))
    if not training.stopped:
        if world.first:
            training.save_best(training.watch.finish(training.schedule.seconds()))
            training.report("finished")
        training.save()  # once more, with the last metrics, which a model's card tells
    return None


def _look_at_results(training: Training, before: int) -> str | None:
    """Sample grids and metrics where they are due; returns what is wrong with the results."""
    settings, seen = training.config.watch, training.method.images_seen
    problems = []
    if _due(before, seen, settings.sample_every):
        for name, (results, sources) in training.watch.sample(training.schedule.seconds()).items():
            problems.append(training.health.look_at_results(name, results, sources, seen))
    if _due(before, seen, settings.metrics_every):
        training.save_best(training.watch.measure())
    return next(filter(None, problems), None) if settings.collapse else None


def _roll_back(training: Training, problem: str) -> None:
    """Go back to the last good checkpoint, once. Raises `CollapsedError` at the second time."""
    method, world, config = training.method, training.world, training.config
    reached = method.images_seen
    state = load_checkpoint(training.folder.checkpoint)
    good = int(world.own_state(state)["method"]["images_seen"])
    if training.health.rolled_back:
        training.report("collapsed", problem)
        raise CollapsedError(
            f"stopped at {reached} images, after one roll-back: {problem}. "
            f"The checkpoint of {good} images is kept in {training.folder.checkpoint}. "
            f"Try: {advice(config.loss.gan)}"
        )
    log.warning("at %d images: %s; going back to %d images, once", reached, problem, good)
    best = dict(training.watch.best)
    training.load_state_dict(state)
    # The files of the best states are still there, and nothing worse may replace them.
    training.watch.best |= best
    training.health.rolled_back = True
    # The same batches and random numbers would lead to the same place.
    training.skipped += reached - good
    torch.manual_seed(config.run.seed + 1 + reached + 7919 * world.rank)
    if world.first:
        training.folder.append({"kind": "roll-back", "images": good, "reached": reached, "problem": problem})
    training.save()


def _due(before: int, after: int, every: int) -> bool:
    """Whether a multiple of `every` lies above `before` and not above `after`."""
    return before // every != after // every
