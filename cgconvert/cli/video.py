"""`cgconvert video`."""

from __future__ import annotations

import re
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
    save_report,
    scale_options,
    tile_option,
)
from cgconvert.cli.status import create_progress
from cgconvert.cli.wording import say, tell, worded
from cgconvert.errors import CgconvertError, InputError, OutputError, UsageError, printable
from cgconvert.host.interrupts import deferring
from cgconvert.host.objects import AnyPath, ObjectPath
from cgconvert.host.threads import wait_without_spinning
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.progress import counted, seconds_as_clock, size_in_words
from cgconvert.scale.shards import parse_shard
from cgconvert.video.steadiness import parse_steady

if TYPE_CHECKING:
    from cgconvert.cluster.connection import ClusterOptions
    from cgconvert.engines.kept import KeptEngine
    from cgconvert.scale.results import ResultLines
    from cgconvert.video.estimate import Estimate
    from cgconvert.video.folder import VideosPlan
    from cgconvert.video.plan import VideoPlan
    from cgconvert.video.report import VideoReport
    from cgconvert.video.series import VideosResult

_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)")


def parse_time(text: str | None, option: str) -> float | None:
    """Return "12.5", "1:30" or "1:02:03.5" in seconds. Raises `UsageError`."""
    if text is None:
        return None
    match = _CLOCK.fullmatch(text.strip())
    if not match:
        raise UsageError(
            f"{option} {text!r} is not a time: use seconds (12.5) or hours:minutes:seconds (1:02:03)"
        )
    hours, minutes, seconds = match.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)


@click.command(short_help="Convert videos; sound, subtitles and timestamps are kept.")
@click.argument("sources", metavar="IN...", nargs=-1, type=PlaceType())
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    type=PlaceType(),
    help="A file, or a folder for several. Default: NAME.MODEL.EXT beside a file, DIR.MODEL beside a folder.",
)
@click.option(
    "-m",
    "--model",
    shell_complete=complete_model,
    default="photo2monet",
    show_default=True,
    help="Name of a model (`cgconvert models list`) or path of its file.",
)
@look_options
@engine_options
@tile_option
@click.option(
    "--codec",
    metavar="NAME",
    help="h264, h265, av1, vp9, prores, ffv1, or on an NVIDIA GPU h264_nvenc, hevc_nvenc, av1_nvenc. "
    "Default: the usual one of the container; on an NVIDIA GPU h264_nvenc instead of h264 if it works "
    "and keeps as much.",
)
@click.option(
    "--crf",
    type=float,
    metavar="Q",
    help="Quality on the encoder's own scale; lower is better and larger. Default: hard to tell from the "
    "source.",
)
@click.option("--preset", metavar="NAME", help="Speed against size, by the encoder's own names.")
@click.option(
    "--encoders",
    type=int,
    metavar="N",
    help="Segments that are encoded at once, with the same result. Default: 1, or with the network on a GPU "
    "one for each 8 cores, at most 4.",
)
@click.option(
    "--pix-fmt", metavar="NAME", help="Pixel format of the result. Default: the nearest to the source's."
)
@click.option(
    "--decoder",
    type=click.Choice(["auto", "cpu", "nvdec"]),
    default="auto",
    show_default=True,
    help="Where IN is decoded. nvdec: on the NVIDIA GPU that runs the network.",
)
@click.option(
    "--deinterlace",
    type=click.Choice(["auto", "double", "off", "refuse"]),
    default="auto",
    show_default=True,
    help="How an interlaced video is converted. auto: one picture of each frame. double: one of each field "
    "(50i to 50p). off: both fields in each picture. refuse: stop.",
)
@click.option(
    "--hdr",
    type=click.Choice(["tonemap", "keep", "refuse"]),
    default="tonemap",
    show_default=True,
    help="How a video of high dynamic range (PQ, HLG) is converted. tonemap: to SDR. keep: the result is "
    "expanded to HDR again. refuse: stop.",
)
@click.option("--size", metavar="WxH|720p|0.5x", help="Size of the result. Default: the source's.")
@click.option("--start", metavar="TIME", help="Where to begin, in seconds or h:m:s.")
@click.option("--end", metavar="TIME", help="Where to stop.")
@click.option(
    "--compare",
    type=click.Choice(["side", "split"]),
    help="Show source and result in one video: side by side, or half of each.",
)
@click.option(
    "--steady",
    default="auto",
    show_default=True,
    metavar="off|auto|0..1",
    help="Let the result change only where IN does, so that strokes do not flicker: 0 is off, 1 the most.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Keep finished segments beside OUT until it is complete, so that the same command continues an "
    "interrupted run. --no-resume needs half the disk space.",
)
@click.option("--restart", is_flag=True, help="Begin again instead of continuing an interrupted run.")
@click.option("--strict", is_flag=True, help="Stop at the first damage in IN, or if a stream cannot be kept.")
@scale_options
@click.option("--dry-run", is_flag=True, help="Print what would be done and stop.")
@click.option(
    "--estimate",
    is_flag=True,
    help="Convert a few frames, print what all would take in time, disk and memory, and stop.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a JSON report of the run.",
)
@click.option("--quiet", is_flag=True, help="Print errors only.")
def video(
    sources: tuple[AnyPath, ...],
    output: AnyPath | None,
    shard: str | None,
    manifest: Path | None,
    results: Path | None,
    dry_run: bool,
    estimate: bool,
    report: Path | None,
    quiet: bool,
    **asked: Any,
) -> int:
    """Convert the video IN to another look, or each of several files, folders and patterns.

    Every frame, every timestamp, sound, subtitles and chapters are kept. The result appears at OUT when it
    is complete, and not before. The tree of a folder is mirrored in OUT. Of several videos, those that have
    a result are skipped, and one that fails does not stop the others.
    """
    with deferring():
        from cgconvert.video.folder import only_video

    check_sources(sources, manifest)
    only = only_video(sources, output) if parse_shard(shard) is None and results is None else None
    if only is not None:
        assert not isinstance(output, ObjectPath)
        model, options, engine = read_video_options(**asked)
        _run(only, output, model, options, engine, dry_run, estimate, report, quiet)
        return 0
    plan = plan_several(sources, output, shard, manifest, **asked)
    if estimate and not dry_run:
        return _estimate_several(plan, quiet)
    with result_lines(None if dry_run else results) as lines:
        return run_several(plan, dry_run, RunReport(report), quiet, lines)


