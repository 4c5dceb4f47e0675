"""Checkpoints: whole, atomic, plain data and tensors only; a run continued from one goes on exactly."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cgconvert.errors import ModelError, first_line
from cgconvert.host.files import write_atomically

FORMAT = 1


def random_state() -> dict[str, Any]:
    """The state of every global source of random numbers, as plain data."""
    version, internal, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": [version, list(internal), gauss],
        "numpy": [kind, [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Put every global source of random numbers back to where it was."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all; the one before stays until then. Raises `OutputError`."""
    # Through memory: torch's own writer turns a full disk into an error without its cause.
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, tensors on the CPU. Raises `ModelError` where it is missing, damaged or foreign."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no checkpoint there; start with `cgconvert train run`") from error
    except PermissionError as error:
        raise ModelError(f"{path}: no permission to read it") from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise ModelError(f"{path}: damaged, or not a checkpoint ({first_line(error, 120)})") from error
    if not isinstance(state, dict) or "format" not in state or "method" not in state:
        raise ModelError(f"{path}: not a checkpoint of this trainer")
    if state["format"] > FORMAT:
        raise ModelError(f"{path}: written by a newer version (format {state['format']}); upgrade cgconvert")
    return state
