"""Recognises the ResNet generator of the original CycleGAN implementation, CUT's, and our resize variant."""

from __future__ import annotations

import re

from cgconvert.models.recognition.layout import Layout, Recognised, UnrecognisedError, read_norm

NAME = "CycleGAN ResNet generator"
BLOCK = re.compile(r"model\.(\d+)\.conv_block\.(\d+)\.")
FIRST_BLOCK = 10
"""Index of the first residual block after the 7x7 convolution and two strided ones, each of three layers."""

FIRST_BLOCK_BLURRED = FIRST_BLOCK + 2
"""The same in CUT's generator, where a filter follows each of the two."""

BLOCK_KINDS = {
    (0, 3): ("zero", False),
    (0, 4): ("zero", True),
    (1, 5): ("reflect", False),
    (1, 6): ("reflect", True),
}
"""Indices of a block's two convolutions -> padding and dropout."""


def matches(layout: Layout) -> bool:
    """Whether a 7x7 convolution comes second, after a padding layer, and no U-Net begins here."""
    shape = layout.shapes.get("model.1.weight", ())
    return len(shape) == 4 and (shape[2:] == (7, 7) or any(map(BLOCK.match, layout.shapes)))


def recognise(layout: Layout) -> Recognised:
    """Blocks, channels, norm, padding, dropout, bias and way of upsampling, read off indices and shapes.

    Reflecting and replicating padding have the same indices and no weights: "reflect", the original's
    default, is taken. Raises `UnrecognisedError`.
    """
    ngf, in_channels, height, width = layout.shape("model.1.weight")
    if (height, width) != (7, 7):
        raise UnrecognisedError(
            f"the first convolution, 'model.1.weight', is {height}x{width} instead of 7x7"
        )
    blurs_down = "model.7.filt" in layout.shapes
    start = FIRST_BLOCK_BLURRED if blurs_down else FIRST_BLOCK
    blocks = count_blocks(layout, start)
    padding, dropout, (first, second) = _block_kind(layout, blocks, start)
    up = start + blocks
    upsampling = _upsampling(layout, up)
    blurs_up = upsampling == "blur"
    out_channels = layout.shape(f"model.{up + (9 if blurs_up else 7)}.weight")[0]
    bias = "model.1.bias" in layout.shapes
    indices = [2, 5, 9 if blurs_down else 8]
    indices += [up + 2, up + 6] if blurs_up else [up + 1, up + 4]
    places = [f"model.{index}" for index in indices]
    for block in range(start, up):
        places += [f"model.{block}.conv_block.{index + 1}" for index in (first, second)]
    norm = read_norm(layout, places, bias)
    arguments = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "ngf": ngf,
        "blocks": blocks,
        "norm": norm.norm,
        "padding": padding,
        "dropout": dropout,
        "bias": bias,
        "upsampling": upsampling,
    }
    if blurs_down:
        arguments["downsampling"] = "blur"
    return Recognised("resnet", arguments, norm.unused, norm.remarks)


def count_blocks(layout: Layout, start: int) -> int:
    """The number of residual blocks, from `model.start` on. Raises `UnrecognisedError`."""
    indices = sorted({int(match[1]) for match in map(BLOCK.match, layout.shapes) if match})
    if not indices:
        return 0
    if indices[0] != start:
        downs, rest = divmod(indices[0] - 4, 3)
        what = f"{downs} strided convolutions" if rest == 0 and downs >= 0 else "another beginning"
        raise UnrecognisedError(f"its first block is 'model.{indices[0]}': {what} before it instead of 2")
    if indices != list(range(start, start + len(indices))):
        gap = next(i for i in range(start, indices[-1]) if i not in indices)
        raise UnrecognisedError(f"its blocks are not consecutive: 'model.{gap}' has no conv_block")
    return len(indices)


def _block_kind(layout: Layout, blocks: int, start: int) -> tuple[str, bool, tuple[int, int]]:
    """Padding, dropout and the indices of the two convolutions of the blocks; all are as the first."""
    if blocks == 0:
        return "reflect", False, (1, 5)
    block = f"model.{start}.conv_block"
    found = {int(match[2]) for match in map(BLOCK.match, layout.shapes) if match}
    convs = tuple(index for index in sorted(found) if layout.is_conv(f"{block}.{index}.weight"))
    if len(convs) != 2 or convs not in BLOCK_KINDS:
        places = ", ".join(map(str, convs)) or "none"
        raise UnrecognisedError(f"a block with convolutions at {places} of {block!r} is of no known layout")
    padding, dropout = BLOCK_KINDS[convs]
    return padding, dropout, (convs[0], convs[1])


def _upsampling(layout: Layout, up: int) -> str:
    if f"model.{up}.filt" in layout.shapes:
        return "blur"
    if layout.is_conv(f"model.{up}.weight"):
        return "transposed"
    if layout.is_conv(f"model.{up}.2.weight"):
        return "resize"
    later = [name for name in (f"model.{up + 1}.weight", f"model.{up + 2}.weight") if layout.is_conv(name)]
    if later:
        raise UnrecognisedError(
            f"no transposed convolution at 'model.{up}' but {later[0]!r}: another upsampling"
        )
    raise UnrecognisedError(f"'model.{up}.weight', the first transposed convolution, is missing")