def check_sources(sources: tuple[AnyPath, ...], manifest: Path | None) -> None:
    """Raise `click.UsageError` unless there are either sources or a manifest."""
    if bool(sources) == (manifest is not None):
        raise click.UsageError(
            "Missing argument 'IN...'." if not sources else "Give IN or --manifest, not both."
        )


def plan_several(
    sources: tuple[AnyPath, ...],
    output: AnyPath | None,
    shard: str | None,
    manifest: Path | None,
    **asked: Any,
) -> VideosPlan:
    """Plan several videos by the options of the command line. Raises as `plan_videos`."""
    with deferring():
        from cgconvert.video.folder import plan_video_rows, plan_videos

    model, options, engine = read_video_options(**asked)
    part = parse_shard(shard)
    if manifest is not None:
        return plan_video_rows(manifest, output, model, options, engine, part)
    return plan_videos(sources, output, model, options, engine, part)


def read_video_options(
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
    codec: str | None,
    crf: float | None,
    preset: str | None,
    encoders: int | None,
    pix_fmt: str | None,
    decoder: str,
    deinterlace: str,
    hdr: str,
    size: str | None,
    start: str | None,
    end: str | None,
    compare: str | None,
    steady: str,
    overwrite: bool,
    resume: bool,
    restart: bool,
    strict: bool,
) -> tuple[str, VideoOptions, EngineOptions]:
    """Return the model and what is asked of results and of the engine. Raises `UsageError`."""
    options = VideoOptions(
        codec=codec,
        crf=crf,
        preset=preset,
        pix_fmt=pix_fmt,
        size=size,
        work_size=work_size,
        stroke=stroke,
        strength=strength,
        keep_colours=keep_colours,
        start=parse_time(start, "--start"),
        end=parse_time(end, "--end"),
        compare=compare,
        overwrite=overwrite,
        resume=resume,
        restart=restart,
        strict=strict,
        decoder=decoder,
        deinterlace=deinterlace,
        hdr=hdr,
        encoders=encoders,
        steady=parse_steady(steady),
    )
    return model, options, read_engine_options(device, engine, precision, batch, tile)


def _run(
    source: Path,
    output: Path | None,
    model: str,
    options: VideoOptions,
    engine: EngineOptions,
    dry_run: bool,
    estimate: bool,
    report: Path | None,
    quiet: bool,
) -> None:
    from cgconvert.video.plan import plan_video

    plan = plan_video(source, output, model, options, engine)
    check_report_path(report, plan.source, plan.output, plan.model)
    if dry_run:
        click.echo(worded("\n".join(plan.describe())))
        return
    if estimate:
        click.echo(_estimate(plan, quiet).describe())
        return
    convert(plan, report, quiet)


def _estimate(plan: VideoPlan, quiet: bool, engines: KeptEngine | None = None) -> Estimate:
    """Measure a video on a few of its frames."""
    wait_without_spinning()  # before the imports below bring torch in
    with deferring():
        from cgconvert.video.trial import estimate_video

    progress = create_progress(quiet)
    try:
        return estimate_video(plan, progress, engines)
    finally:
        progress.finish()


