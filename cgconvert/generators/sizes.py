"""The picture sizes that each architecture accepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cgconvert.errors import ModelError

UNET_DEPTH = 8
HD_DOWNS, HD_ENHANCERS = 3, 1


def size_rule(architecture: str, arguments: Mapping[str, Any]) -> tuple[int, int]:
    """(multiple, minimum) in pixels, for `size_multiple` and `size_minimum` of a card.

    Any height and width that are multiples of the first and at least the second are accepted.
    Raises `ModelError` for an unknown architecture.
    """
    if architecture == "identity":
        return 1, 1
    if architecture in ("resnet", "mobile_resnet", "resnet_attention", "animegan2", "h2"):
        return 4, 16
    if architecture == "unet":
        edge = 2 ** int(arguments.get("depth", UNET_DEPTH))
        return edge, edge
    if architecture == "pix2pixhd":
        downs = int(arguments.get("downs", HD_DOWNS))
        edge = 2 ** (downs + int(arguments.get("enhancers", HD_ENHANCERS)))
        return edge, 2 * edge
    raise ModelError(f"unknown architecture {architecture!r}: its size rule is not known")
