"""What is kept and shown while a training runs: log lines, sample grids, metrics, the best so far."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cgconvert.media.picture.resize import resized
from trainer.config import Config, absolute
from trainer.data.augment import Pixels
from trainer.data.domains import PAIRED, TrainingData
from trainer.data.loading import evenly, load_pictures
from trainer.methods import Method
from trainer.metrics.measures import NO_NETWORKS, Metrics, measure_generator, open_networks
from trainer.reporting.board import Board
from trainer.reporting.report import write_report
from trainer.reporting.samples import grid, sample_rows, write_picture
from trainer.storage.folder import RunFolder

log = logging.getLogger("trainer")
Contrast = tuple[float, float]
"""The standard deviation within pictures, and that of their mean colours, in [0, 1]; see `contrast`."""

SCORES = ("l1", "teacher_l1", "swd")
"""The metric that says which checkpoint is best is the first of these that a run has."""


class Watch:
    """Log lines, sample grids, metrics and the report of a training, which none of this changes.

    Only the first process of a run (`first`) calls what writes or measures. `best` holds the best score of
    each generator so far, `last` its last metrics.
    """

    def __init__(
        self, folder: RunFolder, config: Config, data: TrainingData, method: Method, first: bool
    ) -> None:
        self._folder = folder
        self._config = self.kept = config
        self._data = data
        self._method = method
        self._pictures: dict[str, list[Pixels]] = {}
        # Opened before the first step, so that a wrong file is not found hours later.
        inception, sha256 = absolute(config.watch.inception, folder.path), config.watch.inception_sha256
        self._networks = NO_NETWORKS
        if first:
            self._networks = open_networks(inception, sha256, config.watch.learned, method.device)
        self._board = Board(folder.path / "tensorboard") if config.watch.tensorboard and first else None
        self._paired = config.run.method in PAIRED
        self._sampled = self._measured_at = -1
        self.wished: dict[str, Any] = {}  # settings that the run is to go on with
        self.best: dict[str, float] = {}
        self.last: dict[str, Metrics] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"best": dict(self.best), "last": dict(self.last)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best, self.last = dict(state["best"]), dict(state.get("last", {}))

    def log_losses(
        self, losses: Mapping[str, float], rate: float, speed: float, seconds: float, left: float
    ) -> None:
        """Write mean losses to the log and to the screen. Raises `OutputError`.

        `rate` is the factor of the learning rate, `speed` is in images per second, `seconds` have passed and
        `left` is an estimate of those to come.
        """
        seen = self._method.images_seen
        line = {"kind": "losses", "images": seen, "seconds": round(seconds, 1)}
        self._folder.append({**line, "rate": rate, "speed": round(speed, 3), "losses": dict(losses)})
        if self._board:
            self._board.scalars("losses", {**losses, "rate": rate, "images per second": speed}, seen)
        parts = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
        log.info("%d images, %.1f/s, %s left | %s", seen, speed, _duration(left), parts)

    def log_speed(self, speed: float, left: float) -> None:
        """Say on the screen, before the first losses, that the training runs.

        `speed` is in images per second, `left` in seconds.
        """
        log.info("%d images, %.2g/s, %s left", self._method.images_seen, speed, _duration(left))

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
        loaded = load_pictures(picked, self._config.watch.sample_size, half, self._method.multiple)
        if not self._paired or half or domain != "b":
            return loaded
        # The training may resize the two of a pair to one size; shown and measured they need one as well.
        partners = self._load("a", count)
        return [resized(b, a.shape[1], a.shape[0]) for a, b in zip(partners, loaded, strict=True)]

    def sample(self, seconds: float) -> dict[str, tuple[Contrast, Contrast]]:
        """Write a grid for each generator, and the report. Raises `OutputError`.

        Returns for each generator the contrast of its results and of their sources.
        """
        seen = self._method.images_seen
        self._sampled = seen
        found = {}
        for name in self._method.ema.generators:
            picture, results, pictures = self._shown(name)
            write_picture(self._folder.samples / f"{name}-{seen:09d}.png", picture)
            if self._board:
                self._board.picture(name, picture, seen)
            found[name] = (contrast(results), contrast(pictures))
        self.report("running", seconds)
        return found

    def _shown(self, name: str) -> tuple[Pixels, list[Pixels], list[Pixels]]:
        """A grid for a generator, with the results in it and their sources."""
        card = self._method.cards[name]
        pictures = self.pictures(card.source_domain)
        truths = self.pictures(card.target_domain) if self._paired else ()
        rows = sample_rows(self._method, name, pictures, truths)
        results = [row[:, p.shape[1] : 2 * p.shape[1]] for row, p in zip(rows, pictures, strict=True)]
        return grid(rows), results, pictures

    def report(self, state: str, seconds: float, why: str = "") -> None:
        """Write the report: `state` says in a word how the run is doing, `why` what led to it.

        Its settings are those of the checkpoint (`kept`): others have not shaped any weights that are there.
        """
        status = f"{state}, {self._method.images_seen} images after {seconds / 3600:.2f} hours"
        status = f"{status}: {why}" if why else status
        write_report(self._folder, self.kept.to_dict(), status, live=state == "running")

    def measure(self) -> list[str]:
        """Measure each averaged generator on the hold-out. Raises `OutputError`.

        Returns the generators that have never been better.
        """
        seen, better = self._method.images_seen, []
        self._measured_at = seen
        for name in self._method.ema.generators:
            metrics = self._metrics(name)
            self.last[name] = metrics
            if self._board:
                self._board.scalars(name, metrics, seen)
            self._folder.append({"kind": "metrics", "images": seen, "generator": name, **metrics})
            log.info("%d images, %s | %s", seen, name, describe(metrics))
            score = float(next(metrics[key] for key in SCORES if key in metrics))
            if score < self.best.get(name, float("inf")):
                self.best[name] = score
                better.append(name)
        return better

    def finish(self, seconds: float) -> list[str]:
        """The last grids and metrics, unless they are of this state already; returns what `measure` does."""
        seen = self._method.images_seen
        if self._sampled != seen:
            self.sample(seconds)
        better = self.measure() if self._measured_at != seen else []
        if self._board:
            self._board.close()
        return better

    def _reference(self, target: str, metrics: Metrics) -> Metrics:
        """What KID and FID, if they are there, were measured against: no path, since a card tells it too."""
        if "fid" not in metrics:
            return {}
        where = self._data.holdout[target if target in self._data.holdout else "pairs"].where
        return {"reference": f"{len(self._measured(target))} hold-out pictures of {Path(where).name}"}

    def _metrics(self, name: str) -> Metrics:
        method, settings = self._method, self._config.watch
        card = method.cards[name]
        sources, targets = self._measured(card.source_domain), self._measured(card.target_domain)
        back, teacher = (
            model.convert if model is not None else None
            for model in (method.back(name), method.teacher_of(name))
        )
        metrics = measure_generator(
            method.averaged(name).convert,
            sources,
            targets,
            settings.metric_size,
            back,
            targets if self._paired else (),
            self._networks,
            teacher,
        )
        return metrics | self._reference(card.target_domain, metrics)

    def _measured(self, domain: str) -> list[Pixels]:
        """Hold-out pictures that are measured."""
        key = f"measured {domain}"
        if key not in self._pictures:
            self._pictures[key] = self._load(domain, self._config.watch.metric_pictures)
        return self._pictures[key]


def describe(metrics: Mapping[str, Any]) -> str:
    """The plain figures of a set of metrics on one line."""
    return " ".join(
        f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, (int, float))
    )


def contrast(pictures: Sequence[Pixels]) -> Contrast:
    """Mean standard deviation within pictures, and that of their mean colours over all of them, in [0, 1]."""
    scaled = [p.astype(np.float64) / 255 for p in pictures]
    within = float(np.mean([p.std() for p in scaled]))
    between = (
        float(np.stack([p.mean(axis=(0, 1)) for p in scaled]).std(axis=0).mean()) if len(scaled) > 1 else 0.0
    )
    return within, between


def _duration(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"{minutes}m{int(seconds % 60):02d}s"
