"""Damaged videos: converted as far as they go, and what was wrong is counted and said."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from PIL import Image

from cgconvert.errors import InputError, UsageError
from cgconvert.media.video import open as opening
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.video.pipeline import convert_video
from tests.video.clips import Clip, make_clip, picture, read_facts

LONG = Clip(frames=100, time_base=Fraction(1, 1000), step=40, audio="aac", options={"crf": "12", "g": "10"})


def test_a_truncated_video_is_converted_as_far_as_it_goes(tmp_path: Path, exact: EngineOptions) -> None:
    whole = make_clip(tmp_path / "whole.mkv", Clip(**{**LONG.__dict__, "audio": None}))
    data = whole.read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(data[: len(data) * 6 // 10])
    readable = len(read_facts(cut).pts)
    assert 20 < readable < 100
    report = convert_video(cut, tmp_path / "out.mkv", "identity", engine_options=exact)
    assert report.frames_out == readable
    assert read_facts(tmp_path / "out.mkv").pts == read_facts(cut).pts
    assert any("cut short" in warning for warning in report.warnings)
    missing = report.damage["missing_seconds"]
    assert missing == pytest.approx(4.0 - readable * 0.04, abs=0.06)


def test_strict_refuses_a_truncated_video_and_leaves_nothing(tmp_path: Path, exact: EngineOptions) -> None:
    whole = make_clip(tmp_path / "whole.mkv", LONG)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(InputError, match=r"cut\.mkv.*\(`strict`\)"):
        convert_video(cut, tmp_path / "out.mkv", "identity", VideoOptions(strict=True), exact)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.mkv", "whole.mkv"]


def test_damage_in_the_middle_is_counted(tmp_path: Path, exact: EngineOptions) -> None:
    whole = make_clip(tmp_path / "whole.mp4", Clip(**{**LONG.__dict__, "audio": None}))
    data = bytearray(whole.read_bytes())
    start = len(data) // 3
    data[start : start + 400] = bytes(400)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    report = convert_video(broken, tmp_path / "out.mp4", "identity", engine_options=exact)
    damage = report.damage
    assert damage["corrupt_frames"] + damage["undecodable_packets"] > 0
    assert report.frames_out == report.frames_in >= 90
    assert any("damaged" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a video"),
        (b"no video at all, just words " * 50, "not a video"),
        (b"\x00\x00\x00\x18ftypisom" + bytes(64), "not a video|no video"),
    ],
)
def test_what_is_no_video(content: bytes, message: str, tmp_path: Path, exact: EngineOptions) -> None:
    source = tmp_path / "in.mp4"
    source.write_bytes(content)
    with pytest.raises(InputError, match=message):
        convert_video(source, tmp_path / "out.mp4", "identity", engine_options=exact)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_decoders_have_the_bound_on_pixels(
    tmp_path: Path, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GIF's size reaches only the decoder, which allocated whatever it said."""
    source = tmp_path / "large.gif"
    frames = [Image.fromarray(picture(number, 24, 16)) for number in (0, 4)]
    frames[0].save(source, save_all=True, append_images=frames[1:])
    assert convert_video(source, tmp_path / "out.mkv", "identity", engine_options=exact).frames_out == 2
    monkeypatch.setitem(opening.OPEN_OPTIONS, "max_pixels", "100")
    with pytest.raises(InputError, match=r"large\.gif: no frame"):
        convert_video(source, tmp_path / "again.mkv", "identity", engine_options=exact)


def test_sound_without_pictures(tmp_path: Path, exact: EngineOptions) -> None:
    import av
    import numpy as np

    source = tmp_path / "sound.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match=r"no video to convert \(it holds: audio\)"):
        convert_video(source, tmp_path / "out.mp4", "identity", engine_options=exact)


def test_a_playlist_cannot_reach_the_network(tmp_path: Path, exact: EngineOptions) -> None:
    source = tmp_path / "list.m3u8"
    lines = [
        "#EXTM3U",
        "#EXT-X-TARGETDURATION:9",
        "#EXTINF:9,",
        "http://127.0.0.1:9/x.ts",
        "#EXT-X-ENDLIST",
        "",
    ]
    source.write_text("\n".join(lines))
    with pytest.raises(InputError):
        convert_video(source, tmp_path / "out.mp4", "identity", engine_options=exact)


def test_missing_files_and_folders(tmp_path: Path, exact: EngineOptions) -> None:
    with pytest.raises(UsageError, match="no such file"):
        convert_video(tmp_path / "none.mp4", None, "identity", engine_options=exact)
    with pytest.raises(UsageError, match="cgconvert dir"):
        convert_video(tmp_path, None, "identity", engine_options=exact)
