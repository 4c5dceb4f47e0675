"""Several videos in one run: what is found, skipped, refused and converted, with one engine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from cgconvert.cli import main
from cgconvert.engines import kept
from cgconvert.errors import ModelError, OutputError, UsageError
from cgconvert.host.locks import locked
from cgconvert.host.parts import part_folder
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.progress import Silent
from cgconvert.scale.shards import Shard
from cgconvert.video import series
from cgconvert.video.folder import plan_videos
from cgconvert.video.pipeline import convert_video
from cgconvert.video.resume import LOCK
from cgconvert.video.series import VideosResult, convert_videos, run_videos
from tests.pictures.runs import names
from tests.video.clips import Clip, make_clip, read_facts

OPTIONS = ["--engine", "eager", "--precision", "fp32", "--device", "cpu", "--model", "identity"]
AVI = Clip(frames=5, codec="mpeg4", time_base=Fraction(1, 25), step=1)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder of three videos, one of them in a container that is not written, and a file that is none."""
    folder = tmp_path / "clips"
    (folder / "sub").mkdir(parents=True)
    make_clip(folder / "a.mp4", Clip(frames=8))
    make_clip(folder / "sub" / "b.mkv", Clip(frames=6))
    make_clip(folder / "sub" / "c.avi", AVI)
    (folder / "bad.mp4").write_text("words")
    (folder / "words.txt").write_text("no video at all")
    return folder


def run(sources: list[Path], output: Path | None, exact: EngineOptions, **more: Any) -> VideosResult:
    shard = more.pop("shard", None)
    return convert_videos(sources, output, "identity", VideoOptions(**more), exact, shard=shard)


