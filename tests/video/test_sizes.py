"""Videos whose frames change their size: all frames have the size of the first, none is stretched."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from cgconvert import convert_video
from cgconvert.options import EngineOptions, VideoOptions
from tests.video.clips import Clip, make_clip, picture, read_facts

BARS = ", with bars, since they have another shape"


def joined(path: Path, *clips: Clip) -> Path:
    """A raw H.264 stream in which one clip follows upon another."""
    parts = [make_clip(path.with_name(f"{index}.h264"), clip) for index, clip in enumerate(clips)]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def pictures_of(source: Path, exact: EngineOptions, **options: object) -> tuple[list[np.ndarray], list[str]]:
    """The result's frames as RGB, and what was said of sizes."""
    output = source.with_name("out.mkv")
    report = convert_video(
        source,
        output,
        "identity",
        VideoOptions(codec="ffv1", overwrite=True, **options),
        exact,  # type: ignore[arg-type]
    )
    told = [line for line in report.warnings if "in mid-video" in line]
    return read_facts(output).pictures, told


def luma(width: int, height: int, index: int = 0) -> np.ndarray:
    """The luma of a clip's picture, BT.601 with limited range, as the clips are made."""
    return picture(index, width, height) @ np.array([65.481, 128.553, 24.966]) / 255 + 16


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((64, 64), (slice(0, 64), slice(16, 80))),  # as high, so it stands in the middle
        ((32, 32), (slice(0, 64), slice(16, 80))),
        ((96, 32), (slice(16, 48), slice(0, 96))),
        ((192, 128), (slice(0, 64), slice(0, 96))),
        ((190, 128), (slice(0, 64), slice(0, 96))),  # the same shape, as far as even sizes can
    ],
)
def test_frames_of_another_shape_get_bars(
    tmp_path: Path, exact: EngineOptions, size: tuple[int, int], expected: tuple[slice, slice]
) -> None:
    width, height = size
    source = joined(tmp_path / "in.h264", Clip(frames=3), Clip(frames=3, width=width, height=height))
    frames, told = pictures_of(source, exact)
    assert len(frames) == 6
    is_whole = expected == (slice(0, 64), slice(0, 96))
    words = f"pictures of {width}x{height} in mid-video, scaled to the size of the first"
    assert told == [words if is_whole else words + BARS]
    y = frames[4][:64].astype(float)  # the luma of yuv420p
    place = np.zeros((64, 96), bool)
    place[expected] = True
    rows, columns = expected
    place[max(rows.start - 2, 0) : rows.stop + 2, max(columns.start - 2, 0) : columns.stop + 2] = True
    assert np.abs(y[~place] - 16).max(initial=0) <= 1, "black of limited range, but where chroma ends"
    inner = y[expected]
    # The clip's picture is smooth, so samples of it are what scaling gives.
    step_y, step_x = height / inner.shape[0], width / inner.shape[1]
    at_y = np.clip(np.rint((np.arange(inner.shape[0]) + 0.5) * step_y - 0.5), 0, height - 1).astype(int)
    at_x = np.clip(np.rint((np.arange(inner.shape[1]) + 0.5) * step_x - 0.5), 0, width - 1).astype(int)
    apart = np.abs(inner - luma(width, height, 1)[at_y][:, at_x])
    assert apart[2:-2, 2:-2].mean() < 6, "measured: up to 4, half a pixel of the source's slope; stretched 20"
    assert rows.stop - rows.start == inner.shape[0] and columns.stop - columns.start == inner.shape[1]


def test_the_shape_of_pixels_counts(tmp_path: Path, exact: EngineOptions) -> None:
    """As broadcasts change from 720 to 544 pixels a line, and the picture keeps its shape."""
    narrow = Clip(frames=3, width=72, tags={"sample_aspect_ratio": Fraction(4, 3)})  # type: ignore[dict-item]
    source = joined(tmp_path / "in.h264", Clip(frames=3), narrow)
    frames, told = pictures_of(source, exact)
    assert told == ["pictures of 72x64 in mid-video, scaled to the size of the first"]
    assert frames[4][:64].min() > 30, "no bars"
    source = joined(tmp_path / "other.h264", narrow, Clip(frames=3))
    frames, told = pictures_of(source, exact)
    assert told == ["pictures of 96x64 in mid-video, scaled to the size of the first"]
    assert frames[4][:64].shape == (64, 72) and frames[4][:64].min() > 30


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strength": 0.5},
        {"work_size": "0.5x"},
        {"steady": 0.5},
        {"deinterlace": "double"},
        {"strength": 0.0},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_every_way_through_the_pipeline(
    tmp_path: Path, exact: EngineOptions, options: dict[str, object]
) -> None:
    """Sizes and pixel formats that change four times."""
    clips = [
        Clip(frames=3),
        Clip(frames=3, width=64),
        Clip(frames=3, width=128, height=96, pix_fmt="yuv444p"),
        Clip(frames=3, width=50, height=34),
        Clip(frames=3),
    ]
    source = joined(tmp_path / "in.h264", *clips)
    frames, told = pictures_of(source, exact, **options)
    assert len(frames) == 15 and len(told) == 3
    assert {frame.shape for frame in frames} == {(96, 96)}, "planes of 96x64 in 4:2:0"
    for index in (3, 4, 5):
        edges = frames[index][:64, [0, 11, 84, 95]].astype(int)
        assert np.abs(edges - 16).max() <= 3, "bars"
    assert np.abs(frames[13].astype(int) - frames[1]).mean() < 3, "back in the first size"
