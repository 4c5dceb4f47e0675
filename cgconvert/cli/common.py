"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cgconvert.cli.wording import log_as, tell
from cgconvert.engines.cache import OFF as CACHE_OFF
from cgconvert.errors import CgconvertError, OutputError, UsageError, printable
from cgconvert.host.files import real_path
from cgconvert.host.objects import AnyPath, as_place
from cgconvert.options import PRECISIONS, EngineOptions
from cgconvert.progress import counted
from cgconvert.scale.results import ResultLines

if TYPE_CHECKING:
    from cgconvert.scale.files import Failure

SHOWN = 20
"""The most failures that are printed. The report has them all."""

Command = Callable[..., Any]


def complete_model(context: click.Context, option: click.Parameter, incomplete: str) -> list[str]:
    """Names of models that begin with what has been typed, for the completion of a shell."""
    from cgconvert.models.catalog import list_models

    try:
        return [model.name for model in list_models() if model.name.startswith(incomplete)]
    except CgconvertError:  # a shell in the middle of a line has no place for a message
        return []


def _without_cache(context: click.Context, option: click.Parameter, value: bool) -> None:
    """Set an environment variable, which processes that this one starts will see too."""
    if value:
        os.environ[CACHE_OFF] = "1"


def engine_options(function: Command) -> Command:
    """Add --device, --engine, --precision, --batch and --no-cache."""
    for option in reversed(
        [
            click.option(
                "--device",
                default="auto",
                metavar="auto|cpu|cuda[:N]|mps|xpu|gpu|all",
                help="Where the network runs. auto: a GPU if one works here, otherwise the CPU. mps: "
                "Apple's. xpu or gpu: Intel's, by torch or by OpenVINO. Several GPUs share a conversion: "
                "cuda:0,1 or all.",
            ),
            click.option(
                "--engine",
                default="auto",
                metavar="auto|NAME",
                help="What runs the network: eager, openvino, compile or tensorrt. auto: the first that "
                "is expected to be fast and works here.",
            ),
            click.option(
                "--precision",
                type=click.Choice(["auto", *PRECISIONS]),
                default="auto",
                help="Number format inside the network. auto: the fastest of the device whose loss cannot be "
                "seen (never int8).",
            ),
            click.option(
                "--batch",
                default="auto",
                metavar="auto|N",
                help="Pictures that go through the network together. auto: as many as pay and fit.",
            ),
            click.option(
                "--no-cache",
                is_flag=True,
                expose_value=False,
                callback=_without_cache,
                help="Build the engine again and do not keep it.",
            ),
        ]
    ):
        function = option(function)
    return function


stroke_option = click.option(
    "--stroke",
    metavar="fine|medium|large|N",
    help="Size of strokes. medium: the model's own. large: twice that, fine: half. N: N times the own. "
    "--work-size says the same exactly.",
)


def look_options(function: Command) -> Command:
    """Add --strength, --keep-colours, --stroke and --work-size."""
    for option in reversed(
        [
            click.option(
                "--strength",
                type=float,
                default=1.0,
                show_default=True,
                metavar="0..1",
                help="How strongly the look shows: 0 is the source, 1 the look.",
            ),
            click.option(
                "--keep-colours",
                is_flag=True,
                help="Keep the source's colours; only what is light and dark comes from the look.",
            ),
            stroke_option,
            click.option(
                "--work-size",
                metavar="WxH|720p|0.5x",
                help="Size at which the network sees a picture. Default: what the model recommends. 1x: all "
                "of it.",
            ),
        ]
    ):
        function = option(function)
    return function


tile_option = click.option(
    "--tile",
    default="auto",
    metavar="auto|off|N|fast:N",
    help="Put pictures through the network in tiles, with the same result. auto: those that do not fit into "
    "memory. N: all that are larger than N pixels a side, in tiles of that size. fast:N: likewise, but of "
    "networks with instance norms each tile takes one pass, which is not exact. auto does so where exact "
    "tiles take over three times as long.",
)
"""Adds --tile, for commands that convert."""


