"""A file in every output folder that says how results are made, so that others do not pass for finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cgconvert.card import ModelCard
from cgconvert.errors import InputError, OutputError, printable
from cgconvert.host.files import write_atomically
from cgconvert.host.objects import AnyPath, ObjectPath
from cgconvert.options import ImageOptions, VideoOptions
from cgconvert.sizes import stroke_factor

MARKER = ".cgconvert.json"


def look_of(options: ImageOptions | VideoOptions) -> dict[str, Any]:
    """What besides the model decides on the look of results, as plain data."""
    return {
        "strength": options.strength,
        "keep_colours": options.keep_colours,
        "work_size": options.work_size,
        "stroke": None if options.stroke is None else stroke_factor(options.stroke),
    }


def check_marker(output: AnyPath, card: ModelCard, look: Mapping[str, Any]) -> None:
    """Raise `OutputError` if the output folder holds results that were made otherwise.

    `look` is what besides the model decides on results, as plain data.
    """
    try:
        made = json.loads(_read(output))
        name, weights = str(made["model"]), str(made["weights_sha256"])
        made_look = made.get("look", look)
    except (OSError, InputError, ValueError, KeyError, TypeError, AttributeError):
        return
    if name != card.name:
        what = f"model {name}"
    elif weights != card.weights_sha256:
        what = f"another version of {name}"
    elif made_look != look:
        what = f"{name} with another look ({_differing(made_look, look)})"
    else:
        return
    raise OutputError(
        f"{printable(output)} holds results of {what}: choose another `output`, "
        "or `overwrite` to replace them"
    )


def _differing(before: object, now: Mapping[str, Any]) -> str:
    """Say which settings results were made with that are others now."""
    if not isinstance(before, dict):
        return "unknown"
    return ", ".join(
        f"{key.replace('_', ' ')} {before.get(key)}" for key in now if before.get(key) != now[key]
    )


def _read(output: AnyPath) -> bytes:
    """Raises `OSError` or `InputError`."""
    if isinstance(output, ObjectPath):
        return (output / MARKER).read()
    return (output / MARKER).read_bytes()


def write_marker(output: AnyPath, card: ModelCard, look: Mapping[str, Any]) -> None:
    """Note in the output folder how what is in it is made. Raises `OutputError`.

    What says the same already stays, so that runs that join others do not wait for each other.
    """
    made = {"model": card.name, "weights_sha256": card.weights_sha256, "look": look}
    data = (json.dumps(made) + "\n").encode()
    try:
        if _read(output) == data:
            return
    except (OSError, InputError):
        pass
    write_atomically(output / MARKER, data, wait=True)  # several runs may begin at the same moment
