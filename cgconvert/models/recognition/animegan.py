"""Recognises the generator of AnimeGANv2 in its PyTorch port."""

from __future__ import annotations

from cgconvert.models.recognition.layout import Layout, Recognised, UnrecognisedError

NAME = "generator of AnimeGANv2"


def matches(layout: Layout) -> bool:
    """Whether its first convolution is there by name."""
    return layout.is_conv("block_a.0.1.weight")


def recognise(layout: Layout) -> Recognised:
    """Channels; the network has no other choices that a file shows. Raises `UnrecognisedError`."""
    ngf, in_channels, height, width = layout.shape("block_a.0.1.weight")
    if (height, width) != (7, 7):
        raise UnrecognisedError(f"'block_a.0.1.weight' is {height}x{width} instead of 7x7")
    out_channels = layout.shape("out_layer.0.weight")[0]
    arguments = {"in_channels": in_channels, "out_channels": out_channels, "ngf": ngf, "align_corners": True}
    remark = "bilinear resizing with aligned corners is assumed, the default of its network"
    return Recognised("animegan2", arguments, remarks=(remark,))