def outcome(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as leave:
        main([str(argument) for argument in arguments])
    told = capsys.readouterr()
    assert isinstance(leave.value.code, int)
    return leave.value.code, told.out, told.err


def test_a_folder_of_videos(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tree is mirrored, one bad video fails alone, and the same command has nothing more to do."""
    output, report = tmp_path / "painted", tmp_path / "report.json"
    code, out, err = outcome(capsys, "video", clips, "-o", output, *OPTIONS, "--report", report)
    assert code == 1
    assert names(output) == ["a.mp4", "sub/b.mkv", "sub/c.mp4"]
    bad = clips / "bad.mp4"
    reason = "not a video that can be read (Invalid data found when processing input)"
    assert f"Failed: {bad}: {reason}\n" in err
    assert out.startswith("Converted 3 videos (1 failed) with 19 frames in ")
    assert out.endswith(f" -> {output}\n")
    assert "video 1 of 4\n" in err and "video 4 of 4, " in err
    assert "Note: c.avi: .avi cannot be written: the result is .mp4\n" in err
    data = json.loads(report.read_text())
    counts = ("converted", "skipped", "stale", "failed", "frames", "complete")
    assert [data[key] for key in counts] == [3, 0, 0, 1, 19, True]
    assert data["failures"] == [{"file": str(bad), "reason": reason}]
    assert [video["frames_out"] for video in data["videos"]] == [8, 6, 5]
    for name in ("a.mp4", "sub/b.mkv"):
        assert read_facts(output / name).pts == read_facts(clips / name).pts
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    bad.unlink()
    code, out, _ = outcome(capsys, "video", clips, "-o", output, *OPTIONS)
    assert (code, out) == (0, f"Nothing to do: all 3 videos are converted already -> {output}\n")
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before


def test_results_are_those_of_single_runs(
    clips: Path, tmp_path: Path, exact: EngineOptions, small_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One engine is made for all of them, and what it writes is byte for byte what one made anew writes."""
    made = []

    def counting(*arguments: Any, **more: Any) -> Any:
        made.append(arguments)
        return create_job(*arguments, **more)

    create_job = kept.create_job
    monkeypatch.setattr(kept, "create_job", counting)
    done = convert_videos([clips], tmp_path / "out", small_model, VideoOptions(), exact)
    assert (done.converted, done.failed, len(made)) == (3, 1, 1)
    for source, name in ((clips / "a.mp4", "a.mp4"), (clips / "sub" / "b.mkv", "b.mkv")):
        convert_video(source, tmp_path / name, small_model, VideoOptions(), exact)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "out" / "a.mp4").read_bytes()
    alone, together = read_facts(tmp_path / "b.mkv"), read_facts(tmp_path / "out" / "sub" / "b.mkv")
    assert alone.packets == together.packets
    assert len(made) == 3


def test_another_size_keeps_the_engine(
    tmp_path: Path, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    make_clip(tmp_path / "in" / "a.mp4", Clip(frames=2))
    make_clip(tmp_path / "in" / "b.mp4", Clip(frames=2, width=128, height=96))
    made = []
    create_job = kept.create_job
    monkeypatch.setattr(kept, "create_job", lambda *a, **k: made.append(1) or create_job(*a, **k))
    done = run([tmp_path / "in"], tmp_path / "out", exact)
    assert (done.converted, len(made)) == (2, 1)
    assert [video.engine["verified"][0]["size"] for video in done.videos] == [[96, 64], [128, 96]]


def test_files_and_patterns(clips: Path, tmp_path: Path, exact: EngineOptions) -> None:
    """Named videos are called NAME.MODEL.EXT, beside themselves or in OUT, and results are no sources."""
    sources = [clips / "a.mp4", clips / "sub" / "*.mkv"]
    assert run(sources, None, exact).converted == 2
    assert (clips / "a.identity.mp4").exists() and (clips / "sub" / "b.identity.mkv").exists()
    (clips / "bad.mp4").unlink()
    again = run([clips / "*.mp4"], None, exact)
    assert (again.converted, again.skipped, again.failed) == (0, 1, 0)
    assert again.notes == ("1 of the files are results of identity and are left out",)
    assert run(sources, tmp_path / "flat", exact).converted == 2
    assert names(tmp_path / "flat") == ["a.identity.mp4", "b.identity.mkv"]


def test_several_folders_keep_their_names(tmp_path: Path, exact: EngineOptions) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        make_clip(tmp_path / name / "a.mp4", Clip(frames=2))
    assert run([tmp_path / "one", tmp_path / "two"], tmp_path / "out", exact).converted == 2
    assert names(tmp_path / "out") == ["one/a.mp4", "two/a.mp4"]


def test_videos_that_differ_in_their_suffix_only(tmp_path: Path, exact: EngineOptions) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    make_clip(folder / "a.mp4", Clip(frames=2))
    make_clip(folder / "a.avi", AVI)
    assert run([folder], tmp_path / "out", exact).converted == 2
    assert names(tmp_path / "out") == ["a.avi.mp4", "a.mp4"]
    assert run([folder], tmp_path / "out", exact).skipped == 2


def test_shards_make_what_one_run_makes(clips: Path, tmp_path: Path, exact: EngineOptions) -> None:
    (clips / "bad.mp4").unlink()
    run([clips], tmp_path / "whole", exact)
    parts = [run([clips], tmp_path / "parts", exact, shard=Shard(number, 3)) for number in (1, 2, 3)]
    assert sum(part.converted for part in parts) == 3
    assert sum(part.skipped for part in parts) == 0
    assert names(tmp_path / "parts") == names(tmp_path / "whole")
    for name in ("a.mp4", "sub/c.mp4"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_an_empty_shard_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = make_clip(tmp_path / "a.mp4", Clip(frames=2))
    numbers = [n for n in (1, 2) if not Shard(n, 2).holds(source.as_posix())]
    code, out, _ = outcome(capsys, "video", source, *OPTIONS, "--shard", f"{numbers[0]}/2")
    assert (code, out) == (0, f"Nothing to do: none of the 1 videos is in shard {numbers[0]}/2\n")


def test_a_dry_run_lists_the_videos_without_torch(clips: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from cgconvert.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as leave: print('code', leave.code, 'torch' in sys.modules)"
    )
    output = tmp_path / "out"
    arguments = [
        "video",
        str(clips),
        "-o",
        str(output),
        "--model",
        "identity",
        "--dry-run",
        "--device",
        "cpu",
    ]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[-1] == "code 0 False"
    assert lines[0] == f"source     {clips} (4 videos)"
    assert f"result     {output} (4 to convert, 0 finished already)" in lines
    assert f"video      {clips}/a.mp4 -> {output}/a.mp4 (96x64, 8 frames, h264)" in lines
    assert f"video      {clips}/sub/c.avi -> {output}/sub/c.mp4 (96x64, 5 frames, h264)" in lines
    assert any(line.startswith(f"refused    {clips}/bad.mp4: not a video") for line in lines)
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["empty"], 2, "Error: no videos in empty: looked for .mp4 .m4v .mov .mkv .webm and others"),
        (["nothing*.mp4"], 2, "Error: no such file: nothing*.mp4\n"),
        (["a.mp4", "nothing.mp4"], 2, "Error: no such file: nothing.mp4\n"),
        (
            ["clips", "-o", "out.mp4"],
            2,
            "Error: out.mp4 is the name of one video: choose",
        ),
        (["clips", "-o", "a.mp4"], 4, "Error: a.mp4 is a file: choose a folder as --output"),
        (["clips", "-o", "."], 2, "Error: . holds the source folder"),
        (["clips", "--codec", "h256"], 2, "did you mean h265?"),
        (["clips", "--device", "tpu"], 2, "unknown device 'tpu'"),
        (["clips", "--engine", "warp"], 2, "unknown engine 'warp'"),
        (["clips", "--shard", "4/3"], 2, "Error: --shard 4/3 is no part: N parts are 1/N to N/N\n"),
    ],
)
def test_what_concerns_all_videos_is_refused_at_once(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "clips").mkdir()
    make_clip(tmp_path / "clips" / "a.mp4", Clip(frames=2))
    make_clip(tmp_path / "clips" / "b.mp4", Clip(frames=2))
    shutil.copy(tmp_path / "clips" / "a.mp4", tmp_path / "a.mp4")
    monkeypatch.chdir(tmp_path)
    got, out, err = outcome(capsys, "video", *arguments, "--model", "identity", "--quiet")
    assert (got, out) == (code, "")
    assert message in err
    assert sum(line.startswith("Error") for line in err.splitlines()) == 1
    assert not list(tmp_path.rglob("*identity*.mp4"))


