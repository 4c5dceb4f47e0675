"""The transparency of videos: read, carried past the network, written, and named where it is lost."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from cgconvert import EngineOptions, VideoOptions, convert_video
from cgconvert.media.video.alpha import rescaled
from cgconvert.video import resume
from cgconvert.video.plan import plan_video

FRAMES, WIDTH, HEIGHT = 10, 64, 48


def transparency(index: int) -> np.ndarray:
    """A slope across the picture, with a bar that moves; (H, W) uint8."""
    alpha = np.tile((np.arange(WIDTH) * 4).astype(np.uint8), (HEIGHT, 1))
    alpha[index * 4 : index * 4 + 8] = 0
    return alpha


def transparent_clip(path: Path, codec: str, pixel_format: str, **options: str) -> Path:
    """A clip of grey pictures with `transparency`, written with nothing of ours."""
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(codec, rate=25, options=options)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, pixel_format
        for index in range(FRAMES):
            pixels = np.full((HEIGHT, WIDTH, 4), 90 + 5 * index, np.uint8)
            pixels[..., 3] = transparency(index)
            frame = av.VideoFrame.from_ndarray(pixels, "rgba").reformat(format=pixel_format)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


def alphas(path: Path) -> list[np.ndarray]:
    """The transparency of every frame as 8 bits (H, W), by libvpx where the container keeps it beside."""
    found = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoder: Any = stream.codec_context
        if decoder.name == "vp9":
            assert {key.lower(): value for key, value in stream.metadata.items()}["alpha_mode"] == "1"
            decoder = av.CodecContext.create("libvpx-vp9", "r")
        for packet in container.demux(stream):
            found += [frame.reformat(format="rgba").to_ndarray()[..., 3] for frame in decoder.decode(packet)]
    return found


WEBM = ("in.webm", "libvpx-vp9", "yuva420p", {"crf": "4", "b": "0", "auto-alt-ref": "0"})
PRORES = ("in.mov", "prores_ks", "yuva444p10le", {"profile": "4444"})
FFV1 = ("in.mkv", "ffv1", "yuva420p", {})


@pytest.mark.parametrize("resumable", [True, False])
@pytest.mark.parametrize(
    ("source", "output", "options", "tolerance"),
    [
        (WEBM, "out.webm", {}, 8),  # VP9 loses twice, at quality 4 and 24
        (WEBM, "out.mkv", {"codec": "ffv1"}, 0),
        (FFV1, "out.webm", {}, 8),
        (FFV1, "out.mkv", {"codec": "ffv1"}, 0),
        (PRORES, "out.mov", {"codec": "prores"}, 1),  # 8 bits to 12 and back
    ],
)
def test_alpha_is_carried(
    source: Any,
    output: str,
    options: dict[str, str],
    tolerance: int,
    resumable: bool,
    tmp_path: Path,
    exact: EngineOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also from segment to segment, whose packets are kept in files."""
    monkeypatch.setattr(resume, "SEGMENT_FRAMES", 4)
    name, codec, pixel_format, encoder = source
    clip = transparent_clip(tmp_path / name, codec, pixel_format, **encoder)
    asked = VideoOptions(resume=resumable, **options)  # type: ignore[arg-type]
    report = convert_video(clip, tmp_path / output, "identity", asked, exact)
    assert not [warning for warning in report.warnings if "(alpha)" in warning]
    before, after = alphas(clip), alphas(tmp_path / output)
    assert len(after) == len(before) == FRAMES
    for index, (one, other) in enumerate(zip(before, after, strict=True)):
        error = np.abs(one.astype(int) - other)
        assert error.mean() <= tolerance / 4, index
        assert error[:, 8:].max() <= (tolerance if tolerance < 8 else 60), index  # ringing at the bar's edge


def test_alpha_has_the_size_of_the_result(tmp_path: Path, exact: EngineOptions) -> None:
    clip = transparent_clip(tmp_path / "in.mkv", "ffv1", "yuva420p")
    options = VideoOptions(codec="ffv1", size="0.5x", strength=0.5)
    convert_video(clip, tmp_path / "out.mkv", "identity", options, exact)
    (half, *_), (whole, *_) = alphas(tmp_path / "out.mkv"), alphas(clip)
    assert half.shape == (HEIGHT // 2, WIDTH // 2)
    expected = whole.reshape(HEIGHT // 2, 2, WIDTH // 2, 2).mean((1, 3))
    assert np.abs(half - expected).max() <= 1


@pytest.mark.parametrize(
    ("output", "options", "reason"),
    [
        ("out.mp4", {}, "libx264 in mp4 has none; vp9 in .webm, prores in .mov and ffv1 in .mkv have it"),
        ("out.webm", {"compare": "side"}, "`compare` shows source and result as RGB"),
        ("out.webm", {"pix_fmt": "yuv420p"}, "libvpx-vp9 keeps none in yuv420p"),
        (
            "out.mov",
            {"codec": "prores", "preset": "hq"},
            "the profile hq has none; 4444 and 4444xq have it",
        ),
    ],
)
def test_alpha_that_is_lost_is_named(
    output: str, options: dict[str, str], reason: str, tmp_path: Path, exact: EngineOptions
) -> None:
    clip = transparent_clip(tmp_path / "in.webm", "libvpx-vp9", "yuva420p")
    asked = VideoOptions(**options)  # type: ignore[arg-type]
    plan = plan_video(clip, tmp_path / output, "identity", asked, exact)
    assert not plan.keeps_alpha
    assert f"the video's transparency (alpha) is lost: {reason}" in plan.notes
    assert "a" not in plan.encoding.pixel_format


def test_samples_of_other_depths_keep_transparent_and_opaque() -> None:
    alpha = np.array([0, 1, 128, 255], np.uint8)
    assert rescaled(alpha, 8, 10).tolist() == [0, 4, 514, 1023]
    assert rescaled(rescaled(alpha, 8, 16), 16, 8).tolist() == alpha.tolist()
    ten = np.arange(1024, dtype=np.uint16)
    assert np.array_equal(rescaled(rescaled(ten, 10, 16), 16, 10), ten)
