"""What frames are tagged with arrives where the encoder takes it, and is named where it does not."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from cgconvert.media.video.probe import probe
from cgconvert.media.video.siting import NAMES
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.video.pipeline import convert_video
from cgconvert.video.plan import plan_video
from tests.video.clips import Clip, make_clip

MASTERING = (34000, 16000, 13250, 34500, 7500, 3000, 15635, 16450)
HDR = Clip(
    frames=3,
    codec="libx265",
    pix_fmt="yuv420p10le",
    options={
        "x265-params": "log-level=error:max-cll=1000,400:master-display="
        "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    },
    tags={"colorspace": 9, "color_primaries": 9, "color_trc": 16},
)


@pytest.mark.parametrize("place", ["left", "center", "topleft"])
@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "h264"), (".mp4", "h265"), (".mkv", "ffv1")])
def test_chroma_stays_marked_with_its_place(
    place: str, suffix: str, codec: str, tmp_path: Path, exact: EngineOptions
) -> None:
    options = {"crf": "12", "chroma_sample_location": place}
    source = make_clip(tmp_path / "in.mp4", Clip(frames=1, options=options))
    output = tmp_path / f"out{suffix}"
    convert_video(source, output, "identity", VideoOptions(codec=codec), exact)
    assert NAMES[probe(source).siting] == place
    assert NAMES[probe(output).siting] == place


def test_a_place_that_nobody_has_named_is_not_named(tmp_path: Path, exact: EngineOptions) -> None:
    source = make_clip(tmp_path / "in.webm", Clip(frames=1, codec="libvpx-vp9"))
    plan = plan_video(source, tmp_path / "out.mp4", "identity", VideoOptions(), exact)
    assert plan.encoding.tags == {}


@pytest.mark.parametrize("codec", ["h264", "h265", "av1"])
def test_hdr10_metadata_is_kept(codec: str, tmp_path: Path, exact: EngineOptions) -> None:
    source, output = make_clip(tmp_path / "in.mp4", HDR), tmp_path / "out.mp4"
    report = convert_video(source, output, "identity", VideoOptions(codec=codec, hdr="keep"), exact)
    before, after = probe(source), probe(output)
    assert before.mastering_display[:8] == tuple(Fraction(number, 50000) for number in MASTERING)
    assert before.mastering_display[8:] == (Fraction(1, 10000), 1000)
    assert after.light_levels == before.light_levels == (1000, 400)
    # AV1 has 16 bits for a coordinate and 18 and 14 for luminances, below 1 / 50000 and 1 / 10000.
    for new, old in zip(after.mastering_display, before.mastering_display, strict=True):
        assert abs(new - old) <= Fraction(1, 30000)
    assert not any("HDR10" in warning for warning in report.warnings)


def test_hdr10_metadata_that_an_encoder_does_not_take_is_named(tmp_path: Path, exact: EngineOptions) -> None:
    source = make_clip(tmp_path / "in.mp4", HDR)
    asked = VideoOptions(codec="ffv1", hdr="keep")
    plan = plan_video(source, tmp_path / "out.mkv", "identity", asked, exact)
    assert plan.notes[1:] == (
        "HDR10 metadata (mastering display, light levels) is lost: ffv1 does not take it",
    )


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_fields_stay_marked(order: str, tmp_path: Path, exact: EngineOptions) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(frames=3, options={"x264-params": f"{order}=1"}))
    output = tmp_path / "out.mp4"
    report = convert_video(source, output, "identity", VideoOptions(deinterlace="off"), exact)
    assert probe(source).field_order == probe(output).field_order == order
    assert not report.warnings


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"codec": "h265"}, "libx265 encodes whole pictures"),
        ({"size": "0.5x"}, "frames are scaled or turned"),
        ({"work_size": "0.5x"}, "frames are scaled or turned"),
    ],
)
def test_fields_that_cannot_stay_marked_are_named(
    options: dict[str, str], reason: str, tmp_path: Path, exact: EngineOptions
) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(frames=3, options={"x264-params": "tff=1"}))
    asked = VideoOptions(deinterlace="off", **options)  # type: ignore[arg-type]
    plan = plan_video(source, tmp_path / "out.mp4", "identity", asked, exact)
    assert plan.notes == (
        f"the mark that frames are interlaced is lost: {reason}; both fields stay in each picture",
    )
