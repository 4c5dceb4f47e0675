"""What a person sees of a look that is being learned: progress, and a preview that grows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cgconvert.progress import Progress
from trainer.data.augment import Pixels
from trainer.data.pictures import read_image
from trainer.reporting.samples import grid, write_picture
from trainer.reporting.watch import Watch

STAGES = (0.04, 0.1, 0.2, 0.4, 0.7)
"""Shares of the training after which a column is added to the preview; another one comes at the end."""

COLUMNS = 6  # of results; of more, evenly spaced ones are shown, the first and the last among them
GAP = 4  # pixels of white between columns


class LearnWatch(Watch):
    """Tells a `Progress` how far the training is, and keeps `preview.jpg` in the run's folder."""

    def __init__(self, *arguments: Any, progress: Progress) -> None:
        super().__init__(*arguments)
        self._progress = progress
        self._shown = -1.0  # share of the training at the last column

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
        share = seen / self._config.run.images
        if any(self._shown < stage <= share for stage in STAGES):
            self.add_column()
            self._shown = share

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
