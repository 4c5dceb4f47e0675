"""Mean losses and speed since the last log line."""

from __future__ import annotations

import time

from trainer.methods import Losses


class Meter:
    """Sums up losses where they are computed, since reading each would wait for the GPU at every step."""

    def __init__(self, images_seen: int) -> None:
        self._sums: Losses = {}
        self._steps = 0
        self._images = images_seen
        self._started = time.monotonic()

    def add(self, losses: Losses) -> None:
        for name, value in losses.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._steps += 1

    def seconds(self) -> float:
        """Seconds since the last reading."""
        return time.monotonic() - self._started

    def speed(self, images_seen: int) -> float:
        """Images per second since the last reading."""
        return (images_seen - self._images) / max(self.seconds(), 1e-9)

    def read(self, images_seen: int) -> tuple[dict[str, float], float]:
        """The means of the losses and the images per second since the last reading; then it starts anew."""
        means = {name: float(value) / self._steps for name, value in self._sums.items()}
        speed = self.speed(images_seen)
        self._sums, self._steps, self._images, self._started = {}, 0, images_seen, time.monotonic()
        return means, speed
