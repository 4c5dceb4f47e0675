"""`cgconvert preview`."""

from __future__ import annotations

from pathlib import Path

import click

from cgconvert.cli.common import engine_options, read_engine_options, stroke_option
from cgconvert.cli.status import create_progress
from cgconvert.cli.video import parse_time
from cgconvert.errors import UnavailableError, UsageError, printable
from cgconvert.host.interrupts import deferring
from cgconvert.host.threads import wait_without_spinning

LEAST_EDGE, MOST_EDGE = 64, 4096


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--strengths {text!r} is no list of numbers from 0 to 1, such as 0.5,1") from None


@click.command(short_help="Show frames or pictures in several looks, on one sheet.")
@click.argument("sources", metavar="IN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="PNG",
    type=click.Path(path_type=Path),
    help="The sheet.  [default: NAME.preview.png beside the first IN]",
)
@click.option(
    "--models",
    default="all",
    show_default=True,
    metavar="all|A,B",
    help="The looks, by names of models or paths of their files.",
)
@click.option(
    "--at", metavar="TIMES", help="Times of a video, such as 0:10,0:30.  [default: three, evenly spaced]"
)
@click.option(
    "--strengths",
    default="1",
    show_default=True,
    metavar="N,N",
    help="How strongly each look shows, from 0 to 1, such as 0.5,1.",
)
@click.option("--keep-colours", is_flag=True, help="Keep the source's colours.")
@stroke_option
@click.option("--work-size", metavar="WxH|720p|0.5x", help="Size at which the network sees a picture.")
@engine_options
@click.option(
    "--edge",
    type=click.IntRange(LEAST_EDGE, MOST_EDGE),
    default=480,
    show_default=True,
    help="The longer edge of each picture on the sheet, in pixels.",
)
@click.option("--overwrite", is_flag=True, help="Replace the sheet if it exists.")
@click.option("--show", is_flag=True, help="Show the sheet in the terminal too. Needs cgconvert[preview].")
@click.option("--quiet", is_flag=True, help="Print errors only.")
def preview(
    sources: tuple[Path, ...],
    output: Path | None,
    models: str,
    at: str | None,
    strengths: str,
    keep_colours: bool,
    stroke: str | None,
    work_size: str | None,
    device: str,
    engine: str,
    precision: str,
    batch: str,
    edge: int,
    overwrite: bool,
    show: bool,
    quiet: bool,
) -> None:
    """Show IN in every look: a sheet with a row for each frame or picture and a column for each look.

    IN is a video, a picture or a folder of pictures. The network sees each as in a conversion with the same
    options. Of a folder six pictures are shown.
    """
    times = [parse_time(part, "--at") or 0.0 for part in at.split(",")] if at else []
    choice = read_engine_options(device, engine, precision, batch)
    if show and not _can_show():
        raise UnavailableError("--show needs pip install 'cgconvert[preview]'")
    wait_without_spinning()  # before the imports below bring torch in
    with deferring():
        from cgconvert.host.files import write_atomically
        from cgconvert.media.picture.codec import Picture, encode_picture
        from cgconvert.preview.choice import chosen_models
        from cgconvert.preview.looks import Looks
        from cgconvert.preview.sheet import SheetOptions, make_sheet
        from cgconvert.preview.shots import read_shots
        from cgconvert.scale.files import expanded

    found = expanded(sources)
    first = found[0].absolute()
    target = output or first.with_name(f"{first.name if first.is_dir() else first.stem}.preview.png")
    if target.suffix.lower() != ".png":
        raise UsageError(f"--output {target}: a sheet is a PNG file, so its name ends in .png")
    options = SheetOptions(chosen_models(models), _numbers(strengths), keep_colours, stroke, work_size, edge)
    shots = read_shots(found, times)
    progress = create_progress(quiet)
    looks = Looks(choice, progress)
    try:
        title = printable(first.name) if len(found) == 1 else f"{len(found)} files"
        sheet = make_sheet(title, shots, options, looks, progress)
    finally:
        looks.close()
    write_atomically(target, encode_picture(Picture(sheet), "png")[0], overwrite)
    if show:
        _show(target)
    if not quiet:
        click.echo(f"Preview of {len(shots)} x {len(options.models)} -> {target}")


def _can_show() -> bool:
    from importlib.util import find_spec

    return find_spec("textual_image") is not None


def _show(path: Path) -> None:
    """Show a picture by what the terminal has: Kitty's protocol, Sixel, or else blocks of colour."""
    from rich.console import Console
    from textual_image.renderable import Image

    Console().print(Image(path, width="100%", height="auto"))
