"""The command line. A command makes a plan and runs it, and its outcome becomes an exit code.

Commands are imported only when they run, so that `--help` and `models list` answer at once.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

import click

from cgconvert.cli.wording import log_as, tell_error
from cgconvert.errors import CgconvertError, Interrupted
from cgconvert.host.channels import Worker
from cgconvert.host.interrupts import deferring, end_by_signal, hear_termination
from cgconvert.host.memory import keep_freed_memory
from cgconvert.host.threads import wait_without_spinning

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

COMMANDS = {
    "video": ("cgconvert.cli.video:video", "Convert videos; sound, subtitles and timestamps are kept."),
    "dir": ("cgconvert.cli.images:directory", "Convert a folder of pictures with all its subfolders."),
    "image": ("cgconvert.cli.images:image", "Convert single pictures."),
    "ray": ("cgconvert.cli.ray:ray", "Convert on many machines, with Ray."),
    "live": ("cgconvert.cli.live:live", "Convert a camera, a screen or a stream as it comes."),
    "preview": ("cgconvert.cli.preview:preview", "Show frames or pictures in several looks, on one sheet."),
    "ui": ("cgconvert.cli.ui:ui", "Open a page to see and convert videos and pictures."),
    "jobs": ("cgconvert.cli.jobs:jobs", "List, continue or remove interrupted videos."),
    "models": ("cgconvert.cli.models:models", "List, inspect, import, export and remove models."),
    "compile": ("cgconvert.cli.engines:compile_command", "Build an engine ahead of time."),
    "engines": ("cgconvert.cli.engines:engines", "List or remove the engines that were built."),
    "doctor": ("cgconvert.cli.doctor:doctor", "Show what works on this machine and why the rest does not."),
    "bench": ("cgconvert.cli.bench:bench", "Measure how fast each engine is on this machine."),
}
"""The module and function of each command, and its line in `cgconvert --help`."""

PLUGIN_GROUP = "cgconvert.commands"


def find_plugins() -> dict[str, EntryPoint]:
    """Return the commands of other packages by name, without those whose module is gone."""
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=PLUGIN_GROUP) if _is_there(point.module)}


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # its package is gone as well
        return False


class LazyGroup(click.Group):
    """A group that imports a command only when it runs. Other packages add commands by entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(find_plugins())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        with deferring():  # an import that is interrupted can fail with any error
            if cmd_name in COMMANDS:
                module, _, attribute = COMMANDS[cmd_name][0].partition(":")
                return getattr(importlib.import_module(module), attribute)
            point = find_plugins().get(cmd_name)
            return point.load() if point else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            names = self.list_commands(ctx)
            nearest = difflib.get_close_matches(args[0], names, n=1, cutoff=0.5)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            ctx.fail(f"No such command {args[0]!r}.{hint} (commands: {', '.join(names)})")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, line) for name, (_, line) in COMMANDS.items()]
        for name in self.list_commands(ctx)[len(COMMANDS) :]:
            command = self.get_command(ctx, name)
            rows.append((name, command.get_short_help_str(80) if command else ""))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cgconvert")
def cgconvert() -> None:
    """Convert videos and folders of pictures to another look and keep everything else."""


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    wait_without_spinning()
    keep_freed_memory()
    hear_termination()
    try:
        run(cgconvert, "cgconvert", args)
    finally:
        log_as("text")  # a program that calls this is told in lines for people afterwards


def run(command: click.Command, name: str, args: list[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 done, 1 a job failed, 2 usage, 3 model, 4 output, 130 interrupted.

    This is the only place where an error becomes a line and an exit code, for the trainer's commands too.
    `CGCONVERT_DEBUG=1` shows the traceback of every error.
    """
    try:
        result = command.main(args=args, prog_name=name, standalone_mode=False)
    except click.exceptions.Exit as early:
        sys.exit(early.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        leave(tell_error(Interrupted("interrupted; nothing half-written is left")))
    except CgconvertError as error:
        if os.environ.get("CGCONVERT_DEBUG"):
            raise
        leave(tell_error(error))
    leave(result if isinstance(result, int) else 0)


def leave(code: int) -> NoReturn:
    """Exit, without waiting for a thread of an interrupted run that is inside a library's call."""
    if any(isinstance(thread, Worker) for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        if code != Interrupted.exit_code:
            os._exit(code)  # what is left of the run has been told and closed
        end_by_signal()
    sys.exit(code)
