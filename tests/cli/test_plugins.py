"""Commands that other packages add."""

from __future__ import annotations

import importlib.metadata
from importlib.metadata import EntryPoint

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
