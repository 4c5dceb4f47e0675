"""A model's file on its way to workers, which may be on machines that do not have it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from cgconvert.host.files import file_sha256


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
        """The same file on this machine: where the driver has it, or a copy that stays for this process."""
        try:
            if file_sha256(self.path) == self.sha256:
                return self.path
        except OSError:
            pass
        folder = Path(tempfile.mkdtemp(prefix="cgconvert-model-"))
        path = folder / self.path.name
        path.write_bytes(self.data)
        return path
