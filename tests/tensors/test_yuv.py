"""YUV planes to RGB on a torch device and back: the same pictures as swscale makes of them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from cgconvert.frames import StreamInfo, YuvFormat
from cgconvert.media.video.colour import FromPixels, ToPixels
from cgconvert.media.video.planes import FromPlanes, ToPlanes, yuv_format
from cgconvert.media.video.siting import NAMES, Siting, siting_of
from cgconvert.tensors.yuv import planes_to_rgb, resample, rgb_to_planes
from tests.video.clips import picture

LEFT = (0.0, 0.5)
FORMATS = ("yuv420p", "yuv422p", "yuv444p", "nv12", "yuv420p10le", "p010le")
COLOURS = {
    "BT.601 limited": (5, 1),
    "BT.601 full": (5, 2),
    "BT.709 limited": (1, 1),
    "BT.709 full": (1, 2),
    "BT.2020 limited": (9, 1),
    "BT.2020 full": (9, 2),
    "SMPTE 240M limited": (7, 1),
}


def stream(
    pixel_format: str, width: int, height: int, colours: str = "BT.709 limited", siting: tuple = LEFT
) -> StreamInfo:
    """A stream of this kind."""
    colorspace, color_range = COLOURS[colours]
    return StreamInfo(
        width,
        height,
        Fraction(1, 25),
        Fraction(25),
        pixel_format,
        10 if "10" in pixel_format else 8,
        colorspace=colorspace,
        color_range=color_range,
        siting=siting,
    )


def pixels_for(info: StreamInfo) -> np.ndarray:
    """A smooth coloured picture of the stream's size and depth."""
    pixels = picture(3, info.width, info.height)
    return pixels if info.bit_depth == 8 else pixels.astype(np.uint16) * 257


def encoded(info: StreamInfo) -> object:
    """The picture as a decoder would give it: marked with the place of its chroma."""
    frame = FromPixels(info, info.width, info.height, info.pixel_format)(
        pixels_for(info), 0, Fraction(1, 25), 1
    )
    return Siting(info.siting)(frame)


def form_of(info: StreamInfo) -> YuvFormat:
    """How the stream's planes hold pictures."""
    form = yuv_format(info.pixel_format, info)
    assert form is not None
    return form


def planes_of(info: StreamInfo) -> list[Tensor]:
    """The planes of the picture with a first dimension of 1."""
    frame = ToPlanes(info)(encoded(info), 0, 0)  # type: ignore[arg-type]
    return [torch.from_numpy(np.ascontiguousarray(plane))[None] for plane in frame.planes]


def as_pixels(rgb: Tensor, peak: int) -> np.ndarray:
    """RGB images as whole numbers (H, W, 3)."""
    return ((rgb[0].permute(1, 2, 0) + 1) / 2 * peak).round().numpy().astype(int)


SIZES = {"as it is": (64, 96), "half": (32, 48), "larger": (90, 150), "uneven": (41, 61)}
"""Height and width that the network sees of 96x64."""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("colours", COLOURS)
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_planes_become_the_rgb_that_swscale_makes(pixel_format: str, colours: str, size: str) -> None:
    """One level of 255, half of it in videos of 10 bits: swscale rounds to whole numbers, the device
    computes in float32."""
    height, width = SIZES[size]
    for siting in (LEFT, (0.5, 0.5), (0.0, 0.0)):
        info = stream(pixel_format, 96, 64, colours, siting)
        wanted = ToPixels(info, width, height)(encoded(info)).astype(int)  # type: ignore[arg-type]
        peak = 255 if info.bit_depth == 8 else 65535
        got = as_pixels(planes_to_rgb(planes_of(info), form_of(info), height, width), peak)
        difference = np.abs(got - wanted) * (255 / peak)
        assert difference.max() <= (1 if info.bit_depth == 8 else 0.5), f"{siting}: {difference.max():.2f}"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("colours", COLOURS)
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_rgb_becomes_the_planes_that_swscale_makes(pixel_format: str, colours: str, size: str) -> None:
    """One level; in 10 bits 2 of 1023, since swscale rounds to 15 bits between."""
    height, width = SIZES[size]
    for siting in (LEFT, (0.5, 0.5), (0.0, 0.0)):
        info = stream(pixel_format, 96, 64, colours, siting)
        small = stream(pixel_format, width, height, colours, siting)
        pixels = pixels_for(small)
        frame = FromPixels(info, 96, 64, pixel_format)(pixels, 0, Fraction(1, 25), 1)
        wanted = ToPlanes(info)(frame, 0, 0).planes
        peak = 255 if info.bit_depth == 8 else 65535
        images = torch.from_numpy(pixels.astype(np.float32) / peak * 2 - 1).permute(2, 0, 1)[None]
        got = rgb_to_planes(images, form_of(info), 64, 96)
        unit = 64 if pixel_format == "p010le" else 1
        for mine, theirs in zip(got, wanted, strict=True):
            assert mine[0].shape == theirs.shape
            difference = np.abs(mine[0].numpy().astype(int) - theirs.astype(int)) / unit
            assert difference.max() <= (1 if info.bit_depth == 8 else 2), f"{siting}: {difference.max()}"


