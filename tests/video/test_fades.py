"""Fades of videos that networks with instance norms convert."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cgconvert.generators.statistics import freeze_statistics, read_statistics
from cgconvert.media.video.probe import probe, sample_pixels
from cgconvert.models.loading import Model, load_model
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.tensors.images import pixels_to_images
from cgconvert.video.pipeline import convert_video
from tests.video.clips import Clip, make_clip
from trainer.data.pictures import video_frames

FADE = [1.0] * 10 + [1 - step / 9 for step in range(10)]
CLIP = Clip(20, 64, 48, codec="ffv1", pix_fmt="bgr0", options={}, light=FADE)
OPTIONS = VideoOptions(codec="ffv1", steady="off")


def read(path: Path, frames: int = 20) -> list[np.ndarray]:
    return [pixels.astype(int) for _, pixels in video_frames(path).read(range(frames))]


def test_a_fade_to_black_ends_where_the_other_frames_statistics_lead(
    tmp_path: Path, small_model: str, exact: EngineOptions
) -> None:
    """The black frame's result is within one level, of rounding, of what it should be."""
    clip = make_clip(tmp_path / "in.mkv", CLIP)
    report = convert_video(clip, tmp_path / "out.mkv", small_model, OPTIONS, exact)
    model = load_model(small_model)
    lit = sample_pixels(clip, probe(clip), (64, 48), 8)[:4]  # of eight, those before the fade
    images = [pixels_to_images(sample[None], model.card, torch.device("cpu"))[0] for sample in lit]
    network = freeze_statistics(model.generator, read_statistics(model.generator, images))
    black = np.zeros((48, 64, 3), np.uint8)
    wanted = Model(model.card, network).convert(black).astype(int)
    assert np.abs(read(tmp_path / "out.mkv")[-1] - wanted).max() <= 1
    assert np.abs(model.convert(black) - wanted).mean() > 10  # what its own statistics make of it
    assert any(note.startswith("flat frames") for note in report.engine["notes"])


def test_a_frames_result_depends_neither_on_batches_nor_on_the_frames_before(
    tmp_path: Path, small_model: str, exact: EngineOptions
) -> None:
    """As for all frames: one level apart at most, of rounding."""
    clip = make_clip(tmp_path / "in.mkv", CLIP)
    for name, options, batch in (
        ("one", OPTIONS, 1),
        ("five", OPTIONS, 5),
        ("late", replace(OPTIONS, start=13 / 25), 5),
    ):
        convert_video(clip, tmp_path / f"{name}.mkv", small_model, options, replace(exact, batch=batch))
    one, five = read(tmp_path / "one.mkv"), read(tmp_path / "five.mkv")
    late = read(tmp_path / "late.mkv", 7)
    assert max(np.abs(a - b).max() for a, b in zip(one, five, strict=True)) <= 1
    assert max(np.abs(a - b).max() for a, b in zip(five[13:], late, strict=True)) <= 1
