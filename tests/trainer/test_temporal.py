"""Temporal consistency: the motion, noise and light that a generator is shown, and the loss of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.trainer.conftest import SMALL
from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.losses.temporal import (
    GAIN,
    NOISE,
    SPOTS,
    flicker,
    grain,
    masked_l1,
    next_frame,
    synthetic_flow,
    warp,
)
from trainer.methods import base, build_method

EMPTY = torch.zeros(48, 3, 64, 64)


def neighbours(noise: torch.Tensor, distance: int) -> torch.Tensor:
    """Correlation of each image with itself moved to the right: (N,)."""
    moved = (noise[..., distance:] * noise[..., :-distance]).mean((1, 2, 3))
    return moved / noise.square().mean((1, 2, 3))


@pytest.mark.parametrize("noise", [NOISE, 0.02])
def test_the_deviation_of_grain_is_between_half_and_all_of_what_was_asked(noise: float) -> None:
    torch.manual_seed(0)
    made = grain(EMPTY, noise)
    assert made.shape == EMPTY.shape
    deviations = made.std((1, 2, 3))
    # A draw of so many values finds its deviation to some percent; spots of 4 pixels are 768 values.
    assert deviations.min() > 0.47 * noise
    assert deviations.max() < 1.06 * noise
    assert deviations.mean() == pytest.approx(0.75 * noise, rel=0.06), "even between the two"
    assert made.mean().abs() < 0.02 * noise, "no tint"
    assert not grain(EMPTY, 0.0).any()


def test_grain_has_fine_noise_and_larger_spots() -> None:
    torch.manual_seed(0)
    made = grain(EMPTY, 0.02)
    near, far = neighbours(made, 1), neighbours(made, max(SPOTS))
    # White noise has 0 and spots of n pixels have (n - 1) / n: the mixtures lie between.
    assert near.min() < 0.1
    assert near.max() > 0.5
    assert near.max() < (max(SPOTS) - 1) / max(SPOTS) + 0.02
    assert near.mean() == pytest.approx((0 + 1 / 2 + 3 / 4) / 3, abs=0.07)
    assert far.abs().max() < 0.1, "no spot is larger than the largest"
    channels = (made[:, 0] * made[:, 1]).mean() / made.square().mean()
    assert channels.abs() < 0.02, "each channel has its own"


def test_grain_and_flicker_repeat_with_the_seed() -> None:
    images = torch.rand(2, 3, 33, 47, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for make in (grain, flicker):
        results = []
        for seed in (5, 5, 6):
            torch.manual_seed(seed)
            results.append(make(images))
        assert results[0].shape == images.shape, "odd sizes too"
        assert torch.equal(results[0], results[1])
        assert not torch.equal(results[0], results[2])


def test_flicker_is_one_gain_and_gamma_for_each_image() -> None:
    torch.manual_seed(0)
    levels = torch.linspace(-1, 1, 64).expand(32, 3, 64, 64)
    changed = flicker(levels, 0.0)
    # Without noise the same value becomes the same value everywhere in an image, and order stays.
    assert (changed - changed[:, :1, :1]).abs().max() < 1e-6
    assert (changed[:, 0, 0].diff(dim=-1) >= 0).all()
    white = (changed[:, 0, 0, -1] + 1) / 2
    assert white.min() > 1 - GAIN - 1e-6
    assert white.max() <= 1 + 1e-6
    assert white.min() < 1 - GAIN / 2, "some are darker"
    # light ** (1 +- GAIN) moves a value by at most GAIN / e, the gain by GAIN more; twice that on [-1, 1].
    assert (changed - levels).abs().max() <= 2 * (GAIN + GAIN / 2.718) + 2e-3
    assert (changed - levels).flatten(1).abs().amax(1).min() > 1e-4, "none is left as it was"
    torch.manual_seed(0)
    noisy = flicker(levels, 0.02)
    assert (noisy - changed).std() == pytest.approx(0.75 * 0.02, rel=0.1)


@pytest.mark.parametrize("method", ["cyclegan", "pix2pix", "cut"])
def test_the_setting_reaches_the_loss(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def spy(images: torch.Tensor, results: torch.Tensor, noise: float) -> tuple[torch.Tensor, ...]:
        seen.append(noise)
        return next_frame(images, results, noise)

    monkeypatch.setattr(base, "next_frame", spy)
    settings = {**SMALL, "run.method": method, "loss.temporal": 1.0, "loss.temporal_noise": 0.017}
    made = build_method(Config().with_changes(settings), Precision(torch.device("cpu"), "fp32"))
    losses = made.train_step({name: torch.rand(1, 3, 32, 32) * 2 - 1 for name in ("a", "b")})
    assert set(seen) == {0.017}
    assert any(name.startswith("temporal") for name in losses)


def test_warp_moves_by_the_flow() -> None:
    images = torch.rand(1, 3, 20, 24)
    flow = torch.zeros(1, 20, 24, 2)
    flow[..., 0], flow[..., 1] = 3.0, -2.0
    moved, mask = warp(images, flow)
    torch.testing.assert_close(moved[:, :, 2:, :21], images[:, :, :-2, 3:], rtol=1e-4, atol=1e-5)
    assert mask[0, 0, 2:, :21].all()
    assert not mask[0, 0, :2].any()
    assert not mask[0, 0, :, 21:].any()


def test_temporal_loss_is_small_for_what_moves_along_and_large_for_what_stays() -> None:
    torch.manual_seed(0)
    images = nn.functional.interpolate(torch.rand(2, 3, 16, 16) * 2 - 1, size=64, mode="bicubic").clamp(-1, 1)
    pattern = torch.randn(1, 3, 64, 64)
    following, wanted, mask = next_frame(images, 0.5 * images)
    steady = masked_l1(0.5 * following, wanted, mask)
    following, wanted, mask = next_frame(images, 0.5 * images + pattern)
    stuck = masked_l1(0.5 * following + pattern, wanted, mask)
    assert steady < 0.05
    assert stuck > 10 * steady
    flow = synthetic_flow(images)
    assert flow.shape == (2, 64, 64, 2)
    assert 1 < float(flow.std()) < 20
    assert float((flicker(images) - images).abs().mean()) < 0.08
