"""Pictures that go through a network in tiles from a file of pixels to another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cgconvert.card import ModelCard
from cgconvert.engines.tiles.geometry import Tile
from cgconvert.host.rectangles import RectangleFile
from cgconvert.tensors.images import Crop, images_to_tensor, reflect_index, tile_to_images


class PixelSource:
    """Pixels (H, W, 3) of a file, uint8 or uint16, as the padded picture that a generator accepts."""

    def __init__(
        self, file: RectangleFile, height: int, width: int, dtype: np.dtype, card: ModelCard
    ) -> None:
        self.file, self.height, self.width, self.dtype, self.card = file, height, width, dtype, card

    def load(self, part: Tile) -> Tensor:
        """Pixels (1, h, w, 3) of a rectangle of the padded picture."""
        rows = reflect_index(self.height, part.bottom)[part.top :]
        columns = reflect_index(self.width, part.right)[part.left :]
        values = self.file.read(
            slice(int(rows.min()), int(rows.max()) + 1), slice(int(columns.min()), int(columns.max()) + 1)
        ).view(self.dtype)
        return torch.from_numpy(values[rows - rows.min()][:, columns - columns.min()][None])

    def images(self, loaded: Tensor, part: Tile) -> Tensor:
        """Images (1, C, h, w) of them."""
        return tile_to_images(loaded, self.card, part.top, part.left)


class PixelSink:
    """Results as pixels (H, W, 3) in a file. `check` is called for each tile, and may end the work."""

    on_device = False

    def __init__(
        self, file: RectangleFile, height: int, width: int, dtype: np.dtype, check: Callable[[], None]
    ) -> None:
        self.file, self.height, self.width, self.check = file, height, width, check
        self.stored = torch.uint8 if dtype == np.uint8 else torch.uint16

    def encoded(self, images: Tensor, part: Tile) -> Tensor:
        """Pixels (1, h, w, 3) of a tile, without what was padded."""
        height, width = min(part.bottom, self.height) - part.top, min(part.right, self.width) - part.left
        return images_to_tensor(images, Crop(max(0, height), max(0, width)), self.stored)

    def store(self, kept: Tensor, part: Tile) -> None:
        """Write a tile to its place."""
        self.check()
        pixels = kept[0].numpy()
        if pixels.size:  # a tile may lie in what was padded
            self.file.write(part.top, part.left, pixels.view(np.uint8))

    def flush(self) -> None:
        """Return when the file would survive a loss of power."""
        self.file.flush()
