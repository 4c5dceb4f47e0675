"""Values between the stages of a network for a whole picture: in main memory, or in a file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from cgconvert.engines.tiles.geometry import Tile


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
    """Values in a file, row after row.

    Read and written by system calls rather than through a memory map: a full disk is an error of the call and
    not the end of the program, and the pages are the system's, which gives them up when memory is short.
    Without a `path` the file has no name in its `folder`, and the system removes it with the process.
    """

    def __init__(
        self, folder: Path, path: Path | None, height: int, width: int, channels: int, dtype: torch.dtype
    ) -> None:
        self.path, self.width, self.channels, self.dtype = path, width, channels, dtype
        self.point = channels * dtype.itemsize
        self.file: Any
        if path is None:
            self.file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (closed by `close`)
        else:
            path.touch(0o600)
            self.file = path.open("r+b", buffering=0)
        self.file.truncate(height * width * self.point)

    def read(self, part: Tile) -> Tensor:
        values = torch.empty(part.height, part.width, self.channels, dtype=self.dtype)
        for row, offset in self._rows(values, part):
            self.file.seek(offset)
            while row:
                count = self.file.readinto(row)
                if not count:
                    raise OSError(f"{self.path or 'a temporary file'} has been cut short")
                row = row[count:]
        return values.permute(2, 0, 1)[None]

    def write(self, part: Tile, values: Tensor) -> None:
        for row, offset in self._rows(values[0].permute(1, 2, 0).to(self.dtype).contiguous(), part):
            self.file.seek(offset)
            while row:
                row = row[self.file.write(row) :]

    def _rows(self, values: Tensor, part: Tile) -> Iterator[tuple[memoryview, int]]:
        """The bytes of each row of a rectangle, and where in the file they begin."""
        rows = values.view(torch.uint8).numpy()
        for index in range(part.height):
            offset = ((part.top + index) * self.width + part.left) * self.point
            yield memoryview(rows[index]).cast("B"), offset

    def flush(self) -> None:
        os.fsync(self.file.fileno())

    def close(self, delete: bool = True) -> None:
        self.file.close()
        if delete and self.path is not None:
            self.path.unlink(missing_ok=True)
