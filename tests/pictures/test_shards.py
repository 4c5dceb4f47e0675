"""Folders in shards, and folders that hold videos too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cgconvert.cli import main
from cgconvert.errors import UsageError
from cgconvert.options import EngineOptions, ImageOptions
from cgconvert.pictures.pipeline import run_images
from cgconvert.pictures.plan import plan_dir
from cgconvert.progress import Silent
from cgconvert.scale.shards import Shard
from tests.pictures.runs import fill, names, run
from tests.video.clips import Clip, make_clip

EXACT = EngineOptions(device="cpu", engine="eager", precision="fp32")
OPTIONS = ["--model", "identity", "--engine", "eager", "--precision", "fp32", "--device", "cpu"]


def outcome(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as leave:
        main([str(argument) for argument in arguments])
    told = capsys.readouterr()
    return leave.value.code, told.out, told.err


def test_shards_make_what_one_run_makes(tmp_path: Path) -> None:
    """Three processes share the work of one; nothing is made twice, and the folder is the same."""
    fill(tmp_path / "in", 12)
    fill(tmp_path / "in" / "sub", 6)
    run(tmp_path / "in", tmp_path / "whole", "identity", EXACT)
    converted = []
    for number in (3, 1, 2):
        plan = plan_dir(
            tmp_path / "in", tmp_path / "parts", "identity", ImageOptions(), EXACT, Shard(number, 3)
        )
        assert plan.found == 18
        done = run_images(plan, Silent())
        assert (done.skipped, done.failed, done.converted) == (0, 0, plan.total)
        converted.append(done.converted)
    assert sum(converted) == 18
    assert min(converted) > 0
    assert names(tmp_path / "parts") == names(tmp_path / "whole")
    for name in names(tmp_path / "whole"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    marks = [(tmp_path / folder / ".cgconvert.json").read_bytes() for folder in ("parts", "whole")]
    assert marks[0] == marks[1]


def test_an_empty_shard_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "in", 1)
    empty = next(number for number in (1, 2) if not Shard(number, 2).holds("000.png"))
    code, out, _ = outcome(capsys, "dir", tmp_path / "in", *OPTIONS, "--shard", f"{empty}/2")
    assert (code, out) == (0, "Nothing to do: no picture is in this shard\n")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_dry_run_of_a_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "in", 8)
    here = sum(Shard(1, 2).holds(f"{index:03}.png") for index in range(8))
    code, out, _ = outcome(capsys, "dir", tmp_path / "in", *OPTIONS, "--shard", "1/2", "--dry-run")
    assert code == 0
    assert f"source     {tmp_path / 'in'} ({here} png; shard 1/2 of 8 pictures)\n" in out
    assert sum(line.startswith("picture ") for line in out.splitlines()) == here


def test_a_watched_folder_has_no_shards(tmp_path: Path) -> None:
    fill(tmp_path / "in", 1)
    with pytest.raises(UsageError, match=r"`watch` looks at all of a folder: leave out `shard`"):
        plan_dir(tmp_path / "in", None, "identity", ImageOptions(watch=True), EXACT, Shard(1, 2))


def test_videos_among_the_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are named, and with --videos converted into the same tree, with one report."""
    folder, output, report = tmp_path / "in", tmp_path / "out", tmp_path / "report.json"
    fill(folder, 2)
    (folder / "sub").mkdir()
    make_clip(folder / "sub" / "a.mp4", Clip(frames=3))
    code, _, err = outcome(capsys, "dir", folder, "-o", output, *OPTIONS)
    told = f"Note: 1 video in {folder} is left out: use --videos to convert"
    assert code == 0
    assert told in err
    assert names(output) == ["000.png", "001.png"]
    code, out, err = outcome(capsys, "dir", folder, "-o", output, *OPTIONS, "--videos", "--report", report)
    assert code == 0
    assert "left out" not in err
    assert names(output) == ["000.png", "001.png", "sub/a.mp4"]
    assert "all 2 pictures are converted already" in out
    assert "Converted 1 video with 3 frames in " in out
    data = json.loads(report.read_text())
    assert (data["pictures"]["skipped"], data["videos"]["converted"]) == (2, 1)
    code, out, _ = outcome(capsys, "dir", folder, "-o", output, *OPTIONS, "--videos", "--dry-run")
    assert f"finished   {folder}/sub/a.mp4 -> {output}/sub/a.mp4\n" in out


def test_a_folder_of_videos_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    make_clip(folder / "a.mp4", Clip(frames=3))
    code, _, err = outcome(capsys, "dir", folder, *OPTIONS)
    assert code == 2
    assert "it holds 1 video: use `cgconvert video`" in err
    assert outcome(capsys, "dir", folder, *OPTIONS, "--videos")[0] == 0
    assert names(tmp_path / "in.identity") == ["a.mp4"]
    assert outcome(capsys, "dir", folder, *OPTIONS, "--videos", "--watch")[0] == 2


def test_a_video_that_fails_decides_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "in", 1)
    (tmp_path / "in" / "bad.mp4").write_text("words")
    code, out, err = outcome(capsys, "dir", tmp_path / "in", *OPTIONS, "--videos")
    assert code == 1
    assert "Converted 1 picture in " in out
    assert f"Failed: {tmp_path}/in/bad.mp4: not a video that can be read" in err