def check_report_path(report: Path | None, *taken: Path) -> None:
    """Raise `UsageError` for a report that would replace a source, a result or another file."""
    if report is None:
        return
    if report.exists() and report.suffix.lower() != ".json" and report.stat().st_size:
        raise UsageError(f"--report {report} exists and is no .json file: choose another name for the report")
    for path in taken:
        same = real_path(report) == real_path(path)
        if same or (report.exists() and path.exists() and report.samefile(path)):
            raise UsageError(f"--report {report} is {path} itself: choose another name for the report")


def save_report(path: Path | None, data: Mapping[str, Any], outcome: str) -> None:
    """Write the report of what is done, if one is wanted. Raises `OutputError`, which says what is there."""
    from cgconvert.video.report import write_report

    if path is None:
        return
    try:
        write_report(path, data)
    except OutputError as error:
        raise OutputError(f"{outcome}, but its report is not written: {error}") from error


def read_engine_options(
    device: str, engine: str, precision: str, batch: str, tile: str = "off"
) -> EngineOptions:
    """Return the values of `engine_options` and `tile_option` as `EngineOptions`. Raises `UsageError`."""
    if batch == "auto":
        count = None
    elif batch.isdigit() and int(batch) > 0:
        count = int(batch)
    else:
        raise UsageError(f"--batch {batch!r} is neither auto nor a whole number of at least 1")
    return EngineOptions(device, engine, precision, count, int(tile) if tile.isdecimal() else tile)


class PlaceType(click.ParamType):
    """A path, or the URL of an object: s3://, gs://, az://, https:// or file://."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> AnyPath:
        return as_place(value)


@dataclass
class RunReport:
    """The report of a run, `path` None if none is wanted. With several parts each has its name in it."""

    path: Path | None
    parts: Sequence[str] = ()
    data: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def save(self, part: str, data: Mapping[str, Any], outcome: str) -> None:
        """Write what is known by now; the rest as `save_report`."""
        self.data[part] = data
        save_report(self.path, self.data if self.parts else data, outcome)


shard_option = click.option(
    "--shard",
    metavar="I/N|auto[/N]",
    help="Convert only part I of N. auto: the task of a SLURM array or of an indexed Kubernetes job.",
)


def _choose_log(context: click.Context, option: click.Parameter, value: str) -> None:
    log_as(value)


def scale_options(function: Command) -> Command:
    """Add --shard, --manifest, --results and --log."""
    path = click.Path(path_type=Path, dir_okay=False)
    for option in reversed(
        [
            shard_option,
            click.option(
                "--manifest",
                type=path,
                metavar="FILE",
                help="Convert what FILE lists, in JSON Lines or Parquet: path, output, options in each row.",
            ),
            click.option(
                "--results",
                type=path,
                metavar="FILE",
                help="Add a line of JSON to FILE for each input that is dealt with.",
            ),
            click.option(
                "--log",
                type=click.Choice(["text", "json"]),
                default="text",
                show_default=True,
                expose_value=False,
                callback=_choose_log,
                is_eager=True,
                help="How progress, notes and errors are printed: for people, or as lines of JSON.",
            ),
        ]
    ):
        function = option(function)
    return function


@contextmanager
def result_lines(path: Path | None) -> Iterator[ResultLines | None]:
    """Open the file of --results for a run, if there is to be one. Raises `OutputError`."""
    if path is None:
        yield None
        return
    with ResultLines(path) as lines:
        yield lines


def print_failures(failures: Sequence[Failure]) -> None:
    """Print what was not converted, up to `SHOWN` of it, on standard error."""
    for failure in failures[:SHOWN]:
        tell(f"Failed: {printable(failure.file)}: {failure.reason}")
    if len(failures) > SHOWN:
        tell(f"... and {len(failures) - SHOWN} more; --report FILE lists them all")


def print_stale(count: int) -> None:
    """Say how many skipped results are older than their source."""
    if count:
        older = f"{counted(count, 'skipped result')} {'is' if count == 1 else 'are'} older"
        tell(f"Note: {older} than the source; --overwrite converts again")
