"""Recognises the generators of pix2pixHD: the global network, and the one with local enhancers."""

from __future__ import annotations

import re

from cgconvert.models.recognition.layout import Layout, Recognised, UnrecognisedError, read_norm
from cgconvert.models.recognition.resnet import count_blocks

NAME = "generator of pix2pixHD"
MOST_DOWNS = 6
MOST_ENHANCERS = 3
MOST_LOCAL_BLOCKS = 32
BLOCK_KINDS = {(1, 5): "reflect", (0, 3): "zero"}


def matches(layout: Layout) -> bool:
    """Whether there is a local enhancer, or a global network that halves more than twice."""
    if layout.is_conv("model1_1.1.weight"):
        return layout.is_conv("model.1.weight")
    third, second = layout.shapes.get("model.10.weight", ()), layout.shapes.get("model.7.weight", ())
    # A transposed convolution has its channels the other way round.
    return len(third) == 4 and len(second) == 4 and third[1] == second[0] and third[0] == 2 * third[1]


def recognise(layout: Layout) -> Recognised:
    """Halvings, blocks, enhancers, channels, padding and norm. Raises `UnrecognisedError`."""
    width, in_channels, *edges = layout.shape("model.1.weight")
    if edges != [7, 7]:
        raise UnrecognisedError(f"'model.1.weight' is {edges[0]}x{edges[1]} instead of 7x7")
    downs = 0
    while layout.is_conv(f"model.{4 + 3 * downs}.weight") and _halves(layout, 4 + 3 * downs):
        downs += 1
    if not 1 <= downs <= MOST_DOWNS:
        raise UnrecognisedError(f"it halves {downs} times; 1 to {MOST_DOWNS} are read")
    start = 4 + 3 * downs
    blocks = count_blocks(layout, start)
    up = start + blocks
    enhancers = 0
    while layout.is_conv(f"model{enhancers + 1}_1.1.weight"):
        enhancers += 1
    if enhancers > MOST_ENHANCERS or width % 2**enhancers:
        raise UnrecognisedError(f"it has {enhancers} enhancers around {width} channels")
    local = _local_blocks(layout, enhancers)
    if enhancers:
        last = f"model{enhancers}_2.{local + 4}"
    else:
        last = f"model.{up + 3 * downs + 1}"
    out_channels = layout.shape(f"{last}.weight")[0]
    padding, convs = _block_kind(layout, [f"model.{start}"] * bool(blocks) + ["model1_2.0"] * bool(local))
    places = [f"model.{2 + 3 * index}" for index in range(downs + 1)]
    places += [f"model.{up + 3 * index + 1}" for index in range(downs)]
    residual = [f"model.{index}" for index in range(start, up)]
    for number in range(1, enhancers + 1):
        places += [f"model{number}_1.2", f"model{number}_1.5", f"model{number}_2.{local + 1}"]
        residual += [f"model{number}_2.{index}" for index in range(local)]
    places += [f"{block}.conv_block.{index + 1}" for block in residual for index in convs]
    bias = "model.1.bias" in layout.shapes
    norm = read_norm(layout, places, bias)
    arguments = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "ngf": width // 2**enhancers,
        "downs": downs,
        "blocks": blocks,
        "enhancers": enhancers,
        "local_blocks": local,
        "norm": norm.norm,
        "padding": padding,
        "bias": bias,
    }
    return Recognised("pix2pixhd", arguments, norm.unused, norm.remarks, _our_names(layout, last))


def _halves(layout: Layout, index: int) -> bool:
    """Whether the convolution at this place doubles the channels that come from before it."""
    shape = layout.shape(f"model.{index}.weight")
    before = layout.shape(f"model.{index - 3}.weight")
    return shape[2:] == (3, 3) and shape[1] == before[0] and shape[0] == 2 * shape[1]


def _local_blocks(layout: Layout, enhancers: int) -> int:
    if not enhancers:
        return 0
    count = 0
    while any(layout.is_conv(f"model1_2.{count}.conv_block.{index}.weight") for index in (0, 1)):
        count += 1
        if count > MOST_LOCAL_BLOCKS:
            raise UnrecognisedError(f"its enhancer has more than {MOST_LOCAL_BLOCKS} blocks")
    return count


def _block_kind(layout: Layout, examples: list[str]) -> tuple[str, tuple[int, int]]:
    """Padding and the indices of the two convolutions of the blocks; all are as the first."""
    for block in examples:
        convs = tuple(i for i in range(8) if layout.is_conv(f"{block}.conv_block.{i}.weight"))
        if len(convs) != 2 or convs not in BLOCK_KINDS:
            places = ", ".join(map(str, convs)) or "none"
            raise UnrecognisedError(
                f"a block with convolutions at {places} of {block!r} is of no known layout"
            )
        return BLOCK_KINDS[convs], (convs[0], convs[1])
    return "reflect", (1, 5)


def _our_names(layout: Layout, last: str) -> dict[str, str]:
    """The name of each tensor in our generator, in base, entrances, refinements or head."""
    renamed = {}
    for name in layout.shapes:
        if name.startswith(f"{last}."):
            renamed[name] = f"head.1{name.removeprefix(last)}"
        elif name.startswith("model."):
            renamed[name] = f"base{name.removeprefix('model')}"
        elif match := re.fullmatch(r"model(\d)_([12])(\..*)", name):
            part = "entrances" if match[2] == "1" else "refinements"
            renamed[name] = f"{part}.{int(match[1]) - 1}{match[3]}"
    return renamed
