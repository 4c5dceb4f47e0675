"""Videos finished with their sources: strength, the source's colours and detail, by every route."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from cgconvert.errors import OutputError, UsageError
from cgconvert.finish import Finish
from cgconvert.frames import Frame, PlaneFrame, StreamInfo, YuvFormat
from cgconvert.media.picture.filters import mean_gradient
from cgconvert.media.picture.finish import detail_gain
from cgconvert.media.video.colour import FromPixels
from cgconvert.media.video.finish import PlaneFinisher, ToEncoded
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.progress import Silent
from cgconvert.tensors.finish import blended, luma_detail
from cgconvert.tensors.yuv import read_samples, reduce_area, store_samples
from cgconvert.video import resume
from cgconvert.video.pipeline import convert_video, run_video
from cgconvert.video.plan import plan_video
from tests.video.clips import Clip, make_clip, read_facts
from tests.video.test_fidelity import TAGGED, lossless
from tests.video.test_planes import FFV1, convert, differences

OFF = replace(FFV1, steady="off")
BOTH = pytest.mark.parametrize("as_planes", [True, False])


@BOTH
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("keep", [False, True])
def test_strength_0_is_the_source_bit_for_bit(
    pix_fmt: str,
    keep: bool,
    as_planes: bool,
    tmp_path: Path,
    small_model: str,
    exact: EngineOptions,
) -> None:
    tags = TAGGED["BT.709 full" if keep else "BT.601 limited"]
    source = make_clip(tmp_path / "in.mkv", lossless(pix_fmt, tags=tags))
    options = replace(OFF, strength=0.0, keep_colours=keep)
    _, after = convert(source, tmp_path / "out.mkv", small_model, options, exact, as_planes)
    before = read_facts(source)
    assert after.frame_format == pix_fmt
    assert after.colours == before.colours
    assert differences(after, before)[0] == 0


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({"pix_fmt": "yuvj420p"}, {}),
        ({"pix_fmt": "bgr0"}, {}),
        ({"width": 97, "height": 65}, {}),
        ({}, {"work_size": "0.5x"}),
        ({}, {"work_size": "2x"}),
        ({}, {"steady": 0.8}),
        ({}, {"steady": "auto", "work_size": "48x32"}),
    ],
)
def test_strength_0_is_the_source_whatever_is_done_to_results(
    changes: dict[str, Any], options: dict[str, Any], tmp_path: Path, small_model: str, exact: EngineOptions
) -> None:
    clip = replace(lossless("yuv420p"), **changes)
    if clip.pix_fmt == "yuvj420p":
        clip = replace(clip, codec="mjpeg", options={"qscale": "1"})
    source = make_clip(tmp_path / "in.mkv", clip)
    asked = replace(OFF, strength=0.0, **options)
    _, after = convert(source, tmp_path / "out.mkv", small_model, asked, exact, False)
    assert differences(after, read_facts(source))[0] == 0


@BOTH
def test_a_turned_source_is_shown_upright_at_strength_0(
    as_planes: bool, tmp_path: Path, small_model: str, exact: EngineOptions
) -> None:
    """It goes by way of RGB, as the network's results do, so it is what `identity` makes of it."""
    source = make_clip(tmp_path / "in.mp4", Clip(frames=2, rotation=90))
    _, none = convert(source, tmp_path / "0.mkv", small_model, replace(OFF, strength=0.0), exact, as_planes)
    _, same = convert(source, tmp_path / "1.mkv", "identity", OFF, exact, as_planes)
    assert none.size == same.size == (64, 96)
    assert differences(none, same)[0] <= (0 if as_planes else 1), "dithered or not"


