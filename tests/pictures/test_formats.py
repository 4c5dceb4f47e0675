"""What comes out of an identity model is what went in, for every format, depth and kind of sample."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest

from cgconvert.media.picture.codec import decode_picture, encode_picture
from cgconvert.options import EngineOptions, ImageOptions
from cgconvert.pictures import pipeline
from tests.pictures.pictures import chunk, encode, noise, png, read_rgb, smooth, tiff

LOSSLESS_WEBP = (cv2.IMWRITE_WEBP_LOSSLESS_MODE, cv2.IMWRITE_WEBP_LOSSLESS_PRESERVE_COLOR)

CMYK_JPEG = base64.b64decode(  # 16x8, left half pure red, right half pure blue, Adobe marker, inverted CMYK
    "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwACAQEBAQECAQEBAgICAgIEAwICAgIFBAQDBAYFBgYGBQYGBgcJCAYHCQcGBggLCAkKCgoKCgYI"
    "CwwLCgwJCgoK/8AAFAgACAAQBEMRAE0RAFkRAEsRAP/EABYAAQEBAAAAAAAAAAAAAAAAAAoACf/EABQQAQAAAAAAAAAAAAAAAAAAAAD/"
    "2gAOBEMATQBZAEsAAD8A38H/AB/2/gAaP8T/2Q=="
)


def convert(
    tmp_path: Path, name: str, data: bytes, exact: EngineOptions, out: str | None = None, **options: object
) -> tuple[Path, pipeline.ImagesResult]:
    """Convert one file with the identity model; the result's path and what is said of it."""
    source, target = tmp_path / name, tmp_path / "out" / (out or name)
    source.write_bytes(data)
    result = pipeline.convert_images([source], target, "same", ImageOptions(**options), exact)  # type: ignore[arg-type]
    return target, result


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".webp", ".bmp"])
@pytest.mark.parametrize("channels", [3, 4])
def test_8_bit_is_exact(tmp_path: Path, same: str, exact: EngineOptions, suffix: str, channels: int) -> None:
    source = noise(37, 53, channels)
    options = LOSSLESS_WEBP if suffix == ".webp" else ()
    out, result = convert(tmp_path, f"a{suffix}", encode(suffix, source, options), exact)
    assert result.converted == 1 and not result.failures and not result.dropped
    written = decode_picture(out.read_bytes())
    assert written.format == {".tiff": "tiff"}.get(suffix, suffix[1:])
    assert np.array_equal(written.pixels, source[:, :, :3])
    if channels == 4:
        assert written.alpha is not None and np.array_equal(written.alpha, source[:, :, 3])
    else:
        assert written.alpha is None


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_is_exact(tmp_path: Path, same: str, exact: EngineOptions, suffix: str, channels: int) -> None:
    source = noise(31, 22, channels, np.uint16)
    out, result = convert(tmp_path, f"a{suffix}", encode(suffix, source), exact)
    assert not result.dropped
    written = read_rgb(out)
    assert written.dtype == np.uint16 and np.array_equal(written, source)


@pytest.mark.parametrize("depth", [10, 12])
def test_avif_of_10_and_12_bits_is_exact(tmp_path: Path, same: str, exact: EngineOptions, depth: int) -> None:
    source = noise(24, 40, 3, np.uint16) >> (16 - depth)
    options = (cv2.IMWRITE_AVIF_QUALITY, 100, cv2.IMWRITE_AVIF_DEPTH, depth)
    out, result = convert(tmp_path, "a.avif", encode(".avif", source, options), exact, quality=100)
    assert not result.dropped
    written = read_rgb(out)
    assert written.max() < 1 << depth and np.array_equal(written, source)


def test_avif_with_alpha_is_exact_without_being_asked(
    tmp_path: Path, same: str, exact: EngineOptions
) -> None:
    source = noise(24, 40, 4)
    data = encode(".avif", source, (cv2.IMWRITE_AVIF_QUALITY, 100))
    out, _ = convert(tmp_path, "a.avif", data, exact)
    assert np.array_equal(read_rgb(out), source)
    out, result = convert(tmp_path, "b.avif", data, exact, quality=60)
    assert [part.what for part in result.dropped] == [
        "exact alpha (AVIF at quality 60 stores it with losses)"
    ]


