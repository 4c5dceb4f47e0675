"""EXIF orientation is applied exactly once; EXIF, XMP and ICC arrive byte for byte where they can."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cgconvert.media.picture.codec import decode_picture, encode_picture
from cgconvert.media.picture.exif import made_upright, orientation
from cgconvert.media.picture.headers import read_header
from cgconvert.media.picture.metadata import read_metadata
from cgconvert.options import EngineOptions
from tests.pictures.pictures import (
    XMP,
    chunk,
    encode,
    exif,
    jpeg_with,
    noise,
    png,
    png_chunks,
    png_with,
    profile,
    smooth,
    tiff,
    upright,
)  # fmt: skip
from tests.pictures.test_formats import LOSSLESS_WEBP, convert

ALL = range(1, 9)


def turned_file(suffix: str, pixels: np.ndarray, turn: int) -> bytes:
    height, width = pixels.shape[:2]
    block = exif(turn, width, height, ">" if turn % 2 else "<")
    if suffix == ".png":
        return png_with(pixels, exif=block)
    if suffix == ".tif":
        return tiff(pixels, 2, more={274: (3, [turn])})
    options = LOSSLESS_WEBP if suffix == ".webp" else (cv2.IMWRITE_AVIF_QUALITY, 100)
    return encode(suffix, pixels, options, exif=block)


@pytest.mark.parametrize("turn", ALL)
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".avif"])
def test_every_orientation_is_applied_once(
    tmp_path: Path, same: str, exact: EngineOptions, suffix: str, turn: int
) -> None:
    pixels = noise(11, 17)
    out, _ = convert(tmp_path, f"a{suffix}", turned_file(suffix, pixels, turn), exact, out="a.png")
    again = decode_picture(out.read_bytes())
    assert np.array_equal(again.pixels, upright(pixels, turn))
    assert again.metadata.orientation == 1


@pytest.mark.parametrize("turn", ALL)
def test_every_orientation_of_a_jpeg(tmp_path: Path, same: str, exact: EngineOptions, turn: int) -> None:
    pixels = smooth(40, 64)
    data = jpeg_with(pixels, 98, exif=exif(turn, 64, 40))
    out, _ = convert(tmp_path, "a.jpg", data, exact)
    written = cv2.imdecode(np.frombuffer(out.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)  # heeds EXIF
    assert np.abs(written.astype(int) - upright(pixels, turn)).max() <= 6


@pytest.mark.parametrize("turn", ALL)
@pytest.mark.parametrize("samples", ["16 bit", "16 bit alpha", "gray", "cmyk"])
def test_every_orientation_of_tiffs_of_other_kinds(turn: int, samples: str) -> None:
    more: dict[int, tuple] = {274: (3, [turn])}
    if samples == "16 bit":
        pixels = noise(11, 17, 3, np.uint16)
        data, expected = tiff(pixels, 2, more=more), pixels
    elif samples == "16 bit alpha":
        pixels = noise(11, 17, 4, np.uint16)
        data, expected = tiff(pixels, 2, more={**more, 338: (3, [2])}), pixels[:, :, :3]
    elif samples == "gray":
        pixels = noise(11, 17, 1)
        data, expected = tiff(pixels, 1, more=more), np.dstack([pixels] * 3)
    else:
        inks = np.zeros((11, 17, 4), np.uint8)
        inks[:5, :, 0], inks[:, :8, 1] = 255, 255
        data, expected = tiff(inks, 5, more=more), 255 - inks[:, :, :3]
    picture = decode_picture(data)
    assert np.array_equal(picture.pixels, upright(expected, turn))
    if samples == "16 bit alpha":
        assert picture.alpha is not None and np.array_equal(picture.alpha, upright(pixels[:, :, 3], turn))


def test_alpha_is_turned_with_its_picture(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    pixels = noise(11, 17, 4)
    data = encode(".webp", pixels, LOSSLESS_WEBP, exif=exif(6, 17, 11))
    out, _ = convert(tmp_path, "a.webp", data, exact)
    written = decode_picture(out.read_bytes())
    assert written.alpha is not None
    assert np.array_equal(np.dstack([written.pixels, written.alpha]), upright(pixels, 6))


def source_file(suffix: str, turn: int) -> bytes:
    """A picture 48 wide and 32 high with all three kinds of metadata."""
    pixels, block = smooth(32, 48), exif(turn, 48, 32)
    parts = {"exif": block, "xmp": XMP % turn, "icc": profile()}
    if suffix == ".jpg":
        return jpeg_with(pixels, **parts)
    if suffix == ".png":
        return png_with(pixels, **parts)
    if suffix == ".tif":
        tags = {271: (2, b"Maker\0"), 274: (3, [turn]), 700: (1, XMP % turn), 34675: (7, profile())}
        return tiff(pixels, 2, more=tags)
    return encode(suffix, pixels, **parts)


def blocks_in(data: bytes, suffix: str) -> tuple[bytes, bytes, bytes]:
    """EXIF, XMP and ICC of a written file by what stands in its bytes, read by the tests' own code."""
    if suffix == ".png":
        chunks = dict(png_chunks(data))
        icc = zlib.decompress(chunks[b"iCCP"].split(b"\0", 1)[1][1:])
        return chunks[b"eXIf"], chunks[b"iTXt"].split(b"\0\0\0\0\0", 1)[1], icc
    start = data.index(b"II*\0\x08\0\0\0") if suffix != ".tif" else 0
    xmp_at, icc_at = data.index(b"<?xpacket begin"), data.index(profile()[:40])
    return data[start:], data[xmp_at : xmp_at + len(XMP) - 1], data[icc_at : icc_at + 600]


