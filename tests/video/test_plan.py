"""How a plan is made: the source is opened once, and what is found in it is what the plan says."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from cgconvert.cli import main
from cgconvert.errors import InputError, OutputError
from cgconvert.media.video.probe import VideoProbe
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.video.plan import plan_video
from cgconvert.video.report import describe_growth
from tests.video.clips import Clip, make_clip


def test_a_source_is_opened_once(
    tmp_path: Path, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the container is left to us, and where one cannot hold every stream."""
    source = make_clip(tmp_path / "in.mkv", Clip(frames=3, audio="aac", attachment=b"words"))
    opened: list[str] = []
    plain = av.open

    def counted(file: Any, *arguments: Any, **options: Any) -> Any:
        opened.append(str(file))
        return plain(file, *arguments, **options)

    monkeypatch.setattr(av, "open", counted)
    plan_video(source, None, "identity", VideoOptions(), exact)
    plan_video(source, tmp_path / "out.webm", "identity", VideoOptions(), exact)
    assert [name for name in opened if "in.mkv" in name] == [f"file:{source}"] * 2


def test_where_streams_begin(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(frames=12, audio="aac"))
    with VideoProbe(source) as video:
        begins = {stream.kind: stream.begins for stream in video.streams}
        # AAC begins one block of 1024 samples early, which the edit list hides from players.
        assert begins == {"video": 0, "audio": Fraction(-1024, 48000)}
        assert video.first_time({0}) == 0
        assert video.first_time({0, 1}) == begins["audio"]
        assert video.first_time(()) == Fraction(0)


def test_a_file_without_a_frame_that_decodes(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(frames=4))
    data = bytearray(source.read_bytes())
    data[len(data) // 3 :] = bytes(len(data) - len(data) // 3)
    source.write_bytes(data)
    with pytest.raises(InputError, match=r"in\.mkv: no frame of its video can be decoded"):
        VideoProbe(source)


def test_a_result_that_is_much_larger_is_told_with_what_makes_it_smaller(
    tmp_path: Path, exact: EngineOptions
) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(frames=1))
    encoding = plan_video(source, None, "identity", VideoOptions(), exact).encoding
    source.write_bytes(bytes(2**20))
    assert describe_growth(source, 3 * 2**20 - 1, encoding) == []
    assert describe_growth(source, 6 * 2**20, encoding) == [
        "the result is 6.0 times as large as its source (6.0 MiB, 1.0 MiB): a `crf` above 18 makes it smaller"
    ]
    source.write_bytes(bytes(100))
    assert describe_growth(source, 2000, encoding) == [], "small files are all header"
    lossless = plan_video(source_of(tmp_path), None, "identity", VideoOptions(codec="ffv1"), exact).encoding
    source.write_bytes(bytes(2**20))
    assert describe_growth(source, 6 * 2**20, lossless) == [], "nothing makes it smaller"


def source_of(folder: Path) -> Path:
    return make_clip(folder / "other.mkv", Clip(frames=1))


def test_what_will_be_dropped_is_told_before_the_work(
    tmp_path: Path, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(frames=2, audio="aac"))

    def stopped(plan: Any, progress: Any) -> None:
        raise OutputError("stopped by the test")

    monkeypatch.setattr("cgconvert.video.pipeline.run_video", stopped)
    with pytest.raises(SystemExit):
        main(["video", str(source), "-o", str(tmp_path / "out.webm"), "-m", "identity", "--device", "cpu"])
    assert capsys.readouterr().err.splitlines() == [
        "Note: stream #1 audio (aac): encoded, as Opus, since webm cannot hold it",
        "Error: stopped by the test",
    ]


def test_who_asks_for_a_former_model_is_told_which_one_is_used(tmp_path: Path, exact: EngineOptions) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(frames=3))
    plan = plan_video(source, None, "photo2monet-tiny", VideoOptions(), exact)
    assert plan.card.name == "photo2monet-fast"
    assert plan.notes[0] == "photo2monet-tiny is no longer shipped: photo2monet-fast takes its place"
