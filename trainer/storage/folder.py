"""The folder of a run: config, checkpoints, log of metrics, samples, report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cgconvert.errors import UsageError
from cgconvert.host.files import TEMPORARY_PREFIX, output_error, write_atomically
from cgconvert.host.locks import locked
from trainer.config import Config, read_config


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run, and its log."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def best(self) -> Path:
        return self.path / "best.pt"

    @property
    def log(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    def has(self, path: Path) -> bool:
        """Whether a file of the run is there. Raises `UsageError` where the folder may not be looked into."""
        try:
            return path.is_file()
        except OSError as error:
            reason = error.strerror or error
            raise UsageError(
                f"{path}: cannot be looked at ({reason}); change the folder's permissions"
            ) from error

    def best_of(self, generator: str) -> Path:
        """The best checkpoint of a generator beside the one that `best` is of."""
        return self.path / f"best-{generator}.pt"

    def read_config(self) -> Config:
        """The run's config. Raises `UsageError` where the folder is not a run's."""
        if not self.has(self.config):
            raise UsageError(
                f"{self.path}: no config.toml there; make one with `cgconvert train init {self.path}`"
            )
        return read_config(self.config)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second training out of the folder; what a killed one left half-written is removed.

        Raises `UsageError` where another training is in it, `OutputError` where it cannot be written.
        """
        with ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                held = stack.enter_context(locked(self.path / ".lock", wait=False))
            except OSError as error:
                raise output_error(self.path / ".lock", error) from error
            if not held:
                raise UsageError(
                    f"{self.path}: a training is running in this folder; wait for its end, or stop it"
                )
            for left in self.path.glob(f"{TEMPORARY_PREFIX}*"):
                left.unlink(missing_ok=True)
            yield

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line to the log. Raises `OutputError`."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise output_error(self.log, error) from error

    def lines(self) -> Iterator[dict[str, Any]]:
        """The log's lines; one that a killed process left half-written is skipped."""
        if not self.log.is_file():
            return
        for text in self.log.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict):
                yield line

    def cut_log(self, images: int) -> None:
        """Drop what was logged after `images`: a continued run logs it again."""
        kept = [line for line in self.lines() if line.get("images", 0) <= images]
        write_atomically(self.log, "".join(json.dumps(line) + "\n" for line in kept).encode())
