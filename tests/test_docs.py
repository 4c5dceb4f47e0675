"""The documentation says what the program says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cgconvert.cli.reference import reference

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_command_reference_is_up_to_date() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == reference(), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_that_are_shown_exist(page: Path) -> None:
    """Every `cgconvert COMMAND --option` in a page is one that the reference knows."""
    known = reference()
    for command, options in re.findall(
        r"cgconvert ((?:train |models |engines )?[a-z]+)((?:[^\n`|]*))", page.read_text()
    ):
        if f"## cgconvert {command}\n" not in known:
            continue
        section = known.split(f"## cgconvert {command}\n")[1].split("\n## ")[0]
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", options):
            assert option in section, f"{page.name}: cgconvert {command} has no {option}"
