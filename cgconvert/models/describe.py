"""A model in a few words, for people. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cgconvert.card import ModelCard

NORMS = {
    "instance": "instance norm",
    "instance_affine": "instance norm with learned scale",
    "batch": "batch norm",
    "none": "no norm",
}

FOREIGN = {"onnx": "ONNX graph", "torchscript": "TorchScript program"}
"""Architectures that are a file of another program."""


def describe_architecture(architecture: str, arguments: Mapping[str, Any]) -> str:
    """One line such as "ResNet, 9 blocks, ngf 64, instance norm"."""
    if architecture == "resnet":
        parts = ["ResNet", f"{arguments.get('blocks', 9)} blocks", f"ngf {arguments.get('ngf', 64)}"]
        parts.append(_norm(arguments, "instance"))
        if arguments.get("padding", "reflect") != "reflect":
            parts.append(f"{arguments['padding']} padding")
        if arguments.get("upsampling", "transposed") != "transposed":
            parts.append(f"{arguments['upsampling']} upsampling")
    elif architecture == "unet":
        depth = arguments.get("depth", 8)
        parts = ["U-Net", f"depth {depth}", f"ngf {arguments.get('ngf', 64)}", _norm(arguments, "batch")]
    elif architecture == "h2":
        half, full, blocks = (
            arguments.get(key, default)
            for key, default in (("half_channels", 24), ("channels", 64), ("blocks", 6))
        )
        parts = [f"H2 {half}-{full}-{blocks}"]
    elif architecture in FOREIGN:
        parts = [FOREIGN[architecture]]
        values = arguments.get("input_values", "-1..1")
        if values != "-1..1":
            parts.append(f"values {values}")
    else:
        shown = {key: value for key, value in arguments.items() if not key.endswith("_channels")}
        parts = [architecture, *(f"{key.replace('_', ' ')} {value}" for key, value in shown.items())]
    if arguments.get("dropout"):
        parts.append("dropout")
    channels = (arguments.get("in_channels", 3), arguments.get("out_channels", 3))
    if channels != (3, 3):
        parts.append(f"{channels[0]} -> {channels[1]} channels")
    return ", ".join(parts)


def _norm(arguments: Mapping[str, Any], default: str) -> str:
    norm = str(arguments.get("norm", default))
    return NORMS.get(norm, norm)


def describe_domains(card: ModelCard) -> str:
    """What goes in and what comes out: "photo -> monet"."""
    return f"{card.source_domain} -> {card.target_domain}"


def describe_sizes(card: ModelCard) -> str:
    """The size rule in words; the converter pads to it, so no picture is refused."""
    if card.size_multiple == 1 and card.size_minimum == 1:
        return "any"
    return f"padded to multiples of {card.size_multiple}, at least {card.size_minimum} pixels"


def describe_count(number: int) -> str:
    """11378179 -> "11.4 M"."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)


def describe_bytes(number: int) -> str:
    """File size with decimal units: 4512345 -> "4.5 MB"."""
    text = describe_count(number)
    return f"{text}B" if " " in text else f"{text} bytes"
