"""Links that go round in circles: an input that cannot be read, an output that is refused, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgconvert.cli import main
from cgconvert.errors import OutputError, UsageError
from cgconvert.options import EngineOptions, ImageOptions
from cgconvert.pictures.pipeline import convert_dir
from cgconvert.pictures.plan import plan_dir
from tests.pictures.runs import fill
from tests.video.clips import Clip, make_clip

EXACT = EngineOptions(device="cpu", engine="eager", precision="fp32")


def circle(path: Path) -> Path:
    """A link to itself."""
    path.symlink_to(path)
    return path


def test_a_link_to_itself_among_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    fill(folder, 1)
    circle(folder / "circle.png")
    circle(folder / "circle")
    (folder / "round").symlink_to(folder)
    done = convert_dir(folder, tmp_path / "out", "identity", engine_options=EXACT)
    assert done.converted == 1
    assert [failure.file for failure in done.failures] == [folder / "circle.png"]
    assert "symbolic link" in done.failures[0].reason


def test_an_output_folder_that_is_a_circle(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    fill(folder, 1)
    output = circle(tmp_path / "circle")
    wanted = r"circle is a link that leads nowhere: choose a folder as `output`"
    with pytest.raises(OutputError, match=wanted):
        plan_dir(folder, output, "identity", ImageOptions(), EXACT)
    with pytest.raises(OutputError, match="symbolic link"):
        convert_dir(folder, output / "below", "identity", engine_options=EXACT)


def test_a_source_that_is_a_circle(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        plan_dir(circle(tmp_path / "circle"), None, "identity", ImageOptions(), EXACT)


@pytest.mark.parametrize(("name", "code"), [("out", 4), ("report.json", 0)])
def test_a_video_whose_output_or_report_is_a_circle(
    name: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A report replaces the link, as it would any other file of its name."""
    source = make_clip(tmp_path / "in.mp4", Clip(frames=2))
    circle(tmp_path / name)
    places = ["-o", str(tmp_path / "out" / "out.mp4"), "--report", str(tmp_path / "report.json")]
    options = ["-m", "identity", "--engine", "eager", "--device", "cpu", "--quiet"]
    with pytest.raises(SystemExit) as leave:
        main(["video", str(source), *options, *places])
    assert leave.value.code == code
    assert ("out is no folder, or a link that leads nowhere" in capsys.readouterr().err) == (code == 4)


def test_a_training_on_a_circle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ["--a", str(circle(tmp_path / "a")), "--b", str(tmp_path)]
    with pytest.raises(SystemExit) as leave:
        main(["train", "init", str(tmp_path / "run"), *places])
    assert leave.value.code == 2
    assert "no such folder" in capsys.readouterr().err
