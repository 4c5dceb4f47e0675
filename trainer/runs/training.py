"""A run in progress: its parts, and the state from which it can go on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from trainer.compute.distributed import World
from trainer.config import Config
from trainer.data.domains import TrainingData
from trainer.methods import Method
from trainer.reporting.watch import Watch
from trainer.runs.health import Health
from trainer.runs.schedule import Schedule
from trainer.storage.checkpoint import random_state, restore_random_state, save_checkpoint
from trainer.storage.folder import RunFolder


@dataclass
class Training:
    """All parts of a run, in one of its processes.

    `skipped` counts images of the stream that were passed over after a roll-back, so that the same batches do
    not lead to the same end. `resumed_at` are the images at which it was continued, -1 if it was not.
    `stopped` says that a signal ended the run before its schedule did. `command` is what goes on with it.
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
    resumed_at: int = -1
    command: str = ""

    def own_state_dict(self) -> dict[str, Any]:
        """This process's state, which is all of it where there is only one process."""
        return {
            "config": self.config.to_dict(),
            "method": self.method.state_dict(),
            "elapsed": self.schedule.seconds(),
            "health": self.health.state_dict(),
            "watch": self.watch.state_dict(),
            "skipped": self.skipped,
            "random": random_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint. Raises `UsageError` for one of another number of processes."""
        state = self.world.own_state(state)
        self.method.load_state_dict(state["method"])
        self.schedule = Schedule(self.config.run, elapsed=state["elapsed"])
        self.health.load_state_dict(state["health"])
        self.watch.load_state_dict(state["watch"])
        self.skipped = int(state["skipped"])
        restore_random_state(state["random"])

    def save(self) -> None:
        """Write the checkpoint; all processes call it at once. Raises `OutputError`."""
        state = self.world.gather_state(self.own_state_dict())
        if self.world.first:
            save_checkpoint(self.folder.checkpoint, state)
            if self.method.images_seen != self.resumed_at:
                self.watch.kept = self.config

    def take_wishes(self) -> None:
        """Go on with the length that the watch wishes for, if it does. Raises `OutputError`."""
        if not self.watch.wished:
            return
        before, self.config = self.config, self.config.with_changes(self.watch.wished)
        self.watch.wished = {}
        self.schedule.config = self.config.run
        changed = {name: list(values) for name, values in self.config.changes_since(before).items()}
        line = {"kind": "settings", "images": self.method.images_seen, "changed": changed}
        self.folder.append(line)

    def save_best(self, generators: list[str]) -> None:
        """Keep the state as the best so far for these generators. Raises `OutputError`."""
        for name in generators:
            path = self.folder.best if name == self.method.main else self.folder.best_of(name)
            save_checkpoint(path, self.own_state_dict())

    def report(self, state: str, why: str = "") -> None:
        """Write the report, from the first process. `state` is a word for how the run is doing."""
        if self.world.first:
            self.watch.report(state, self.schedule.seconds(), why)

    def rate(self) -> float:
        """The factor of the learning rate for the step that begins now, the same in every process."""
        rate = self.schedule.rate(self.method.images_seen)
        return self.world.same(rate) if self.config.run.hours > 0 else rate

    def progress(self) -> float:
        """How far the run is, from 0 to 1, the same in every process."""
        progress = self.schedule.progress(self.method.images_seen)
        return self.world.same(progress) if self.config.run.hours > 0 else progress

    def done(self) -> bool:
        """Whether this process sees the end; by the clock only the first one decides."""
        by_clock = self.config.run.hours > 0
        return (self.world.first or not by_clock) and self.schedule.done(self.method.images_seen)

    def finite(self) -> bool:
        """Whether all weights of this process are numbers."""
        weights = [p.detach() for network in self.method.networks.values() for p in network.parameters()]
        return math.isfinite(float(torch.stack([weight.sum() for weight in weights]).sum()))
