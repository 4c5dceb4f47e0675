"""Model files: safetensors with the card in the header. Reading the card needs no torch."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cgconvert.errors import ModelError
from cgconvert.files import write_atomically
from cgconvert.models.card import ModelCard, card_from_json

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"
CARD_KEY = "cgconvert"
HEADER_LIMIT = 100_000_000


def read_card(path: Path) -> ModelCard:
    """The card in the header of a model file. Raises `ModelError`."""
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else HEADER_LIMIT + 1
            if length > HEADER_LIMIT:
                raise ModelError(f"{path}: not a safetensors file, or cut short")
            header = json.loads(file.read(length))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ModelError(f"{path}: not a safetensors file, or cut short") from error
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or CARD_KEY not in metadata:
        raise ModelError(
            f"{path}: has no cgconvert model card; bring foreign weights in with `cgconvert models import`"
        )
    return card_from_json(metadata[CARD_KEY], str(path))


def write_model(path: Path, card: ModelCard, weights: Mapping[str, Tensor], overwrite: bool = True) -> ModelCard:
    """Write card and weights as one file, whole or not at all; returns the card with its checksum.

    Weights are stored in the type they come in. Raises `OutputError`.
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
    except (SafetensorError, ValueError) as error:
        raise ModelError(f"{path}: damaged or cut short ({error})") from error
    if _checksum(data) != card.weights_sha256:
        raise ModelError(f"{path}: its weights do not match the checksum in its card; get the file anew")
    return tensors


def _checksum(data: bytes) -> str:
    """SHA-256 of the tensor bytes of a safetensors file, that is, all after its header."""
    return hashlib.sha256(data[8 + struct.unpack("<Q", data[:8])[0] :]).hexdigest()