@BOTH
def test_half_the_strength_is_half_the_way(
    as_planes: bool, tmp_path: Path, small_model: str, exact: EngineOptions
) -> None:
    source = make_clip(tmp_path / "in.mkv", lossless("yuv420p"))
    _, half = convert(
        source, tmp_path / "half.mkv", small_model, replace(OFF, strength=0.5), exact, as_planes
    )
    _, full = convert(source, tmp_path / "full.mkv", small_model, OFF, exact, as_planes)
    before = read_facts(source)
    assert differences(full, before)[1] > 5
    for mixed, look, own in zip(half.pictures, full.pictures, before.pictures, strict=True):
        assert np.abs(mixed - (look.astype(float) + own) / 2).max() <= 1.5
        assert abs((mixed - (look.astype(float) + own) / 2).mean()) < 0.05


@BOTH
@pytest.mark.parametrize("work_size", [None, "0.5x"])
def test_kept_colours_are_the_source_s_chroma_planes(
    work_size: str | None, as_planes: bool, tmp_path: Path, small_model: str, exact: EngineOptions
) -> None:
    source = make_clip(tmp_path / "in.mkv", lossless("yuv420p"))
    options = replace(OFF, work_size=work_size)
    kept_options = replace(options, keep_colours=True)
    _, kept = convert(source, tmp_path / "kept.mkv", small_model, kept_options, exact, as_planes)
    _, look = convert(source, tmp_path / "look.mkv", small_model, options, exact, as_planes)
    rows = 64
    for mixed, painted, own in zip(kept.pictures, look.pictures, read_facts(source).pictures, strict=True):
        np.testing.assert_array_equal(mixed[rows:], own[rows:])
        assert np.abs(mixed[:rows].astype(int) - painted[:rows]).max() <= 2, "dithered in another place"
        assert np.abs(mixed[:rows].astype(int) - own[:rows]).max() > 10


@pytest.mark.parametrize(
    "options",
    [
        {"strength": 0.6},
        {"keep_colours": True, "strength": 0.7},
        {"work_size": "48x32"},
        {"work_size": "48x32", "strength": 0.6},
        {"size": "2x", "work_size": "0.5x", "keep_colours": True},
    ],
)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_both_routes_finish_alike(
    options: dict[str, Any], pix_fmt: str, tmp_path: Path, small_model: str
) -> None:
    """In batches of three, as `test_a_network_makes_the_same_video_by_both_ways`."""
    source = make_clip(tmp_path / "in.mkv", replace(lossless(pix_fmt), frames=4))
    engine = EngineOptions("cpu", "eager", "fp32", 3)
    asked = replace(OFF, **options)
    _, planes = convert(source, tmp_path / "planes.mkv", small_model, asked, engine, True)
    _, pixels = convert(source, tmp_path / "pixels.mkv", small_model, asked, engine, False)
    most, mean = differences(planes, pixels)
    ten = pix_fmt.endswith("10le")
    assert most <= (6 if ten else 4), most
    assert mean < (1.5 if ten else 0.7), mean


INFO = StreamInfo(64, 48, Fraction(1, 25), Fraction(25), "yuv420p", 8, colorspace=1, color_range=1)