@pytest.mark.parametrize("target", [".jpg", ".png", ".webp", ".avif", ".tif"])
@pytest.mark.parametrize("source", [".jpg", ".png", ".webp", ".avif", ".tif"])
def test_all_metadata_is_carried(
    tmp_path: Path, same: str, exact: EngineOptions, source: str, target: str
) -> None:
    out, result = convert(tmp_path, f"a{source}", source_file(source, 6), exact, out=f"a{target}")
    assert not result.dropped
    data = out.read_bytes()
    block, xmp, icc = blocks_in(data, target)
    assert icc == profile()
    assert xmp == XMP % 1
    assert b"Maker\0" in block
    if source != ".tif" and target != ".tif":
        assert block[: len(exif(1, 32, 48))] == exif(1, 32, 48)
    written = decode_picture(data).metadata
    assert written.exif is not None and orientation(written.exif) == 1 and written.orientation == 1
    if source != ".tif":
        assert b"2020:01:02 03:04:05\0" in block


def test_a_stale_thumbnail_goes() -> None:
    shot = bytes(range(256)) * 4
    for order in ("<", ">"):
        block = exif(6, 17, 11, order, thumbnail=shot)
        clean = made_upright(block, 11, 17)
        assert shot[:64] not in clean and len(clean) == len(block) - len(shot)
        without = exif(1, 11, 17, order)
        assert clean[: len(without)] == without  # nothing else has moved or changed


def test_a_thumbnail_in_the_middle_is_blanked() -> None:
    shot = bytes(range(1, 200))
    block = exif(6, 17, 11, thumbnail=shot) + b"a maker's note"
    clean = made_upright(block, 11, 17)
    assert len(clean) == len(block) and shot[:16] not in clean and clean.endswith(b"a maker's note")


@pytest.mark.parametrize(
    "broken", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff" + bytes(9)]
)
def test_broken_exif_means_upright_and_is_carried(
    tmp_path: Path, same: str, exact: EngineOptions, broken: bytes
) -> None:
    assert orientation(broken) == 1 and made_upright(broken, 3, 4) == broken
    out, result = convert(tmp_path, "a.png", png_with(noise(8, 8), exif=broken), exact)
    assert result.converted == 1
    assert dict(png_chunks(out.read_bytes())).get(b"eXIf", b"") == broken


