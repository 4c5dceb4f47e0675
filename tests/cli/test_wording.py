"""The library names Python's parameters, the command line the options that set them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cgconvert.cli import cgconvert, main
from cgconvert.cli.wording import OPTIONS, worded
from cgconvert.errors import UsageError
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.video.plan import plan_video

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = [
    path
    for path in sorted([*(ROOT / "cgconvert").rglob("*.py"), *(ROOT / "trainer").rglob("*.py")])
    # The page's jobs are commands, whose options it gives.
    if not str(path.relative_to(ROOT)).startswith(("cgconvert/cli/", "cgconvert/ui/", "trainer/cli"))
]
OF_OTHERS = {
    "--eval": "the original implementation",
    "--no_antialias": "the original implementation",
    "--no_antialias_up": "the original implementation",
    "--model": "`cgconvert video IN --model NAME`, a whole command",
    "--name": "`cgconvert models import FILE --name NAME`, a whole command",
    "--for": "`cgconvert learn ... --for VIDEO`, a whole command",
    "--photos": "`cgconvert learn ... --photos FOLDER`, a whole command",
    "--continue": "`cgconvert learn ... --continue`, a whole command",
    "--generator": "`cgconvert train export RUN FILE --generator NAME`, a whole command",
    "--force-reinstall": "pip",
    "--no-deps": "pip",
    "--upgrade": "pip",
}
"""Options that library texts may name, and whose they are."""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("use `overwrite` to replace it", "use --overwrite to replace it"),
        ("a smaller `work_size`", "a smaller --work-size"),
        ('use `device="cpu"` or auto', "use --device cpu or auto"),
        ("`compare='up and down'` is unknown", "--compare 'up and down' is unknown"),
        ("`size=''` is not a size", "--size '' is not a size"),
        ("`strict=True` stops", "--strict stops"),
        ("`end=1` is not after `start=2.5`", "--end 1 is not after --start 2.5"),
        ("leave it out of `changes`", "leave it out of --set"),
        ("torch says `dtype` and `torch.compile`", "torch says `dtype` and `torch.compile`"),
        ("use `cgconvert dir`", "use `cgconvert dir`"),
    ],
)
def test_parameters_become_options(text: str, said: str) -> None:
    assert worded(text) == said


def test_both_wordings_of_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = VideoOptions(start=2.5, end=1.0)
    with pytest.raises(UsageError) as refused:
        plan_video(tmp_path / "in.mp4", None, "identity", options, EngineOptions(device="cpu"))
    assert str(refused.value) == "`end=1` is not after `start=2.5`"
    with pytest.raises(SystemExit) as left:
        main(["video", str(tmp_path / "in.mp4"), "--model", "identity", "--start", "2.5", "--end", "1"])
    assert (left.value.code, capsys.readouterr().err) == (2, "Error: --end 1 is not after --start 2.5\n")


def texts(path: Path) -> Iterator[str]:
    """String literals of a file as they are written, without docstrings."""
    tree = ast.parse(path.read_text())
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
    for node in ast.walk(tree):
        text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if (text or isinstance(node, ast.JoinedStr)) and id(node) not in skipped:
            yield ast.unparse(node)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_library_texts_name_known_parameters_and_no_options(path: Path) -> None:
    for text in texts(path):
        assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text)) <= OF_OTHERS.keys(), text
        assert not re.search(r"\b(with|another|an?) -o\b", text), text
        assert set(re.findall(r"`([a-z_]+)[=`]", text)) <= OPTIONS.keys(), text


def options_of(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.params:
        yield from parameter.opts
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from options_of(inner, context)


def test_options_that_messages_are_worded_with_exist() -> None:
    assert set(OPTIONS.values()) <= set(options_of(cgconvert, click.Context(cgconvert)))
