"""What a video will take: measured before a run, and said at the start of a long one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cgconvert.cli import cgconvert, run
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.progress import Silent, size_in_words
from cgconvert.video import estimate
from cgconvert.video.estimate import Estimate, Measurement
from cgconvert.video.pipeline import run_video
from cgconvert.video.plan import plan_video
from cgconvert.video.trial import estimate_video, parts_of
from tests.video.clips import Clip, make_clip

FOUND = Estimate(5000, 2.0, 10.0, 300 << 20, 500 << 20, 400 << 20, 700 << 20)


class Notes(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def test_an_estimate_in_words() -> None:
    assert FOUND.describe() == (
        "about 41:50 for 5000 frames (2.0 frames/s), a result of about 300 MiB (500 MiB of disk until it is "
        "complete, 400 MiB are free and too few), memory 700 MiB"
    )
    assert "too few" not in replace(FOUND, free=500 << 20).describe()
    assert replace(FOUND, result_bytes=None, memory=None).describe() == (
        "about 41:50 for 5000 frames (2.0 frames/s)"
    )


@pytest.mark.parametrize(
    ("size", "text"), [(500, "0.5 KiB"), (1024, "1.0 KiB"), (20 << 20, "20 MiB"), (3 << 40, "3.0 TiB")]
)
def test_sizes_in_words(size: int, text: str) -> None:
    assert size_in_words(size) == text


def test_the_size_is_near_that_of_the_result(tmp_path: Path, exact: EngineOptions) -> None:
    """The clip moves evenly, so its frames cost the same everywhere."""
    clip = make_clip(tmp_path / "in.mp4", Clip(frames=120, width=128, height=96, audio="aac"))
    plan = plan_video(clip, None, "identity", VideoOptions(), exact)
    found = estimate_video(plan, Silent())
    assert (found.frames, len(parts_of(plan))) == (120, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]  # nothing is left of it
    written = Path(run_video(plan, Silent()).output).stat().st_size
    assert found.result_bytes is not None
    # Eight frames at a place, each with a keyframe of its own, tell less than 250 in a row.
    assert written / 2 < found.result_bytes < written * 2
    assert found.disk_bytes is not None
    assert found.result_bytes < found.disk_bytes < 2 * found.result_bytes
    assert found.memory is not None
    assert found.memory > 50 << 20  # torch alone is more


def test_only_what_is_converted_counts(tmp_path: Path, exact: EngineOptions) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip(frames=100))
    plan = plan_video(clip, None, "identity", VideoOptions(start=1, end=3), exact)
    assert estimate_video(plan, Silent()).frames == 50
    assert all(1 <= start < end <= 3.4 for start, end in parts_of(plan))


def test_a_long_run_says_it_once_and_a_short_one_does_not(
    tmp_path: Path, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip(frames=30))
    plan = plan_video(clip, None, "identity", VideoOptions(overwrite=True), exact)
    notes = Notes()
    run_video(plan, notes)
    assert not [line for line in notes.lines if line.startswith("about")]
    monkeypatch.setattr(Measurement.__init__, "__defaults__", (0.0,))
    run_video(plan, notes)
    (line,) = [line for line in notes.lines if line.startswith("about")]
    assert "for 30 frames (" in line
    assert "a result of about " in line


def test_the_result_is_the_same_with_and_without_being_measured(
    tmp_path: Path, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "in.mp4", Clip(frames=30))
    results = []
    for least in (estimate.WORTH_SAYING, 0.0):
        monkeypatch.setattr(Measurement.__init__, "__defaults__", (least,))
        plan = plan_video(clip, tmp_path / f"{least:g}.mp4", "identity", VideoOptions(), exact)
        results.append(Path(run_video(plan, Silent()).output).read_bytes())
    assert results[0] == results[1]


def test_the_command_prints_it_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_clip(tmp_path / "a.mp4", Clip(frames=30))
    make_clip(tmp_path / "b.mp4", Clip(frames=20))
    before = sorted(tmp_path.iterdir())
    for sources in ([tmp_path / "a.mp4"], [tmp_path]):
        arguments = ["video", *map(str, sources), "--estimate", "-m", "identity", "--quiet"]
        with pytest.raises(SystemExit) as left:
            run(cgconvert, "cgconvert", arguments)
        assert left.value.code == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("about 0:0")
    assert "for 30 frames" in out[0]
    assert out[1].startswith("a.mp4: about")
    assert out[2].startswith("b.mp4: about")
    assert out[3].startswith("2 videos: about")
    assert sorted(tmp_path.iterdir()) == before
