"""The model card: the description of a model, stored as JSON in the header of its file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from cgconvert.errors import ModelError

FORMAT_VERSION = 1
DEPTH = 16
"""Lists and mappings within each other in a card; what is deeper no function could copy or print."""
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
TEXT_LIMIT = 200
PIXEL_LIMIT = 65536
PADDING_LIMIT = 4096
"""Largest `size_multiple` and `size_minimum`: a hostile card must not make a small picture a huge one."""

MOST_NOISE = 16
"""Most channels of noise that a generator may take."""


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model without loading its weights. Checked when made: `ModelError`.

    `size_multiple` and `size_minimum` (pixels) bound what the generator accepts; the converter pads to
    them. `native_size` is the edge of the pictures it was trained on. `work_size` is the height in
    pixels at which it is advised to see a video's frame (None: the frame's own). Images are RGB in
    `value_range`. `noise` is empty, or {"channels": how many channels of fixed noise the
    generator takes after those of the image, "seed": of which field} (`tensors/noise.py`).
    `training` says how it was made: data, images seen, metrics. Texts are one line of
    printable characters, since they are shown on terminals and come from anyone's files.
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
    noise: Mapping[str, int] = field(default_factory=dict)
    precision: str = "fp32"
    training: Mapping[str, Any] = field(default_factory=dict)
    licence: str = "unknown"
    weights_sha256: str = ""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        check_name(self.name)
        for key in TEXTS:
            text = getattr(self, key)
            if not isinstance(text, str) or len(text) > TEXT_LIMIT or not text.isprintable():
                raise self._wrong(key, f"one line of at most {TEXT_LIMIT} printable characters")
        for key in ("arguments", "noise", "training"):
            if not isinstance(getattr(self, key), Mapping):
                raise self._wrong(key, "a mapping")
        for key in ("in_channels", "out_channels"):
            if not _is_whole(self.arguments.get(key, 3), 4096):
                raise ModelError(f"model card of {self.name!r}: {key} must be a whole number >= 1")
        if self.noise and not (
            _is_whole(self.noise.get("channels"), MOST_NOISE)
            and self.noise["channels"] < self.network_channels
            and (self.noise_seed == 0 or _is_whole(self.noise_seed, 2**31 - 1))
        ):
            raise self._wrong("noise", "empty or channels (fewer than the generator takes) and a seed")
        for key in ("size_multiple", "size_minimum"):
            if not _is_whole(getattr(self, key), PADDING_LIMIT):
                raise self._wrong(key, f"a whole number from 1 to {PADDING_LIMIT}")
        for key in ("native_size", "work_size"):
            if getattr(self, key) is not None and not _is_whole(getattr(self, key), PIXEL_LIMIT):
                raise self._wrong(key, f"null or a whole number from 1 to {PIXEL_LIMIT}")
        if self.value_range != (-1.0, 1.0):
            raise self._wrong("value_range", "[-1, 1], the only one supported")

    def _wrong(self, key: str, wanted: str) -> ModelError:
        return ModelError(
            f"model card of {self.name!r}: {key} must be {wanted}, got {getattr(self, key)!r:.60}"
        )

    @property
    def in_channels(self) -> int:
        """Channels of a picture that the generator takes; noise is not counted."""
        return self.network_channels - self.noise_channels

    @property
    def network_channels(self) -> int:
        """Channels of the images that the generator takes: those of a picture, and those of noise."""
        return int(self.arguments.get("in_channels", 3))

    @property
    def noise_channels(self) -> int:
        """Channels of fixed noise that the generator takes."""
        return int(self.noise.get("channels", 0))

    @property
    def noise_seed(self) -> int:
        """Seed of the noise's field."""
        return self.noise.get("seed", 0)

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
        if not self.noise:
            del data["noise"]  # as in the files from before there was noise
        return data

    def to_json(self) -> str:
        """One line of JSON with sorted keys, as stored in the file."""
        return json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)


def _is_shallow(value: object, depth: int) -> bool:
    """Whether plain data is nested at most this deep."""
    if isinstance(value, dict):
        value = list(value.values())
    return not isinstance(value, list) or (depth > 0 and all(_is_shallow(part, depth - 1) for part in value))


TEXTS = (
    "architecture",
    "title",
    "source_domain",
    "target_domain",
    "precision",
    "licence",
    "weights_sha256",
)


def _is_whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def check_name(name: object) -> str:
    """The name itself, if it can be a file name on every system; `ModelError` otherwise."""
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        raise ModelError(
            f"{name!r:.80} cannot be a model's name: up to 64 letters, digits, '.', '_' and '-', "
            "the first a letter or digit"
        )
    return name


def card_from_json(text: object, where: str) -> ModelCard:
    """Read a card; `where` names the file in messages. Raises `ModelError`."""
    try:
        data = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where}: its model card is not JSON ({error})") from error
    if not isinstance(data, dict):
        raise ModelError(f"{where}: its model card is not a JSON object")
    version = data.get("format_version", 0)
    if not _is_whole(version, 10**9):
        raise ModelError(f"{where}: its model card has no format version")
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{where}: model format {version} is newer than this cgconvert knows ({FORMAT_VERSION}); "
            "upgrade cgconvert"
        )
    missing = [key for key in ("name", "architecture", "arguments") if key not in data]
    if missing:
        raise ModelError(f"{where}: its model card lacks {', '.join(missing)}")
    if not _is_shallow(data, DEPTH):
        raise ModelError(f"{where}: its model card is nested more than {DEPTH} deep")
    known = {f.name for f in fields(ModelCard)}
    data = {key: value for key, value in data.items() if key in known}
    if isinstance(data.get("value_range"), list):
        data["value_range"] = tuple(data["value_range"])
    try:
        return ModelCard(**data)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from error