def _estimate_several(plan: VideosPlan, quiet: bool) -> int:
    """Print an estimate for each video that has no result yet, and for all; 1 if one cannot be estimated."""
    wait_without_spinning()
    with deferring():
        from cgconvert.engines.kept import KeptEngine

    code, seconds, size, count = 0, 0.0, 0, 0
    with KeptEngine() as engines:
        for job in plan.jobs:
            if job.finished_as(plan.options) is not None:
                continue
            try:
                found = _estimate(plan.plan(job), quiet, engines)
            except (InputError, UsageError) as error:
                tell(f"Failed: {error}")
                code = 1
                continue
            click.echo(f"{printable(job.source.name)}: {found.describe()}")
            seconds, count = seconds + found.seconds, count + 1
            size += found.result_bytes or 0
    total = f"about {seconds_as_clock(seconds)}, results of about {size_in_words(size)}"
    click.echo(f"{counted(count, 'video')}: {total}" if count else "Nothing to do")
    return code


def convert(plan: VideoPlan, report: Path | None, quiet: bool) -> None:
    """Carry out a plan and say how it went."""
    wait_without_spinning()  # before the imports below bring torch in
    with deferring():
        from cgconvert.video.pipeline import run_video

    if not quiet:
        for warning in plan.warnings:  # before the work: an hour later it is too late to choose otherwise
            tell(f"Note: {warning}")
    result = run_video(plan, create_progress(quiet))
    if not quiet:
        for warning in result.warnings[len(plan.warnings) :]:
            tell(f"Note: {warning}")
        say(summary(result))
    save_report(report, result.to_dict(), f"{result.output} is complete")


def summary(result: VideoReport) -> str:
    """Say in one line what was done, how fast, and where it is."""
    kept = sum(stream["action"] == "copied" for stream in result.streams)
    copied = f", {kept} other stream{'s' * (kept != 1)} kept" if kept else ""
    return (
        f"Converted {result.frames_out} frames in {seconds_as_clock(result.seconds)} "
        f"({result.frames_per_second:.1f} frames/s, busiest: {result.busiest}){copied} -> {result.output}"
    )


def run_several(
    plan: VideosPlan,
    dry_run: bool,
    report: RunReport,
    quiet: bool,
    lines: ResultLines | None = None,
    cluster: ClusterOptions | None = None,
) -> int:
    """Carry out a plan of several videos, here or on a cluster.

    Returns the exit code, which is 1 if one failed.
    """
    if dry_run:
        for line in plan.describe():
            click.echo(worded(line))
        return 0
    check_report_path(
        report.path, plan.model, *(job.source for job in plan.jobs if isinstance(job.source, Path))
    )
    wait_without_spinning()  # before the imports below bring torch in
    with deferring():
        from cgconvert.cluster.videos import run_videos_on_cluster
        from cgconvert.video.series import VideosTally, run_videos

    tally, progress = VideosTally(plan, lines), create_progress(quiet)
    try:
        if cluster is None:
            result = run_videos(plan, progress, tally)
        else:
            result = run_videos_on_cluster(plan, cluster, progress, tally)
    except CgconvertError:
        try:
            report.save("videos", tally.result().to_dict(), "the run has stopped")
        except OutputError as error:  # what stopped the run comes after it, and decides the exit code
            tell(f"Note: {error}")
        raise
    print_failures(result.failures)
    if not quiet:
        for note in plan.notes:
            tell(f"Note: {note}")
        print_stale(result.stale)
        if plan.jobs or result.failed:
            say(summary_of_several(result))
        else:
            say(f"Nothing to do: none of the {len(plan.sources)} videos is in shard {plan.shard}")
    report.save("videos", result.to_dict(), "the run is complete")
    return 1 if result.failed else 0


def summary_of_several(result: VideosResult) -> str:
    """Say in one line what was done, how fast, and where it is."""
    if not result.converted and not result.failed:
        return (
            f"Nothing to do: all {counted(result.skipped, 'video')} are converted already -> {result.output}"
        )
    if not result.converted:
        skipped = f", {result.skipped} skipped" if result.skipped else ""
        return f"Converted no video: {result.failed} failed{skipped}"
    counts = [(result.failed, "failed"), (result.skipped, "skipped")]
    aside = ", ".join(f"{count} {what}" for count, what in counts if count)
    return (
        f"Converted {counted(result.converted, 'video')}{f' ({aside})' if aside else ''} with "
        f"{counted(result.frames, 'frame')} in {seconds_as_clock(result.seconds)} -> {result.output}"
    )
