"""Metrics against what they must be for pictures whose answer is known."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cgconvert.card import ModelCard
from cgconvert.errors import ModelError, UsageError
from cgconvert.media.picture.filters import laplacian_pyramid
from cgconvert.models.loading import Model
from tests.trainer.conftest import draw
from trainer.metrics.colour import ReinhardTransfer
from trainer.metrics.grid import grid_power
from trainer.metrics.inception import Inception, fid, kid
from trainer.metrics.measures import measure_generator
from trainer.metrics.motion import ghosting, shift_error, warp_error
from trainer.metrics.ssim import psnr, ssim_luminance
from trainer.metrics.swd import sliced_wasserstein


def pictures(warm: bool, count: int = 12, edge: int = 64, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [draw(random, warm, (edge, edge)) for _ in range(count)]


def test_the_pyramid_adds_up_to_its_picture() -> None:
    image = pictures(True, 1)[0]
    *bands, rest = laplacian_pyramid(image, 3)
    for band in reversed(bands):
        rest = band + cv2.pyrUp(rest, dstsize=(band.shape[1], band.shape[0]))
    assert np.abs(rest - image).max() < 1e-2


def test_sliced_wasserstein_orders_sets_by_their_likeness() -> None:
    warm, other_warm, cold = pictures(True), pictures(True, seed=1), pictures(False, seed=2)
    near, far = sliced_wasserstein(warm, other_warm, 64), sliced_wasserstein(cold, other_warm, 64)
    assert near.levels == (64, 32)
    assert near.mean_common < 0.3 * far.mean_common, "other colours are far on a common scale"
    blurred = [cv2.GaussianBlur(p, (0, 0), 2.0) for p in warm]
    soft = sliced_wasserstein(blurred, other_warm, 64)
    assert soft.common[0] > 3 * near.common[0], "a blur shows at the finest level"
    assert soft.normalised[0] > near.normalised[0]
    assert sliced_wasserstein(warm, other_warm, 64) == near, "the same every time"
    with pytest.raises(UsageError):
        sliced_wasserstein([], warm)


def test_normalised_distance_is_blind_to_contrast_and_the_common_one_is_not() -> None:
    random = np.random.default_rng(0)
    base = [random.normal(128, 30, (64, 64, 3)) for _ in range(8)]
    full = [np.clip(b, 0, 255).astype(np.uint8) for b in base]
    half = [np.clip(128 + (b - 128) / 2, 0, 255).astype(np.uint8) for b in base]
    distance = sliced_wasserstein(half, full, 64)
    assert distance.normalised[0] < 80, "what finite samples differ by anyway"
    assert distance.common[0] > 300


def test_projections_are_measured_in_standard_deviations() -> None:
    # Two sets of white noise, one shifted by one standard deviation a channel: only the low-pass level sees
    # it, where the shift is the same for all 147 numbers of a patch.
    random = np.random.default_rng(0)
    one = [np.clip(random.normal(100, 20, (32, 32, 3)), 0, 255).astype(np.uint8) for _ in range(20)]
    two = [np.clip(p.astype(int) + 20, 0, 255).astype(np.uint8) for p in one]
    distance = sliced_wasserstein(two, one, 32)
    # A unit direction times the shift (1, ..., 1): normal with variance 1 up to the sphere, so mean |N(0,1)|.
    assert distance.common[0] == pytest.approx(1000 * np.sqrt(2 / np.pi), rel=0.1)
    assert distance.normalised[0] < 60


@pytest.mark.parametrize("period", [2, 4])
def test_a_grid_is_seen(period: int) -> None:
    plain = pictures(True, 6, 128)
    pattern = np.zeros((128, 128, 1))
    pattern[::period, ::period] = 1
    griddy = [np.clip(p + 6 * (pattern - pattern.mean()), 0, 255).astype(np.uint8) for p in plain]
    assert 0.5 < grid_power(plain, 128) < 2.0
    assert grid_power(griddy, 128) > 3 * grid_power(plain, 128)


def test_noise_has_no_grid() -> None:
    random = np.random.default_rng(0)
    noise = [random.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(100)]
    assert grid_power(noise, 64) == pytest.approx(1.0, abs=0.15)


def test_ssim_and_psnr() -> None:
    image = pictures(True, 1)[0]
    assert ssim_luminance(image, image) == pytest.approx(1.0)
    assert psnr(image, image) == float("inf")
    assert psnr(image // 2 + 50, image // 2 + 60) == pytest.approx(20 * np.log10(255 / 10))
    noise = np.random.default_rng(0).integers(0, 256, image.shape, dtype=np.uint8)
    assert abs(ssim_luminance(image, noise)) < 0.2
    mild = np.clip(image.astype(int) + 3, 0, 255).astype(np.uint8)
    assert 0.97 < ssim_luminance(image, mild) < 1.0


def test_ssim_of_flat_pictures_is_that_of_their_means() -> None:
    # Without structure only the luminance term is left: (2ab + c) / (a^2 + b^2 + c).
    a, b, c = 100.0, 150.0, (0.01 * 255) ** 2
    one, two = (np.full((32, 32, 3), int(v), np.uint8) for v in (a, b))
    assert ssim_luminance(one, two) == pytest.approx((2 * a * b + c) / (a * a + b * b + c), abs=1e-4)


def video(count: int = 6, noise: float = 0.0) -> list[np.ndarray]:
    """A window that pans over one large picture."""
    random = np.random.default_rng(3)
    large = cv2.GaussianBlur(draw(random, True, (160, 260)), (0, 0), 1.5)
    frames = [large[10:138, 2 * i : 2 * i + 192].astype(float) for i in range(count)]
    return [np.clip(f + random.normal(0, noise, f.shape), 0, 255).astype(np.uint8) for f in frames]


def test_warp_error_sees_flicker_but_not_motion() -> None:
    source = video()
    steady = warp_error(source, source)
    assert steady.ratio == pytest.approx(1.0)
    assert steady.sharpness == pytest.approx(1.0)
    random = np.random.default_rng(4)
    flickering = [np.clip(f * random.uniform(0.85, 1.15), 0, 255).astype(np.uint8) for f in source]
    assert warp_error(source, flickering).ratio > 10
    soft = warp_error(video(noise=6), [cv2.GaussianBlur(f, (0, 0), 3) for f in video(noise=6)])
    assert soft.ratio < 1
    assert soft.sharpness < 0.7, "a blur wins the warp error and shows here"
    with pytest.raises(UsageError):
        warp_error(source[:1], source[:1])


def test_strokes_that_stay_on_the_canvas_are_steady_where_nothing_moves() -> None:
    """The upper half is still and the lower half pans, with grain; the same canvas lies over all results."""
    random = np.random.default_rng(8)
    pan = video()
    source = [np.concatenate([pan[0][:64], frame[64:]]) for frame in pan]
    source = [np.clip(f + random.normal(0, 3, f.shape), 0, 255).astype(np.uint8) for f in source]
    canvas = cv2.GaussianBlur(random.normal(0, 120, source[0].shape), (0, 0), 1.5)
    painted = [np.clip(f + canvas, 0, 255).astype(np.uint8) for f in source]
    error = warp_error(source, painted)
    assert error.still is not None
    assert error.still == pytest.approx(1, abs=0.2)
    assert error.ratio > 3
    moving = warp_error(video(), video())
    assert moving.still is None, "no place of a pan is still"


def test_ghosting_is_seen_behind_what_moves_and_not_elsewhere() -> None:
    """A square crosses a picture; half of it stays behind for a frame in one result."""
    random = np.random.default_rng(5)
    ground = cv2.GaussianBlur(random.integers(0, 255, (120, 200, 3), dtype=np.uint8), (0, 0), 2)
    texture = random.integers(100, 255, (48, 48, 3), dtype=np.uint8)
    source = []
    for number in range(4):
        frame = ground.copy()
        frame[36:84, 24 + 24 * number : 72 + 24 * number] = texture
        source.append(frame)
    ghosts = [source[0]]
    for before, now in pairwise(source):
        ghosts.append((now // 2 + before // 2).astype(np.uint8))
        ghosts[-1][:, 120:] = now[:, 120:]
    assert ghosting(source, source, source) == (0.0, 0.0)
    behind, elsewhere = ghosting(source, ghosts, source)
    assert behind > 2 * elsewhere > 0
    brighter = [np.clip(frame.astype(int) + 10, 0, 255).astype(np.uint8) for frame in source]
    behind, elsewhere = ghosting(source, brighter, source)
    assert abs(behind - elsewhere) < 2, "what differs everywhere is no ghost"


def test_shift_error_is_zero_for_what_only_looks_at_places() -> None:
    sources = pictures(True, 3)
    assert shift_error(sources, lambda p: 255 - p) == 0
    fixed = np.random.default_rng(0).integers(0, 40, (200, 200, 3), dtype=np.uint8)
    assert shift_error(sources, lambda p: p // 2 + fixed[: p.shape[0], : p.shape[1]]) > 1e-3


def test_colour_transfer_gives_the_targets_colours() -> None:
    source, target = pictures(False, 1)[0], pictures(True, 1)[0]
    result = ReinhardTransfer([target]).convert(source, 0)
    before, after = (np.abs(p.mean((0, 1)) - target.mean((0, 1))).max() for p in (source, result))
    assert after < 0.15 * before
    assert ssim_luminance(result, source) > 0.6


class Statistics(torch.nn.Module):
    """Stands for an Inception network: mean and spread of each channel."""

    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        flat = images.float().flatten(2)
        features = torch.cat([flat.mean(2), flat.std(2)], 1) / 255
        return features if return_features else features[:, :1]


def test_a_given_torchscript_file_makes_kid_and_fid(tmp_path: Path) -> None:
    path = tmp_path / "features.pt"
    torch.jit.script(Statistics()).save(str(path))
    inception = Inception(path, torch.device("cpu"))
    warm, more, cold = pictures(True, 20), pictures(True, 20, seed=9), pictures(False, 20, seed=8)
    assert inception.features(warm).shape == (20, 6), "features, not classes"
    near, far = inception.scores(warm, more), inception.scores(cold, more)
    assert near.fid < 0.2 * far.fid
    assert near.kid < 0.2 * far.kid
    assert near.kid_spread >= 0
    with pytest.raises(ModelError, match="SHA-256 is"):
        Inception(path, torch.device("cpu"), "0" * 64)
    Inception(path, torch.device("cpu"), inception.sha256.upper())
    path.write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="not a TorchScript file"):
        Inception(path, torch.device("cpu"))


def test_fid_of_normal_samples_is_its_formula() -> None:
    random = np.random.default_rng(0)
    one, two = random.normal(0, 1, (20000, 3)), random.normal(0, 1, (20000, 3)) * [1, 2, 3] + [1, 0, 0]
    # |mean|^2 + sum (s1 - s2)^2
    assert fid(one, two) == pytest.approx(1 + 0 + 1 + 4, rel=0.03)
    assert fid(one, one) == pytest.approx(0, abs=1e-8)
    assert abs(kid(one[:300], one[300:600])[0]) < 0.02
    assert kid(one[:300], two[:300])[0] > 0.5
    few = random.normal(size=(5, 50))
    assert fid(few, few) == pytest.approx(0, abs=1e-8), "fewer samples than dimensions"


def test_all_metrics_of_the_unchanged_picture() -> None:
    sources = pictures(True, 4)
    card = ModelCard("same", "identity", size_multiple=32)
    convert = Model(card, torch.nn.Identity()).convert
    odd = sources[0][:50, :61]
    assert np.array_equal(convert(odd), odd), "padded to its multiple and cropped back"
    metrics = measure_generator(convert, sources, pictures(True, 4, seed=5), 64, convert, sources)
    assert metrics["ssim"] == pytest.approx(1.0)
    assert metrics["shift"] == 0
    assert metrics["cycle_psnr"] == float("inf")
    assert metrics["l1"] == 0
    assert metrics["truth_ssim"] == pytest.approx(1.0)
