"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from cgconvert.errors import UsageError
from cgconvert.options import EngineOptions

Command = Callable[..., Any]


def engine_options(function: Command) -> Command:
    """Add --device, --engine, --precision and --batch."""
    for option in reversed(
        [
            click.option(
                "--device", default="auto", metavar="auto|cpu|cuda[:N]", help="Where the network runs."
            ),
            click.option(
                "--engine", default="auto", metavar="NAME", help="What runs it: auto, or one by name."
            ),
            click.option(
                "--precision",
                type=click.Choice(["auto", "fp32", "fp16", "bf16", "int8"]),
                default="auto",
                help="Arithmetic inside the network; auto takes the fastest that the device has.",
            ),
            click.option(
                "--batch", default="auto", metavar="auto|N", help="Pictures that go through together."
            ),
        ]
    ):
        function = option(function)
    return function


def read_engine_options(device: str, engine: str, precision: str, batch: str) -> EngineOptions:
    """The values of `engine_options` as a type. Raises `UsageError`."""
    if batch == "auto":
        count = None
    elif batch.isdigit() and int(batch) > 0:
        count = int(batch)
    else:
        raise UsageError(f"--batch {batch!r} is neither auto nor a whole number of at least 1")
    return EngineOptions(device, engine, precision, count)
