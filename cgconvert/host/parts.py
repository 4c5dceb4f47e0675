"""The folder beside a result in which what is finished of it is kept, so that an interrupted run goes on."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from cgconvert.host.files import real_path

SUFFIX = ".part"
STATE = "state.json"
EDGE_BYTES = 2**20
"""Of a source this much at its beginning and its end is hashed; all of a long video would take minutes."""


def part_folder(output: Path) -> Path:
    """Where what is finished of a result is kept while it is incomplete."""
    return output.with_name(output.name + SUFFIX)


def remove_folder(folder: Path) -> None:
    """Remove what is kept of a result. Raises `OSError`.

    The state goes first. If the process were killed while the segments go, it would be left with only some of
    them, and the next run would go on after those without what steadied them.
    """
    (folder / STATE).unlink(missing_ok=True)
    shutil.rmtree(folder)


def source_identity(source: Path) -> dict[str, Any]:
    """What tells a source file from another: path, size, time of change, SHA-256 of its two ends.

    Raises `OSError`.
    """
    facts = source.stat()
    digest = hashlib.sha256()
    with source.open("rb") as file:
        digest.update(file.read(EDGE_BYTES))
        file.seek(max(0, facts.st_size - EDGE_BYTES))
        digest.update(file.read(EDGE_BYTES))
    return {
        "path": str(real_path(source)),
        "bytes": facts.st_size,
        "changed_ns": facts.st_mtime_ns,
        "sha256_of_ends": digest.hexdigest(),
    }
