"""The commands of the trainer: `cgconvert train ...`, or `python -m trainer ...`."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

import click

from cgconvert.errors import CgconvertError, UsageError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quiet", is_flag=True, help="Warnings only.")
def train(quiet: bool) -> None:
    """Train generators from two folders of pictures, and measure them."""
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO, format="%(message)s", stream=sys.stderr
    )


def _changes(settings: tuple[str, ...]) -> dict[str, Any]:
    """`--set section.key=value` with the value as TOML, or as a plain word."""
    import tomllib

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


setting_option = click.option(
    "--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Change a setting of the config."
)


@train.command()
@click.argument("run", type=click.Path(path_type=Path))
@setting_option
@click.option("--resume", is_flag=True, help="Go on from the checkpoint, if there is one.")
def run(run: Path, settings: tuple[str, ...], resume: bool) -> None:
    """Start the training in the folder RUN (made by `init`)."""
    from trainer.run import start
    from trainer.runfolder import RunFolder

    folder = RunFolder(run)
    start(folder, _changes(settings), resume=resume and folder.checkpoint.exists())


@train.command()
@click.argument("run", type=click.Path(path_type=Path))
@setting_option
def resume(run: Path, settings: tuple[str, ...]) -> None:
    """Go on with the training in RUN, exactly from its last checkpoint."""
    from trainer.run import start
    from trainer.runfolder import RunFolder

    start(RunFolder(run), _changes(settings), resume=True)


def main() -> None:
    """Run the group with errors turned into one line and an exit code."""
    try:
        train.main(prog_name="python -m trainer", standalone_mode=False)
    except CgconvertError as error:
        if os.environ.get("CGCONVERT_DEBUG") == "1":
            raise
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
