"""`cgconvert learn`: from a folder of pictures to an installed model. No torch until it runs."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from cgconvert.cli.status import create_progress
from cgconvert.cli.wording import logs_json, say
from cgconvert.progress import Progress

FOLDER = click.Path(path_type=Path)


@click.command(short_help="Learn a look from a folder of pictures in minutes.")
@click.argument("paintings", type=FOLDER)
@click.option("--for", "video", type=FOLDER, metavar="VIDEO", help="The video that the look is for.")
@click.option(
    "--photos", type=FOLDER, metavar="FOLDER", help="Photographs that the look is for, instead of a video."
)
@click.option("--name", help="Name of the model.  [default: that of the folder]")
@click.option(
    "--minutes",
    type=click.FloatRange(0.1),
    help="Time to learn.  [default: 10; with --continue what was left, or 10 more]",
)
@click.option("--continue", "go_on", is_flag=True, help="Continue where the learning of this look ended.")
@click.option("--restart", is_flag=True, help="Discard what was learned under this name and begin again.")
@click.option(
    "--device", default="auto", show_default=True, help="Where the networks run: auto, cpu, cuda, cuda:1 ..."
)
@click.option("--quiet", is_flag=True, help="Print warnings, errors and the result only.")
def learn(
    paintings: Path,
    video: Path | None,
    photos: Path | None,
    name: str | None,
    minutes: float | None,
    go_on: bool,
    restart: bool,
    device: str,
    quiet: bool,
) -> None:
    """Learn a look from the pictures in the folder PAINTINGS and install it as a model.

    Twenty pictures are enough, and sixty are good. The video or the photographs that the look is for are
    learned from as well. A preview is written again and again while the look is learned.
    """
    from trainer.learn.plan import plan_learning
    from trainer.learn.run import learn as learn_look

    plan = plan_learning(paintings, video, photos, name, minutes, go_on, restart, device)
    progress = create_progress(quiet)
    _warn_through(progress)
    result = learn_look(plan, progress)
    for line in result.figures:
        say(line)
    say(f"{plan.name} learned from {result.images} pictures: {result.model}, preview {result.preview}")
    if logs_json():  # the lines below are for who types
        return
    if plan.is_video:
        click.echo(f"convert with it: cgconvert video {plan.source} --model {plan.name}")
    else:
        click.echo(f"convert with it: cgconvert dir {plan.source} --model {plan.name}")
    click.echo(f"learn on: {plan.command}")


class _Notes(logging.Handler):
    """Warnings of the trainer as notes, which a live line makes room for."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.WARNING)
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self._progress.note(record.getMessage())


def _warn_through(progress: Progress) -> None:
    logger = logging.getLogger("trainer")
    logger.handlers.clear()
    logger.addHandler(_Notes(progress))
    logger.setLevel(logging.WARNING)
    logger.propagate = False
