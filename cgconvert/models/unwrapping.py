"""Finds the generator's tensors inside whatever a training program saved around them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cgconvert.models.recognition import Layout, UnrecognisedError, is_generator, looks_like
from cgconvert.models.recognition.layout import strip_wrappers

DEPTH = 4
"""How deep in a checkpoint's dicts a generator is looked for; those of training programs are at 2 or 3."""

MOST_ENTRIES = 200_000
"""Entries of all dicts together that are looked at."""

MOST_GENERATORS = 64
"""Prefixes in one state dict that may each belong to a generator."""

ANCHORS = (
    "model.1.weight",
    "model.model.0.weight",
    "head.weight",
    "encoder.model.0.weight",
    "encoder.model.1.weight",
    "deconv3_attention.weight",
    "block_a.0.1.weight",
)
"""A tensor that each supported generator has; what comes before it in a name is a wrapper's."""

TRAINING_KEYS = (
    "optimizer",
    "optimizers",
    "optimizer_states",
    "optimizer_state_dict",
    "lr_schedulers",
    "epoch",
)


@dataclass(frozen=True)
class Weights:
    """A state dict: its tensors, module versions where the file has them, and where in the file it was."""

    tensors: dict[str, Tensor]
    versions: dict[str, int]
    where: str = ""

    @property
    def layout(self) -> Layout:
        """Names and shapes, for recognition."""
        return Layout({name: tuple(tensor.shape) for name, tensor in self.tensors.items()}, self.versions)


def find_generator(content: Any) -> tuple[Weights, tuple[str, ...]]:
    """The one generator in a checkpoint's content, and remarks. Raises `UnrecognisedError`.

    Looks into nested dicts ("state_dict", "netG", ...) and through prefixes of names ("module.",
    "netG_A.", ...). Of several, the only one with averaged weights ("ema") is taken; otherwise which one
    is meant cannot be known.
    """
    dicts = list(_state_dicts(content, "", DEPTH, set()))
    if sum(len(state.tensors) for state in dicts) > MOST_ENTRIES:
        raise UnrecognisedError(f"it holds more than {MOST_ENTRIES} tensors, which no checkpoint needs")
    found = [weights for state in dicts for weights in _roots(state)]
    if not found:
        raise UnrecognisedError(_what_else(content, dicts))
    if len(found) > 1:
        averaged = [weights for weights in found if "ema" in weights.where.lower()]
        if len(averaged) != 1:
            names = ", ".join(f"{weights.where!r:.60}" for weights in found[:6])
            raise UnrecognisedError(
                f"it holds {len(found)} generators ({names}): save the one you want by itself"
            )
        return averaged[0], (f"took the averaged weights {averaged[0].where!r:.60}",)
    where = found[0].where
    return found[0], ((f"taken from {where!r:.60} in the file",) if where else ())


def _state_dicts(content: Any, where: str, depth: int, seen: set[int]) -> Iterator[Weights]:
    """Every mapping with tensors by name in the content, down to some depth.

    `seen` has the identities of the mappings that were met: each is looked at once, wherever else it is found
    again, within itself among others.
    """
    if not isinstance(content, Mapping) or id(content) in seen:
        return
    seen.add(id(content))
    tensors = {
        name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)
    }
    if tensors:
        yield Weights(
            {strip_wrappers(name): value for name, value in tensors.items()}, _versions(content), where
        )
    if depth:
        for name, value in content.items():
            if isinstance(name, str):
                yield from _state_dicts(value, f"{where}.{name}" if where else name, depth - 1, seen)


def _versions(content: Mapping[str, Any]) -> dict[str, int]:
    """Module versions from the metadata of a PyTorch state dict; whatever is not of that form is left out."""
    metadata = getattr(content, "_metadata", None)
    if not isinstance(metadata, Mapping):
        return {}
    pairs = ((name, entry.get("version")) for name, entry in metadata.items() if isinstance(entry, Mapping))
    return {
        strip_wrappers(name): version
        for name, version in pairs
        if isinstance(name, str) and isinstance(version, int)
    }


def _roots(state: Weights) -> list[Weights]:
    """The generators in one flat state dict: one without a prefix, or one for each prefix."""
    prefixes = {
        name.removesuffix(anchor)
        for name in state.tensors
        for anchor in ANCHORS
        if name == anchor or name.endswith(f".{anchor}")
    }
    if len(prefixes) > MOST_GENERATORS:
        raise UnrecognisedError(f"it holds more than {MOST_GENERATORS} networks that may be generators")
    found: dict[str, Weights] = {}
    for prefix in sorted(prefixes, key=len):
        if not any(prefix.startswith(shorter) for shorter in found):
            weights = _below(state, prefix)
            if is_generator(weights.layout):
                found[prefix] = weights
    return list(found.values())


def _below(state: Weights, prefix: str) -> Weights:
    def cut(names: Mapping[str, Any]) -> dict[str, Any]:
        return {name.removeprefix(prefix): value for name, value in names.items() if name.startswith(prefix)}

    where = ".".join(part for part in (state.where, prefix.rstrip(".")) if part)
    return Weights(cut(state.tensors), cut(state.versions), where)


def _what_else(content: Any, dicts: list[Weights]) -> str:
    if isinstance(content, torch.Tensor):
        return f"it is a single tensor of shape {list(content.shape)}, not the weights of a network"
    if not isinstance(content, Mapping):
        return f"it holds a {type(content).__name__}, not a state dict"
    training = [key for key in TRAINING_KEYS if key in content]
    if not dicts:
        keys = ", ".join(f"{key!r:.40}" for key in list(content)[:5]) or "nothing"
        return f"it holds no weights by name, but {keys}"
    largest = max(dicts, key=lambda weights: len(weights.tensors))
    seen = looks_like(largest.layout.shapes)
    return f"a training checkpoint (with {training[0]!r}), and {seen}" if training else seen
