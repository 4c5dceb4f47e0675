"""Files that are no single picture of 8 or 16 bit: each is refused with the reason."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from cgconvert.errors import InputError
from cgconvert.media.picture import codec
from tests.pictures.pictures import chunk, encode, noise, png, profile, smooth, tiff


def animation(suffix: str) -> bytes:
    frames = cv2.Animation()
    frames.frames = [noise(16, 16, 4, seed=seed) for seed in range(3)]
    frames.durations = [100, 100, 100]
    done, data = cv2.imencodeanimation(suffix, frames)
    assert done
    return data.tobytes()


def pages() -> bytes:
    done, data = cv2.imencodemulti(".tiff", [noise(8, 8), noise(8, 8, seed=1)])
    assert done
    return data.tobytes()


def refusal(data: bytes) -> str:
    with pytest.raises(InputError) as caught:
        codec.decode_picture(data)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".webp", ".png", ".avif"])
def test_animations(suffix: str) -> None:
    assert refusal(animation(suffix)) == "3 frames in one file: split it into single pictures"


def test_pages_of_a_tiff() -> None:
    assert refusal(pages()) == "2 pages in one file: split it into single pictures"


def test_a_reduced_copy_is_no_page() -> None:
    data = tiff(noise(8, 8), 2)
    small = tiff(noise(2, 2), 2, more={254: (4, [1])})
    # Chain the second file's directory behind the first: shift its offsets by where it comes to lie.
    base = len(data) + len(data) % 2
    first_at = struct.unpack_from("<I", data, 4)[0]
    link = first_at + 2 + 12 * struct.unpack_from("<H", data, first_at)[0]
    second_at = base + struct.unpack_from("<I", small, 4)[0]
    joined = bytearray(data.ljust(base, b"\0") + small)
    struct.pack_into("<I", joined, link, second_at)
    for index in range(struct.unpack_from("<H", joined, second_at)[0]):
        entry = second_at + 2 + 12 * index
        number, kind, count, value = struct.unpack_from("<HHII", joined, entry)
        if number == 273 or {3: 2, 4: 4}[kind] * count > 4:
            struct.pack_into("<I", joined, entry + 8, value + base)
    picture = codec.decode_picture(bytes(joined))
    assert np.array_equal(picture.pixels, noise(8, 8))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff", ".avif", ".bmp"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.95])
def test_files_cut_short(suffix: str, share: float) -> None:
    data = encode(suffix, noise(64, 64))
    assert refusal(data[: int(len(data) * share)])


def test_a_damaged_png_names_the_chunk() -> None:
    data = bytearray(png(noise(64, 64), 2))
    data[len(data) // 2] ^= 0xFF
    assert refusal(bytes(data)) == "damaged: the checksum of its IDAT chunk is wrong"


def test_a_chunk_whose_name_a_terminal_would_obey() -> None:
    data = png(noise(8, 8), 2, extra=chunk(b"\x1b[2J", b""))
    assert (
        refusal(data.replace(b"\x1b[2J", b"\x1b[2K"))
        == "damaged: the checksum of its \\x1b[2K chunk is wrong"
    )


@pytest.mark.parametrize("depth", [0, 3, 255])
def test_depths_that_no_png_has(depth: int) -> None:
    """A gray value that is transparent was scaled by them, and 0 divided by."""
    data = bytearray(png(noise(8, 8, 1), 0, extra=chunk(b"tRNS", b"\0\5")))
    data[24] = depth
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    assert refusal(bytes(data)) == f"damaged: its PNG header says {depth} bits a sample"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff", ".avif", ".bmp"])
def test_random_damage_never_crashes(suffix: str) -> None:
    rng = np.random.default_rng(5)
    data = (
        encode(suffix, smooth(40, 40), exif=b"II*\0\x08\0\0\0\0\0")
        if suffix in (".jpg", ".webp")
        else encode(suffix, smooth(40, 40))
    )
    for _ in range(60):
        broken = bytearray(data)
        for at in rng.integers(0, min(len(broken), 300), 3):
            broken[at] = rng.integers(0, 256)
        try:
            picture = codec.decode_picture(bytes(broken))
        except InputError:
            continue
        assert picture.pixels.size > 0


def test_a_header_that_promises_too_much_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecodeWithMetadata", never)
    data = bytearray(png(noise(4, 4), 2))
    body = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data[8 : 8 + 25] = chunk(b"IHDR", body)
    assert refusal(bytes(data)) == (
        "60000x60000: more than the 400 million pixels allowed; raise `pixel_limit` if you trust the file"
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"GIF89a" + bytes(40), "cut short: the end of the GIF is missing"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "a HEIC picture, which is not supported"),
        (b"just some text", "not a picture that can be read"),
        (b"\xff\xd8\xff\xd9", "damaged or cut short"),
        (tiff(np.zeros((4, 4), np.float32), 1, more={339: (3, [3])}), "a TIFF of float or 32-bit samples"),
        (tiff(noise(4, 4, 2), 1, more={338: (3, [2])}), "a gray TIFF with alpha or more samples"),
        (tiff(noise(4, 4, 5), 2, more={338: (3, [2, 0])}), "a TIFF of 5 samples a pixel is not supported"),
        (png(noise(4, 4), 2)[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 4, 8, 2, 0, 0, 0))
         + chunk(b"IEND", b""), "damaged: its PNG header says 0x4 pixels"),
    ],
)  # fmt: skip
def test_the_reason_is_said(data: bytes, words: str) -> None:
    assert refusal(data).startswith(words)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name, words in (
        ("pipe.png", "not a file"),
        ("none.png", "no such file"),
        ("folder.png", "cannot be read"),
    ):
        with pytest.raises(InputError) as caught:
            codec.read_picture(tmp_path / name)
        assert words in str(caught.value)


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"iCCP", b"name\0\0" + zlib.compress(profile())),
        chunk(b"sRGB", b"\x09"),
        chunk(b"tIME", bytes(3)),
        chunk(b"bKGD", bytes(1)),
        chunk(b"eXIf", b"garbage"),
    ],
)
def test_odd_chunks_of_a_png_put_nothing_on_the_terminal(
    extra: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    """libpng would name each of them, but not the file; what can be carried is."""
    picture = codec.decode_picture(png(noise(8, 8), 2, extra=extra))
    assert np.array_equal(picture.pixels, noise(8, 8))
    assert capfd.readouterr() == ("", "")


def test_a_transparent_colour_counts_and_is_no_word_beside_alpha(capfd: pytest.CaptureFixture[str]) -> None:
    pixels = noise(8, 8)
    pixels[2, 3] = (1, 2, 3)
    key = chunk(b"tRNS", bytes((0, 1, 0, 2, 0, 3)))
    picture = codec.decode_picture(png(pixels, 2, extra=key))
    assert picture.alpha is not None
    assert picture.alpha[2, 3] == 0 and (picture.alpha == 255).sum() == 63
    assert codec.decode_picture(png(noise(8, 8, 4), 6, extra=key)).alpha is not None
    assert capfd.readouterr() == ("", "")
