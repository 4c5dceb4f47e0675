"""A video keeps everything but its look: times, counts, sound, colours, chapters, sizes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from cgconvert.errors import InputError
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.video.pipeline import convert_video
from tests.video.clips import NTSC, Clip, Facts, make_clip, picture, read_facts

BFRAMES = {"crf": "12", "bf": "3", "b_strategy": "0"}
UNEVEN = [0, 400, 1000, 1001, 1900, 3000, 3512, 5000, 5100, 6000, 9000, 9999]

TIMED = {
    "constant rate, B-frames, mp4": (".mp4", Clip(options=BFRAMES, audio="aac")),
    "variable rate, mp4": (".mp4", Clip(pts=UNEVEN, options=BFRAMES, audio="aac")),
    "NTSC, mp4": (".mp4", Clip(time_base=1 / NTSC / 1001 * 1001, step=1, frames=30, audio="aac")),
    "90 kHz clock, mov": (
        ".mov",
        Clip(time_base=Fraction(1, 90000), step=3003, options=BFRAMES, audio="aac"),
    ),
    "late first frame, mp4": (".mp4", Clip(pts=[2560 + 512 * n for n in range(9)], frames=9, audio="aac")),
    "late sound, mkv": (".mkv", Clip(time_base=Fraction(1, 1000), step=40, audio="aac", audio_offset=0.3)),
    "variable rate, mkv": (
        ".mkv",
        Clip(time_base=Fraction(1, 1000), pts=UNEVEN, options=BFRAMES, audio="flac"),
    ),
    "webm with opus": (
        ".webm",
        Clip(
            codec="libvpx-vp9",
            options={"deadline": "realtime", "b": "200k"},
            time_base=Fraction(1, 1000),
            step=40,
            audio="libopus",
        ),
    ),
}


def sound(facts: Facts) -> list[tuple[Fraction, str]]:
    """Times and checksums of the packets of the audio stream."""
    return facts.packets[facts.kinds.index("audio")]


@pytest.mark.parametrize("name", TIMED)
def test_every_frame_keeps_its_time_and_every_sound_its_bytes(
    name: str, tmp_path: Path, exact: EngineOptions
) -> None:
    suffix, clip = TIMED[name]
    source = make_clip(tmp_path / f"in{suffix}", clip)
    report = convert_video(source, tmp_path / f"out{suffix}", "identity", engine_options=exact)
    before, after = read_facts(source), read_facts(tmp_path / f"out{suffix}")
    assert len(before.pts) == clip.frames == len(clip.times())
    assert after.pts == before.pts
    assert after.durations[:-1] == before.durations[:-1]
    assert after.kinds == before.kinds
    assert sound(after) == sound(before)
    assert (report.frames_in, report.frames_out) == (clip.frames, clip.frames)
    assert report.warnings == []


LOSSLESS = VideoOptions(codec="ffv1")


def lossless(pix_fmt: str, **changes: object) -> Clip:
    """A clip whose pictures are stored without loss, so that only our own losses are measured."""
    return Clip(
        frames=3,
        codec="ffv1",
        pix_fmt=pix_fmt,
        options={},
        time_base=Fraction(1, 1000),
        step=40,
        **changes,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("pix_fmt", ["bgr0", "gbrp10le"])
def test_rgb_through_identity_is_unchanged(pix_fmt: str, tmp_path: Path, exact: EngineOptions) -> None:
    source = make_clip(tmp_path / "in.mkv", lossless(pix_fmt))
    convert_video(source, tmp_path / "out.mkv", "identity", LOSSLESS, exact)
    before, after = read_facts(source), read_facts(tmp_path / "out.mkv")
    assert after.frame_format == before.frame_format
    for old, new in zip(before.pictures, after.pictures, strict=True):
        np.testing.assert_array_equal(new, old)


TAGGED = {
    "untagged small": {},
    "BT.601 limited": {"colorspace": 6, "color_range": 1, "color_primaries": 6, "color_trc": 6},
    "BT.709 limited": {"colorspace": 1, "color_range": 1, "color_primaries": 1, "color_trc": 1},
    "BT.709 full": {"colorspace": 1, "color_range": 2, "color_primaries": 1, "color_trc": 1},
    "BT.2020 limited": {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": 14},
}


@pytest.mark.parametrize("tags", TAGGED)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
def test_colours_through_identity(pix_fmt: str, tags: str, tmp_path: Path, exact: EngineOptions) -> None:
    """Rounding moves a sample by up to 2 levels, of 255 or of 1023, interpolated chroma by 3."""
    most, mean = 3, 0.6
    source = make_clip(tmp_path / "in.mkv", lossless(pix_fmt, tags=TAGGED[tags]))
    convert_video(source, tmp_path / "out.mkv", "identity", LOSSLESS, exact)
    before, after = read_facts(source), read_facts(tmp_path / "out.mkv")
    assert after.frame_format == before.frame_format == pix_fmt
    assert after.colours == before.colours
    for old, new in zip(before.pictures, after.pictures, strict=True):
        difference = np.abs(new.astype(int) - old.astype(int))
        assert difference.max() <= most, f"largest change {difference.max()} levels"
        assert difference.mean() < mean, f"mean change {difference.mean():.3f} levels"


def test_ten_bits_stay_ten_bits_in_h264(tmp_path: Path, exact: EngineOptions) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(pix_fmt="yuv420p10le"))
    convert_video(source, tmp_path / "out.mp4", "identity", engine_options=exact)
    assert read_facts(tmp_path / "out.mp4").frame_format == "yuv420p10le"


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_rotated_video_comes_out_upright(rotation: int, tmp_path: Path, exact: EngineOptions) -> None:
    """Phones store a turned picture and a note to turn it: the result is stored upright, without the note."""
    source = make_clip(tmp_path / "in.mp4", Clip(frames=2, width=96, height=64, rotation=rotation))
    plain = make_clip(tmp_path / "plain.mp4", Clip(frames=2, width=96, height=64))
    report = convert_video(source, tmp_path / "out.mp4", "identity", engine_options=exact)
    import av

    with av.open(str(source)) as container:
        frame = next(container.decode(video=0))
        upright = np.rot90(
            next(av.open(str(plain)).decode(video=0)).to_ndarray(format="rgb24"), frame.rotation // 90
        )
    with av.open(str(tmp_path / "out.mp4")) as container:
        result = next(container.decode(video=0))
        assert result.rotation == 0
        pixels = result.to_ndarray(format="rgb24")
    assert pixels.shape == upright.shape
    assert tuple(report.size) == (upright.shape[1], upright.shape[0])
    assert np.abs(pixels.astype(int) - upright.astype(int)).mean() < 4


def test_chapters_and_metadata_are_kept(tmp_path: Path, exact: EngineOptions) -> None:
    clip = Clip(chapters=True, audio="aac", metadata={"title": "A walk", "comment": "in May"})
    source = make_clip(tmp_path / "in.mp4", clip)
    convert_video(source, tmp_path / "out.mp4", "identity", engine_options=exact)
    before, after = read_facts(source), read_facts(tmp_path / "out.mp4")
    assert len(before.chapters) == 2
    assert after.chapters == before.chapters
    assert (after.metadata["title"], after.metadata["comment"]) == ("A walk", "in May")


def test_attachments_stay_in_matroska_and_are_named_as_dropped_elsewhere(
    tmp_path: Path, exact: EngineOptions
) -> None:
    import av

    clip = Clip(time_base=Fraction(1, 1000), step=40, attachment=b"a note")
    source = make_clip(tmp_path / "in.mkv", clip)
    convert_video(source, tmp_path / "out.mkv", "identity", engine_options=exact)
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert [bytes(s.data) for s in container.streams if s.type == "attachment"] == [b"a note"]
    report = convert_video(source, tmp_path / "out.mp4", "identity", engine_options=exact)
    assert any("attachment" in warning and "dropped" in warning for warning in report.warnings)
    with pytest.raises(InputError, match="not every stream can be kept"):
        convert_video(source, tmp_path / "strict.mp4", "identity", VideoOptions(strict=True), exact)
    assert not (tmp_path / "strict.mp4").exists()


def test_a_video_without_a_writable_container_becomes_mp4(tmp_path: Path, exact: EngineOptions) -> None:
    source = make_clip(
        tmp_path / "in.avi", Clip(codec="mpeg4", options={}, time_base=Fraction(1, 25), step=1)
    )
    report = convert_video(source, None, "identity", engine_options=exact)
    assert Path(report.output) == tmp_path / "in.identity.mp4"
    assert any(".avi cannot be written" in warning for warning in report.warnings)
    assert len(read_facts(tmp_path / "in.identity.mp4").pts) == 12


@pytest.mark.parametrize(("width", "height"), [(95, 64), (96, 63), (95, 63), (34, 18)])
def test_odd_sizes_stay_as_they_are(width: int, height: int, tmp_path: Path, exact: EngineOptions) -> None:
    clip = Clip(frames=2, width=width, height=height, pix_fmt="yuv444p")
    source = make_clip(tmp_path / "in.mp4", clip)
    convert_video(source, tmp_path / "out.mp4", "identity", engine_options=exact)
    assert read_facts(tmp_path / "out.mp4").size == (width, height)


def test_batches_change_nothing(tmp_path: Path, small_model: str) -> None:
    """Frames in batches of 5 (the last one of 2) equal frames one by one, to the rounding of one level."""
    source = make_clip(tmp_path / "in.mp4", Clip(frames=12, audio="aac"))
    pictures = []
    for batch in (1, 5):
        output = tmp_path / f"out{batch}.mkv"
        engine = EngineOptions("cpu", "eager", "fp32", batch)
        convert_video(source, output, small_model, VideoOptions(codec="ffv1", pix_fmt="bgr0"), engine)
        facts = read_facts(output)
        assert len(facts.pts) == 12
        pictures.append(np.stack(facts.pictures).astype(int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    untouched = np.stack([picture(index, 96, 64) for index in range(12)]).astype(int)
    assert np.abs(untouched - pictures[0]).mean() > 5  # the network did something
