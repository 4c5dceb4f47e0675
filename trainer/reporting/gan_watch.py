"""What is shown and measured of a gan: pictures from noise, which have no sources."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from cgconvert.tensors.images import Crop, images_to_pixels
from trainer.data.augment import Pixels
from trainer.methods.gan import generate
from trainer.metrics.measures import Metrics, measure_set
from trainer.metrics.swd import square
from trainer.networks.dcgan import DcganGenerator
from trainer.reporting.samples import tiles
from trainer.reporting.watch import Watch

SHOWN = 64
SEED = 0  # of the noise: the same from grid to grid, so that one sees how pictures change


class GanWatch(Watch):
    """Grids of pictures from the same noise each time, and distances of sets."""

    def _shown(self, name: str) -> tuple[Pixels, list[Pixels], list[Pixels]]:
        results = self._generated(SHOWN)
        return tiles(results), results, self._squares(self.pictures("b"))

    def _metrics(self, name: str) -> Metrics:
        targets = self._squares(self._measured("b"))
        edge = max(32, self._config.data.crop_size)
        metrics = measure_set(self._generated(max(len(targets), 2)), targets, edge, self._networks)
        return metrics | self._reference("b", metrics)

    def _generated(self, count: int) -> list[Pixels]:
        generator = self._method.ema.generators[self._method.main]
        assert isinstance(generator, DcganGenerator)
        return images_to_list(generate(generator, count, SEED, range(len(self._config.data.labels))))

    def _squares(self, pictures: list[Pixels]) -> list[Pixels]:
        """Pictures as the generator makes them."""
        return [square(pixels, self._config.data.crop_size) for pixels in pictures]


def images_to_list(images: Tensor) -> list[Pixels]:
    """Images (N, 3, H, W) in [-1, 1] as N pictures of uint8."""
    pixels: Pixels = images_to_pixels(images, Crop(images.shape[2], images.shape[3]), np.uint8)
    return list(pixels)