def planes_of(luma: np.ndarray, blue: int = 128, red: int = 128) -> av.VideoFrame:
    """A frame of yuv420p with this luma and chroma of one value."""
    height, width = luma.shape
    chroma = [np.full((height // 4, width), value, np.uint8) for value in (blue, red)]
    return av.VideoFrame.from_ndarray(np.concatenate([luma, *chroma]).astype(np.uint8), "yuv420p")


def test_exact_values_of_a_blend() -> None:
    """Gray of level 255 * (100 - 16) / 219 is luma 100; a third of the way from 40 to 100 is 60."""
    frame = planes_of(np.full((48, 64), 40), 90, 160)
    source = ToEncoded(INFO, 64, 48, "yuv420p")(frame)
    painted = np.full((24, 32, 3), round(65535 * 84 / 219), np.uint16)
    third = PlaneFinisher(INFO, 64, 48, "yuv420p", Finish(1 / 3))
    done = third(Frame(painted, 7, 2, source, state=b"kept"))
    assert (done.pts, done.duration, done.state) == (7, 2, b"kept")
    assert set(done.planes[0].ravel()) == {60}
    assert done.planes[1].mean() == pytest.approx(90 + 38 / 3, abs=0.05)
    assert done.planes[2].mean() == pytest.approx(160 - 32 / 3, abs=0.05)
    kept = PlaneFinisher(INFO, 64, 48, "yuv420p", Finish(keep_colours=True))(Frame(painted, 7, 2, source))
    assert [set(plane.ravel()) for plane in kept.planes] == [{100}, {90}, {160}]


def test_edges_of_the_source_come_back() -> None:
    """A network that changes nothing, seen at a quarter of the size: most of what that loses comes back."""
    rows, columns = np.mgrid[0:48, 0:64]
    luma = np.where((rows // 12 + columns // 16) % 2, 170, 60)
    source = ToEncoded(INFO, 64, 48, "yuv420p")(planes_of(luma))
    small = reduce_area(torch.from_numpy(luma.astype(np.float32))[None, None], 12, 16)[0, 0].numpy()
    painted = np.repeat(((small - 16) / 219 * 65535).round()[..., None], 3, 2).astype(np.uint16)
    done = PlaneFinisher(INFO, 64, 48, "yuv420p", Finish())(Frame(painted, 0, 0, source)).planes[0]
    plain = FromPixels(INFO, 64, 48, "yuv420p")(painted, 0, Fraction(1), 0)
    before = np.abs(plain.to_ndarray()[:48].astype(int) - luma).mean()
    assert np.abs(done.astype(int) - luma).mean() < 0.35 * before


def test_the_device_s_detail_is_the_processor_s() -> None:
    random = np.random.default_rng(0)
    light = random.uniform(16, 235, (50, 70)).astype(np.float32)
    result = random.uniform(16, 235, (17, 23)).astype(np.float32)
    given = [torch.from_numpy(values)[None, None] for values in (light, result)]
    cv2 = pytest.importorskip("cv2")
    smooth = cv2.resize(light, (23, 17), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(reduce_area(given[0], 17, 23)[0, 0].numpy(), smooth, atol=1e-3)
    gain = detail_gain(smooth, result, 1.0)
    large = [cv2.resize(part, (70, 50), interpolation=cv2.INTER_CUBIC) for part in (gain, smooth)]
    expected = large[0] * (light - large[1])
    assert np.abs(expected).max() > 10
    np.testing.assert_allclose(luma_detail(*given, 1.0)[0, 0].numpy(), expected, atol=2e-2)


@pytest.mark.parametrize("high_bits", [False, True])
@pytest.mark.parametrize("interleaved", [False, True])
def test_samples_are_read_and_stored_without_loss(interleaved: bool, high_bits: bool) -> None:
    form = YuvFormat(10, 2, 2, 0.2126, 0.0722, False, interleaved=interleaved, high_bits=high_bits)
    random = np.random.default_rng(0)
    shift = 6 if high_bits else 0
    planes = [
        torch.from_numpy(random.integers(0, 1024, (2, *shape)).astype(np.uint16) << shift)
        for shape in form.shapes(6, 10)
    ]
    samples = read_samples(planes, form)
    assert samples[0].shape == (2, 1, 6, 10)
    assert samples[1].shape == (2, 2, 3, 5)
    assert max(part.max() for part in samples) <= 1023
    look = tuple(torch.full_like(part, 300.3) for part in samples)
    stored = store_samples(*blended(samples, look, Finish(0.0)), form)  # type: ignore[arg-type]
    for before, after in zip(planes, stored, strict=True):
        np.testing.assert_array_equal(after.numpy(), before.numpy())


def test_results_compared_with_their_sources_are_finished(
    tmp_path: Path, small_model: str, exact: EngineOptions
) -> None:
    source = make_clip(tmp_path / "in.mkv", lossless("yuv444p"))
    options = replace(OFF, compare="side", strength=0.0, work_size="0.5x")
    _, after = convert(source, tmp_path / "out.mkv", small_model, options, exact, False)
    for joined in after.pictures:
        left, right = joined[:, :, :96].astype(int), joined[:, :, 96:].astype(int)
        assert np.abs(left - right).max() <= 1


def test_the_plan_and_the_report_say_so(tmp_path: Path, small_model: str, exact: EngineOptions) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip())
    options = VideoOptions(strength=0.25, keep_colours=True, stroke="large", steady="off")
    plan = plan_video(source, tmp_path / "out.mp4", small_model, options, exact)
    assert "look       strength 0.25, the source's colours" in plan.describe()
    assert plan.work_size == (48, 32)
    report = run_video(plan, Silent()).to_dict()
    assert report["look"] == {"strength": 0.25, "keep_colours": True}
    assert report["stage_seconds"]["finish"] > 0
    plain = plan_video(source, tmp_path / "plain.mp4", small_model, VideoOptions(), exact)
    assert plain.finish is None
    assert not any(line.startswith("look") for line in plain.describe())


@pytest.mark.parametrize("strength", [-0.1, 1.01, float("inf")])
def test_strengths_that_make_no_sense(strength: float, tmp_path: Path, exact: EngineOptions) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(frames=2))
    with pytest.raises(UsageError, match=rf"`strength={strength:g}` is not a number from 0 to 1"):
        convert_video(source, tmp_path / "out.mp4", "identity", VideoOptions(strength=strength), exact)


def test_a_run_goes_on_with_its_own_look_only(
    tmp_path: Path, small_model: str, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "SEGMENT_FRAMES", 4)
    source = make_clip(tmp_path / "in.mkv", replace(lossless("yuv420p"), frames=11))
    options = replace(FFV1, strength=0.5, keep_colours=True, work_size="48x32")

    plan = plan_video(source, tmp_path / "out.mkv", small_model, options, exact)
    whole_finish = PlaneFinisher.__call__

    def breaking(finisher: PlaneFinisher, frame: Frame) -> PlaneFrame:
        if frame.pts >= 6 * 40:
            raise OutputError("broken on purpose")
        return whole_finish(finisher, frame)

    with monkeypatch.context() as patched, pytest.raises(OutputError, match="broken on purpose"):
        patched.setattr(PlaneFinisher, "__call__", breaking)
        run_video(plan, Silent())
    kept = tmp_path / "out.mkv.part"
    assert kept.is_dir()
    other = plan_video(source, tmp_path / "out.mkv", small_model, replace(options, strength=0.4), exact)
    with pytest.raises(UsageError) as caught:
        run_video(other, Silent())
    assert str(caught.value) == (
        f"{kept} was begun with look strength 0.5, and this run has 0.4: use `restart` to begin again, or "
        "another `output`"
    )
    assert run_video(plan, Silent()).resumed_frames == 4
    whole = plan_video(source, tmp_path / "whole.mkv", small_model, options, exact)
    run_video(whole, Silent())
    assert differences(read_facts(tmp_path / "out.mkv"), read_facts(tmp_path / "whole.mkv"))[0] == 0


def test_a_smaller_work_size_is_as_sharp_as_the_source(tmp_path: Path, exact: EngineOptions) -> None:
    """`identity` at a third of the size: what was not shown to it comes back."""
    source = make_clip(tmp_path / "in.mkv", replace(lossless("yuv444p"), frames=1, width=192, height=128))
    _, after = convert(
        source, tmp_path / "out.mkv", "identity", replace(OFF, work_size="64x43"), exact, False
    )
    before = read_facts(source)
    pictures = [np.moveaxis(facts.pictures[0], 0, 2) for facts in (before, after)]
    assert mean_gradient(pictures[1]) > 0.95 * mean_gradient(pictures[0])
