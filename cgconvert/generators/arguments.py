"""Checks the arguments of an architecture before anything is built from the words of a file."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any, get_args

from torch import nn

from cgconvert.errors import ModelError
from cgconvert.generators.foreign import NumberType, Order, Values
from cgconvert.generators.resnet import Downsampling, Norm, Padding, Upsampling

CHOICES = {
    "norm": get_args(Norm),
    "padding": get_args(Padding),
    "upsampling": get_args(Upsampling),
    "downsampling": get_args(Downsampling),
    "input_values": get_args(Values),
    "output_values": get_args(Values),
    "input_order": get_args(Order),
    "output_order": get_args(Order),
    "number_type": get_args(NumberType),
}
COUNTS = {
    "blocks": (0, 128),
    "depth": (5, 12),
    "downs": (1, 6),
    "enhancers": (0, 3),
    "local_blocks": (0, 32),
    "masks": (1, 64),
    "input_masks": (0, 63),
    "file_bytes": (1, 2**31),
    "output": (0, 15),
    "pixel_bytes": (1, 2**20),
}
"""Bounds of whole numbers that are no channels: every layer is made, even where nothing is allocated. The
published networks have at most 9 blocks, 3 local ones and 8 levels."""

CHANNELS = (1, 4096)
MOST_WIDTHS = 160
"""Channels that a list of them may name: one for each layer."""


def check_arguments(architecture: str, generator: type[nn.Module], arguments: Mapping[str, Any]) -> None:
    """Raise `ModelError` unless each argument is known to the generator, of its type and within its bounds.

    The type is that of the argument's default; None as default means a flag that may be left open.
    """
    parameters = dict(inspect.signature(generator).parameters)
    for name, value in arguments.items():
        if name not in parameters:
            known = ", ".join(parameters)
            raise ModelError(f"architecture {architecture!r} has no argument {name!r}; known: {known}")
        wanted = _what_is_wrong(name, value, parameters[name].default)
        if wanted:
            raise ModelError(f"architecture {architecture!r}: {name} must be {wanted}, got {value!r:.60}")


def _what_is_wrong(name: str, value: Any, default: Any) -> str | None:
    """What the value should have been, or None if it is well."""
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    if default is None:
        return None if value is None or isinstance(value, bool) else "true, false or null"
    if isinstance(default, tuple):
        listed = isinstance(value, list | tuple) and len(value) <= MOST_WIDTHS
        fine = listed and all(type(width) is int and CHANNELS[0] <= width <= CHANNELS[1] for width in value)
        return None if fine else f"a list of whole numbers from {CHANNELS[0]} to {CHANNELS[1]}"
    if isinstance(default, int):
        low, high = COUNTS.get(name, CHANNELS)
        whole = isinstance(value, int) and not isinstance(value, bool)
        return None if whole and low <= value <= high else f"a whole number from {low} to {high}"
    if isinstance(default, float):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return None if number and math.isfinite(value) else "a number"
    if name in CHOICES:
        return None if value in CHOICES[name] else f"one of {', '.join(CHOICES[name])}"
    return None
