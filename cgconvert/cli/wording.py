"""Words messages of the library for the command line.

Errors and notes of the library name parameters as Python does, in backticks: `work_size`, `device="cpu"`.
A user of the command line reads the options that set them: --work-size, --device cpu.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from dataclasses import fields
from typing import Any

import click

from cgconvert.errors import CgconvertError
from cgconvert.options import EngineOptions, ImageOptions, LiveOptions, VideoOptions

_OF_FUNCTIONS = (
    "best domains frozen generator manifest minutes model name order output photos shard teacher teacher_run "
    "trust values videos"
)
"""Parameters of functions that an option of the same name sets, beside the fields of the option types."""

_TYPES = (EngineOptions, VideoOptions, ImageOptions, LiveOptions)

OPTIONS = {
    name: f"--{name.replace('_', '-')}"
    for name in (
        *(
            field.name
            for kind in (EngineOptions, VideoOptions, ImageOptions, LiveOptions)
            for field in fields(kind)
        ),
        *_OF_FUNCTIONS.split(),
    )
} | {"changes": "--set", "go_on": "--continue", "video": "--for"}
"""The option that sets each parameter that a message may name."""

_PARAMETER = re.compile(r"`(?P<name>[a-z_]+)(?:=(?P<value>[^`]+))?`")


def worded(text: str) -> str:
    """Return `text` with the options of the command line in place of Python's parameters."""
    return _PARAMETER.sub(_as_option, text)


def _as_option(match: re.Match[str]) -> str:
    option = OPTIONS.get(match["name"])
    if option is None:
        return match[0]  # another word in backticks, such as one of torch's
    value = match["value"]
    if value is None or value == "True":
        return option
    if value[0] == value[-1] and value[0] in "\"'" and len(value) > 1:
        value = shlex.quote(value[1:-1])
    return f"{option} {value}"


_as_json = False
"""Whether what is told is lines of JSON, for the whole process."""


def log_as(form: str) -> None:
    """Choose what is told from now on: lines of "text" for people, or of "json" for programs."""
    global _as_json
    _as_json = form == "json"


def logs_json() -> bool:
    """Whether what is told is lines of JSON."""
    return _as_json


def tell_event(event: str, to_error: bool = True, **facts: Any) -> None:
    """Print a line of JSON: what happened, the time in seconds since 1970, and the facts."""
    data = {"event": event, "time": round(time.time(), 3), **facts}
    click.echo(json.dumps(data), err=to_error)


def tell(text: str, event: str = "message") -> None:
    """Print a message of the library on standard error."""
    if _as_json:
        tell_event(event, text=worded(text))
    else:
        click.echo(worded(text), err=True)


def say(text: str) -> None:
    """Print on standard output what a command has done."""
    if _as_json:
        tell_event("done", to_error=False, text=worded(text))
    else:
        click.echo(worded(text))


def tell_error(error: CgconvertError) -> int:
    """Print an error in one line, and return its exit code."""
    if _as_json:
        tell_event("error", text=worded(str(error)), exit_code=error.exit_code)
    else:
        tell(f"Error: {error}")
    return error.exit_code
