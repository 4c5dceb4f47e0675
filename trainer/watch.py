"""What is kept and shown while a training runs: log lines, sample grids, metrics, the best so far."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.augment import Pixels
from trainer.config import Config
from trainer.data import TrainingData
from trainer.runfolder import RunFolder
from trainer.samples import grid, load_pictures, sample_rows, write_picture

if TYPE_CHECKING:
    from trainer.loop import Training

log = logging.getLogger("trainer")


class Watch:
    """Looks at a training from outside; nothing here changes it."""

    def __init__(self, folder: RunFolder, config: Config, data: TrainingData) -> None:
        self._folder = folder
        self._config = config
        self._data = data
        self._pictures: dict[str, list[Pixels]] = {}
        self.best: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"best": dict(self.best)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best = dict(state["best"])

    def log_losses(self, training: Training, losses: Mapping[str, float], rate: float, speed: float) -> None:
        """One line in the log and one on the screen."""
        if not training.world.first:
            return
        seen = training.method.images_seen
        left = training.schedule.seconds_left(seen, speed)
        line = {"kind": "losses", "images": seen, "seconds": round(training.schedule.seconds(), 1)}
        self._folder.append({**line, "rate": rate, "speed": round(speed, 3), "losses": dict(losses)})
        parts = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
        log.info("%d images, %.1f/s, %s left | %s", seen, speed, _duration(left), parts)

    def pictures(self, domain: str) -> list[Pixels]:
        """Hold-out pictures that are shown."""
        if domain not in self._pictures:
            chosen = self._data.holdout[domain].pictures
            count = min(self._config.watch.samples, len(chosen))
            step = len(chosen) / count
            picked = [chosen[int(index * step)] for index in range(count)]
            self._pictures[domain] = load_pictures(picked, self._config.watch.sample_size)
        return self._pictures[domain]

    def sample(self, training: Training) -> str | None:
        """Write a grid for each generator; returns what the results show to be wrong."""
        problem = None
        for name, (source, _) in training.method.generators.items():
            pictures = self.pictures(source)
            rows = sample_rows(training.method, name, pictures)
            path = self._folder.samples / f"{name}-{training.method.images_seen:09d}.png"
            write_picture(path, grid(rows))
            results = [row[:, p.shape[1] : 2 * p.shape[1]] for row, p in zip(rows, pictures, strict=True)]
            problem = problem or training.health.look_at_results(name, _range(results), _range(pictures))
        return problem

    def measure(self, training: Training) -> None:
        """Metrics on the hold-out."""

    def finish(self, training: Training) -> None:
        """At the end of the run."""
        self.sample(training)
        self.measure(training)


def _range(pictures: Sequence[Pixels]) -> tuple[float, float]:
    """Mean standard deviation within pictures, and spread of their mean colours, in [0, 1]."""
    scaled = [p.astype(np.float64) / 255 for p in pictures]
    within = float(np.mean([p.std() for p in scaled]))
    between = (
        float(np.stack([p.mean(axis=(0, 1)) for p in scaled]).std(axis=0).mean()) if len(scaled) > 1 else 0.0
    )
    return within, between


def _duration(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"{minutes}m{int(seconds % 60):02d}s"
