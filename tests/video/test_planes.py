"""Videos whose frames go to the network as YUV planes: the same result as by way of RGB on the host."""

from __future__ import annotations

import threading
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cgconvert.errors import OutputError, UnavailableError, UsageError
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.progress import Silent
from cgconvert.video.pipeline import run_video
from cgconvert.video.plan import plan_video
from cgconvert.video.report import VideoReport
from cgconvert.video.route import VideoRoute, choose_route
from tests.video.clips import Clip, Facts, make_clip, read_facts
from tests.video.test_fidelity import BFRAMES, TAGGED, TIMED, lossless

FFV1 = VideoOptions(codec="ffv1")


def convert(
    source: Path, output: Path, model: str, options: VideoOptions, engine: EngineOptions, as_planes: bool
) -> tuple[VideoReport, Facts]:
    """A video by one of the two ways, and what it holds."""
    plan = plan_video(source, output, model, options, engine)
    report = run_video(choose_route(plan, plan.route.device, as_planes), Silent())
    assert any("planes" in note for note in report.path) == as_planes
    return report, read_facts(output)


def differences(first: Facts, second: Facts) -> tuple[float, float]:
    """The largest and the mean difference of the stored samples, in levels."""
    pairs = zip(first.pictures, second.pictures, strict=True)
    gaps = [np.abs(new.astype(int) - old.astype(int)) for new, old in pairs]
    return max(gap.max() for gap in gaps), float(np.mean([gap.mean() for gap in gaps]))


@pytest.mark.parametrize("name", TIMED)
def test_every_frame_keeps_its_time(name: str, tmp_path: Path, exact: EngineOptions) -> None:
    suffix, clip = TIMED[name]
    source = make_clip(tmp_path / f"in{suffix}", clip)
    report, after = convert(source, tmp_path / f"out{suffix}", "identity", VideoOptions(), exact, True)
    before = read_facts(source)
    assert after.pts == before.pts
    assert after.durations[:-1] == before.durations[:-1]
    assert after.packets[after.kinds.index("audio")] == before.packets[before.kinds.index("audio")]
    assert (report.frames_in, report.frames_out) == (clip.frames, clip.frames)
    assert report.warnings == []


@pytest.mark.parametrize("tags", TAGGED)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
def test_identity_changes_nothing_and_equals_the_other_way(
    pix_fmt: str, tags: str, tmp_path: Path, exact: EngineOptions
) -> None:
    """Nothing beyond rounding and the averaging of chroma: 2 levels of 255, 4 of 1023. To the way by RGB the
    roundings of both add up: 3 levels, 5 of 1023."""
    ten = pix_fmt.endswith("10le")
    source = make_clip(tmp_path / "in.mkv", lossless(pix_fmt, tags=TAGGED[tags]))
    _, planes = convert(source, tmp_path / "planes.mkv", "identity", FFV1, exact, True)
    _, pixels = convert(source, tmp_path / "pixels.mkv", "identity", FFV1, exact, False)
    before = read_facts(source)
    assert planes.frame_format == before.frame_format == pix_fmt
    assert planes.colours == before.colours
    most, mean = differences(planes, before)
    assert most <= (4 if ten else 2), most
    assert mean < (0.6 if ten else 0.2), mean
    assert differences(planes, pixels)[0] <= (5 if ten else 3)


@pytest.mark.parametrize(
    ("changes", "options", "bound"),
    [
        ({}, {}, 4),
        ({"width": 95, "height": 63, "pix_fmt": "yuv444p"}, {}, 4),
        ({}, {"work_size": "48x32"}, 4),
        ({}, {"size": "64x48"}, 4),
        ({}, {"size": "2x", "work_size": "0.5x"}, 4),
        ({"codec": "ffv1", "options": {}, "width": 97, "height": 65}, {}, 16),
    ],
)
def test_a_network_makes_the_same_video_by_both_ways(
    changes: dict[str, Any], options: dict[str, Any], bound: int, tmp_path: Path, small_model: str
) -> None:
    """Seven frames in batches of three. What the network sees differs by the rounding of RGB to 8 bits, half
    a level, of which it makes up to a few. Where a side is odd swscale stretches chroma over it, which shows
    more in what has colours."""
    clip = replace(Clip(frames=7, time_base=Fraction(1, 1000), step=40), **changes)
    source = make_clip(tmp_path / "in.mkv", clip)
    asked = replace(FFV1, steady="off", **options)
    engine = EngineOptions("cpu", "eager", "fp32", 3)
    _, planes = convert(source, tmp_path / "planes.mkv", small_model, asked, engine, True)
    _, pixels = convert(source, tmp_path / "pixels.mkv", small_model, asked, engine, False)
    assert planes.pts == pixels.pts
    assert len(planes.pts) == 7
    assert planes.size == pixels.size
    most, mean = differences(planes, pixels)
    assert most <= bound, most
    assert mean < 0.7, mean
    if planes.size == (clip.width, clip.height):
        assert differences(planes, read_facts(source))[1] > 5, "the network did something"


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_turned_video_comes_out_upright(rotation: int, tmp_path: Path, exact: EngineOptions) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(frames=2, rotation=rotation))
    outputs = [tmp_path / "planes.mkv", tmp_path / "pixels.mkv"]
    ways = [convert(source, path, "identity", FFV1, exact, path.stem == "planes")[1] for path in outputs]
    assert ways[0].size == ways[1].size == ((64, 96) if rotation != 180 else (96, 64))
    assert differences(*ways)[0] <= 3


