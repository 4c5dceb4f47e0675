"""Model files: safetensors with the card in the header. Reading the card needs no torch."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cgconvert.card import ModelCard, card_from_json
from cgconvert.errors import ModelError, first_line
from cgconvert.host.files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"
CARD_KEY = "cgconvert"
HEADER_LIMIT = 2**20
"""Bytes of a model's header: a card has some thousand, each tensor a hundred. JSON takes 30 times as much."""

MOST_WEIGHTS = 2**40
MOST_DIMENSIONS = 8
STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")
"""Ends of names that are buffers of batch norm, which nobody counts as parameters."""


def expanded(path: str | Path) -> Path:
    """The path with "~" resolved. Raises `ModelError` if that means nobody."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ModelError(f"{path}: there is no such home folder") from error


def is_regular_file(path: Path) -> bool:
    """Whether there is a regular file; a name the system cannot have, or may not look at, is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_header(path: Path, limit: int = HEADER_LIMIT) -> dict[str, Any]:
    """The JSON header of a safetensors file: `__metadata__` and an entry a tensor, of at most `limit` bytes.

    Raises `ModelError`.
    """
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise ModelError(f"{path} is no regular file")
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            fits = 0 < length <= path.stat().st_size - 8
            if fits and length > limit:
                raise ModelError(
                    f"{path}: refused: its header has {length} bytes, more than any model's ({limit})"
                )
            header = json.loads(file.read(length)) if fits else None
    except FileNotFoundError as error:
        raise ModelError(f"no such model file: {path}") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not a safetensors file, or cut short") from error
    if not isinstance(header, dict):
        raise ModelError(f"{path}: not a safetensors file, or cut short")
    return header


def has_card(header: Mapping[str, Any]) -> bool:
    """Whether a safetensors header carries a model card."""
    metadata = header.get("__metadata__")
    return isinstance(metadata, dict) and CARD_KEY in metadata


def read_card(path: Path) -> ModelCard:
    """The card in the header of a model file. Raises `ModelError`."""
    header = read_header(path)
    if not has_card(header):
        raise ModelError(
            f"{path}: has no cgconvert model card; if these are the weights of a CycleGAN or pix2pix "
            f"generator, bring them in with `cgconvert models import {path} --name NAME`"
        )
    return card_from_json(header["__metadata__"][CARD_KEY], str(path))


def count_parameters(path: Path) -> int:
    """Number of weights in a model file, read off its header, without norm statistics."""
    entries = (item for item in read_header(path).items() if item[0] != "__metadata__")
    try:
        return sum(_weights(entry["shape"]) for name, entry in entries if not name.endswith(STATISTICS))
    except (TypeError, KeyError, ValueError) as error:
        raise ModelError(f"{path}: damaged safetensors header") from error


def _weights(shape: Any) -> int:
    """Numbers in a tensor of this shape. Raises `TypeError`, `ValueError` for what is no shape."""
    if not isinstance(shape, list) or len(shape) > MOST_DIMENSIONS:
        raise TypeError(f"no shape: {shape!r:.60}")
    if not all(type(edge) is int and 0 <= edge <= MOST_WEIGHTS for edge in shape):
        raise ValueError(f"no shape: {shape!r:.60}")
    return math.prod(shape)


def write_model(
    path: Path, card: ModelCard, weights: Mapping[str, Tensor], overwrite: bool = True
) -> ModelCard:
    """Write card and weights as one file, whole or not at all; returns the card with its checksum.

    Weights are stored in the type they come in; there may be none. Raises `OutputError`.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    signed = card.with_changes(weights_sha256=_checksum(save(tensors)))
    write_atomically(path, save(tensors, metadata={CARD_KEY: signed.to_json()}), overwrite)
    return signed


def read_weights(path: Path, card: ModelCard) -> dict[str, Tensor]:
    """The weights of a model file, compared with the card's checksum. Raises `ModelError`."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = path.read_bytes()
        tensors = load(data)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{path}: damaged or cut short ({first_line(error)})") from error
    if not card.weights_sha256:
        raise ModelError(f"{path}: its card has no checksum of the weights; write it with cgconvert anew")
    if _checksum(data) != card.weights_sha256:
        raise ModelError(f"{path}: its weights do not match the checksum in its card; get the file anew")
    return tensors


def _checksum(data: bytes) -> str:
    """SHA-256 of the tensor bytes of a safetensors file, that is, all after its header."""
    return hashlib.sha256(data[8 + struct.unpack("<Q", data[:8])[0] :]).hexdigest()
