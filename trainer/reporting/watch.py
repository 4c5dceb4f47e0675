"""What is kept and shown while a training runs: log lines, sample grids, metrics, the best so far."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cgconvert.media.picture.resize import resized
from trainer.config import Config, absolute
from trainer.data.augment import Pixels
from trainer.data.domains import PAIRED, TrainingData
from trainer.data.loading import evenly, load_pictures
from trainer.methods import Method
from trainer.metrics.inception import Inception
from trainer.metrics.measures import Metrics, measure_generator, open_inception
from trainer.reporting.board import Board
from trainer.reporting.report import write_report
from trainer.reporting.samples import grid, sample_rows, write_picture
from trainer.storage.checkpoint import save_checkpoint
from trainer.storage.folder import RunFolder

if TYPE_CHECKING:
    from trainer.runs.loop import Training

log = logging.getLogger("trainer")
SCORES = ("l1", "teacher_l1", "swd")  # what says which checkpoint is best: the first that a run has


class Watch:
    """Looks at a training from outside; nothing here changes it."""

    def __init__(
        self,
        folder: RunFolder,
        config: Config,
        data: TrainingData,
        multiple: int,
        device: torch.device,
        first: bool,
    ) -> None:
        self._folder = folder
        self._device = device
        self._config = config
        self._data = data
        self._multiple = multiple
        self._pictures: dict[str, list[Pixels]] = {}
        self._features = self._open_inception(first)
        self._board = Board(folder.path / "tensorboard") if config.watch.tensorboard and first else None
        self._paired = config.run.method in PAIRED
        self._sampled = self._measured_last = -1
        self.best: dict[str, float] = {}
        self.last: dict[str, Metrics] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"best": dict(self.best), "last": dict(self.last)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best, self.last = dict(state["best"]), dict(state.get("last", {}))

    def log_losses(self, training: Training, losses: Mapping[str, float], rate: float, speed: float) -> None:
        """One line in the log and one on the screen."""
        if not training.world.first:
            return
        seen = training.method.images_seen
        left = training.schedule.seconds_left(seen, speed)
        line = {"kind": "losses", "images": seen, "seconds": round(training.schedule.seconds(), 1)}
        self._folder.append({**line, "rate": rate, "speed": round(speed, 3), "losses": dict(losses)})
        if self._board:
            self._board.scalars("losses", {**losses, "rate": rate, "images per second": speed}, seen)
        parts = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
        log.info("%d images, %.1f/s, %s left | %s", seen, speed, _duration(left), parts)

    def pictures(self, domain: str) -> list[Pixels]:
        """Hold-out pictures that are shown."""
        if domain not in self._pictures:
            self._pictures[domain] = self._load(domain, self._config.watch.samples)
        return self._pictures[domain]

    def _load(self, domain: str, count: int) -> list[Pixels]:
        """Evenly spaced hold-out pictures of a domain, also where the hold-out holds pairs."""
        half = None
        if domain not in self._data.holdout:
            domain, half = "pairs", domain
        picked = evenly(self._data.holdout[domain].pictures, count)
        loaded = load_pictures(picked, self._config.watch.sample_size, half, self._multiple)
        if not self._paired or half or domain != "b":
            return loaded
        # The training may resize the two of a pair to one size; shown and measured they need one as well.
        partners = self._load("a", count)
        return [resized(b, a.shape[1], a.shape[0]) for a, b in zip(partners, loaded, strict=True)]

    def sample(self, training: Training) -> str | None:
        """Write a grid for each generator; returns what the results show to be wrong."""
        problem = None
        self._sampled = training.method.images_seen
        for name, card in training.method.cards.items():
            pictures = self.pictures(card.source_domain)
            truths = self.pictures(card.target_domain) if self._paired else ()
            rows = sample_rows(training.method, name, pictures, truths)
            path = self._folder.samples / f"{name}-{training.method.images_seen:09d}.png"
            picture = grid(rows)
            write_picture(path, picture)
            if self._board:
                self._board.picture(name, picture, training.method.images_seen)
            results = [row[:, p.shape[1] : 2 * p.shape[1]] for row, p in zip(rows, pictures, strict=True)]
            seen = training.method.images_seen
            found = training.health.look_at_results(name, _range(results), _range(pictures), seen)
            problem = problem or found
        self.report(training, "running")
        return problem

    def report(self, training: Training, state: str, why: str = "") -> None:
        """Write the report: `state` says in a word how the run is doing, `why` what led to it."""
        seen, hours = training.method.images_seen, training.schedule.seconds() / 3600
        status = f"{state}, {seen} images after {hours:.2f} hours" + (f": {why}" if why else "")
        write_report(self._folder, self._config.to_dict(), status)

    def measure(self, training: Training) -> None:
        """Metrics of each averaged generator on the hold-out; the best checkpoint so far of each is kept."""
        seen, better = training.method.images_seen, []
        self._measured_last = seen
        for name, card in training.method.cards.items():
            metrics = self._metrics(training.method, name)
            if "fid" in metrics:
                metrics["reference"] = self._reference(card.target_domain)
            self.last[name] = metrics
            if self._board:
                self._board.scalars(name, metrics, seen)
            self._folder.append({"kind": "metrics", "images": seen, "generator": name, **metrics})
            log.info("%d images, %s | %s", seen, name, describe(metrics))
            score = float(next(metrics[key] for key in SCORES if key in metrics))
            if score < self.best.get(name, float("inf")):
                self.best[name] = score
                better.append(name)
        for name in better:
            path = self._folder.best if name == training.method.main else self._folder.best_of(name)
            save_checkpoint(path, training.own_state_dict())

    def _reference(self, target: str) -> str:
        """What KID and FID were measured against: no path, since a model's card tells it too."""
        where = self._data.holdout[target if target in self._data.holdout else "pairs"].where
        return f"{len(self._measured(target))} hold-out pictures of {Path(where).name}"

    def _metrics(self, method: Method, name: str) -> Metrics:
        settings, card = self._config.watch, method.cards[name]
        sources, targets = self._measured(card.source_domain), self._measured(card.target_domain)
        back, teacher = (
            model.convert if model is not None else None
            for model in (method.back(name), method.teacher_of(name))
        )
        return measure_generator(
            method.averaged(name).convert,
            sources,
            targets,
            settings.metric_size,
            back,
            targets if self._paired else (),
            self._features,
            teacher,
        )

    def _measured(self, domain: str) -> list[Pixels]:
        """Hold-out pictures that are measured."""
        key = f"measured {domain}"
        if key not in self._pictures:
            self._pictures[key] = self._load(domain, self._config.watch.metric_pictures)
        return self._pictures[key]

    def _open_inception(self, first: bool) -> Inception | None:
        """Before the first step, so that a wrong file is not found out hours later."""
        settings = self._config.watch
        if not first:
            return None
        where = absolute(settings.inception, self._folder.path)
        return open_inception(where, settings.inception_sha256, self._device)

    def finish(self, training: Training) -> None:
        """At the end of the run."""
        if self._sampled != training.method.images_seen:
            self.sample(training)
        if self._measured_last != training.method.images_seen:
            self.measure(training)
        self.report(training, "finished")
        if self._board:
            self._board.close()


def describe(metrics: Mapping[str, Any]) -> str:
    """The plain figures of a set of metrics on one line."""
    return " ".join(
        f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, (int, float))
    )


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
