"""The page of a model on a hub: a README with the front matter that hubs read. Needs no torch."""

from __future__ import annotations

import json

from cgconvert.card import ModelCard
from cgconvert.models.describe import (
    describe_architecture,
    describe_bytes,
    describe_count,
    describe_domains,
    describe_sizes,
)


def model_page(card: ModelCard, size: int, parameters: int, repository: str, preview: str | None) -> str:
    """The README of a model whose file has `size` bytes.

    `repository` is OWNER/NAME on the hub, and `preview` the name of a picture beside the page. Texts of the
    card are one printable line each; in the front matter they are JSON, which is YAML too.
    """
    front = {
        "license": card.licence,
        "library_name": "cgconvert",
        "pipeline_tag": "image-to-image",
        "tags": ["cgconvert", "style-transfer", "cyclegan"],
    }
    rows = {
        "look": describe_domains(card),
        "network": describe_architecture(card.architecture, card.arguments),
        "parameters": describe_count(parameters),
        "file": f"{card.name}.safetensors, {describe_bytes(size)}",
        "picture size": describe_sizes(card),
        "trained at": f"{card.native_size} pixels" if card.native_size else "",
        "licence": card.licence,
        "weights SHA-256": card.weights_sha256,
    }
    rows |= {f"training: {key}": _plain(value) for key, value in card.training.items()}
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---", ""]
    lines += [f"# {_escaped(card.title or card.name)}", ""]
    if preview is not None:
        lines += [f"![Sources and results]({preview})", ""]
    lines += ["| | |", "|---|---|"]
    lines += [f"| {_escaped(key)} | {_escaped(value)} |" for key, value in rows.items() if value]
    lines += [
        "",
        "```",
        f"cgconvert models add hf:{repository} --name {card.name}",
        f"cgconvert video in.mp4 --model {card.name}",
        "```",
        "",
    ]
    return "\n".join(lines)


def _plain(value: object) -> str:
    if isinstance(value, str) and value.isprintable():
        return value
    if isinstance(value, list) and all(isinstance(part, str) and part.isprintable() for part in value):
        return ", ".join(value)
    return json.dumps(value)


def _escaped(text: str) -> str:
    """A text in which Markdown and HTML see nothing of theirs."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>()#+!|~" else letter for letter in text)
