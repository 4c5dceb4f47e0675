"""`--report`: names that are no UTF-8, and a disk that is full when the work itself is done."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import NoReturn

import pytest

from cgconvert.cli import main
from cgconvert.host.files import output_error
from cgconvert.video import report
from tests.pictures.runs import fill
from tests.video.clips import Clip, make_clip

EXACT = ["-m", "identity", "--engine", "eager", "--precision", "fp32", "--device", "cpu"]


def run(*arguments: str | Path) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as leave:
        main([str(argument) for argument in arguments])
    return int(leave.value.code or 0)


def full(path: Path, data: bytes) -> NoReturn:
    raise output_error(path, OSError(errno.ENOSPC, "No space left on device"))


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xe4.mp4"))
    make_clip(tmp_path / "in.mp4", Clip(frames=2)).rename(source)
    written = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xfe.json"))
    assert run("video", source, *EXACT, "--quiet", "--report", written) == 0
    data = json.loads(written.read_text(encoding="utf-8"))
    assert os.fsencode(data["source"]) == os.fsencode(source)
    assert Path(data["output"]).is_file()


def test_a_full_disk_for_the_report_of_a_video_that_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "write_atomically", full)
    source, output = make_clip(tmp_path / "in.mp4", Clip(frames=2)), tmp_path / "out.mp4"
    assert run("video", source, "-o", output, *EXACT, "--report", tmp_path / "r.json") == 4
    told = capsys.readouterr()
    assert "Converted 2 frames" in told.out
    error = told.err.splitlines()[-1]
    reason = f"disk full while writing {tmp_path / 'r.json'}: free some space, or choose another place"
    assert error == f"Error: {output} is complete, but its report is not written: {reason}"
    assert output.is_file()


def test_a_full_disk_for_the_report_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "write_atomically", full)
    fill(tmp_path / "in", 2)
    assert run("dir", tmp_path / "in", *EXACT, "--report", tmp_path / "r.json") == 4
    told = capsys.readouterr()
    assert "Converted 2 pictures" in told.out
    assert "Error: the run is complete, but its report is not written: disk full while writing" in told.err
