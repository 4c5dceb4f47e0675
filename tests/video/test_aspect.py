"""A result is shown in the shape of its source, whatever its size."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest

from cgconvert import convert_video
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.sizes import pixel_aspect
from tests.video.clips import Clip, make_clip, read_facts

PAL, PAL_WIDE, NTSC_WIDE = Fraction(16, 15), Fraction(64, 45), Fraction(32, 27)


@pytest.mark.parametrize(
    ("aspect", "source", "size", "expected"),
    [
        (None, (1920, 1080), (1280, 720), None),
        (None, (1920, 1080), (854, 480), None),  # 853.3, which is even only with 854
        (Fraction(1), (1920, 1080), (854, 480), Fraction(1)),
        (None, (1920, 1080), (640, 480), Fraction(4, 3)),
        (None, (1920, 1080), (1080, 1080), Fraction(16, 9)),
        (None, (1080, 1920), (1080, 1080), Fraction(9, 16)),
        (PAL, (720, 576), (720, 576), PAL),
        (PAL, (720, 576), (360, 288), PAL),
        (PAL, (720, 576), (768, 576), Fraction(1)),
        (PAL_WIDE, (720, 576), (1024, 576), Fraction(1)),
        (NTSC_WIDE, (720, 480), (854, 480), Fraction(1)),  # 853.3 again
        (PAL_WIDE, (720, 576), (768, 576), Fraction(4, 3)),
        (None, (1000, 10), (10, 1000), Fraction(255)),  # the most that a codec can store
        (None, (1997, 1999), (1999, 1000), Fraction(127, 254)),
    ],
)
def test_the_shape_of_pixels(
    aspect: Fraction | None, source: tuple[int, int], size: tuple[int, int], expected: Fraction | None
) -> None:
    found = pixel_aspect(aspect, source, size)
    assert found == expected and (found is None) == (expected is None)


def shown(path: Path) -> tuple[tuple[int, int], Fraction | None]:
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        return (video.width, video.height), video.sample_aspect_ratio


def anamorphic(path: Path, rotation: int = 0) -> Path:
    """96x64 that is shown as 128x64."""
    return make_clip(
        path,
        Clip(frames=3, rotation=rotation, tags={"sample_aspect_ratio": Fraction(4, 3)}),  # type: ignore[dict-item]
    )


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mp4", "h264"), ("mkv", "h265"), ("mov", "prores")],
)
@pytest.mark.parametrize(
    ("size", "expected"),
    [(None, Fraction(4, 3)), ("0.5x", Fraction(4, 3)), ("128x64", Fraction(1)), ("64x64", Fraction(2))],
)
def test_containers_and_codecs_tell_it(
    tmp_path: Path, exact: EngineOptions, suffix: str, codec: str, size: str | None, expected: Fraction
) -> None:
    if codec == "h265" and size == "0.5x":
        pytest.skip("x265 needs 64 pixels in width")
    source = anamorphic(tmp_path / "in.mp4")
    assert shown(source) == ((96, 64), Fraction(4, 3))
    output = tmp_path / f"out.{suffix}"
    report = convert_video(source, output, "identity", VideoOptions(size=size, codec=codec), exact)
    found, aspect = shown(output)
    assert (aspect or 1) == expected
    assert Fraction(found[0], found[1]) * expected == 2, "as wide as the source is shown"
    told = [warning for warning in report.warnings if "players show" in warning]
    words = (
        "64x64 has another shape than the source: its pixels are marked as 2:1, "
        "so that players show the source's shape"
    )
    assert told == ([words] if size == "64x64" else [])


def test_a_turned_video(tmp_path: Path, exact: EngineOptions) -> None:
    source, output = anamorphic(tmp_path / "in.mp4", 90), tmp_path / "out.mp4"
    convert_video(source, output, "identity", VideoOptions(size="64x64"), exact)
    assert shown(output) == ((64, 64), Fraction(1, 2)), "upright it is shown as 64x128"
    assert read_facts(output).size == (64, 64)


def test_side_by_side(tmp_path: Path, exact: EngineOptions) -> None:
    source, output = anamorphic(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    convert_video(source, output, "identity", VideoOptions(size="64x64", compare="side"), exact)
    assert shown(output) == ((128, 64), Fraction(2))
