"""Videos that are made in unusual ways, and requests that could destroy something."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from cgconvert.errors import CgconvertError, OutputError, UsageError
from cgconvert.media.video.codecs import held_by
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.video.pipeline import convert_video
from cgconvert.video.plan import plan_video
from tests.video.clips import Clip, make_clip, picture, read_facts

EXACT = ["--model", "identity", "--engine", "eager", "--precision", "fp32", "--device", "cpu", "--quiet"]
PICTURE = av.stream.Disposition.attached_pic
ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, \
Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, \
MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def jpeg() -> bytes:
    """A small JPEG picture."""
    context: Any = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt, context.time_base = 32, 32, "yuvj420p", Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(picture(0, 32, 32), "rgb24").reformat(format="yuvj420p")
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    return bytes((context.encode(frame) + context.encode(None))[0])


def copy_packets(source: Any, container: Any, streams: dict[int, Any]) -> None:
    """Every packet of `source` into `container`."""
    for packet in source.demux():
        if packet.size:
            packet.stream = streams[packet.stream.index]
            container.mux_one(packet)


def clip_with_cover(path: Path, data: bytes) -> Path:
    """A clip with a cover picture, as its container likes it: a still stream in MP4, an attachment in MKV."""
    base = make_clip(path.with_name("base.mp4"), Clip(audio="aac"))
    with av.open(str(base)) as source, av.open(str(path), "w") as container:
        streams = {s.index: container.add_stream_from_template(s, opaque=True) for s in source.streams}
        if path.suffix == ".mkv":
            container.add_attachment("cover.jpg", "image/jpeg", data)
            container.start_encoding()
        else:
            cover: Any = container.add_stream("mjpeg", rate=25)
            cover.width, cover.height, cover.pix_fmt, cover.disposition = 32, 32, "yuvj420p", PICTURE
            container.start_encoding()
            packet: Any = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = cover, 0, 0, Fraction(1, 25)
            packet.is_keyframe = True
            container.mux_one(packet)
        copy_packets(source, container, streams)
    return path


def clip_with_two_videos(path: Path) -> Path:
    """Two video streams, both marked as default, the larger one second: a player shows the second."""
    small = make_clip(path.with_name("small.mp4"), Clip(frames=25, width=96, height=96, options={"crf": "8"}))
    large = make_clip(
        path.with_name("large.mp4"), Clip(frames=25, width=192, height=128, options={"crf": "1"})
    )
    with av.open(str(small)) as one, av.open(str(large)) as two, av.open(str(path), "w") as container:
        streams = [container.add_stream_from_template(c.streams[0], opaque=True) for c in (one, two)]
        for stream in streams:
            stream.disposition = av.stream.Disposition.default
        container.start_encoding()
        for source, stream in zip((one, two), streams, strict=True):
            copy_packets(source, container, {0: stream})
    return path


@pytest.mark.parametrize("what", ["source", "source by another name", "output"])
def test_a_report_never_replaces_the_video(what: str, tmp_path: Path) -> None:
    source, output = make_clip(tmp_path / "in.mp4", Clip()), tmp_path / "out.mp4"
    (tmp_path / "link.mp4").symlink_to(source)
    before = source.read_bytes()
    report = {"source": source, "source by another name": tmp_path / "link.mp4", "output": output}[what]
    command = [sys.executable, "-m", "cgconvert", "video", str(source), "-o", str(output), *EXACT]
    done = subprocess.run([*command, "--report", str(report)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "--report" in done.stderr
    assert source.read_bytes() == before
    assert not output.exists()


@pytest.mark.parametrize("suffix", [".ts", ".mpg", ".h264"])
def test_a_cut_of_a_video_without_an_index_loses_no_frame(
    suffix: str, tmp_path: Path, exact: EngineOptions
) -> None:
    clips = {
        ".ts": Clip(frames=50, time_base=Fraction(1, 90000), step=3600, audio="aac"),
        ".mpg": Clip(frames=50, time_base=Fraction(1, 25), step=1, codec="mpeg2video", options={}),
        ".h264": Clip(frames=50),
    }
    source = make_clip(tmp_path / f"in{suffix}", clips[suffix])
    report = convert_video(
        source, tmp_path / "out.mkv", "identity", VideoOptions(start=0.5, end=1.5), engine_options=exact
    )
    assert report.frames_out == 25
    assert read_facts(tmp_path / "out.mkv").pts[0] < Fraction(1, 20)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_an_offset_that_is_no_whole_millisecond_is_kept(
    suffix: str, tmp_path: Path, exact: EngineOptions
) -> None:
    base = Fraction(1, 30000)
    plain = make_clip(tmp_path / f"plain{suffix}", Clip(time_base=base, step=1001))
    source = tmp_path / f"in{suffix}"
    with (
        av.open(str(plain)) as video,
        av.open(str(source), "w", container_options={"movie_timescale": "30000"}) as container,
    ):
        stream = container.add_stream_from_template(video.streams[0], opaque=True)
        for packet in video.demux():
            if packet.size:
                packet.pts, packet.dts = (packet.pts or 0) + 1001, (packet.dts or 0) + 1001
                packet.stream = stream
                container.mux_one(packet)
    before = read_facts(source).pts
    assert before[0] == 1001 * base
    convert_video(source, tmp_path / f"out{suffix}", "identity", engine_options=exact)
    assert read_facts(tmp_path / f"out{suffix}").pts == before


def test_a_subtitle_before_the_beginning_of_an_edit_list_is_no_disk_failure(
    tmp_path: Path, exact: EngineOptions
) -> None:
    base, source = make_clip(tmp_path / "base.mp4", Clip(frames=25)), tmp_path / "in.mp4"
    with av.open(str(base)) as plain, av.open(str(source), "w") as container:
        video = container.add_stream_from_template(plain.streams[0], opaque=True)
        subtitle: Any = container.add_stream("mov_text")
        subtitle.codec_context.subtitle_header = ASS_HEADER
        container.start_encoding()
        for pts, duration, text in ((-700, 200, b"\0\5Hello"), (100, 300, b"\0\5World")):
            packet: Any = av.Packet(text)
            packet.stream, packet.pts, packet.dts = subtitle, pts, pts
            packet.duration, packet.time_base = duration, Fraction(1, 1000)
            container.mux_one(packet)
        copy_packets(plain, container, {0: video})
    convert_video(source, tmp_path / "out.mp4", "identity", engine_options=exact)
    after = read_facts(tmp_path / "out.mp4")
    assert after.pts == read_facts(base).pts
    assert hashlib.sha256(b"\0\5World").hexdigest() in [digest for _, digest in after.packets[1]]


@pytest.mark.parametrize("after", [".mp4", ".mkv"])
@pytest.mark.parametrize("before", [".mp4", ".mkv"])
def test_the_cover_is_kept(before: str, after: str, tmp_path: Path, exact: EngineOptions) -> None:
    data = jpeg()
    source = clip_with_cover(tmp_path / f"in{before}", data)
    convert_video(source, tmp_path / f"out{after}", "identity", engine_options=exact)
    with av.open(str(tmp_path / f"out{after}")) as container:
        covers = [stream for stream in container.streams.video if stream.disposition & PICTURE]
        assert len(covers) == 1
        pictures = [bytes(packet) for packet in container.demux(covers[0]) if packet.size]
    assert pictures == [data]


def test_the_converted_video_is_the_one_that_a_player_shows(tmp_path: Path, exact: EngineOptions) -> None:
    source = clip_with_two_videos(tmp_path / "in.mp4")
    with av.open(str(source)) as container:
        assert container.streams.best("video").index == 1  # type: ignore[union-attr]
    options = VideoOptions(crf=51)  # the result has fewer bits than the stream that was not converted
    report = convert_video(source, tmp_path / "out.mp4", "identity", options, exact)
    assert [stream["action"] for stream in report.streams] == ["copied", "converted"]
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.best("video").width == 192  # type: ignore[union-attr]


def test_matroska_holds_the_streams_of_discs() -> None:
    assert {"dts", "hdmv_pgs_subtitle", "dvd_subtitle", "dvb_subtitle"} <= held_by("matroska")


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_video_that_begins_late_is_not_cut_short(suffix: str, tmp_path: Path, exact: EngineOptions) -> None:
    pts = [1_000_000 + 40 * n for n in range(12)]
    clip = Clip(time_base=Fraction(1, 1000), step=40, pts=pts)
    source = make_clip(tmp_path / f"in{suffix}", clip)
    report = convert_video(
        source, tmp_path / f"out{suffix}", "identity", VideoOptions(strict=True), engine_options=exact
    )
    assert report.warnings == []
    assert report.damage["missing_seconds"] == 0


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_chapters_that_are_kept_are_not_reported_as_dropped(
    suffix: str, tmp_path: Path, exact: EngineOptions
) -> None:
    source = make_clip(tmp_path / f"in{suffix}", Clip(chapters=True, audio="aac"))
    report = convert_video(
        source, tmp_path / f"out{suffix}", "identity", VideoOptions(strict=True), engine_options=exact
    )
    assert report.warnings == []
    assert read_facts(tmp_path / f"out{suffix}").chapters == read_facts(source).chapters


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_chapters_end_with_the_cut(suffix: str, tmp_path: Path, exact: EngineOptions) -> None:
    source = make_clip(tmp_path / f"in{suffix}", Clip(frames=25, chapters=True))
    convert_video(
        source, tmp_path / f"out{suffix}", "identity", VideoOptions(start=0.2, end=0.4), engine_options=exact
    )
    chapters = read_facts(tmp_path / f"out{suffix}").chapters
    assert [(float(start), round(float(end), 2)) for start, end, _ in chapters] == [(0, 0.2)]


def lossy(tmp_path: Path, clip: Clip, options: VideoOptions, exact: EngineOptions) -> str:
    """What the plan says about a clip in Matroska."""
    source = make_clip(tmp_path / "in.mkv", clip)
    return " ".join(plan_video(source, None, "identity", options, exact).notes)


def test_lost_transparency_is_said(tmp_path: Path, exact: EngineOptions) -> None:
    notes = lossy(tmp_path, Clip(codec="ffv1", pix_fmt="yuva420p", options={}), VideoOptions(), exact)
    assert "alpha" in notes or "transparen" in notes


def test_lost_depth_is_said(tmp_path: Path, exact: EngineOptions) -> None:
    notes = lossy(tmp_path, Clip(pix_fmt="yuv420p10le"), VideoOptions(codec="vp9"), exact)
    assert "10" in notes
    assert "8" in notes


def test_moved_times_are_said(tmp_path: Path, exact: EngineOptions) -> None:
    """Matroska has no negative times: sound that begins before zero moves the whole video."""
    source = make_clip(tmp_path / "in.mp4", Clip(audio="aac"))
    report = convert_video(source, tmp_path / "out.mkv", "identity", engine_options=exact)
    before, after = read_facts(source).pts, read_facts(tmp_path / "out.mkv").pts
    assert after == before or any("mkv" in line or "matroska" in line for line in report.warnings)


def test_a_name_that_is_too_long_is_one_clear_line(tmp_path: Path, exact: EngineOptions) -> None:
    source = make_clip(tmp_path / f"{'l' * 245}.mp4", Clip())
    with pytest.raises(CgconvertError, match="too long"):
        convert_video(source, None, "identity", engine_options=exact)


def test_a_link_to_nowhere_is_seen_before_the_work(tmp_path: Path, exact: EngineOptions) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip())
    (tmp_path / "out.mp4").symlink_to(tmp_path / "nowhere.mp4")
    with pytest.raises(OutputError, match="exists already"):
        plan_video(source, tmp_path / "out.mp4", "identity", VideoOptions(), exact)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "cgconvert", "video", str(pipe), *EXACT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert "not a regular file" in done.stderr


def test_a_network_that_sees_one_pixel_of_a_turned_video(tmp_path: Path, exact: EngineOptions) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(rotation=90))
    options = VideoOptions(work_size="1x1")
    assert convert_video(source, tmp_path / "out.mp4", "identity", options, exact).frames_out == 12


@pytest.mark.parametrize("name", ["start", "end"])
def test_a_time_that_is_no_number(name: str, tmp_path: Path, exact: EngineOptions) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip())
    value = float("nan")
    options = VideoOptions(start=value) if name == "start" else VideoOptions(end=value)
    with pytest.raises(UsageError, match=f"`{name}="):
        plan_video(source, None, "identity", options, exact)
