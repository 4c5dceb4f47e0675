"""Recognises our own small generator that works at half and quarter resolution."""

from __future__ import annotations

import re

from cgconvert.models.recognition.layout import Layout, Recognised, UnrecognisedError

NAME = "cgconvert h2 generator"
BLOCK = re.compile(r"blocks\.(\d+)\.conv1\.weight")


def matches(layout: Layout) -> bool:
    """Whether the head, the quarter-resolution step and the tail are there by name."""
    return all(layout.is_conv(f"{name}.weight") for name in ("head", "down", "fuse", "tail"))


def recognise(layout: Layout) -> Recognised:
    """Channels and blocks; the network has no other choices. Raises `UnrecognisedError`."""
    half, inputs, _, _ = layout.shape("head.weight")
    channels = layout.shape("down.weight")[0]
    outputs = layout.shape("tail.weight")[0]
    if inputs % 4 or outputs % 4:
        raise UnrecognisedError("'head.weight' and 'tail.weight' do not work on 2x2 pixels at a time")
    arguments = {
        "in_channels": inputs // 4,
        "out_channels": outputs // 4,
        "half_channels": half,
        "channels": channels,
        "blocks": sum(1 for name in layout.shapes if BLOCK.fullmatch(name)),
    }
    return Recognised("h2", arguments)
