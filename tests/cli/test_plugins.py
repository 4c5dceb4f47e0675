"""Commands that are imported when they run, and those that other packages add."""

from __future__ import annotations

import importlib.metadata
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cgconvert import cli


@click.command()
def added() -> None:
    """Says that it is there."""
    click.echo("here")


def test_a_plugin_whose_module_is_gone_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("added", "tests.cli.test_plugins:added", cli.PLUGIN_GROUP),
        EntryPoint("gone", "tests.cli.no_such_module:gone", cli.PLUGIN_GROUP),
        EntryPoint("far", "no_such_package.commands:far", cli.PLUGIN_GROUP),
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    helped = CliRunner().invoke(cli.cgconvert, ["--help"])
    assert helped.exit_code == 0
    assert "Says that it is there." in helped.output
    assert "gone" not in helped.output and "far" not in helped.output
    assert CliRunner().invoke(cli.cgconvert, ["added"]).output == "here\n"
    refused = CliRunner().invoke(cli.cgconvert, ["gone"])
    assert refused.exit_code == 2
    assert "No such command 'gone'" in refused.output


def test_an_interrupt_while_a_command_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exception of a signal can become any other within an import, here a SyntaxError."""
    (tmp_path / "interrupted.py").write_text(
        "import signal, click\n"
        "try:\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "except KeyboardInterrupt:\n"
        "    raise SyntaxError('no unicodedata')\n"
        "command = click.Command('command')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(cli.COMMANDS, "interrupted", ("interrupted:command", ""))
    with pytest.raises(SystemExit) as left:
        cli.run(cli.cgconvert, "cgconvert", ["interrupted"])
    assert left.value.code == 130
