"""What a person sees of a look that is being learned: progress, and a preview that grows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cgconvert.progress import Progress
from trainer.data.augment import Pixels
from trainer.data.pictures import read_image
from trainer.learn.plan import DECAY
from trainer.reporting.samples import grid, write_picture
from trainer.reporting.watch import Watch

STAGES = (0.04, 0.1, 0.2, 0.4, 0.7)
"""Shares of the training after which a column is added to the preview; another one comes at the end."""

EARLIEST, LATEST = 0.1, 0.5
"""Shares of the time between which the length of a training is fitted to the machine's speed."""

MUCH = 0.1  # share of the images by which the length must be off to be changed
COLUMNS = 6  # of results; of more, evenly spaced ones are shown, the first and the last among them
GAP = 4  # pixels of white between columns


class LearnWatch(Watch):
    """Tells a `Progress` how far the training is, and keeps `preview.jpg` in the run's folder.

    With a number of `seconds` to learn for it watches the machine's speed, which depends on what else runs:
    where that would end the training much earlier or later, it wishes for another number of images.
    """

    def __init__(self, *arguments: Any, progress: Progress, task: str, seconds: float | None) -> None:
        super().__init__(*arguments)
        self._progress, self._task = progress, task
        self._seconds = seconds
        self._column_at = -1.0  # share of the training at the last column
        self._images = self._config.run.images
        self._first = 0  # images, from which this start went on
        self._start: float | None = None
        progress.begin(task, self._images, "picture")

    @property
    def preview(self) -> Path:
        return preview_of(self._folder.path)

    def log_speed(self, speed: float, left: float) -> None:
        """The progress says it."""

    def log_losses(
        self, losses: Mapping[str, float], rate: float, speed: float, seconds: float, left: float
    ) -> None:
        super().log_losses(losses, rate, speed, seconds, left)
        seen = self._method.images_seen
        self._progress.advance(seen)
        self._fit(seen, speed)
        share = seen / self._images
        if any(self._column_at < stage <= share for stage in STAGES):
            self.add_column()
            self._column_at = share

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._first = self._method.images_seen  # which is loaded already

    def _fit(self, seen: int, speed: float) -> None:
        """Wish for as many images as the time allows, while the learning rate is still constant."""
        now = time.monotonic()
        if self._start is None:  # at the first log line: what has been learned until here took that long
            learned = seen - self._first
            self._start = now - learned / max(speed, 1e-9)
        passed = now - self._start
        if self._seconds is None or not EARLIEST < passed / self._seconds < LATEST:
            return
        ahead = (seen - self._first) / passed * (self._seconds - passed)
        batch = self._config.run.batch
        images = round(seen + ahead) // batch * batch
        if abs(images - self._images) > MUCH * (self._images - self._first):
            self._images = images
            self.wished = {"run.images": images, "run.decay_images": int(DECAY * (images - self._first))}
            self._progress.begin(self._task, images, "picture")

    def add_column(self) -> None:
        """Add what the averaged generator makes of the sources now to the preview. Raises `OutputError`."""
        card, model = self._method.cards[self._method.main], self._method.averaged(self._method.main)
        sources = self.pictures(card.source_domain)
        column = grid([model.convert(pixels) for pixels in sources])
        write_picture(self._columns / f"{self._method.images_seen:09d}.png", column)
        kept = sorted(self._columns.glob("*.png"))
        if len(kept) > COLUMNS:
            last = len(kept) - 1
            kept = [kept[round(place * last / (COLUMNS - 1))] for place in range(COLUMNS)]
        write_picture(self.preview, side_by_side([grid(sources), *map(read_image, kept)]))

    @property
    def _columns(self) -> Path:
        return self._folder.path / "preview"

    def finish(self, seconds: float) -> list[str]:
        self.add_column()
        return super().finish(seconds)


def preview_of(run: Path) -> Path:
    """The preview of a run: sources on the left, and what became of them, the newest on the right."""
    return run / "preview.jpg"


def side_by_side(columns: list[Pixels]) -> Pixels:
    """Columns of pictures beside each other on white, filled up to one height."""
    height = max(column.shape[0] for column in columns)
    filled = [
        np.pad(column, ((0, height - column.shape[0]), (0, GAP), (0, 0)), constant_values=255)
        for column in columns
    ]
    return np.concatenate(filled, axis=1)
