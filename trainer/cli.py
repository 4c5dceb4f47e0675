"""The commands of the trainer: `cgconvert train ...`, or `python -m trainer ...`. No torch until one runs."""

from __future__ import annotations

import json
import logging
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cgconvert.cli import run as run_command
from cgconvert.errors import UsageError
from cgconvert.host.files import real_path

if TYPE_CHECKING:
    from trainer.metrics.evaluate import Table

ABLATION_HELP = "Train with some losses only, as in the papers' ablation tables: cycle-alone, gan-alone ..."
FOLDER = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quiet", is_flag=True, help="Print warnings and errors only.")
def train(quiet: bool) -> None:
    """Train generators on two folders of pictures, measure and export them."""
    logger = logging.getLogger("trainer")
    logger.handlers.clear()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False


def parse_settings(settings: tuple[str, ...]) -> dict[str, Any]:
    """`SECTION.KEY=VALUE` with the value as TOML, or as a plain word."""
    changes = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: write SECTION.KEY=VALUE")
        try:
            changes[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            changes[key.strip()] = value.strip()
    return changes


def _setting_option(help: str) -> Callable[[Any], Any]:
    return click.option("--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help=help)


written_setting = _setting_option("A setting to write into RUN/config.toml; may be repeated.")
passing_setting = _setting_option(
    "Change a setting for this start only; lasting changes belong in RUN/config.toml. May be repeated."
)


@train.command(short_help="Check the pictures and write a config.")
@click.argument("run", type=FOLDER)
@click.option("--a", help="Pictures of domain A: a folder or a video.")
@click.option("--b", help="Pictures of domain B: a folder or a video.")
@click.option("--pairs", help="For pix2pix: a folder of pictures with A on the left and B on the right.")
@click.option("--method", default=None, help="cyclegan (default), one_sided, cut, pix2pix, distill or gan.")
@click.option("--recipe", help="Start from the settings of a recipe: a name or a TOML file.")
@click.option("--labels", is_flag=True, help="For gan: the folders in B are labels.")
@written_setting
@click.option("--overwrite", is_flag=True, help="Replace an existing config.")
def init(
    run: Path,
    a: str | None,
    b: str | None,
    pairs: str | None,
    method: str | None,
    recipe: str | None,
    labels: bool,
    settings: tuple[str, ...],
    overwrite: bool,
) -> None:
    """Check the pictures and make the folder RUN with a config.toml that explains every setting."""
    from trainer.runs.setup import init_run

    if pairs and (a or b):
        raise UsageError("give --pairs, or --a and --b: pictures side by side hold both domains")
    changes = parse_settings(settings)
    # Given as seen from here; the config may lie anywhere.
    places = {"data.a": a, "data.b": b, "data.pairs": pairs}
    changes |= {key: str(real_path(Path(value).expanduser())) for key, value in places.items() if value}
    if labels:
        from trainer.runs.setup import label_names

        changes["data.labels"] = label_names(str(changes.get("data.b", "")))
    if method:
        changes["run.method"] = method
    elif pairs:
        changes["run.method"] = "pix2pix"
    for line in init_run(run, changes, recipe, overwrite):
        click.echo(line)


@train.command(short_help="Run a training.")
@click.argument("run", type=FOLDER)
@click.option("--ablation", help=ABLATION_HELP)
@passing_setting
@click.option("--resume", is_flag=True, help="Continue from the checkpoint if there is one.")
def run(run: Path, ablation: str | None, settings: tuple[str, ...], resume: bool) -> None:
    """Run the training in the folder RUN, which `init` has made."""
    from trainer.runs.start import start
    from trainer.storage.folder import RunFolder

    folder = RunFolder(run)
    changes = parse_settings(settings) | ({"loss.ablation": ablation} if ablation else {})
    start(folder, changes, resume=resume and folder.has(folder.checkpoint))


@train.command(short_help="Continue a training.")
@click.argument("run", type=FOLDER)
@passing_setting
def resume(run: Path, settings: tuple[str, ...]) -> None:
    """Continue the training in RUN exactly where its last checkpoint was written."""
    from trainer.runs.start import start
    from trainer.storage.folder import RunFolder

    start(RunFolder(run), parse_settings(settings), resume=True)


@train.command(short_help="Write a model file.")
@click.argument("run", type=FOLDER)
@click.argument("model", type=FOLDER)
@click.option("--generator", default="", help="gen_ab or gen_ba, if the run has both.")
@click.option("--best", is_flag=True, help="Export the checkpoint with the best metrics, not the last.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16"]),
    default="fp16",
    show_default=True,
    help="Number format of the weights in MODEL.",
)
@click.option(
    "--calibrate",
    is_flag=True,
    help="Adjust the last layer so that results have the mean and spread of the target's colours.",
)
@click.option(
    "--average",
    type=FOLDER,
    multiple=True,
    metavar="CHECKPOINT",
    help="Export the mean of the weights of this and another checkpoint of the run; may be repeated.",
)
@click.option(
    "--average-share",
    type=click.FloatRange(0, 1),
    help="Weight of the other checkpoints in the mean. Default: all count the same.",
)
@click.option("--title", default="", help="A one-line description of the model.")
@click.option("--source-domain", default="", help="What it converts, for example photo.")
@click.option("--target-domain", default="", help="What it converts to, for example monet.")
@click.option("--licence", default="unknown", help="Licence of the weights.")
@click.option("--work-size", type=click.IntRange(16), help="Recommended height of a frame for the network.")
@click.option("--overwrite", is_flag=True, help="Replace MODEL if it exists.")
def export(
    run: Path,
    model: Path,
    generator: str,
    best: bool,
    precision: str,
    calibrate: bool,
    average: tuple[Path, ...],
    average_share: float | None,
    title: str,
    source_domain: str,
    target_domain: str,
    licence: str,
    work_size: int | None,
    overwrite: bool,
) -> None:
    """Write the averaged generator of RUN to the file MODEL (.safetensors) and load it as a check."""
    from trainer.exporting.export import CardText, best_checkpoint, export_model
    from trainer.storage.folder import RunFolder

    if average_share is not None and not average:
        raise UsageError("--average-share needs --average, the other checkpoint")
    folder = RunFolder(run)
    checkpoint = best_checkpoint(folder, generator) if best else folder.checkpoint
    text = CardText(title, source_domain, target_domain, licence, work_size)
    card = export_model(
        checkpoint, model, generator, precision, text, calibrate, average, average_share, overwrite
    )
    click.echo(
        f"{model}: {card.name}, {card.source_domain} -> {card.target_domain}, {model.stat().st_size} bytes"
    )


