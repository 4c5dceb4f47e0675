"""Recognises joliGEN's ResNet generators: in two halves, with separable blocks, with attention."""

from __future__ import annotations

import re

from cgconvert.models.recognition import mobile, resnet
from cgconvert.models.recognition.layout import Layout, Recognised, UnrecognisedError

NAME = "generator of joliGEN"
ATTENTION = "deconv3_attention.weight"
BLOCK = re.compile(r"resnet_blocks\.(\d+)\.(conv[12])\.(conv\.)?(.*)")
HALF = re.compile(r"(encoder|decoder)\.model\.(\d+)(\..*)?")


def matches(layout: Layout) -> bool:
    """Whether it is in an encoder and a decoder, or makes masks of attention."""
    halves = any(layout.is_conv(f"encoder.model.{index}.weight") for index in (0, 1))
    return layout.is_conv(ATTENTION) or (
        halves and any(name.startswith("decoder.model.") for name in layout.shapes)
    )


def recognise(layout: Layout) -> Recognised:
    """Architecture and arguments; names become those of one network. Raises `UnrecognisedError`.

    What pads the blocks of a generator with attention no weight shows: it is what the configuration beside
    the file says, or reflection, joliGEN's default.
    """
    return _attention(layout) if layout.is_conv(ATTENTION) else _halves(layout)


def _halves(layout: Layout) -> Recognised:
    """The published generators with their layers counted anew in the second half."""
    if layout.is_conv("encoder.model.0.weight"):
        raise UnrecognisedError(
            "its first convolution, 'encoder.model.0.weight', is not padded: its results are smaller than "
            "what it is shown"
        )
    indices = {int(m[2]) for m in map(HALF.fullmatch, layout.shapes) if m and m[1] == "encoder"}
    blocks = sum(1 for index in indices if index >= resnet.FIRST_BLOCK)
    offset = resnet.FIRST_BLOCK + blocks
    if layout.is_conv("decoder.model.6.weight"):
        raise UnrecognisedError("'decoder.model.6.weight', its last convolution, is padded with zeros")

    def one(name: str) -> str:
        match = HALF.fullmatch(name)
        if not match:
            return name
        index = int(match[2]) + (offset if match[1] == "decoder" else 0)
        return f"model.{index}{match[3] or ''}"

    joined = Layout(
        {one(name): shape for name, shape in layout.shapes.items()},
        {one(name): version for name, version in layout.versions.items()},
    )
    reader = mobile if mobile.matches(joined) else resnet
    found = reader.recognise(joined)
    renamed = {name: found.renamed.get(one(name), one(name)) for name in layout.shapes}
    unused = frozenset(name for name in layout.shapes if one(name) in found.unused)
    return Recognised(found.architecture, found.arguments, unused, found.remarks, renamed)


def _attention(layout: Layout) -> Recognised:
    ngf, channels, height, width = layout.shape("conv1.weight")
    if (height, width) != (7, 7):
        raise UnrecognisedError(f"'conv1.weight' is {height}x{width} instead of 7x7")
    masks = layout.shape(ATTENTION)[0]
    made, rest = divmod(layout.shape("deconv3_content.weight")[0], channels)
    if rest or not 0 < made <= masks:
        raise UnrecognisedError(f"'deconv3_content.weight' does not fit {masks} masks of {channels} channels")
    blocks = {int(match[1]): match[3] for match in map(BLOCK.fullmatch, layout.shapes) if match}
    if sorted(blocks) != list(range(len(blocks))):
        raise UnrecognisedError("its blocks are not consecutive")
    separable = any(blocks.values())
    if layout.padding not in (None, "reflect", "zeros"):
        raise UnrecognisedError(f"its configuration says G_padding_type {layout.padding!r:.40}")
    reflects = layout.padding != "zeros"
    second = (5 if reflects else 3) + separable
    places = {"conv1": 1 if reflects else 0, "conv2": second}
    fixed = {
        "conv1": "trunk.1",
        "conv2": "trunk.4",
        "conv3": "trunk.7",
        "deconv1_content": "content.0",
        "deconv2_content": "content.3",
        "deconv3_content": "content.7",
        "deconv1_attention": "attention.0",
        "deconv2_attention": "attention.3",
        "deconv3_attention": "attention.6",
    }
    renamed = {}
    for name in layout.shapes:
        part, _, rest_of_name = name.partition(".")
        if match := BLOCK.fullmatch(name):
            place = f"trunk.{resnet.FIRST_BLOCK + int(match[1])}.conv_block.{places[match[2]]}"
            renamed[name] = f"{place}.{match[3] or ''}{match[4]}"
        elif part in fixed:
            renamed[name] = f"{fixed[part]}.{rest_of_name}"
    arguments = {
        "in_channels": channels,
        "out_channels": channels,
        "ngf": ngf,
        "blocks": len(blocks),
        "masks": masks,
        "input_masks": masks - made,
        "padding": "reflect" if reflects else "zero",
        "separable": separable,
    }
    remark = "reflecting padding is assumed, joliGEN's default: there is no train_config.json beside the file"
    remarks = () if layout.padding else (remark,)
    return Recognised("resnet_attention", arguments, remarks=remarks, renamed=renamed)
