"""`cgconvert dir` and `cgconvert image` as they are typed: messages, exit codes, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cgconvert.cli import main
from cgconvert.host.files import TEMPORARY_PREFIX
from cgconvert.options import EngineOptions
from cgconvert.pictures.pipeline import convert_dir
from tests.pictures.conftest import install_h2
from tests.pictures.pictures import noise, png, png_with, read_rgb, smooth
from tests.pictures.runs import fill, names
from tests.programs import cpu_seconds, stop

FP32 = ["--device", "cpu", "--engine", "eager", "--precision", "fp32"]


class Said:
    """What a command answered."""

    def __init__(self, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
        with pytest.raises(SystemExit) as leave:
            main(arguments)
        self.code = leave.value.code
        self.out, self.err = capsys.readouterr()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: str) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(here / "in", 7)
    for name in ("x.png", "y.jpg", "z.webp"):
        (here / "in" / name).write_bytes(b"bad")
    said = Said(capsys, ["dir", "in", "--model", "same", "--report", "r.json", *FP32])
    assert said.code == 1
    line = said.out.strip()
    assert line.startswith("Converted 7 pictures (3 failed) in ") and line.endswith(" pictures/s -> in.same")
    reason = "not a picture that can be read (JPEG, PNG, WebP, GIF, TIFF, AVIF, BMP)"
    assert said.err.splitlines()[-3:] == [
        f"Failed: in/{name}: {reason}" for name in ("x.png", "y.jpg", "z.webp")
    ]
    report = json.loads((here / "r.json").read_text())
    assert (report["converted"], report["failed"], report["output"]) == (7, 3, "in.same")
    assert len(names(here / "in.same")) == 7

    said = Said(capsys, ["dir", "in", "--model", "same", *FP32])
    assert said.code == 1 and said.out.startswith("Converted no picture: 3 failed, 7 skipped\n")
    for name in ("x.png", "y.jpg", "z.webp"):
        (here / "in" / name).unlink()
    said = Said(capsys, ["dir", "in", "--model", "same", *FP32])
    assert (said.code, said.out) == (0, "Nothing to do: all 7 pictures are converted already -> in.same\n")


def test_quiet_is_quiet(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(here / "in", 2)
    said = Said(capsys, ["dir", "in", "--model", "same", "--quiet", *FP32])
    assert (said.code, said.out, said.err) == (0, "", "")


def test_one_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = noise(21, 34)
    (here / "a.png").write_bytes(png(pixels, 2))
    said = Said(capsys, ["image", "a.png", "--model", "same", *FP32])
    assert said.code == 0 and said.out.startswith("Converted 1 picture in ")
    assert said.out.endswith(" pictures/s -> a.same.png\n")
    assert np.array_equal(read_rgb(here / "a.same.png"), pixels)
    said = Said(capsys, ["image", "a.png", "--model", "same", *FP32])
    assert (said.code, said.err) == (4, "Error: a.same.png exists already: use --overwrite to replace it\n")
    assert Said(capsys, ["image", "a.png", "--model", "same", "--overwrite", *FP32]).code == 0


def test_losses_are_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "a.png").write_bytes(png_with(smooth(9, 9), exif=b"II*\0\x08\0\0\0\0\0\0\0\0\0"))
    said = Said(capsys, ["image", "a.png", "-o", "b.bmp", "--model", "same", *FP32])
    assert said.code == 0 and "Note: not kept in a.png: EXIF data, which BMP does not hold\n" in said.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["dir", "empty", "--model", "same"], 2, "Error: no pictures in empty: looked for .jpg"),
        (["dir", "nowhere", "--model", "same"], 2, "Error: no such folder: nowhere"),
        (["dir", "in", "--model", "sane"], 3, "Error: no model named 'sane'; did you mean same?"),
        (["dir", "in", "--model", "same", "-o", "file"], 4, "Error: file is a file"),
        (["dir", "in", "--model", "same", "--batch", "0"], 2, "Error: --batch '0' is neither auto nor"),
        (["dir", "in", "--model", "same", "--device", "cuda:77"], 2, "Error: no device cuda:77"),
        (["dir", "in", "--model", "same", "--engine", "steam"], 2, "Error: unknown engine 'steam'"),
        (["dir", "in", "--model", "same", "--format", "psd"], 2, "Error: Invalid value for '--format'"),
        (["dir", "in", "--model", "same", "--quality", "101"], 2, "Error: Invalid value for '--quality'"),
        (["image", "none.png", "--model", "same"], 2, "Error: no such file: none.png"),
        (["image", "in", "--model", "same"], 2, "Error: in is a folder: use `cgconvert dir`"),
        (["image"], 2, "Error: Missing argument 'FILE...'"),
        (["image", "in/000.png", "--model", "broken"], 3, "Error: "),
    ],
)
def test_errors(
    here: Path,
    own_home: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    fill(here / "in", 2)
    (here / "empty").mkdir()
    (here / "file").write_bytes(b"")
    whole = (own_home / "models/same.safetensors").read_bytes()
    (own_home / "models/broken.safetensors").write_bytes(whole[:-40])
    said = Said(capsys, arguments)
    assert (said.code, said.out) == (code, "")
    last = said.err.strip().splitlines()[-1]
    assert last.startswith(words) and "Traceback" not in said.err
    assert not list(here.rglob(f"{TEMPORARY_PREFIX}*"))


def test_no_permission(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(here / "in", 2)
    monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(PermissionError(13, "denied")))
    said = Said(capsys, ["dir", "in", "--model", "same", "--report", "r.json", *FP32])
    assert said.code == 4 and "no permission to write" in said.err.splitlines()[-1]


def test_dry_run_says_all_and_does_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(here / "in", 2)
    (here / "in/c\nd.jpg").write_bytes(b"x")
    (here / "in.same").mkdir()
    (here / "in.same/001.png").write_bytes(b"x")
    said = Said(capsys, ["dir", "in", "--model", "same", "--dry-run"])
    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[0] == "source     in (2 png, 1 jpeg)"
    assert lines[1].startswith("model      same (photo -> picture), ")
    assert lines[2] == (
        "network    sees all of a picture; device auto, engine auto, precision auto, batch auto"
    )
    assert lines[3] == "result     in.same (2 to convert, 1 finished already)"
    assert lines[4:] == [
        "picture    in/000.png -> in.same/000.png",
        "finished   in/001.png -> in.same/001.png",
        "picture    in/c\\nd.jpg -> in.same/c\\nd.jpg",
    ]
    assert names(here / "in.same") == ["001.png"]


@pytest.mark.parametrize(
    "arguments",
    [["dir", "--help"], ["image", "--help"], ["dir", "in", "--model", "same", "--dry-run"],
     ["image", "in/000.png", "--model", "same", "--dry-run"], ["dir", "nowhere", "--model", "same"]],
)  # fmt: skip
def test_what_does_no_work_loads_no_heavy_library(here: Path, arguments: list[str]) -> None:
    fill(here / "in", 1)
    code = (
        "import sys; from cgconvert.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: print(sorted({'torch', 'cv2', 'av', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cgconvert", *arguments, *FP32]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes)  # type: ignore[call-overload,no-any-return]


def whole(folder: Path) -> list[str]:
    """The files below a folder that are not being written just now."""
    return [name for name in names(folder) if TEMPORARY_PREFIX not in name]


def wait_for(what: object, process: subprocess.Popen[str], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def test_an_interrupted_run_goes_on_as_if_it_had_never_stopped(here: Path, exact: EngineOptions) -> None:
    model = install_h2("medium", {"half_channels": 16, "channels": 48, "blocks": 6})
    fill(here / "in", 40, (160, 160))
    early: dict[str, int] = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start("dir", "in", "--model", model)
        enough = len(early) + 4
        wait_for(lambda: len(whole(here / "in.medium")) >= enough, process)  # noqa: B023
        ended = stop(process, number)
        assert (ended.code, ended.out) == (130, "") and ended.cpu_seconds < 3
        assert "the same command goes on from here" in ended.err.splitlines()[-1]
        assert "Traceback" not in ended.err
        done = names(here / "in.medium")
        assert enough <= len(done) < 40 and not [name for name in done if TEMPORARY_PREFIX in name]
        times = {name: (here / "in.medium" / name).stat().st_mtime_ns for name in done}
        assert early.items() <= times.items(), "what was finished has not been touched"
        early = times

    rest = convert_dir("in", model=model, engine_options=exact)
    assert (rest.converted, rest.skipped, rest.output) == (40 - len(early), len(early), "in.medium")
    convert_dir("in", "unbroken", model, engine_options=exact)
    for name in names(here / "in"):
        apart = read_rgb(here / "in.medium" / name).astype(int) - read_rgb(here / "unbroken" / name)
        assert np.abs(apart).max() <= 1, name


def test_ctrl_c_is_heard_inside_a_long_network_call(here: Path) -> None:
    """The one picture takes half a minute or more; the program must not."""
    install_h2("slow", {"half_channels": 64, "channels": 128, "blocks": 9})
    (here / "in").mkdir()
    (here / "in/large.png").write_bytes(png(np.zeros((2400, 2400, 3), np.uint8), 2))
    process = start("dir", "in", "--model", "slow")
    wait_for(lambda: cpu_seconds(process.pid) > 4.5, process)  # loading torch takes less
    ended = stop(process)
    assert ended.code == 130 and "nothing half-written is left" in ended.err
    assert ended.cpu_seconds < 3
    assert names(here / "in.slow") == []


def test_watching_from_the_command_line(here: Path) -> None:
    (here / "in").mkdir()
    process = start("dir", "in", "--model", "same", "--watch")
    fill(here / "in", 3)
    wait_for(lambda: (here / "in.same").exists() and len(whole(here / "in.same")) == 3, process)
    fill(here / "in/later", 2)
    wait_for(lambda: len(whole(here / "in.same")) == 5, process)
    ended = stop(process)
    assert ended.code == 0, ended.err
    assert ended.out.startswith("Converted 5 pictures in ")
    for name in names(here / "in"):
        assert np.array_equal(read_rgb(here / "in.same" / name), read_rgb(here / "in" / name))
