"""Results as they come: a line of JSON for each picture or video that is dealt with."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from cgconvert.errors import printable
from cgconvert.host.files import output_error
from cgconvert.host.objects import AnyPath


class ResultLines:
    """A file of lines that grows. Several threads may write; a line is there whole or not at all.

    Lines are added to those of earlier runs. Processes that share a file on a local disk may write at once.
    """

    def __init__(self, path: Path) -> None:
        """Raises `OutputError` if the file cannot be opened."""
        self.path = path
        self.lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise output_error(path, error) from error

    def write(
        self,
        status: str,
        path: AnyPath | str,
        output: AnyPath | str | None,
        reason: str | None = None,
        **facts: Any,
    ) -> None:
        """Add a line. `status` is "converted", "skipped" or "failed". Raises `OutputError`."""
        data = {
            "path": printable(path),
            "output": printable(output) if output is not None else None,
            "status": status,
            "reason": reason,
            **facts,
        }
        line = (json.dumps(data, ensure_ascii=False, default=str) + "\n").encode(errors="backslashreplace")
        try:
            with self.lock:
                while line:
                    line = line[os.write(self.file, line) :]
        except OSError as error:
            raise output_error(self.path, error) from error

    def close(self) -> None:
        """Close the file."""
        os.close(self.file)

    def __enter__(self) -> ResultLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