@train.command(short_help="Measure models and baselines.")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--source", required=True, help="Pictures to convert.")
@click.option("--target", required=True, help="Pictures that the results should look like.")
@click.option(
    "--back", default="", help="The model of the other direction; adds the PSNR of the way there and back."
)
@click.option(
    "--paired",
    is_flag=True,
    help="The target folder holds the true result of each source under the same name.",
)
@click.option(
    "--video", type=FOLDER, multiple=True, help="Adds the warp error on this video; may be repeated."
)
@click.option("--frames", type=click.IntRange(2), default=48, show_default=True, help="Frames of each video.")
@click.option(
    "--video-size",
    type=click.IntRange(32),
    default=960,
    show_default=True,
    help="Longest edge to which videos are reduced.",
)
@click.option(
    "--size",
    type=click.IntRange(32),
    default=256,
    show_default=True,
    help="Longest edge to which pictures are reduced.",
)
@click.option("--count", type=click.IntRange(0), default=0, help="Number of pictures of each folder; 0: all.")
@click.option("--device", default="cpu", show_default=True, help="Where the networks run.")
@click.option("--learned", is_flag=True, help="Adds distance, precision and recall on pretrained features.")
@click.option("--inception", default="", help="A TorchScript Inception file; adds KID and FID.")
@click.option("--inception-sha256", default="", help="The SHA-256 that this file must have.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def evaluate(models: tuple[str, ...], source: str, target: str, **options: Any) -> None:
    """Measure models, beside the unchanged pictures and classical colour transfer as baselines."""
    from trainer.metrics.evaluate import EvaluateOptions, evaluate_video
    from trainer.metrics.evaluate import evaluate as measure

    for video in options["video"]:
        if not video.is_file():
            raise UsageError(f"{video}: no such video")
    size = options["size"]
    settings = EvaluateOptions(
        size,
        size,
        options["count"],
        options["device"],
        options["inception"],
        options["inception_sha256"],
        options["learned"],
    )
    table = measure(models, source, target, settings, options["back"], options["paired"])
    videos: dict[str, dict[str, dict[str, float]]] = {}
    for name in dict.fromkeys(models):
        for video in options["video"]:
            error = evaluate_video(name, video, options["frames"], options["video_size"], options["device"])
            figures = {"source": error.source, "result": error.result, "ratio": error.ratio}
            videos.setdefault(name, {})[str(video)] = {**figures, "sharpness": error.sharpness}
    if options["as_json"]:
        click.echo(json.dumps({"rows": table.rows, "videos": videos, "reference": table.reference}, indent=1))
    else:
        _print_table(table, videos)


def _print_table(table: Table, videos: dict[str, dict[str, dict[str, float]]]) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console()
    first = next(iter(table.rows.values()))
    plain = [key for key in first if isinstance(first[key], (int, float))]
    grid = RichTable(
        title=f"{table.sources} sources against {table.targets} of {table.reference}, {table.edge} px"
    )
    for column in ("", *plain):
        grid.add_column(column, justify="left" if not column else "right")
    for name, metrics in table.rows.items():
        grid.add_row(name, *(f"{metrics[key]:.4g}" if key in metrics else "" for key in plain))
    console.print(grid)
    if "inception" in first:
        console.print(f"KID and FID against {table.reference}, Inception SHA-256 {first['inception']}")
    for title, key in (("normalised", "swd_levels"), ("common scale", "swd_common_levels")):
        levels = RichTable(title=f"sliced Wasserstein distance x 1000 by level, {title}")
        for column in ("", *first[key]):
            levels.add_column(column, justify="left" if not column else "right")
        for name, metrics in table.rows.items():
            levels.add_row(name, *(f"{value:.1f}" for value in metrics[key].values()))
        console.print(levels)
    for model, by_video in videos.items():
        for video, error in by_video.items():
            console.print(f"{model} on {video}: " + ", ".join(f"{k} {v:.4g}" for k, v in error.items()))


@train.command(short_help="Convert some pictures with a run's generator.")
@click.argument("run", type=FOLDER)
@click.argument("pictures", nargs=-1, type=FOLDER)
@click.option("-o", "--output", required=True, type=FOLDER, help="The picture to write (.png or .jpg).")
@click.option("--generator", default="", help="gen_ab or gen_ba, if the run has both.")
@click.option("--best", is_flag=True, help="Use the checkpoint with the best metrics, not the last.")
@click.option(
    "--size", type=click.IntRange(32), default=512, show_default=True, help="Longest edge of each picture."
)
@click.option(
    "--count", type=click.IntRange(1, 1024), default=64, show_default=True, help="Pictures of a gan."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of a gan's noise.")
@click.option("--label", "labels", multiple=True, help="A gan's label to make pictures of; may be repeated.")
def sample(
    run: Path,
    pictures: tuple[Path, ...],
    output: Path,
    generator: str,
    best: bool,
    size: int,
    count: int,
    seed: int,
    labels: tuple[str, ...],
) -> None:
    """Convert PICTURES with the generator of RUN; source and result side by side in one picture.

    A run of a gan takes none: it makes COUNT pictures from noise.
    """
    from trainer.runs.sample import sample_run

    sample_run(run, pictures, output, generator, size, best, count, seed, labels)


@train.command(short_help="Train a small generator from a larger one.")
@click.argument("run", type=FOLDER)
@click.option("--teacher", default="", help="The model to learn from: a name or a file.")
@click.option(
    "--teacher-run",
    default="",
    type=str,
    help="The teacher's training run; adds what its discriminator knows.",
)
@click.option(
    "--student", help="Size of the small generator: tiny, small (or fast), base, mobile.  [default: small]"
)
@click.option("--a", help="Pictures that the teacher converts: a folder or a video.")
@click.option("--b", help="Pictures that its results should look like.")
@written_setting
@click.option("--resume", is_flag=True, help="Continue from the checkpoint if there is one.")
def distill(
    run: Path,
    teacher: str,
    teacher_run: str,
    student: str | None,
    a: str | None,
    b: str | None,
    settings: tuple[str, ...],
    resume: bool,
) -> None:
    """Train a small generator in the folder RUN to give the results of a larger one, its teacher."""
    from trainer.runs.setup import init_run, refuse_others, student_settings
    from trainer.runs.start import start
    from trainer.storage.folder import RunFolder

    folder = RunFolder(run)
    started = folder.has(folder.checkpoint)
    if started and not resume:
        raise UsageError(f"{run}: has a checkpoint already; go on with --resume, or take another folder")
    changed = parse_settings(settings)
    asked = {"run.method": "distill", **(student_settings(student) if student else {})}
    asked |= {"distill.teacher": teacher} if teacher else {}
    places = {"data.a": a, "data.b": b, "distill.checkpoint": teacher_run}
    asked |= {key: str(real_path(Path(value).expanduser())) for key, value in places.items() if value}
    if folder.has(folder.config):
        refuse_others(folder, asked)
    else:
        for line in init_run(run, {**student_settings(student or "small"), **asked, **changed}, None, False):
            click.echo(line)
        changed = {}  # they are in the config now
    start(folder, changed, resume=started)


def main() -> None:
    """Run the group by itself: `python -m trainer`."""
    run_command(train, "python -m trainer")
