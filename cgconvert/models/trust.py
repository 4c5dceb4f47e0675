"""Which models with code in them the user trusts: those that were imported with `trust`, by their checksums.

The list is of this machine and this user. A model file that somebody else has made brings no trust along.
"""

from __future__ import annotations

import json
from pathlib import Path

from cgconvert.errors import ModelError
from cgconvert.host.files import output_error, write_atomically
from cgconvert.host.locks import locked
from cgconvert.models.catalog import models_folder

NAME = "trusted.json"


def is_trusted(weights_sha256: str) -> bool:
    """Whether a model whose weights have this checksum was imported with `trust`. Raises `ModelError`."""
    return weights_sha256 in _read(models_folder() / NAME)


def trust(weights_sha256: str) -> None:
    """Remember that the user trusts a model. Raises `OutputError`, and `ModelError` for a damaged list."""
    path = models_folder() / NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f".{NAME}.lock"), remove=True):
            known = sorted({*_read(path), weights_sha256})
            write_atomically(path, f"{json.dumps(known, indent=2)}\n".encode())
    except OSError as error:
        raise output_error(path, error) from error


def _read(path: Path) -> list[str]:
    try:
        if not path.exists():
            return []
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: no list of trusted models, or a damaged one; remove it") from error
    if not isinstance(found, list) or not all(isinstance(entry, str) for entry in found):
        raise ModelError(f"{path}: no list of trusted models, or a damaged one; remove it")
    return found