@pytest.mark.parametrize(("suffix", "bound"), [(".jpg", 38.0), (".webp", 36.0), (".avif", 38.0)])
def test_lossy_formats_stay_near(
    tmp_path: Path, same: str, exact: EngineOptions, suffix: str, bound: float
) -> None:
    source = smooth(96, 128)
    out, _ = convert(tmp_path, f"a{suffix}", encode(suffix, source), exact)
    before = decode_picture((tmp_path / f"a{suffix}").read_bytes()).pixels
    assert cv2.PSNR(decode_picture(out.read_bytes()).pixels, before) > bound


def test_jpeg_is_written_with_full_colour_resolution(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    out, _ = convert(tmp_path, "a.jpg", encode(".jpg", smooth(32, 32)), exact)
    data = out.read_bytes()
    frame = data.index(b"\xff\xc0")
    assert [data[frame + 11 + 3 * component] for component in range(3)] == [0x11, 0x11, 0x11]


@pytest.mark.parametrize(("quality", "smaller"), [(30, True), (100, False)])
def test_quality_is_heard(
    tmp_path: Path, same: str, exact: EngineOptions, quality: int, smaller: bool
) -> None:
    for suffix in (".jpg", ".webp", ".avif"):
        data = png(noise(64, 64), 2)
        usual, _ = convert(tmp_path, "a.png", data, exact, out=f"usual{suffix}")
        asked, _ = convert(tmp_path, "a.png", data, exact, out=f"asked{suffix}", quality=quality)
        assert (asked.stat().st_size < usual.stat().st_size) is smaller, suffix


def test_gray_becomes_colour(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    gray = noise(20, 33, 1)
    for name, data in (("a.png", png(gray, 0)), ("b.tif", tiff(gray, 1)), ("c.tif", tiff(255 - gray, 0))):
        out, _ = convert(tmp_path, name, data, exact)
        assert np.array_equal(read_rgb(out), np.dstack([gray] * 3)), name


def test_gray_of_16_bits(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    gray = noise(20, 33, 1, np.uint16)
    for name, data in (("a.png", png(gray, 0, 16)), ("b.tif", tiff(gray, 1, order=">"))):
        out, _ = convert(tmp_path, name, data, exact)
        assert np.array_equal(read_rgb(out), np.dstack([gray] * 3)), name


@pytest.mark.parametrize("depth", [8, 16])
def test_gray_with_alpha(tmp_path: Path, same: str, exact: EngineOptions, depth: int) -> None:
    source = noise(20, 33, 2, np.uint16 if depth == 16 else np.uint8)
    out, _ = convert(tmp_path, "a.png", png(source, 4, depth), exact)
    gray, alpha = source[:, :, 0], source[:, :, 1]
    assert np.array_equal(read_rgb(out), np.dstack([gray, gray, gray, alpha]))


def test_gray_with_a_transparent_value(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    gray = noise(20, 33, 1)
    gray[3:6, 4:9] = 77
    out, _ = convert(tmp_path, "a.png", png(gray, 0, extra=chunk(b"tRNS", b"\0\x4d")), exact)
    alpha = np.where(gray == 77, 0, 255)
    assert np.array_equal(read_rgb(out), np.dstack([gray, gray, gray, alpha]))


def test_palette_with_and_without_transparency(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    colours, index = noise(1, 16)[0], noise(20, 33, 1) % 16
    palette = chunk(b"PLTE", colours.tobytes())
    out, _ = convert(tmp_path, "a.png", png(index, 3, extra=palette), exact)
    assert np.array_equal(read_rgb(out), colours[index])
    alphas = noise(1, 16, 1, seed=3)[0]
    out, _ = convert(
        tmp_path, "b.png", png(index, 3, extra=palette + chunk(b"tRNS", alphas.tobytes())), exact
    )
    assert np.array_equal(read_rgb(out), np.dstack([colours[index], alphas[index]]))


def test_one_bit(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    bits = noise(20, 33, 1) % 2
    out, _ = convert(tmp_path, "a.png", png(bits, 0, 1), exact)
    assert np.array_equal(read_rgb(out), np.dstack([bits * 255] * 3))


def test_cmyk_jpeg(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    out, _ = convert(tmp_path, "a.jpg", CMYK_JPEG, exact, out="a.png")
    pixels = read_rgb(out).astype(int)
    assert np.abs(pixels[:, :8] - (255, 0, 0)).max() <= 3
    assert np.abs(pixels[:, 8:] - (0, 0, 255)).max() <= 3


def test_cmyk_tiff_is_not_taken_for_alpha(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    inks = np.zeros((8, 8, 4), np.uint8)
    inks[:, :4, 0], inks[:, 4:, 3] = 255, 255  # cyan, black
    out, _ = convert(tmp_path, "a.tif", tiff(inks, 5), exact, out="a.png")
    pixels = read_rgb(out)
    assert pixels.shape == (8, 8, 3)
    assert (pixels[:, :4] == (0, 255, 255)).all() and (pixels[:, 4:] == 0).all()


def test_tiff_alpha_of_both_kinds(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    source = noise(16, 24, 4)
    out, _ = convert(tmp_path, "a.tif", tiff(source, 2, more={338: (3, [2])}), exact)
    assert np.array_equal(decode_picture(out.read_bytes()).pixels, source[:, :, :3])
    alpha = np.maximum(source[:, :, 3], 1)
    multiplied = np.dstack([np.rint(source[:, :, :3] * (alpha / 255.0)[:, :, None]), alpha]).astype(np.uint8)
    out, _ = convert(tmp_path, "b.tif", tiff(multiplied, 2, more={338: (3, [1])}), exact)
    written = decode_picture(out.read_bytes())
    assert written.alpha is not None and np.array_equal(written.alpha, alpha)
    # A colour that was multiplied by alpha and rounded is known to within half a step of 255 / alpha.
    allowed = 127.5 / alpha[:, :, None] + 0.5
    assert (np.abs(written.pixels.astype(float) - source[:, :, :3]) <= allowed).all()


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("a.jpg", ["alpha, which JPEG does not hold", "16 bits a sample, of which JPEG holds 8"]),
        ("a.webp", ["16 bits a sample, of which WEBP holds 8"]),
        ("a.bmp", ["16 bits a sample, of which BMP holds 8"]),
        ("a.avif", ["16 bits a sample, of which AVIF holds 12"]),
    ],
)
def test_what_a_format_cannot_hold_is_said(
    tmp_path: Path, same: str, exact: EngineOptions, out: str, words: list[str]
) -> None:
    source = noise(32, 32, 4, np.uint16)
    written, result = convert(tmp_path, "a.png", png(source, 6, 16), exact, out=out, quality=100)
    assert [part.what for part in result.dropped] == words
    pixels = decode_picture(written.read_bytes()).pixels
    if out == "a.bmp":
        assert np.array_equal(pixels, np.rint(source[:, :, :3] / 257.0))
    if out == "a.avif":
        assert np.abs(pixels.astype(int) - source[:, :, :3]).max() <= 8


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (2, 2), (3, 300)])
def test_tiny_pictures_keep_their_size(
    tmp_path: Path, small: str, exact: EngineOptions, size: tuple[int, int]
) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(png(noise(*size), 2))
    pipeline.convert_images([source], tmp_path / "b.png", small, engine_options=exact)
    assert read_rgb(tmp_path / "b.png").shape == (*size, 3)


def test_content_counts_and_the_result_is_what_its_name_says(
    tmp_path: Path, same: str, exact: EngineOptions
) -> None:
    source = smooth(32, 48)
    out, _ = convert(tmp_path, "really_a_png.jpg", png(source, 2), exact)
    assert out.read_bytes()[:3] == b"\xff\xd8\xff"
    assert np.abs(read_rgb(out).astype(int) - source).max() <= 6


def test_lossless_webp_stays_lossless_and_lossy_stays_small(
    tmp_path: Path, same: str, exact: EngineOptions
) -> None:
    source = noise(48, 48)
    out, _ = convert(tmp_path, "a.webp", encode(".webp", source, LOSSLESS_WEBP), exact)
    assert b"VP8L" in out.read_bytes()
    out, _ = convert(tmp_path, "b.webp", encode(".webp", source, (cv2.IMWRITE_WEBP_QUALITY, 80)), exact)
    assert b"VP8 " in out.read_bytes()


def test_encoding_refuses_what_a_format_cannot_be() -> None:
    from cgconvert.errors import InputError
    from cgconvert.media.picture.codec import Picture

    wide = Picture(np.zeros((1, 16384, 3), np.uint8))
    with pytest.raises(InputError, match="WEBP holds at most 16383 pixels a side"):
        encode_picture(wide, "webp")
    assert encode_picture(wide, "png")[0][:4] == b"\x89PNG"
