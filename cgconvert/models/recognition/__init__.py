"""Recognises the network of a state dict by names and shapes alone. Nothing here imports torch.

`recognise` gives the architecture and its arguments; whether every tensor then has its place is for the
caller to compare with the network itself.
"""

from __future__ import annotations

from cgconvert.models.recognition import animegan, h2, joligen, mobile, pix2pixhd, resnet, unet
from cgconvert.models.recognition.diagnosis import SUPPORTED, looks_like
from cgconvert.models.recognition.layout import Layout, Recognised, UnrecognisedError

READERS = (joligen, pix2pixhd, mobile, animegan, resnet, unet, h2)
"""In this order: the ResNet generator is the outline of several others, which are asked first."""


def is_generator(layout: Layout) -> bool:
    """Whether the state dict has the outline of a supported generator, well-formed or not."""
    return any(reader.matches(layout) for reader in READERS)


def recognise(layout: Layout) -> Recognised:
    """Architecture and arguments of a state dict. Raises `UnrecognisedError`: what it looks like."""
    for reader in READERS:
        if reader.matches(layout):
            try:
                return reader.recognise(layout)
            except UnrecognisedError as error:
                raise UnrecognisedError(f"it begins like a {reader.NAME}, but {error}") from error
    raise UnrecognisedError(looks_like(layout.shapes))


__all__ = [
    "SUPPORTED",
    "Layout",
    "Recognised",
    "UnrecognisedError",
    "is_generator",
    "looks_like",
    "recognise",
]
