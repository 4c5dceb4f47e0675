"""How far a training is, and the learning rate that follows from it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from trainer.config import RunConfig


@dataclass
class Schedule:
    """The learning rate is constant, then falls linearly to 0 over the last `config.decay` images.

    That is the published schedule, counted in images instead of epochs. With `hours` the run ends by the
    clock, and the rate falls over the same share of the time. `elapsed` are the seconds that the run had
    taken before it was continued.
    """

    config: RunConfig
    elapsed: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """Seconds that the run has taken, those before it was continued included."""
        return self.elapsed + time.monotonic() - self._started

    def progress(self, images_seen: int) -> float:
        """0 at the start, 1 at the end."""
        if self.config.hours > 0:
            return self.seconds() / (3600 * self.config.hours)
        return images_seen / self.config.images

    def done(self, images_seen: int) -> bool:
        """Whether the run is at its end."""
        return self.progress(images_seen) >= 1

    def rate(self, images_seen: int) -> float:
        """The factor of the learning rate for the step that begins now, in [0, 1]."""
        decay = self.config.decay / self.config.images
        if decay == 0:
            return 1.0
        return min(1.0, max(0.0, (1 - self.progress(images_seen)) / decay))

    def seconds_left(self, images_seen: int, images_per_second: float) -> float:
        """An estimate of the time to the end."""
        if self.config.hours > 0:
            return max(0.0, 3600 * self.config.hours - self.seconds())
        return max(0, self.config.images - images_seen) / max(images_per_second, 1e-9)
