"""The reference of all commands as Markdown: `python -m cgconvert.cli.reference > docs/cli.md`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from cgconvert.cli import cgconvert

SETTINGS: dict[str, Any] = {
    "terminal_width": 100,
    "max_content_width": 100,
    "help_option_names": ["-h", "--help"],
}


def sections(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yield a section with the help text of each command below `command`, in the order of its help."""
    if not isinstance(command, click.Group):
        return
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        if child is None:
            continue
        inner = click.Context(child, info_name=name, parent=context, **SETTINGS)
        if not isinstance(child, click.Group):
            yield f"## {inner.command_path}\n\n```\n{child.get_help(inner)}\n```\n"
        yield from sections(child, inner)


def reference() -> str:
    """Return the whole page."""
    context = click.Context(cgconvert, info_name="cgconvert", **SETTINGS)
    head = "# Commands\n\nMade by `make docs` from the commands' own help.\n"
    own = f"```\n{cgconvert.get_help(context)}\n```\n"
    return "\n".join([head, own, *sections(cgconvert, context)])


if __name__ == "__main__":
    click.echo(reference(), nl=False)
