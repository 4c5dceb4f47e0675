"""A model's file on its way to workers, which may be on machines that do not have it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cgconvert.host.files import file_sha256, write_atomically
from cgconvert.models.fetching import kept_place


@dataclass(frozen=True)
class ModelFile:
    """A model's file: where the driver has it, its bytes and their SHA-256."""

    path: Path
    data: bytes
    sha256: str

    @classmethod
    def of(cls, path: Path) -> ModelFile:
        """Read a model's file."""
        return cls(path.absolute(), path.read_bytes(), file_sha256(path))

    def here(self) -> Path:
        """The same file on this machine: where the driver has it, or a copy that is kept.

        Raises `OutputError` if that cannot be written.
        """
        try:
            if file_sha256(self.path) == self.sha256:
                return self.path
        except OSError:
            pass
        path = kept_place(self.sha256, self.path.name)
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, self.data)
        return path
