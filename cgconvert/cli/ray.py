"""`cgconvert ray`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cgconvert.cli.common import RunReport, result_lines
from cgconvert.cli.images import directory, plan_directory, run_pictures
from cgconvert.cli.video import check_sources, plan_several, run_several, video
from cgconvert.cluster.connection import ClusterOptions
from cgconvert.host.objects import AnyPath

Command = Callable[..., Any]

CLUSTER_OPTIONS = (
    click.Option(
        ["--address"],
        metavar="auto|ray://HOST:PORT",
        help="The Ray cluster. Default: RAY_ADDRESS, or this machine alone.",
    ),
    click.Option(["--workers"], type=int, metavar="N", help="Default: as many as the cluster has room for."),
    click.Option(
        ["--num-cpus-per-worker", "cpus"],
        type=float,
        default=1.0,
        show_default=True,
        metavar="N",
        help="Cores of each worker.",
    ),
    click.Option(
        ["--num-gpus-per-worker", "gpus"],
        type=float,
        metavar="N",
        help="GPUs of each worker; 0.5 lets two share one. Default: 1 if the cluster has GPUs, otherwise 0.",
    ),
)


def _on_cluster(
    name: str, command: click.Command, left_out: set[str], help: str
) -> Callable[[Command], click.Command]:
    """Make a command of another one's parameters, but for those that are `left_out`, and the cluster's."""

    def decorate(function: Command) -> click.Command:
        kept = [parameter for parameter in command.params if parameter.name not in left_out]
        return click.Command(
            name,
            params=[*kept, *CLUSTER_OPTIONS],
            callback=function,
            help=function.__doc__,
            short_help=help,
        )

    return decorate


@click.group(name="ray", short_help="Convert on many machines, with Ray.")
def ray() -> None:
    """Convert pictures or videos on the machines of a Ray cluster, or on all cores of this one.

    Every worker keeps an engine. A worker that dies costs what it was just at, which another one does again.
    Sources and results have to be reachable for all workers: on a shared file system or in a bucket.
    """


@_on_cluster("dir", directory, {"videos", "watch"}, "Convert a folder of pictures on a cluster.")
def ray_dir(
    dry_run: bool,
    report: Path | None,
    quiet: bool,
    results: Path | None,
    address: str | None,
    workers: int | None,
    cpus: float,
    gpus: float | None,
    **asked: Any,
) -> int:
    """Convert every picture in the folder DIR and its subfolders, as `cgconvert dir` does.

    The result is the same. Pictures that have a result are skipped, so the same command continues a run that
    was interrupted.
    """
    cluster = ClusterOptions(address, workers, cpus, gpus)
    plan = plan_directory(**asked)
    with result_lines(None if dry_run else results) as lines:
        return run_pictures(plan, dry_run, RunReport(report), quiet, lines, cluster)


@_on_cluster("video", video, {"estimate"}, "Convert videos on a cluster.")
def ray_video(
    sources: tuple[AnyPath, ...],
    output: AnyPath | None,
    shard: str | None,
    manifest: Path | None,
    results: Path | None,
    dry_run: bool,
    report: Path | None,
    quiet: bool,
    address: str | None,
    workers: int | None,
    cpus: float,
    gpus: float | None,
    **asked: Any,
) -> int:
    """Convert the videos IN, which are files, folders and patterns, as `cgconvert video` does.

    Each goes to a worker, and the result is the same. Videos that have a result are skipped, and one that was
    interrupted is continued.
    """
    cluster = ClusterOptions(address, workers, cpus, gpus)
    check_sources(sources, manifest)
    plan = plan_several(sources, output, shard, manifest, **asked)
    with result_lines(None if dry_run else results) as lines:
        return run_several(plan, dry_run, RunReport(report), quiet, lines, cluster)


ray.add_command(ray_dir)
ray.add_command(ray_video)
