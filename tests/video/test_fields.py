"""Interlaced videos: found by their marks and by looking, and whole pictures made of their fields."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from cgconvert.errors import InputError, UsageError
from cgconvert.frames import Frame
from cgconvert.media.video.fields import Deinterlacing, look_for_fields
from cgconvert.media.video.probe import probe
from cgconvert.media.video.source import VideoSource
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.video.pipeline import convert_video
from cgconvert.video.plan import plan_video
from tests.video.clips import read_facts

WIDTH, STEP = 96, 512
BASE = Fraction(1, 12800)


def scene(time: int, height: int) -> np.ndarray:
    """Luma (H, W) of a pattern that moves 3 pixels in a field's time, sharp across and soft down."""
    y, x = np.mgrid[0:height, 0:WIDTH].astype(float)
    return 128 + 70 * np.sin((x - 3 * time) / 4) * np.cos(y / 40)


def interlaced(path: Path, order: str, frames: int = 15, height: int = 96, marked: bool = True) -> Path:
    """A clip whose frames hold two fields of the scene, half a frame's time apart."""
    marks = {"x264-params": f"{order}=1"} if marked else {}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "8", **marks})
        stream.width, stream.height, stream.pix_fmt = WIDTH, height, "yuv420p"
        stream.codec_context.time_base = stream.time_base = BASE
        for index in range(frames):
            top, bottom = (2 * index, 2 * index + 1) if order == "tff" else (2 * index + 1, 2 * index)
            luma = scene(top, height)
            luma[1::2] = scene(bottom, height)[1::2]
            planes = np.concatenate([luma.round(), np.full((height // 2, WIDTH), 128)]).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(planes, "yuv420p")
            frame.pts, frame.time_base, frame.duration = STEP * index, BASE, STEP
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def psnr(picture: np.ndarray, time: int, height: int = 96) -> float:
    """Of a stored picture's luma to the scene at a time."""
    error = picture[:height].astype(float) - scene(time, height)
    return float(10 * np.log10(255**2 / (error**2).mean()))


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_a_picture_of_each_frame(order: str, tmp_path: Path, exact: EngineOptions) -> None:
    source, output = interlaced(tmp_path / "in.mp4", order), tmp_path / "out.mkv"
    report = convert_video(source, output, "identity", VideoOptions(codec="ffv1"), exact)
    first = {"tff": "top", "bff": "bottom"}[order]
    assert report.warnings == [
        f"interlaced, {first} field first: one picture of each frame's two fields (bwdif), 25 pictures/s"
    ]
    assert report.frames_in == report.frames_out == 15
    after = read_facts(output)
    assert after.pts == [STEP * index * BASE for index in range(15)]
    assert probe(output).field_order == ""
    # At the ends one neighbour is missing. Woven fields have 24 dB here.
    assert min(psnr(picture, 2 * index) for index, picture in list(enumerate(after.pictures))[1:-1]) > 33


def test_a_picture_of_each_field(tmp_path: Path, exact: EngineOptions) -> None:
    source, output = interlaced(tmp_path / "in.mp4", "tff"), tmp_path / "out.mp4"
    options = VideoOptions(crf=4, deinterlace="double")
    report = convert_video(source, output, "identity", options, exact)
    assert report.frames_out == 30
    assert report.warnings == ["interlaced, top field first: a picture of each field (bwdif), 50 pictures/s"]
    after = read_facts(output)
    assert after.pts == [STEP * BASE * index / 2 for index in range(30)]
    assert min(psnr(picture, index) for index, picture in list(enumerate(after.pictures))[2:-2]) > 33


def test_off_keeps_both_fields(tmp_path: Path, exact: EngineOptions) -> None:
    source, output = interlaced(tmp_path / "in.mp4", "tff"), tmp_path / "out.mkv"
    report = convert_video(source, output, "identity", VideoOptions(codec="ffv1", deinterlace="off"), exact)
    assert not [line for line in report.warnings if "bwdif" in line]
    assert psnr(read_facts(output).pictures[7], 14) < 25


def test_refuse(tmp_path: Path, exact: EngineOptions) -> None:
    source = interlaced(tmp_path / "in.mp4", "tff")
    with pytest.raises(InputError, match=r"in\.mp4: interlaced, top field first: use `deinterlace="):
        plan_video(source, None, "identity", VideoOptions(deinterlace="refuse"), exact)
    with pytest.raises(UsageError, match="`deinterlace='on'` is unknown: use auto, double, off, refuse"):
        plan_video(source, None, "identity", VideoOptions(deinterlace="on"), exact)


def test_fields_that_nothing_marks_are_found_by_looking(tmp_path: Path, exact: EngineOptions) -> None:
    source = interlaced(tmp_path / "in.mp4", "bff", height=480, marked=False)
    assert probe(source).field_order == ""
    plan = plan_video(source, None, "identity", VideoOptions(), exact)
    assert plan.deinterlacing == Deinterlacing("bff")
    assert plan.notes[0].startswith("interlaced, bottom field first, though it is not marked so: one picture")


@pytest.mark.parametrize(("height", "marked"), [(480, False), (96, True)])
def test_whole_pictures_stay_as_they_are(
    height: int, marked: bool, tmp_path: Path, exact: EngineOptions
) -> None:
    """Also where they are marked as interlaced, as 25 pictures a second in a 50i stream are."""
    if marked:
        woven = interlaced(tmp_path / "woven.mp4", "tff", height=height)
        assert look_for_fields(woven, probe(woven))["tff"] > 8
    source = whole_frames(tmp_path / "in.mp4", height, marked)
    assert bool(probe(source).field_order) == marked
    plan = plan_video(source, None, "identity", VideoOptions(), exact)
    assert plan.deinterlacing is None
    said = "the video is marked as interlaced, but its frames are whole pictures and stay as they are"
    assert (said in plan.notes) == marked


def whole_frames(path: Path, height: int, marked: bool) -> Path:
    """Frames of one time each, marked as interlaced or not."""
    with av.open(str(path), "w") as container:
        marks = {"x264-params": "tff=1"} if marked else {}
        stream = container.add_stream("libx264", rate=25, options={"crf": "8", **marks})
        stream.width, stream.height, stream.pix_fmt = WIDTH, height, "yuv420p"
        for index in range(15):
            planes = np.concatenate([scene(2 * index, height).round(), np.full((height // 2, WIDTH), 128)])
            frame = av.VideoFrame.from_ndarray(planes.astype(np.uint8), "yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("double", [False, True])
def test_going_on_after_a_picture_gives_the_same_pictures(double: bool, tmp_path: Path) -> None:
    how = Deinterlacing("tff", double)
    path = interlaced(tmp_path / "in.mp4", "tff", frames=20)
    info = how.described(probe(path))
    size = (info.width, info.height)
    with VideoSource(path, info, size, deinterlacing=how) as source:
        whole = [frame for frame in source if isinstance(frame, Frame)]
    assert len(whole) == 20 * how.pictures
    for number in (0, 7, 12):
        with VideoSource(path, info, size, after=whole[number].pts, deinterlacing=how) as source:
            rest = [frame for frame in source if isinstance(frame, Frame)]
        assert [frame.pts for frame in rest] == [frame.pts for frame in whole[number + 1 :]]
        for new, old in zip(rest, whole[number + 1 :], strict=True):
            assert np.array_equal(new.pixels, old.pixels)


def test_a_cut_is_in_seconds_whatever_the_pictures_of_a_frame(tmp_path: Path, exact: EngineOptions) -> None:
    source, output = interlaced(tmp_path / "in.mp4", "tff", frames=25), tmp_path / "out.mp4"
    options = VideoOptions(start=0.2, end=0.6, deinterlace="double")
    assert convert_video(source, output, "identity", options, exact).frames_out == 20
    assert read_facts(output, pictures=False).pts == [STEP * BASE * index / 2 for index in range(20)]