def test_a_folder_of_other_results_is_refused(clips: Path, tmp_path: Path, exact: EngineOptions) -> None:
    run([clips], tmp_path / "out", exact)
    with pytest.raises(OutputError, match=r"holds results of identity with another look \(strength 1.0\)"):
        run([clips], tmp_path / "out", exact, strength=0.5)


def test_a_broken_model_stops_the_run(tmp_path: Path, exact: EngineOptions, small_model: str) -> None:
    """It would fail with every video; what is wrong with one video's pictures would not."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        make_clip(folder / name, Clip(frames=2))
    plan = plan_videos([folder], tmp_path / "out", small_model, VideoOptions(), exact)
    plan.model.unlink()
    tally = series.VideosTally(plan)
    with pytest.raises(ModelError):
        run_videos(plan, Silent(), tally)
    assert (tally.failures, tally.complete) == ([], False)


def test_a_full_disk_stops_the_run(
    clips: Path, tmp_path: Path, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> object:
        error = OutputError("disk full while writing")
        error.__cause__ = OSError(28, "No space left on device")
        raise error

    monkeypatch.setattr(series, "run_video", full)
    with pytest.raises(OutputError, match=r"disk full while writing; 0 of 4 videos are finished, the same"):
        run([clips], tmp_path / "out", exact)


def test_a_video_of_another_process_is_waited_for(
    tmp_path: Path, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another process is at a video the others are converted; then it is skipped or taken over."""
    monkeypatch.setattr(series, "POLL_SECONDS", 0.05)
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        make_clip(folder / name, Clip(frames=2))
    for name in ("a.mp4", "b.mp4"):
        part_folder(output / name).mkdir(parents=True)
    begun = threading.Event()

    def others() -> None:
        """One makes its result, and the other ends without."""
        with (
            locked(part_folder(output / "a.mp4") / LOCK),
            locked(part_folder(output / "b.mp4") / LOCK),
        ):
            begun.set()
            while not (output / "c.mp4").exists():
                time.sleep(0.01)
            shutil.copy(folder / "a.mp4", output / "a.mp4")

    thread = threading.Thread(target=others)
    thread.start()
    begun.wait()
    done = run([folder], output, exact)
    thread.join()
    assert (done.converted, done.skipped, done.failed) == (2, 1, 0)
    assert [Path(video.output).name for video in done.videos] == ["c.mp4", "b.mp4"]
    assert (output / "a.mp4").read_bytes() == (folder / "a.mp4").read_bytes()


def test_patterns_that_match_nothing_in_python(tmp_path: Path, exact: EngineOptions) -> None:
    with pytest.raises(UsageError, match="no such file"):
        run([tmp_path / "*.mp4"], None, exact)
