"""Gradients keep their means where they are rounded to few bits, and whole values stay as they are."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from cgconvert.frames import YuvFormat
from cgconvert.media.video.colour import FromPixels
from cgconvert.tensors.images import Crop, dither_pattern, images_to_tensor
from cgconvert.tensors.yuv import rgb_to_planes
from tests.tensors.test_yuv import stream

HEIGHT, WIDTH = 32, 512
STEPS = 3
"""Levels that the gradient climbs over its whole width: without dithering bands of 170 pixels."""


def gradient(depth: int) -> Tensor:
    """Gray images (1, 3, H, W) whose values climb by so few levels of `depth` bits, from the middle on."""
    peak = 2**depth - 1
    levels = peak // 2 + torch.linspace(0, STEPS, WIDTH, dtype=torch.float64)
    return (levels / peak * 2 - 1).float().expand(1, 3, HEIGHT, WIDTH)


def worst_mean(samples: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference of the means of 8x8 samples, in levels."""

    def means(values: np.ndarray) -> np.ndarray:
        return values.astype(float).reshape(HEIGHT // 8, 8, WIDTH // 8, 8).mean((1, 3))

    return float(np.abs(means(samples) - means(wanted)).max())


def test_pixels_of_8_bits() -> None:
    images, crop = gradient(8), Crop(HEIGHT, WIDTH)
    wanted = (images[0, 0].double().numpy() + 1) * 127.5
    plain = images_to_tensor(images, crop, torch.uint8)[0, :, :, 0].numpy()
    dithered = images_to_tensor(images, crop, torch.uint8, 8)[0].numpy()
    assert worst_mean(plain, wanted) > 0.4
    assert worst_mean(dithered[:, :, 0], wanted) < 0.08
    assert (dithered[:, :, :1] == dithered).all()  # gray stays gray


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv422p10le", "yuv444p10le"])
def test_pixels_on_their_way_to_10_bits(pixel_format: str) -> None:
    """Through swscale, as `FromPixels` leads them to the encoder."""
    images, crop = gradient(10), Crop(HEIGHT, WIDTH)
    info = stream(pixel_format, WIDTH, HEIGHT, "BT.709 limited")
    columns = np.arange(WIDTH)
    worst = []
    for depth in (None, 10):
        pixels = images_to_tensor(images, crop, torch.uint16, depth)[0].numpy()
        frame = FromPixels(info, WIDTH, HEIGHT, pixel_format)(pixels, 0, Fraction(1, 25), 1)
        luma = np.frombuffer(memoryview(frame.planes[0]), "<u2").reshape(HEIGHT, -1)[:, :WIDTH]
        # Against the nearest straight line, since swscale's white is some levels off.
        line = np.polyval(np.polyfit(columns, luma.astype(float).mean(0), 1), columns)
        worst.append(worst_mean(luma, np.broadcast_to(line, luma.shape)))
    assert worst[0] > 0.35
    # The offsets are made for RGB: in luma of limited range they are 876/1023 of a step.
    assert worst[1] < 0.15


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("high_bits", [False, True])
def test_planes(depth: int, high_bits: bool) -> None:
    form = YuvFormat(depth, 1, 1, 0.2126, 0.0722, True, high_bits=high_bits and depth > 8)
    images = gradient(depth)
    luma, blue, red = rgb_to_planes(images, form, HEIGHT, WIDTH)
    unit = 64 if form.high_bits else 1
    wanted = (images[0, 0].double().numpy() + 1) / 2 * (2**depth - 1)
    assert worst_mean(luma[0].numpy().astype(int) // unit, wanted) < 0.08
    for plane in (blue, red):  # gray has no colour
        assert (plane[0].numpy().astype(int) // unit == 2 ** (depth - 1)).all()


def test_whole_values_stay() -> None:
    """So that a network that changes nothing changes nothing, also with an error of 0.04 levels before."""
    values = torch.arange(256).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    for error in (-0.04, 0.0, 0.04):
        images = (values + error) / 127.5 - 1
        got = images_to_tensor(images, Crop(16, 16), torch.uint8, 8)[0, :, :, 0]
        assert torch.equal(got.int(), values[0, 0].int())


def test_the_pattern() -> None:
    pattern = dither_pattern(11, 21, torch.device("cpu"))
    assert pattern.shape == (11, 21)
    whole = pattern[:8, :8]
    assert torch.equal(pattern[:3, 16:21], whole[:3, :5])
    assert len(whole.unique()) == 64
    assert abs(whole.sum().item()) < 1e-5
    assert 0.44 < whole.abs().max().item() < 0.45