def test_chroma_stays_where_it_was(tmp_path: Path, exact: EngineOptions) -> None:
    """H.264 has chroma left between the pixels. Ten times through identity must not move it; by both ways."""
    for as_planes in (True, False):
        source = make_clip(tmp_path / "in.mp4", Clip(frames=1, options={"qp": "0"}))
        first = read_facts(source).pictures[0].astype(int)
        for number in range(10):
            output = tmp_path / f"{as_planes}{number}.mp4"
            convert(source, output, "identity", VideoOptions(crf=0), exact, as_planes)
            source = output
        last = read_facts(source).pictures[0].astype(int)
        assert np.abs(last - first)[64:].mean() < 1.5, "half a pixel each time makes more than 6"


def video_of_two_sizes(path: Path) -> Path:
    """A raw H.264 stream in which a video of one size follows upon another."""
    parts = [
        make_clip(
            path.with_name(f"{width}.h264"), Clip(frames=3, width=width, height=height, options=BFRAMES)
        )
        for width, height in ((96, 64), (72, 48))
    ]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def test_pictures_of_another_size_in_mid_video(tmp_path: Path, exact: EngineOptions) -> None:
    source = video_of_two_sizes(tmp_path / "in.h264")
    reports = []
    for as_planes in (True, False):
        output = tmp_path / f"{as_planes}.mkv"
        reports.append(convert(source, output, "identity", FFV1, exact, as_planes))
    assert len(reports[0][1].pts) == len(reports[1][1].pts) == 6
    assert any("scaled to the size of the first" in line for line in reports[0][0].warnings)
    assert differences(reports[0][1], reports[1][1])[0] <= 4


@pytest.mark.parametrize("broken", ["engine", "encoder", "copying"])
def test_an_error_anywhere_ends_the_run(
    broken: str, tmp_path: Path, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the decoder waits for the engine to be ready."""

    def fail(*arguments: object, **more: object) -> None:
        raise OutputError("broken on purpose")

    where = {
        "engine": "cgconvert.engines.kept.create_job",
        "encoder": "cgconvert.media.video.encoder.FrameEncoder.encode",
        "copying": "cgconvert.media.video.sink.VideoSink.copy",
    }
    source = make_clip(tmp_path / "in.mp4", Clip(audio="aac", audio_offset=0.1))
    plan = plan_video(source, tmp_path / "out.mp4", "identity", VideoOptions(), exact)
    plan = choose_route(plan, "cpu", as_planes=True)
    monkeypatch.setattr(where[broken], fail)
    caught: list[BaseException] = []

    def work() -> None:
        try:
            run_video(plan, Silent())
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "the run hangs"
    assert [str(error) for error in caught] == ["broken on purpose"]
    assert not (tmp_path / "out.mp4").exists()


def test_what_is_no_yuv_goes_by_rgb(tmp_path: Path, exact: EngineOptions) -> None:
    source = make_clip(tmp_path / "in.mkv", lossless("bgr0"))
    convert(source, tmp_path / "out.mkv", "identity", FFV1, exact, False)
    plan = plan_video(source, tmp_path / "planes.mkv", "identity", FFV1, exact)
    plan = choose_route(plan, "cpu", as_planes=True)
    assert plan.route == VideoRoute("cpu")
    side = replace(FFV1, compare="side")
    convert(source, tmp_path / "side.mkv", "identity", side, exact, False)


def test_a_card_that_is_not_there_is_refused_where_it_was_asked_for(
    tmp_path: Path, exact: EngineOptions
) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(frames=2))
    asked = VideoOptions(decoder="nvdec")
    with pytest.raises(UsageError, match=r"`device=.cuda.`"):
        plan_video(source, None, "identity", asked, exact)
    with pytest.raises(UsageError, match="auto, cpu, nvdec"):
        plan_video(source, None, "identity", VideoOptions(decoder="gpu"), exact)
    if not torch.cuda.is_available():
        with pytest.raises(UnavailableError, match=r"`decoder=.nvdec.`"):
            plan_video(source, None, "identity", asked, replace(exact, device="auto"))


def test_asking_for_a_card_says_why_there_is_none(tmp_path: Path) -> None:
    from cgconvert.media.video.cuda import why_not_decoding
    from cgconvert.media.video.probe import probe

    source = make_clip(tmp_path / "in.mp4", Clip(frames=2))
    if not torch.cuda.is_available():
        assert "h264 on the card" in (why_not_decoding(source, probe(source), 0) or "")
    odd = make_clip(tmp_path / "odd.mkv", lossless("yuv420p", width=95))
    assert "odd" in (why_not_decoding(odd, probe(odd), 0) or "")
    rgb = make_clip(tmp_path / "rgb.mkv", lossless("bgr0"))
    assert "bgr0" in (why_not_decoding(rgb, probe(rgb), 0) or "")


@pytest.mark.needs_cuda
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_a_video_on_a_card_equals_one_on_the_processor(pix_fmt: str, tmp_path: Path) -> None:
    """Decoded on the card or not, as the card has it; both results are compared with the way by RGB."""
    source = make_clip(tmp_path / "in.mp4", Clip(frames=30, width=320, height=192, pix_fmt=pix_fmt))
    engine = EngineOptions("cuda", "eager", "fp32", 4)
    host = EngineOptions("cpu", "eager", "fp32", 4)
    _, wanted = convert(source, tmp_path / "host.mkv", "identity", FFV1, host, False)
    for decoder in ("auto", "cpu"):
        asked = replace(FFV1, decoder=decoder)
        report, got = convert(source, tmp_path / f"{decoder}.mkv", "identity", asked, engine, True)
        assert any("decoding on the" in note for note in report.path)
        assert got.pts == wanted.pts
        assert differences(got, wanted)[0] <= (5 if pix_fmt.endswith("10le") else 3)
