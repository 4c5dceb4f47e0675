"""Videos whose frames go through the network in tiles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cgconvert.engines.kept import KeptEngine
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.progress import Silent
from cgconvert.video.pipeline import convert_video, run_video
from cgconvert.video.plan import plan_video
from tests.video.clips import Clip, make_clip
from trainer.data.pictures import video_frames

FRAMES = 3

pytestmark = pytest.mark.usefixtures("exact_tiles")


def read(path: Path) -> np.ndarray:
    return np.stack([pixels.astype(int) for _, pixels in video_frames(path).read(range(FRAMES))])


@pytest.mark.parametrize("tile", ["auto", 32])
def test_frames_in_tiles_are_those_of_the_untiled_network(
    tile: str | int, tmp_path: Path, small_model: str, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for, or because the memory is free for a tile and not for a frame. One level apart: rounding."""
    clip = make_clip(tmp_path / "in.mkv", Clip(FRAMES, 200, 200, codec="ffv1", pix_fmt="bgr0", options={}))
    options = VideoOptions(codec="ffv1", steady="off", work_size="1x")
    untiled = convert_video(clip, tmp_path / "untiled.mkv", small_model, options, replace(exact, tile="off"))
    if tile == "auto":
        monkeypatch.setattr("cgconvert.engines.batches.available_memory", lambda: 2_000_000)
    tiled = convert_video(clip, tmp_path / "tiled.mkv", small_model, options, replace(exact, tile=tile))
    assert (untiled.engine["tiles"], list(tiled.engine["tiles"])) == ({}, ["200x200"])
    assert np.abs(read(tmp_path / "tiled.mkv") - read(tmp_path / "untiled.mkv")).max() <= 1


def test_an_engine_that_is_kept_tiles_the_next_video_too(
    tmp_path: Path, small_model: str, exact: EngineOptions
) -> None:
    """Each video has tiles of its own: the first one is smaller than a tile."""
    small = make_clip(tmp_path / "small.mkv", Clip(1, 64, 32, codec="ffv1", pix_fmt="bgr0", options={}))
    large = make_clip(tmp_path / "large.mkv", Clip(1, 96, 64, codec="ffv1", pix_fmt="bgr0", options={}))
    reports = []
    with KeptEngine() as engines:
        for clip in (small, large, large):
            options = VideoOptions(codec="ffv1", steady="off", work_size="1x", overwrite=True)
            plan = plan_video(clip, tmp_path / "out.mkv", small_model, options, replace(exact, tile=64))
            reports.append(run_video(plan, Silent(), engines).engine)
    assert [report["tiles"] for report in reports] == [{}, {"96x64": 64}, {"96x64": 64}]
    for report in reports[1:]:
        assert report["verified"][0]["psnr_db"] > 80, "what tiles make is compared for each video"
