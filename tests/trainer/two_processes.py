"""What the tests of several processes run in two of them, every case in turn, since processes start slowly.

python -m torch.distributed.run --nproc-per-node=2 -m tests.trainer.two_processes FOLDER
"""

from __future__ import annotations

import itertools
import json
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from cgconvert.errors import Interrupted
from trainer.compute.distributed import World, joined_world
from trainer.runs import loop, schedule
from trainer.runs import start as start_module
from trainer.runs.start import start
from trainer.runs.training import Training
from trainer.storage.folder import RunFolder

JOINED = ("cyclegan", "pix2pix", "cut")
STOPPED = ("cyclegan", "pix2pix")


def changed(change: Any) -> Any:
    """A context in which `change` is called with the training and its signals before the first step."""
    inner = loop.train_until_problem

    def watched(training: Training, stop: list[int]) -> str | None:
        change(training, stop)
        return inner(training, stop)

    return mock.patch.object(loop, "train_until_problem", watched)


def joined(folder: Path, world: World) -> None:
    """Plain trainings."""
    for name in JOINED:
        start(RunFolder(folder / f"{name}-two"))


def stopped(folder: Path, world: World) -> None:
    """Trainings that a signal to the second process stops after ten images, and that go on."""

    def signal_at_eight(training: Training, stop: list[int]) -> None:
        step = training.method.train_step

        def train_step(batch: Any) -> Any:
            if world.rank == 1 and training.method.images_seen == 8:
                signal.raise_signal(signal.SIGTERM)
            return step(batch)

        training.method.train_step = train_step  # type: ignore[method-assign]

    for name in STOPPED:
        start(RunFolder(folder / f"{name}-straight"))
        run = RunFolder(folder / f"{name}-stopped")
        with changed(signal_at_eight):
            try:
                start(run)
            except Interrupted as error:
                assert "stopped after 10 images" in str(error), error
            else:
                raise AssertionError("was not stopped")
        torch.manual_seed(99)  # another process's numbers
        start(run, resume=True)


def faded(folder: Path, world: World) -> None:
    """The first process alone sees results of one colour, as only it looks at grids."""

    def fade(training: Training, stop: list[int]) -> None:
        if world.first:
            training.health.faded["gen_ab"] = 1

    with changed(fade):
        start(RunFolder(folder / "faded"))


def by_the_clock(folder: Path, world: World) -> None:
    """A training of a second, whose second process has a clock that is an hour further."""
    ticks = itertools.count(3600 * world.rank, 0.02 + 0.003 * world.rank)
    rates: list[float] = []

    def keep_rates(training: Training, stop: list[int]) -> None:
        training.schedule = schedule.Schedule(training.config.run, 0.0, 0.0)
        set_rate = training.method.set_rate

        def keep(rate: float) -> None:
            rates.append(rate)
            set_rate(rate)

        training.method.set_rate = keep  # type: ignore[method-assign]

    clock = SimpleNamespace(monotonic=lambda: next(ticks))
    with changed(keep_rates), mock.patch.object(schedule, "time", clock):
        start(RunFolder(folder / "hours"))
    (folder / f"rates-{world.rank}").write_text(json.dumps(rates))


def signalled(folder: Path, world: World) -> None:
    """A signal to the second process before the first step."""

    def stop_second(training: Training, stop: list[int]) -> None:
        if world.rank == 1:
            stop.append(signal.SIGTERM)

    with changed(stop_second):
        try:
            start(RunFolder(folder / "signalled"))
        except Interrupted as error:
            (folder / f"told-{world.rank}").write_text(str(error))


def main(folder: Path) -> None:
    with joined_world() as world:
        assert world.size == 2
        start_module.joined_world = lambda: nullcontext(world)
        for case in (joined, stopped, faded, by_the_clock, signalled):
            case(folder, world)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
