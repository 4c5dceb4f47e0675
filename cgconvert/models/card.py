"""The model card: all that a model says of itself, stored as JSON in its file's header."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from cgconvert.errors import ModelError

FORMAT_VERSION = 1
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model without loading its weights.

    `size_multiple` and `size_minimum` (pixels) bound what the generator accepts; the converter pads to
    them. `native_size` is the edge of the pictures it was trained on. `work_size` is the height in
    pixels at which it is advised to see a film's frame (None: the frame's own). Images are RGB in
    `value_range`. `training` says how it was made: data, images seen, metrics.
    """

    name: str
    architecture: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    source_domain: str = "photo"
    target_domain: str = "picture"
    size_multiple: int = 1
    size_minimum: int = 1
    native_size: int | None = None
    work_size: int | None = None
    value_range: tuple[float, float] = (-1.0, 1.0)
    precision: str = "fp32"
    training: Mapping[str, Any] = field(default_factory=dict)
    licence: str = "unknown"
    weights_sha256: str = ""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        check_name(self.name)
        for key in ("size_multiple", "size_minimum"):
            value = getattr(self, key)
            if not isinstance(value, int) or value < 1:
                raise ModelError(f"model card of {self.name!r}: {key} must be a whole number >= 1, got {value!r}")
        if self.value_range != (-1.0, 1.0):
            raise ModelError(f"model card of {self.name!r}: value range {self.value_range} is not supported")

    @property
    def in_channels(self) -> int:
        """Channels of the images the generator takes."""
        return int(self.arguments.get("in_channels", 3))

    @property
    def out_channels(self) -> int:
        """Channels of the images the generator returns."""
        return int(self.arguments.get("out_channels", 3))

    def with_changes(self, **changes: Any) -> ModelCard:
        """A copy with some fields replaced."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as `models info --json` prints it."""
        data = asdict(self)
        data["value_range"] = list(self.value_range)
        return data

    def to_json(self) -> str:
        """One line of JSON with sorted keys, as stored in the file."""
        return json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)


def check_name(name: object) -> str:
    """The name itself, if it can be a file name on every system; `ModelError` otherwise."""
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        raise ModelError(
            f"{name!r} cannot be a model's name: up to 64 letters, digits, '.', '_' and '-', no blank or slash"
        )
    return name


def card_from_json(text: str, where: str) -> ModelCard:
    """Read a card; `where` names the file in messages. Raises `ModelError`."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ModelError(f"{where}: its model card is not JSON ({error})") from error
    if not isinstance(data, dict):
        raise ModelError(f"{where}: its model card is not a JSON object")
    version = data.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise ModelError(f"{where}: its model card has no format version")
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{where}: model format {version} is newer than this cgconvert knows ({FORMAT_VERSION}); upgrade cgconvert"
        )
    missing = [key for key in ("name", "architecture", "arguments") if key not in data]
    if missing:
        raise ModelError(f"{where}: its model card lacks {', '.join(missing)}")
    known = {f.name for f in fields(ModelCard)}
    data = {key: value for key, value in data.items() if key in known}
    if "value_range" in data:
        data["value_range"] = tuple(data["value_range"])
    try:
        return ModelCard(**data)
    except TypeError as error:
        raise ModelError(f"{where}: its model card cannot be read ({error})") from error