@pytest.mark.parametrize("colours", COLOURS)
@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize(("width", "height"), [(96, 64), (95, 63), (34, 18), (2, 2), (1, 1)])
def test_there_and_back_is_the_same(pixel_format: str, colours: str, width: int, height: int) -> None:
    """Luma to rounding, chroma to what averaging leaves of smooth colours: 1 level of 255, 2 at the edges of
    subsampled chroma; 4 times that in 10 bits."""
    if pixel_format in ("nv12", "p010le"):  # of which there are none with odd sides
        width, height = width + width % 2, height + height % 2
    info = stream(pixel_format, width, height, colours)
    planes, form = planes_of(info), form_of(info)
    back = rgb_to_planes(planes_to_rgb(planes, form, height, width), form, height, width)
    scale = (64 if form.high_bits else 1) * (1 if form.depth == 8 else 4)
    for number, (new, old) in enumerate(zip(back, planes, strict=True)):
        difference = np.abs(new.numpy().astype(int) - old.numpy().astype(int)) / scale
        assert difference.max() <= (1 if number == 0 or form.sub_x == 1 else 2), difference.max()
        assert difference.mean() < 0.5


def test_an_odd_picture_is_the_corner_of_an_even_one() -> None:
    """Its last chroma sample covers pixels beyond the edge; it does not make the others move, as in swscale,
    which stretches chroma over the odd width."""
    even = stream("yuv420p", 96, 64)
    planes, form = planes_of(even), form_of(even)
    whole = planes_to_rgb(planes, form, 64, 96)
    part = planes_to_rgb([planes[0][:, :63, :95], planes[1], planes[2]], form, 63, 95)
    assert torch.equal(part, whole[:, :, :63, :95])


@pytest.mark.parametrize("siting", NAMES)
def test_the_siting_is_found_and_moves_chroma(siting: tuple[float, float]) -> None:
    info = stream("yuv420p", 96, 64, siting=siting)
    assert siting_of(encoded(info)) == siting  # type: ignore[arg-type]
    planes = planes_of(info)
    right = planes_to_rgb(planes, form_of(info), 64, 96)
    true = torch.from_numpy(pixels_for(info).astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    errors = {}
    for other in NAMES:
        wrong = planes_to_rgb(planes, form_of(stream("yuv420p", 96, 64, siting=other)), 64, 96)
        errors[other] = (wrong - true)[:, :, 4:-4, 4:-4].square().mean().item()
    assert min(errors, key=lambda name: errors[name]) == siting
    assert (right - true)[:, :, 4:-4, 4:-4].abs().max() * 127.5 < 3


def test_planes_go_to_the_encoder_as_they_came() -> None:
    """Also where the rows of the frame are padded."""
    for pixel_format in FORMATS:
        info = stream(pixel_format, 98, 54)
        decoded = encoded(info)
        frame = ToPlanes(info)(decoded, 7, 2)  # type: ignore[arg-type]
        again = FromPlanes(info, pixel_format)(frame, Fraction(1, 25))
        assert (again.pts, again.duration, again.colorspace) == (7, 2, info.colorspace)
        for new, old in zip(ToPlanes(info)(again, 7, 2).planes, frame.planes, strict=True):
            np.testing.assert_array_equal(new, old)


def test_resampling_keeps_a_constant_and_continues_the_edges() -> None:
    ramp = torch.arange(10.0).view(1, 1, 1, 10)
    assert torch.allclose(resample(torch.full((1, 1, 1, 10), 5.0), 3, 23, 10 / 23, -0.28), torch.tensor(5.0))
    assert torch.equal(resample(ramp, 3, 10, 1, 0), ramp)
    assert resample(ramp, 3, 3, 1, -40).unique().tolist() == [0]
    assert resample(ramp, 3, 3, 1, 40).unique().tolist() == [9]
