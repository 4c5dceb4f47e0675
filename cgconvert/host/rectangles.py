"""Arrays in files that are written and read by rectangles, for what is larger than the memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


def scratch_folder() -> Path:
    """Where large files that nobody is to keep are written.

    `TMPDIR`, else /var/tmp, since /tmp is in memory on many systems.
    """
    if not os.environ.get("TMPDIR") and os.access("/var/tmp", os.W_OK):
        return Path("/var/tmp")
    return Path(tempfile.gettempdir())


class RectangleFile:
    """An array of bytes (height, width, point) in a file, row after row.

    Read and written by system calls rather than through a memory map: a full disk is an error of the call and
    not the end of the program, and the pages are the system's, which gives them up when memory is short.
    Without a `path` the file has no name in its `folder`, and the system removes it with the process.
    """

    def __init__(self, folder: Path, path: Path | None, height: int, width: int, point: int) -> None:
        self.path, self.width, self.point = path, width, point
        self.file: Any
        if path is None:
            self.file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (closed by `close`)
        else:
            path.touch(0o600)
            self.file = path.open("r+b", buffering=0)
        self.file.truncate(height * width * point)

    @property
    def name(self) -> str:
        """A name by which a library can open the file in this process while it is open (not on Windows).

        It is plain text, which a path need not be.
        """
        return f"/dev/fd/{self.file.fileno()}"

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """The bytes (h, w, point) of a rectangle. Raises `OSError` if the file has been cut short."""
        values = np.empty((rows.stop - rows.start, columns.stop - columns.start, self.point), np.uint8)
        for part, offset in self._parts(values, rows.start, columns.start):
            self.file.seek(offset)
            while part:
                count = self.file.readinto(part)
                if not count:
                    raise OSError(f"{self.path or 'a temporary file'} has been cut short")
                part = part[count:]
        return values

    def write(self, top: int, left: int, values: np.ndarray) -> None:
        """Keep bytes (h, w, point) of a rectangle. Raises `OSError` where there is no room."""
        for part, offset in self._parts(np.ascontiguousarray(values), top, left):
            self.file.seek(offset)
            while part:
                part = part[self.file.write(part) :]

    def _parts(self, values: np.ndarray, top: int, left: int) -> Iterator[tuple[memoryview, int]]:
        """What lies in one piece in the file, and where it begins: rows, or all of full rows."""
        if values.shape[1] == self.width:
            yield values.reshape(-1).data, top * self.width * self.point
            return
        for index, row in enumerate(values):
            yield row.reshape(-1).data, ((top + index) * self.width + left) * self.point

    def flush(self) -> None:
        """Return when what was written would survive a loss of power."""
        os.fsync(self.file.fileno())

    def close(self, delete: bool = True) -> None:
        """Close the file. One with a name stays for a later run unless it is to be deleted."""
        self.file.close()
        if delete and self.path is not None:
            self.path.unlink(missing_ok=True)
