"""Flat frames of a video through networks with instance norms: fades end where the light does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from cgconvert.engines.eager import EagerEngine
from cgconvert.engines.flat import FULL, FlatFrames, Others, has_instance_norms, own_share
from cgconvert.engines.job import EngineJob
from cgconvert.engines.pixels import PixelFrames
from cgconvert.engines.translator import STAGES, Translator
from cgconvert.frames import Frame
from cgconvert.generators.statistics import freeze_statistics, read_statistics
from cgconvert.host.channels import StageClock
from cgconvert.models.loading import Model
from cgconvert.tensors.images import pixels_to_images
from cgconvert.tensors.transfers import HostTransfers
from tests.engines.models import KINDS, make_model, make_pixels

CPU = torch.device("cpu")
SCENE = make_pixels(1, 32, 48, seed=1)[0]
BLACK = np.zeros_like(SCENE)


def fade(steps: int) -> list[np.ndarray]:
    """The scene, ever darker; the last frame is black."""
    return [np.rint(SCENE * (1 - step / (steps - 1))).astype(np.uint8) for step in range(steps)]


def translated(
    model: Model, frames: Sequence[np.ndarray], samples: Sequence[np.ndarray] | None, batch: int = 4
) -> tuple[list[np.ndarray], list[str]]:
    """Frames through the network as in a video whose samples these are, and the job's notes."""
    job = EngineJob(EagerEngine(model, CPU), batch)
    flat = FlatFrames(job.engine, lambda count: samples[:count], job.note) if samples is not None else None
    kind = PixelFrames(model.card, HostTransfers())
    translator = Translator(job, kind, StageClock(dict.fromkeys(STAGES, "translate")), flat)
    numbered = [Frame(pixels, number) for number, pixels in enumerate(frames)]
    results = [result.pixels for result in (*translator.translate(numbered), *translator.finish())]
    return results, job.notes


def usual(model: Model, pixels: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """The result with the norm statistics of other pictures."""
    images = [pixels_to_images(other[None], model.card, CPU)[0] for other in others]
    network = freeze_statistics(model.generator, read_statistics(model.generator, images))
    return Model(model.card, network).convert(pixels)


@pytest.mark.parametrize(("kind", "lost"), [("resnet", 50), ("h2", 40), ("unet_instance", 15)])
def test_a_fade_ends_where_the_statistics_of_the_other_frames_lead(kind: str, lost: int) -> None:
    """Black comes out within a level, of rounding, of what the network has for it; else `lost` levels off."""
    model = make_model(kind)
    frames = fade(11)
    wanted = usual(model, BLACK, [SCENE]).astype(int)
    plain, _ = translated(model, frames, None)
    mended, notes = translated(model, frames, [SCENE])
    assert np.abs(mended[-1] - wanted).max() <= 1
    assert np.abs(plain[-1] - wanted).mean() > lost
    off = [np.abs(result - wanted).mean() for result in mended]
    assert off[6] > off[7] > off[8] > off[9] > off[10]
    assert notes == ["flat frames, as in fades, have the norm statistics of the video's others"]
    # Frames with contrast are as they were: 1 - 6 / 10 is 0.4 of the scene's.
    assert all(np.array_equal(a, b) for a, b in zip(plain[:7], mended[:7], strict=True))


def test_batches_change_nothing() -> None:
    model = make_model("resnet")
    frames = [*fade(7), SCENE, *fade(4)]
    samples = [SCENE, BLACK, np.flip(SCENE, 0)]
    alone, _ = translated(model, frames, samples, batch=1)
    together, _ = translated(model, frames, samples, batch=5)
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1  # of rounding


def test_the_video_is_read_only_for_frames_of_little_contrast() -> None:
    job = EngineJob(EagerEngine(make_model("tiny"), CPU))
    asked: list[int] = []

    def samples(count: int) -> list[np.ndarray]:
        asked.append(count)
        return [SCENE]

    flat = FlatFrames(job.engine, samples, job.note)
    checker = torch.ones(1, 3, 16, 16)
    checker[..., ::2] = -1
    results = torch.zeros(1, 3, 16, 16)
    assert flat.mend(checker, results, flat.look_at(checker)) is results
    assert asked == []
    dim = FULL / 2 * checker
    flat.mend(dim, results, flat.look_at(dim))
    flat.mend(dim, results, flat.look_at(dim))
    assert asked == [8]


def test_of_the_samples_only_those_with_contrast_count() -> None:
    model = make_model("resnet")
    night = (SCENE // 8).astype(np.uint8)
    mended, _ = translated(model, [BLACK], [BLACK, SCENE, night, BLACK])
    wanted = usual(model, BLACK, [SCENE])
    assert np.abs(mended[0].astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("samples", [[], [BLACK, BLACK]])
def test_a_video_without_contrast_stays_as_it_is(samples: list[np.ndarray]) -> None:
    model = make_model("resnet")
    plain, _ = translated(model, [BLACK], None)
    mended, notes = translated(model, [BLACK], samples)
    assert np.array_equal(plain[0], mended[0])
    assert notes == []


def test_where_memory_is_short_the_video_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(self: Others, images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory (simulated)")

    monkeypatch.setattr(Others, "convert", short)
    model = make_model("resnet")
    plain, _ = translated(model, [BLACK, SCENE], None)
    mended, notes = translated(model, [BLACK, SCENE], [SCENE])
    assert all(np.array_equal(a, b) for a, b in zip(plain, mended, strict=True))
    assert notes == ["memory was short for flat frames: they were converted like all others"]


def test_the_share_of_a_frames_own_statistics_grows_with_its_contrast() -> None:
    shares = [own_share(own, 0.5) for own in (0.0, 0.05, 0.125, 0.2, 0.5)]
    assert shares == pytest.approx([0.0, 0.0, 0.5, 1.0, 1.0])
    assert own_share(0.0, 0.0) == 1.0


def test_networks_without_instance_norms_need_no_help() -> None:
    needed = {kind: has_instance_norms(make_model(kind).generator) for kind in KINDS}
    without = {"resnet_batch", "resnet_plain", "unet", "h2_noise", "identity"}
    assert {kind for kind, wanted in needed.items() if not wanted} == without
