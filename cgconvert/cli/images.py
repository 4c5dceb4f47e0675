"""`cgconvert dir` and `cgconvert image`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cgconvert.cli.common import (
    PlaceType,
    RunReport,
    check_report_path,
    complete_model,
    engine_options,
    look_options,
    print_failures,
    print_stale,
    read_engine_options,
    result_lines,
    scale_options,
    tile_option,
)
from cgconvert.cli.status import create_progress
from cgconvert.cli.wording import say, tell, worded
from cgconvert.errors import CgconvertError, OutputError, UsageError, printable
from cgconvert.host.interrupts import deferring
from cgconvert.host.objects import AnyPath
from cgconvert.media.picture.formats import FORMATS
from cgconvert.options import ImageOptions, VideoOptions
from cgconvert.pictures.plan import ImagePlan, plan_dir, plan_images
from cgconvert.pictures.rows import plan_rows
from cgconvert.progress import counted, seconds_as_clock
from cgconvert.scale.shards import parse_shard

if TYPE_CHECKING:
    from cgconvert.cluster.connection import ClusterOptions
    from cgconvert.pictures.result import ImagesResult
    from cgconvert.scale.results import ResultLines

_PATH = PlaceType()


def image_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that folders and files share."""
    options: list[Callable[..., Any]] = [
        click.option(
            "-m",
            "--model",
            shell_complete=complete_model,
            default="photo2monet",
            show_default=True,
            help="Name of a model (`cgconvert models list`) or path of its file.",
        ),
        look_options,
        engine_options,
        tile_option,
        click.option(
            "--format",
            "kind",
            type=click.Choice(list(FORMATS)),
            help="Format of the results. Default: that of each source.",
        ),
        click.option(
            "--quality",
            type=click.IntRange(1, 100),
            help="Quality of JPEG (default 95), WebP and AVIF (default 90; 100 is lossless).",
        ),
        click.option(
            "--pixel-limit",
            type=click.IntRange(min=1),
            default=400,
            show_default=True,
            metavar="N",
            help="The most pixels of one picture, in millions. Raise it for files that you trust.",
        ),
        click.option("--overwrite", is_flag=True, help="Convert again what already has a result."),
        click.option("--dry-run", is_flag=True, help="Print what would be done and stop."),
        click.option(
            "--report",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="Write a JSON report of the run.",
        ),
        click.option("--quiet", is_flag=True, help="Print errors only."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@click.command(name="dir", short_help="Convert a folder of pictures with all its subfolders.")
@click.argument("folder", metavar="DIR", required=False, type=_PATH)
@click.option("-o", "--output", metavar="OUT", type=_PATH, help="Default: DIR.MODEL beside DIR.")
@image_options
@click.option("--videos", is_flag=True, help="Convert the videos in DIR too, as `cgconvert video` does.")
@scale_options
@click.option(
    "--watch", is_flag=True, help="Wait for more pictures in DIR and convert them too, until Ctrl-C."
)
def directory(
    dry_run: bool, report: Path | None, quiet: bool, videos: bool, results: Path | None, **asked: Any
) -> int:
    """Convert every picture in the folder DIR and its subfolders to another look.

    JPEG, PNG, WebP, GIF, TIFF, AVIF and BMP files are read, and OUT has the same subfolders as DIR.
    Animations are converted frame by frame, and TIFFs page by page. Pictures that already have a result are
    skipped, so the same command continues a run that was interrupted.
    """
    plan = plan_directory(videos=videos, **asked)
    with result_lines(None if dry_run else results) as lines:
        if not (videos and plan.videos):
            return run_pictures(plan, dry_run, RunReport(report), quiet, lines)
        parts = RunReport(report, ("pictures", "videos"))
        code = run_pictures(plan, dry_run, parts, quiet, lines) if plan.found else 0
        return max(code, _run_videos(plan, dry_run, parts, quiet, lines))


def plan_directory(
    folder: AnyPath | None,
    output: AnyPath | None,
    model: str,
    strength: float,
    keep_colours: bool,
    stroke: str | None,
    work_size: str | None,
    device: str,
    engine: str,
    precision: str,
    batch: str,
    tile: str,
    kind: str | None,
    quality: int | None,
    pixel_limit: int,
    overwrite: bool,
    shard: str | None,
    manifest: Path | None,
    videos: bool = False,
    watch: bool = False,
) -> ImagePlan:
    """Plan what the options of a folder ask for. Raises as `plan_dir`."""
    options = ImageOptions(
        kind, quality, overwrite, watch, work_size, stroke, strength, keep_colours, pixel_limit
    )
    choice = read_engine_options(device, engine, precision, batch, tile)
    if watch and videos:
        raise UsageError("--watch is for pictures alone: leave out --videos")
    if (folder is None) == (manifest is None):
        raise click.UsageError(
            "Missing argument 'DIR'." if folder is None else "Give DIR or --manifest, not both."
        )
    part = parse_shard(shard)
    if manifest is not None:
        if videos:
            raise UsageError("--videos is for folders: `cgconvert video --manifest` takes a list of videos")
        return plan_rows(manifest, output, model, options, choice, part)
    assert folder is not None
    return plan_dir(folder, output, model, options, choice, part, videos)


@click.command(name="image", short_help="Convert single pictures.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_PATH)
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    type=_PATH,
    help="A folder, or for one FILE a file. Default: NAME.MODEL.EXT beside each FILE.",
)
@image_options
def image(
    files: tuple[AnyPath, ...],
    output: AnyPath | None,
    model: str,
    strength: float,
    keep_colours: bool,
    stroke: str | None,
    work_size: str | None,
    device: str,
    engine: str,
    precision: str,
    batch: str,
    tile: str,
    kind: str | None,
    quality: int | None,
    pixel_limit: int,
    overwrite: bool,
    dry_run: bool,
    report: Path | None,
    quiet: bool,
) -> int:
    """Convert single pictures to another look: JPEG, PNG, WebP, GIF, TIFF, AVIF or BMP.

    Animations are converted frame by frame, and TIFFs page by page.
    """
    options = ImageOptions(
        kind, quality, overwrite, False, work_size, stroke, strength, keep_colours, pixel_limit
    )
    choice = read_engine_options(device, engine, precision, batch, tile)
    return run_pictures(plan_images(files, output, model, options, choice), dry_run, RunReport(report), quiet)


def _run_videos(
    plan: ImagePlan, dry_run: bool, report: RunReport, quiet: bool, lines: ResultLines | None
) -> int:
    """Convert the videos in the folder of a plan as its pictures are converted."""
    with deferring():
        from cgconvert.cli.video import run_several
        from cgconvert.video.folder import plan_videos

    assert plan.folder is not None
    own = plan.options
    options = VideoOptions(
        overwrite=own.overwrite,
        work_size=own.work_size,
        stroke=own.stroke,
        strength=own.strength,
        keep_colours=own.keep_colours,
    )
    videos = plan_videos([plan.folder], plan.output, plan.model, options, plan.engine, plan.shard)
    return run_several(videos, dry_run, report, quiet, lines)


def run_pictures(
    plan: ImagePlan,
    dry_run: bool,
    report: RunReport,
    quiet: bool,
    lines: ResultLines | None = None,
    cluster: ClusterOptions | None = None,
) -> int:
    """Carry a plan out, here or on a cluster, and return the exit code, which is 1 if a picture failed."""
    if dry_run:
        for line in plan.describe():
            click.echo(worded(line))
        return 0
    check_report_path(report.path, plan.model)
    with deferring():
        from cgconvert.cluster.images import run_images_on_cluster
        from cgconvert.pictures.pipeline import run_images
        from cgconvert.pictures.result import Tally

    tally, progress = Tally(plan, lines), create_progress(quiet)
    try:
        if cluster is None:
            result = run_images(plan, progress, tally)
        else:
            result = run_images_on_cluster(plan, cluster, progress, tally)
    except CgconvertError:
        try:
            report.save("pictures", tally.result().to_dict(), "the run has stopped")
        except OutputError as error:  # what stopped the run comes after it, and decides the exit code
            tell(f"Note: {error}")
        raise
    _print_outcome(plan, result, quiet)
    report.save("pictures", result.to_dict(), "the run is complete")
    return 1 if result.failed else 0


def _print_outcome(plan: ImagePlan, result: ImagesResult, quiet: bool) -> None:
    print_failures(result.failures)
    if quiet:
        return
    for note in plan.notes:
        tell(f"Note: {note}")
    for part in result.dropped:
        count = counted(part.images, "picture") if part.images > 1 else printable(part.first)
        tell(f"Note: not kept in {count}: {part.what}")
    print_stale(result.stale)
    say(summary(result))


def summary(result: ImagesResult) -> str:
    """Say in one line what was done, how fast, and where it is."""
    if not result.converted and not result.failed and not result.skipped:
        return "Nothing to do: no picture is in this shard"
    if not result.converted and not result.failed:
        there = "1 picture is" if result.skipped == 1 else f"all {result.skipped} pictures are"
        return f"Nothing to do: {there} converted already -> {result.output}"
    if not result.converted:
        skipped = f", {result.skipped} skipped" if result.skipped else ""
        return f"Converted no picture: {result.failed} failed{skipped}"
    counts = [(result.failed, "failed"), (result.skipped, "skipped")]
    aside = ", ".join(f"{count} {what}" for count, what in counts if count)
    what, unit = counted(result.converted, "picture"), "pictures"
    if result.frames != result.converted:
        what, unit = f"{what} with {counted(result.frames, 'frame')}", "frames"
    took = f"{result.seconds:.1f} s" if result.seconds < 60 else seconds_as_clock(result.seconds)
    return (
        f"Converted {what}{f' ({aside})' if aside else ''} in {took}, "
        f"{result.images_per_second:.1f} {unit}/s -> {result.output}"
    )
