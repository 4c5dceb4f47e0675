"""Recognises the mobile ResNet generator of GAN Compression and OMGD, whole or compressed."""

from __future__ import annotations

import re

from cgconvert.models.recognition.layout import Layout, Recognised, UnrecognisedError, read_norm
from cgconvert.models.recognition.resnet import FIRST_BLOCK, count_blocks

NAME = "mobile ResNet generator"
SEPARABLE = re.compile(r"model\.(\d+)\.conv_block\.(\d+)\.conv\.0\.weight")

BLOCK_KINDS = {(0, 3): "zero", (0, 4): "zero", (1, 5): "reflect", (1, 6): "reflect"}
"""Indices of a block's two separable convolutions -> padding. Without a layer of dropout, as in joliGEN, the
second index is one less. Our generator has the layer, as the published ones do."""


def matches(layout: Layout) -> bool:
    """Whether residual blocks of separable convolutions follow a convolution that comes second."""
    return layout.is_conv("model.1.weight") and any(map(SEPARABLE.fullmatch, layout.shapes))


def recognise(layout: Layout) -> Recognised:
    """Channels of every layer, blocks, padding and norm. Raises `UnrecognisedError`."""
    first, in_channels, height, width = layout.shape("model.1.weight")
    if (height, width) != (7, 7):
        raise UnrecognisedError(
            f"the first convolution, 'model.1.weight', is {height}x{width} instead of 7x7"
        )
    blocks = count_blocks(layout, FIRST_BLOCK)
    up = FIRST_BLOCK + blocks
    block = f"model.{FIRST_BLOCK}.conv_block"
    convs = tuple(
        sorted(int(m[2]) for m in map(SEPARABLE.fullmatch, layout.shapes) if m and int(m[1]) == FIRST_BLOCK)
    )
    if len(convs) != 2 or convs not in BLOCK_KINDS:
        found = ", ".join(map(str, convs)) or "none"
        raise UnrecognisedError(f"separable convolutions at {found} of {block!r} are of no known layout")
    padding = BLOCK_KINDS[convs]
    one, two = convs
    inside = [
        layout.shape(f"model.{index}.conv_block.{one}.conv.2.weight")[0] for index in range(FIRST_BLOCK, up)
    ]
    half, quarter = (layout.shape(f"model.{index}.weight")[0] for index in (4, 7))
    widened = [layout.shape(f"model.{index}.weight")[1] for index in (up, up + 3)]
    widths = [first, half, quarter, *inside, *widened]
    places = [f"model.{index}" for index in (2, 5, 8, up + 1, up + 4)]
    for index in range(FIRST_BLOCK, up):
        for conv in convs:
            places += [f"model.{index}.conv_block.{conv + 1}", f"model.{index}.conv_block.{conv}.conv.1"]
    norm = read_norm(layout, places, "model.1.bias" in layout.shapes)
    arguments = {
        "in_channels": in_channels,
        "out_channels": layout.shape(f"model.{up + 7}.weight")[0],
        "ngf": first,
        "blocks": blocks,
        "padding": padding,
        "norm": norm.norm,
    }
    if widths != [first, 2 * first, 4 * first, *[4 * first] * blocks, 2 * first, first]:
        arguments["widths"] = widths
    counted = 6 if padding == "reflect" else 4
    return Recognised("mobile_resnet", arguments, norm.unused, norm.remarks, _moved(layout, two, counted))


def _moved(layout: Layout, found: int, wanted: int) -> dict[str, str]:
    """New names for the second half of each block, which is `wanted - found` places farther on in ours."""
    if found == wanted:
        return {}
    pattern = re.compile(r"(model\.\d+\.conv_block\.)(\d+)(\..*)")
    renamed = {}
    for name in layout.shapes:
        match = pattern.fullmatch(name)
        if match and int(match[2]) >= found:
            renamed[name] = f"{match[1]}{int(match[2]) + wanted - found}{match[3]}"
    return renamed
