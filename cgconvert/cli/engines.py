"""`cgconvert compile` builds engines ahead of time; `cgconvert engines` lists and removes them."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import TYPE_CHECKING

import click

from cgconvert.cli.common import complete_model, engine_options, read_engine_options, stroke_option
from cgconvert.cli.status import create_progress
from cgconvert.errors import CgconvertError, UnavailableError, UsageError
from cgconvert.host.channels import in_worker
from cgconvert.host.interrupts import deferring
from cgconvert.models.describe import describe_bytes
from cgconvert.options import EngineOptions
from cgconvert.progress import counted
from cgconvert.sizes import check_work_size, network_size

if TYPE_CHECKING:
    from cgconvert.card import ModelCard
    from cgconvert.models.loading import Model
    from cgconvert.progress import Progress

_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")


def read_sizes(texts: tuple[str, ...]) -> list[tuple[int, int]]:
    """Return "1920x1080" as (height, width). Raises `UsageError`."""
    sizes = []
    for text in texts:
        match = _SIZE.fullmatch(text.strip().lower())
        if not match or "0" in (match[1], match[2]):
            raise UsageError(f"--size {text!r} is not of the form WIDTHxHEIGHT, for example 1920x1080")
        sizes.append((int(match[2]), int(match[1])))
    return sizes


@click.command(name="compile", short_help="Build an engine ahead of time.")
@click.option(
    "-m", "--model", required=True, shell_complete=complete_model, help="Name of a model or path of its file."
)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    required=True,
    metavar="WxH",
    help="Size of the video's frames; may be repeated.",
)
@click.option(
    "--work-size",
    metavar="WxH|720p|0.5x",
    help="Size at which the network sees a frame. Default: what the model recommends.",
)
@stroke_option
@engine_options
@click.option("--quiet", is_flag=True, help="Print errors only.")
def compile_command(
    model: str,
    sizes: tuple[str, ...],
    work_size: str | None,
    stroke: str | None,
    device: str,
    engine: str,
    precision: str,
    batch: str,
    quiet: bool,
) -> None:
    """Build the engine that `cgconvert video` will use for a video of this size, and keep it.

    The first video then starts as fast as any later one, and so does a folder of pictures of this size. If
    the model recommends a smaller work size, the engine is built for that size; with --work-size 1x it is
    built for the whole frame. `cgconvert engines list` shows what is kept.
    """
    options = read_engine_options(device, engine, precision, batch)
    wanted = read_sizes(sizes)
    check_work_size(work_size, stroke)
    if precision == "int8":
        raise UsageError("int8 is calibrated on a job's own pictures, when the job starts; nothing to build")
    with deferring():
        from cgconvert.models.loading import load_model

    loaded = load_model(model)
    progress = create_progress(quiet)
    for height, width in wanted:
        stored = width * height * 3 // 2  # 8 bits and 4:2:0, as nearly all videos are
        seen = network_size(work_size, stroke, loaded.card, (width, height), (width, height))
        told = in_worker("build", partial(_build, loaded, options, seen[::-1], stored), progress)
        if not quiet:
            click.echo(told + _why_smaller(loaded.card, seen, (width, height), work_size or stroke))


def _why_smaller(card: ModelCard, seen: tuple[int, int], size: tuple[int, int], asked: str | None) -> str:
    """Say why an engine for frames of one size is built for another, and how to change that."""
    if seen == size:
        return ""
    why = "as asked" if asked else f"as {card.name} advises; use --work-size 1x to build for all of it"
    return f" (what the network sees of {size[0]}x{size[1]}, {why})"


def _build(
    model: Model, options: EngineOptions, size: tuple[int, int], stored: int, progress: Progress
) -> str:
    """Build for one size, and return a line that says what was built.

    `stored` are the bytes of a frame outside of the network. Raises `UnavailableError`, `OutOfMemoryError`.
    """
    from cgconvert.engines.batches import OutOfMemoryError
    from cgconvert.engines.choose import candidates
    from cgconvert.engines.ready import make_ready

    failure: CgconvertError | None = None
    for candidate in candidates(model, options.device, options.engine, options.precision):
        try:
            job = make_ready(model, candidate, size, options.batch, progress, lambda count: [], stored)
        except (UnavailableError, OutOfMemoryError) as error:
            failure = failure or error
            continue
        job.close()
        what = f"{model.card.name}, {size[1]}x{size[0]}, batch {job.batch}: {candidate}"
        return (
            f"{what}, ready in {job.prepare_seconds:.1f} s"
            if job.engine.builds
            else f"{what} needs nothing built"
        )
    raise failure or UnavailableError(f"nothing here runs {model.card.name!r} as asked")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def engines() -> None:
    """List or remove the engines that were built and kept for later runs."""


@engines.command("list", short_help="List the kept engines.")
@click.option("--json", "as_json", is_flag=True, help="Print all details as JSON.")
def list_command(as_json: bool) -> None:
    """List the kept engines: when each was built, its kind, its size on disk, and what it is for."""
    from cgconvert.engines.cache import engines_folder, list_entries

    entries = list_entries()
    if as_json:
        data = [
            {
                "path": str(entry.path),
                "about": entry.about,
                "bytes": entry.size,
                "created": entry.created,
                "problem": entry.problem,
                "parts": dict(entry.parts),
            }
            for entry in entries
        ]
        click.echo(json.dumps(data, indent=2))
        return
    for entry in entries:
        kind = entry.parts.get("engine", "unreadable")
        click.echo(f"{entry.created[:16]:16}  {kind:9} {describe_bytes(entry.size):>9}  {entry.about}")
        if entry.problem:
            click.echo(f"  damaged, will be built anew: {entry.problem}", err=True)
    total = describe_bytes(sum(entry.size for entry in entries))
    click.echo(f"{counted(len(entries), 'engine')}, {total}, in {engines_folder()}")


@engines.command("clear", short_help="Remove all kept engines.")
def clear_command() -> None:
    """Remove all kept engines. They are built again when they are needed."""
    from cgconvert.engines.cache import clear

    count, freed = clear()
    click.echo(f"removed {counted(count, 'engine')}, {describe_bytes(freed)}")
