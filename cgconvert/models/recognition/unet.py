"""Recognises the U-Net generator of the original pix2pix implementation, of any depth from 5."""

from __future__ import annotations

from cgconvert.models.recognition.layout import Layout, Recognised, UnrecognisedError, read_norm

NAME = "pix2pix U-Net generator"
OUTERMOST = "model.model."
MOST_LEVELS = 12


def matches(layout: Layout) -> bool:
    """Whether there is an outermost level: a strided convolution, a level below, a transposed one."""
    return layout.is_conv(f"{OUTERMOST}0.weight") and layout.is_conv(f"{OUTERMOST}1.model.1.weight")


def recognise(layout: Layout) -> Recognised:
    """Depth, channels, norm, dropout and bias, read off indices and shapes.

    Dropout comes last in a level and moves no index; it is seen only where the file's metadata names it,
    and is inactive in conversion anyway. Raises `UnrecognisedError`.
    """
    ngf, in_channels, height, width = layout.shape(f"{OUTERMOST}0.weight")
    if (height, width) != (4, 4):
        raise UnrecognisedError(f"'{OUTERMOST}0.weight' is {height}x{width} instead of 4x4")
    out_channels = layout.shape(f"{OUTERMOST}3.weight")[1]
    levels = _levels(layout)
    depth = len(levels) + 1
    if not 5 <= depth <= MOST_LEVELS:
        raise UnrecognisedError(f"it has {depth} levels; 5 to {MOST_LEVELS} are read")
    bias = f"{OUTERMOST}0.bias" in layout.shapes
    *middle, innermost = levels
    places = [f"{level}{index}" for level in middle for index in (2, 6)] + [f"{innermost}4"]
    norm = read_norm(layout, places, bias)
    arguments = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "ngf": ngf,
        "depth": depth,
        "norm": norm.norm,
        "dropout": any(f"{level}7" in layout.versions for level in middle),
        "bias": bias,
    }
    return Recognised("unet", arguments, norm.unused, norm.remarks)


def _levels(layout: Layout) -> list[str]:
    """Name prefixes of the levels below the outermost: "model.model.1.model.", and so on inwards."""
    levels = [f"{OUTERMOST}1.model."]
    while layout.is_conv(f"{levels[-1]}3.model.1.weight"):
        levels.append(f"{levels[-1]}3.model.")
        if len(levels) > MOST_LEVELS:
            raise UnrecognisedError(f"it has more than {MOST_LEVELS} levels")
    return levels
