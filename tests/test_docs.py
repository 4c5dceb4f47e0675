"""The documentation says what the program says: links, commands, options, and examples that run."""

from __future__ import annotations

import re
import shlex
from fractions import Fraction
from pathlib import Path

import click
import pytest
import torch

from cgconvert.cli import cgconvert, run
from cgconvert.cli.reference import reference
from tests.models.reference_networks import randomised, resnet
from tests.pictures.pictures import smooth
from tests.trainer.conftest import make_domain, save
from tests.video.clips import Clip, make_clip

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
NOT_RUN = {
    "cgconvert doctor": "runs compilers; tests/doctor has it",
    "cgconvert dir ./inbox --watch": "ends with Ctrl-C only; tests/pictures has it",
    "cgconvert dir s3://bucket/imgs -o s3://bucket/painted": "needs a server; tests/scale has it",
    "cgconvert ray video ./clips -o ./videos": "starts a cluster; tests/cluster has it",
    "cgconvert learn ./paintings --for holiday.mp4 --name sketch": "ten minutes; tests/trainer has it",
    "cgconvert video holiday.mp4 --model sketch -o sketch.mp4": "needs what was learned",
    "cgconvert train run runs/mine": "a whole training; tests/trainer has it",
    "cgconvert train export runs/mine mine.safetensors --generator gen_ba": "needs the training",
    "cgconvert video in.mp4 --model mine.safetensors -o mine.mp4": "needs the training",
}
"""Commands of the README that are parsed and not run, and why."""


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page that are in a language; "" for those without one."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    """The `cgconvert` lines of a page's blocks, without comments, with continued lines joined."""
    lines = "\n".join(blocks(page, "")).replace("\\\n", " ").splitlines()
    ours = [re.split(r"\s+#\s", line)[0].strip() for line in lines if line.startswith("cgconvert ")]
    return [" ".join(line.split()) for line in ours]


SHOWN = [(page.name, command) for page in PAGES if page.name != "cli.md" for command in commands(page)]
WITH_EXAMPLES = [page for page in PAGES if blocks(page, "python")]


def test_the_command_reference_is_up_to_date() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == reference(), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(#[^)\s]+)?\)", page.read_text()):
        if target.startswith("http"):
            continue
        place = page.parent / target if target else page
        assert place.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", place.read_text(), re.MULTILINE)
            names = {f"#{re.sub(r'[^a-z0-9 -]', '', name.lower()).replace(' ', '-')}" for name in headings}
            assert anchor in names, f"{page.name} links to {target}{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_are_named_exist(page: Path) -> None:
    """A path in backticks that looks like one of the repository's is one."""
    roots = ("cgconvert", "trainer", "tests", "benchmarks", "docs", "examples")
    for name in re.findall(r"`([\w./-]+\.(?:py|md|json|toml))`", page.read_text()):
        if name.startswith(tuple(f"{root}/" for root in roots)):
            assert (ROOT / name).exists() or "RUN" in name, f"{page.name} names {name}"


@pytest.mark.parametrize(("page", "command"), SHOWN, ids=[f"{page}: {text}" for page, text in SHOWN])
def test_commands_that_are_shown_can_be_parsed(
    page: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command exists and takes the options that are shown with it."""
    monkeypatch.setenv("CGCONVERT_NO_CACHE", "1")  # --no-cache would set it for good
    words, found, context = shlex.split(command)[1:], cgconvert, click.Context(cgconvert)
    while isinstance(found, click.Group):
        child = found.get_command(context, words[0])
        assert child is not None, f"{page}: no command {words[0]}"
        found, words = child, words[1:]
    try:
        found.make_context(found.name, words, parent=context)
    except click.ClickException as error:
        pytest.fail(f"{page}: {command}: {error.format_message()}")


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with small files of the names that the documentation uses; the current folder meanwhile."""
    make_clip(tmp_path / "in.mp4", Clip(frames=6))
    # 1:20 long, a keyframe each five seconds; of one frame a second, or it would take minutes
    slow = Clip(80, 64, 48, Fraction(1, 12800), 12800, options={"crf": "30", "g": "5"}, audio="aac")
    make_clip(tmp_path / "holiday.mp4", slow)
    (tmp_path / "clips").mkdir()
    make_clip(tmp_path / "clips" / "day.mp4", Clip(frames=6))
    make_clip(tmp_path / "holiday.mkv", Clip(frames=6, time_base=Fraction(1, 1000), step=40))
    for name in ("a.jpg", "b.png"):
        save(tmp_path / name, smooth(40, 48))
        (tmp_path / "imgs").mkdir(exist_ok=True)
        save(tmp_path / "imgs" / name, smooth(40, 48))
    weights = randomised(resnet(ngf=4, blocks=1)).state_dict()
    for name in ("latest_net_G.pth", "latest_net_G_A.pth"):
        torch.save(weights, tmp_path / name)
    make_domain(tmp_path / "folder_of_paintings", True)
    make_domain(tmp_path / "folder_of_photographs", False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_examples_run(page: Path, inputs: Path) -> None:
    """The blocks of a page one after the other, as in one session."""
    names = {"rgb": smooth(40, 48), "pixels": smooth(40, 48)}  # what a reader brings along
    for number, block in enumerate(blocks(page, "python"), 1):
        exec(compile(block, f"{page.name}, example {number}", "exec"), names)


def test_the_commands_of_the_readme_run(inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In order, in one folder, as a new user would type them."""
    shown = commands(ROOT / "README.md")
    assert set(NOT_RUN) <= set(shown)
    for command in shown:
        if command in NOT_RUN:
            continue
        with pytest.raises(SystemExit) as left:
            run(cgconvert, "cgconvert", shlex.split(command)[1:])
        assert left.value.code == 0, f"{command}: {capsys.readouterr().err}"
    made = ["holiday.photo2monet.mp4", "taste.mp4", "monet.mkv", "report.json", "night.mp4", "videos/day.mp4"]
    made += ["a.photo2monet.jpg", "b.photo2monet.png", "imgs.photo2monet/a.jpg", "runs/mine/config.toml"]
    for name in made:
        assert (inputs / name).stat().st_size > 0, name
    assert [path.name for path in sorted((inputs / "painted").iterdir())] == [
        ".cgconvert.json",
        "a.webp",
        "b.webp",
    ]


def test_each_way_through_the_code_is_three_files() -> None:
    """What `docs/architecture.md` names for a frame, a picture and a training batch."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| (a [a-z ]+) \| (`.*`.*) \|$", page.split("## Where to read")[1], re.MULTILINE)
    assert [name for name, _ in rows] == ["a frame of a video", "a picture of a folder", "a training batch"]
    for name, text in rows:
        files = re.findall(r"`([^`]+)`", re.sub(r"\(.*?\)", "", text))
        assert len(files) == 3, name
        assert all((ROOT / file).is_file() for file in files), name
