"""`cgconvert models export` writes a model in the format of other software."""

from __future__ import annotations

import math
from pathlib import Path

import click

from cgconvert.cli.common import complete_model
from cgconvert.host.interrupts import deferring
from cgconvert.options import EXPORT_SUFFIXES


@click.command(name="export", short_help="Write a model as ONNX, TorchScript or an original checkpoint.")
@click.argument("name", shell_complete=complete_model)
@click.option(
    "--format", "kind", type=click.Choice(list(EXPORT_SUFFIXES)), required=True, help="Format of FILE."
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Default: NAME with the format's suffix, in the current folder.",
)
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
def export(name: str, kind: str, output: Path | None, overwrite: bool) -> None:
    """Write the model NAME in a format that other programs read.

    Before FILE appears it is loaded and its results are compared with the model's. ONNX and TorchScript take
    float32 images (N, C, H, W) in [-1, 1], for any N and any H and W that are multiples of the model's
    size multiple (`cgconvert models info`). pth is a checkpoint for the original CycleGAN and pix2pix code.
    """
    with deferring():
        from cgconvert.engines.exporting import export_model
        from cgconvert.models.loading import load_model

    model = load_model(name)
    target = output or Path(f"{model.card.name}{EXPORT_SUFFIXES[kind]}")
    decibels = export_model(model, kind, target, overwrite)
    equal = "equal to the model" if math.isinf(decibels) else f"{decibels:.0f} dB to the model"
    click.echo(f"{target}: {equal}")
