"""A config file with every setting, its default and what it means, from the config's own definitions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from trainer.config import Config, permitted

WIDTH = 40


def toml_value(value: Any) -> str:
    """A plain value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        inner = ", ".join(f"{json.dumps(key)} = {toml_value(item)}" for key, item in value.items())
        return "{ " + inner + " }" if inner else "{}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return repr(value)


def commented_toml(config: Config) -> str:
    """The whole config as TOML text, each setting with its meaning, choices and bounds."""
    lines = ["# A training of cgconvert. Every setting is here; those not needed may be left out.", ""]
    for section in dataclasses.fields(config):
        values = getattr(config, section.name)
        lines.append(f"[{section.name}]")
        meaning = (type(values).__doc__ or "").splitlines()[0]
        lines.append(f"# {meaning}")
        for setting in dataclasses.fields(values):
            text = f"{setting.name} = {toml_value(getattr(values, setting.name))}"
            lines.append(f"{text:<{WIDTH}}  # {_about(setting)}")
        lines.append("")
    return "\n".join(lines)


def _about(setting: dataclasses.Field[Any]) -> str:
    """The meaning of a setting and the values that it may take, but for a bound that goes without saying."""
    plain = "maximum" not in setting.metadata and setting.metadata.get("minimum", 0) in (-1, 0, 1)
    limits = "" if plain and "choices" not in setting.metadata else permitted(setting).removeprefix("one of ")
    return f"{setting.metadata['help']} ({limits})" if limits else str(setting.metadata["help"])
