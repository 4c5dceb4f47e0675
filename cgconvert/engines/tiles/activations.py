"""Values between the stages of a network for a whole picture: in main memory, or in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from cgconvert.engines.tiles.geometry import Tile
from cgconvert.host.rectangles import RectangleFile


class Activation(Protocol):
    """Values (height, width, channels) that are written and read by rectangles of points."""

    def read(self, part: Tile) -> Tensor:
        """A rectangle as (1, C, h, w) in channels_last memory."""
        ...

    def write(self, part: Tile, values: Tensor) -> None:
        """Keep (1, C, h, w) of the rectangle. Raises `OSError` where there is no room."""
        ...

    def flush(self) -> None:
        """Return when what was written would survive a loss of power, if this kind can."""
        ...

    def close(self, delete: bool = True) -> None:
        """Give back the memory; the file stays for a later run unless it is to be deleted."""
        ...


class InMemory:
    """Values in main memory, or in a device's."""

    def __init__(
        self, height: int, width: int, channels: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.values: Tensor | None = torch.empty(height, width, channels, dtype=dtype, device=device)

    def read(self, part: Tile) -> Tensor:
        assert self.values is not None, "the activation is closed"
        return self.values[part.top : part.bottom, part.left : part.right].permute(2, 0, 1)[None]

    def write(self, part: Tile, values: Tensor) -> None:
        self.read(part).copy_(values)

    def flush(self) -> None:
        return

    def close(self, delete: bool = True) -> None:
        self.values = None


class OnDisk:
    """Values in a file, which has no name in its `folder` without a `path`; see `RectangleFile`."""

    def __init__(
        self, folder: Path, path: Path | None, height: int, width: int, channels: int, dtype: torch.dtype
    ) -> None:
        self.dtype = dtype
        self.file = RectangleFile(folder, path, height, width, channels * dtype.itemsize)

    def read(self, part: Tile) -> Tensor:
        values = self.file.read(slice(part.top, part.bottom), slice(part.left, part.right))
        return torch.from_numpy(values).view(self.dtype).permute(2, 0, 1)[None]

    def write(self, part: Tile, values: Tensor) -> None:
        points = values[0].permute(1, 2, 0).to(self.dtype).contiguous()
        self.file.write(part.top, part.left, points.view(torch.uint8).numpy())

    def flush(self) -> None:
        self.file.flush()

    def close(self, delete: bool = True) -> None:
        self.file.close(delete)