def test_large_profiles_and_blocks(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    icc = profile(size=200_000)
    out, result = convert(tmp_path, "a.jpg", jpeg_with(smooth(16, 16), icc=icc), exact)
    written = read_metadata(out.read_bytes(), read_header(out.read_bytes()))
    assert written.icc == icc and not result.dropped
    large = exif(1, 16, 16) + bytes(70_000)
    out, result = convert(tmp_path, "b.png", png_with(smooth(16, 16), exif=large), exact, out="b.jpg")
    assert [part.what for part in result.dropped] == [
        f"EXIF data of {len(large)} bytes, more than a JPEG holds"
    ]


@pytest.mark.parametrize(("space", "word"), [(b"GRAY", "gray"), (b"CMYK", "CMYK"), (b"Lab ", "foreign")])
def test_a_profile_of_other_colours_is_left_out_and_named(
    tmp_path: Path, same: str, exact: EngineOptions, space: bytes, word: str
) -> None:
    out, result = convert(tmp_path, "a.png", png_with(noise(8, 8), icc=profile(space)), exact)
    assert b"iCCP" not in dict(png_chunks(out.read_bytes()))
    assert [part.what for part in result.dropped] == [
        f"a {word} colour profile, which says nothing of a colour picture"
    ]


def test_bmp_holds_none_and_says_so(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    _, result = convert(tmp_path, "a.jpg", source_file(".jpg", 1), exact, out="a.bmp")
    assert [part.what for part in result.dropped] == [
        f"{kind} data, which BMP does not hold" for kind in ("EXIF", "XMP", "ICC")
    ]


def test_png_keeps_its_resolution_texts_and_colour_tags(
    tmp_path: Path, same: str, exact: EngineOptions
) -> None:
    kept = [
        (b"gAMA", struct.pack(">I", 45455)),
        (b"cICP", bytes((1, 13, 0, 1))),
        (b"tEXt", b"Author\0somebody"),
        (b"pHYs", struct.pack(">IIB", 11811, 11811, 1)),
    ]
    data = png(noise(8, 8), 2, extra=b"".join(chunk(*part) for part in kept))
    out, result = convert(tmp_path, "a.png", data, exact)
    assert [part for part in png_chunks(out.read_bytes()) if part[0] not in (b"IHDR", b"IEND")] == kept
    _, result = convert(tmp_path, "b.png", data, exact, out="b.jpg")
    assert [part.what for part in result.dropped] == ["PNG chunks cICP, tEXt"]


def test_a_picture_without_metadata_gets_none() -> None:
    for kind in ("jpeg", "png", "webp", "tiff", "avif", "bmp"):
        data, dropped = encode_picture(decode_picture(png(smooth(16, 16), 2)), kind)
        written = read_metadata(data, read_header(data))
        assert (written.exif, written.xmp, written.icc, dropped) == (None, None, None, ())


def avif_turned_by_its_boxes(pixels: np.ndarray, turn: int, block: bytes) -> bytes:
    """An AVIF whose own turning is `turn`, and whose EXIF block, with the orientation 3, is `block`."""
    data = encode(".avif", pixels, (cv2.IMWRITE_AVIF_QUALITY, 100), exif=exif(turn, 17, 11))
    own = exif(turn, 17, 11)
    assert len(block) == len(own) and data.count(own) == 1
    return data.replace(own, block)


@pytest.mark.parametrize("turn", ALL)
def test_an_avif_is_turned_by_its_boxes_and_its_exif_block_is_carried_as_it_is(turn: int) -> None:
    """Also where the two disagree, when Pillow would write the block anew."""
    pixels, block = noise(11, 17), exif(3, 17, 11)
    picture = decode_picture(avif_turned_by_its_boxes(pixels, turn, block))
    assert np.array_equal(picture.pixels, upright(pixels, turn))
    assert picture.metadata.exif == made_upright(block, *picture.pixels.shape[1::-1])


def test_a_damaged_exif_block_in_an_avif_says_nothing_on_the_terminal(tmp_path: Path) -> None:
    block = b"II*\0\x08\0\0\0" + bytes((200, 0)) + bytes(40)
    data = encode(".avif", smooth(16, 16), exif=exif(1, 16, 16))
    path = tmp_path / "a.avif"
    path.write_bytes(data.replace(exif(1, 16, 16), block.ljust(len(exif(1, 16, 16)), b"\xff")))
    code = (
        "import sys, pathlib\n"
        "from cgconvert.media.picture.codec import read_picture\n"
        "print(read_picture(pathlib.Path(sys.argv[1])).metadata.orientation)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


def with_density(suffix: str, unit: int, x: int, y: int) -> bytes:
    """A picture of 8x4 pixels whose file says how many lie along a unit, in the numbers of its format."""
    pixels = smooth(4, 8)
    if suffix == ".png":
        return png(pixels, 2, extra=chunk(b"pHYs", struct.pack(">IIB", x, y, unit)))
    if suffix == ".tif":
        number = struct.Struct("<II").pack
        return tiff(pixels, 2, more={282: (5, number(x, 1)), 283: (5, number(y, 1)), 296: (3, [unit])})
    data = bytearray(encode(suffix, pixels))
    if suffix == ".jpg":
        struct.pack_into(">BHH", data, 13, unit, x, y)
    else:
        struct.pack_into("<ii", data, 38, x, y)
    return bytes(data)


def density_in(data: bytes, suffix: str) -> tuple[int, ...]:
    """What a written file says, in the numbers of its format."""
    if suffix == ".jpg":
        return struct.unpack_from(">BHH", data, 13)
    if suffix == ".png":
        x, y, unit = struct.unpack(">IIB", dict(png_chunks(data))[b"pHYs"])
        return unit, x, y
    if suffix == ".bmp":
        return struct.unpack_from("<ii", data, 38)
    with Image.open(io.BytesIO(data)) as picture:
        return tuple(int(picture.tag_v2[number]) for number in (296, 282, 283))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("source", "given", "target", "expected"),
    [
        (".jpg", (1, 300, 240), ".jpg", (1, 300, 240)),
        (".jpg", (2, 118, 118), ".jpg", (2, 118, 118)),
        (".jpg", (0, 4, 3), ".jpg", (0, 4, 3)),
        (".png", (1, 11811, 5906), ".png", (1, 11811, 5906)),
        (".png", (0, 4, 3), ".png", (0, 4, 3)),
        (".jpg", (1, 300, 300), ".png", (1, 11811, 11811)),
        (".png", (1, 11811, 11811), ".jpg", (1, 300, 300)),
        (".jpg", (1, 300, 300), ".bmp", (11811, 11811)),
        (".bmp", (0, 11811, 11811), ".jpg", (1, 300, 300)),
        (".jpg", (2, 118, 118), ".tif", (3, 118, 118)),
        (".tif", (2, 300, 300), ".tif", (2, 300, 300)),
    ],
)
def test_the_density_is_kept(source: str, given: tuple[int, ...], target: str, expected: tuple) -> None:
    picture = decode_picture(with_density(source, *given))
    data, dropped = encode_picture(picture, {".jpg": "jpeg", ".tif": "tiff"}.get(target, target[1:]))
    assert (density_in(data, target), dropped) == (expected, ())


def test_a_density_that_a_format_does_not_hold_is_named() -> None:
    picture = decode_picture(with_density(".jpg", 1, 300, 240))
    assert encode_picture(picture, "webp")[1] == ("the density (300x240 per inch), which WEBP does not hold",)
    assert encode_picture(decode_picture(with_density(".jpg", 1, 72, 72)), "webp")[1] == ()


def test_the_density_is_turned_with_the_picture() -> None:
    block = b"Exif\0\0" + exif(6, 8, 4)
    data = with_density(".jpg", 1, 300, 240)
    at = 4 + struct.unpack_from(">H", data, 4)[0]
    turned = data[:at] + struct.pack(">BBH", 0xFF, 0xE1, len(block) + 2) + block + data[at:]
    written, _ = encode_picture(decode_picture(turned), "jpeg")
    assert density_in(written, ".jpg") == (1, 240, 300)
