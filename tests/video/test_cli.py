"""`cgconvert video` as a user meets it: exit codes, messages, Ctrl-C, full disks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from tests.programs import stop
from tests.video.clips import Clip, make_clip, read_facts

EXACT = ["--engine", "eager", "--precision", "fp32", "--device", "cpu"]


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cgconvert", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)


def test_the_plain_command(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "video.mp4", Clip(audio="aac"))
    report = tmp_path / "report.json"
    done = run("video", source, "--model", "identity", *EXACT, "--report", report)
    assert done.returncode == 0, done.stderr
    output = tmp_path / "video.identity.mp4"
    assert f"-> {output}" in done.stdout
    assert "Converted 12 frames" in done.stdout
    assert "1 other stream kept" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert read_facts(output).pts == read_facts(source).pts
    data = json.loads(report.read_text())
    assert (data["frames_in"], data["frames_out"], data["model"]) == (12, 12, "identity")
    assert list(data["stage_seconds"]) == ["decode", "preprocess", "translate", "postprocess", "encode"]
    assert data["stage_seconds"]["decode"] > 0 and data["stage_seconds"]["encode"] > 0
    assert data["busiest"] in ("decode", "translate", "encode")
    assert 0 < data["busiest_seconds"] <= data["seconds"]
    assert [stream["action"] for stream in data["streams"]] == ["converted", "copied"]
    assert data["engine"]["precision"] == "fp32"
    again = run("video", source, "--model", "identity", *EXACT)
    assert again.returncode == 4
    assert (
        again.stderr
        == f"Error: {output} exists already: use --overwrite to replace it, or another --output\n"
    )
    quiet = run("video", source, "--model", "identity", *EXACT, "--overwrite", "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_a_dry_run_says_everything_and_does_nothing(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "video.mp4", Clip(audio="aac"))
    code = (
        "import sys; from cgconvert.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as leave: print('code', leave.code, 'torch' in sys.modules)"
    )
    arguments = [sys.executable, "-c", code, "video", str(source), "--model", "identity", "--dry-run"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "code 0 False"
    for part in ("96x64", "12 frames", "identity", "video.identity.mp4", "h264", "copied"):
        assert part in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing.mp4"], 2, "Error: no such file: nothing.mp4\n"),
        (["video.mp4", "--model", "idntity"], 3, "Error: no model named 'idntity'; did you mean identity?"),
        (["video.mp4", "--model", "identity", "--codec", "h256"], 2, "did you mean h265?"),
        (["video.mp4", "--model", "identity", "--codec", "h264_nvenc", "-o", "x.mp4"], 2, "NVIDIA GPU"),
        (["video.mp4", "--model", "identity", "--device", "tpu"], 2, "unknown device 'tpu'"),
        (["video.mp4", "--model", "identity", "--engine", "warp"], 2, "unknown engine 'warp'"),
        (["video.mp4", "--model", "identity", "--batch", "zero"], 2, "--batch 'zero'"),
        (["video.mp4", "--model", "identity", "--start", "soon"], 2, "--start 'soon' is not a time"),
        (["words.txt", "--model", "identity"], 1, "words.txt: not a video"),
        ([], 2, "Missing argument 'IN...'"),
    ],
)
def test_what_goes_wrong_is_one_clear_line(
    arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    make_clip(tmp_path / "video.mp4", Clip(frames=2))
    (tmp_path / "words.txt").write_text("words")
    if "h264_nvenc" in arguments and Path("/dev/nvidia0").exists():
        pytest.skip("this machine has an NVIDIA GPU")
    done = run("video", *arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert len(errors) == 1
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["video.mp4", "words.txt"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_in_the_middle(number: signal.Signals, tmp_path: Path, small_model: str) -> None:
    """Ends within seconds with 130, says so, and leaves neither result nor temporary file."""
    source = make_clip(tmp_path / "video.mkv", Clip(frames=900, width=320, height=192, audio="aac"))
    command = [sys.executable, "-m", "cgconvert", "video", str(source), "--model", small_model, *EXACT]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    assert any("frames" in line for line in lines)  # the first frame is translated
    ended = stop(process, number)
    assert ended.code == 130, ended.err
    assert "Error: interrupted after" in ended.err
    assert "nothing is left at" in ended.err
    assert ended.cpu_seconds < 3
    assert [path.name for path in tmp_path.iterdir()] == ["video.mkv"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where the machine lets us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk(tiny_disk: Path, tmp_path: Path) -> None:
    source = make_clip(tmp_path / "video.mp4", Clip(frames=60, width=320, height=192, options={"crf": "1"}))
    output = tiny_disk / "out.mp4"
    done = run("video", source, "-o", output, "--model", "identity", "--crf", "0", *EXACT)
    assert done.returncode == 4, done.stderr
    assert f"Error: disk full while writing {output}: free some space, or choose another place" in done.stderr
    assert list(tiny_disk.iterdir()) == []


def test_a_disk_that_fills_up_is_an_output_error(
    tmp_path: Path, exact: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with a writer that fails as a full disk does, for machines without root."""
    import av

    from cgconvert.errors import OutputError
    from cgconvert.media.video.sink import VideoSink
    from cgconvert.video.pipeline import convert_video

    def full(self: VideoSink, packets: list[av.Packet]) -> None:
        raise OSError(28, "No space left on device")

    source = make_clip(tmp_path / "video.mp4", Clip(frames=8))
    monkeypatch.setattr(VideoSink, "_mux_video", full)
    with pytest.raises(OutputError, match=r"disk full while writing .*out\.mp4"):
        convert_video(source, tmp_path / "out.mp4", "identity", engine_options=exact)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4.part", "video.mp4"]
    monkeypatch.undo()
    report = convert_video(source, tmp_path / "out.mp4", "identity", engine_options=exact)  # type: ignore[arg-type]
    assert (report.frames_out, report.resumed_frames) == (8, 8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "video.mp4"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "video.mp4", Clip(frames=2))
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    done = run("video", source, "-o", locked / "out.mp4", "--model", "identity", *EXACT)
    assert done.returncode == 4
    assert "no permission to write" in done.stderr


def test_help_and_version_are_quick_and_need_no_torch() -> None:
    code = "import sys; from cgconvert.cli import main\ntry: main(['{}'])\nexcept SystemExit: pass\n"
    for option in ("--help", "--version"):
        check = (
            code.format(option) + "print('torch' in sys.modules, 'av' in sys.modules, 'numpy' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == "False False False"


def test_real_clips(shared: Path, tmp_path: Path, exact: object) -> None:
    """One video with many streams: the main video is converted, all the others are copied."""
    from cgconvert.video.pipeline import convert_video

    source = shared / "data" / "video" / "nasa_13013_multistream.mp4"
    report = convert_video(source, tmp_path / "out.mp4", "identity", engine_options=exact)  # type: ignore[arg-type]
    assert [stream["action"] for stream in report.streams].count("copied") == 5
    before, after = read_facts(source, 3, pictures=False), read_facts(tmp_path / "out.mp4", 3, pictures=False)
    assert len(after.pts) == 390
    assert after.pts == before.pts
    assert after.pts[1] == Fraction(1001, 30000)
    for index in (0, 1, 2, 4, 5):
        assert after.packets[index] == before.packets[index]


@pytest.mark.parametrize("codec", ["h265", "av1"])
def test_encoders_do_not_talk_into_our_messages(codec: str, tmp_path: Path) -> None:
    source = make_clip(tmp_path / "video.mkv", Clip(frames=3, time_base=Fraction(1, 1000), step=40))
    done = run("video", source, "--model", "identity", "--codec", codec, *EXACT, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
