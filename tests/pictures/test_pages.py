"""TIFFs of several pages: each page keeps its size, depth, transparency and metadata."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cgconvert import convert_images
from cgconvert.host.files import TEMPORARY_PREFIX
from cgconvert.options import EngineOptions, ImageOptions
from tests.pictures.animations import Part, apng, gif, shown
from tests.pictures.pictures import noise, png, read_rgb
from tests.pictures.runs import names

DESCRIPTION, RESOLUTION, UNIT, PAGE_NUMBER = 270, 282, 296, 297


def document(pages: list[np.ndarray], **options: list) -> bytes:
    """A TIFF of Pillow: each page has the options that stand at its place in the lists."""
    pictures = [Image.fromarray(page) for page in pages]
    for number, picture in enumerate(pictures):
        picture.encoderinfo = {name: values[number] for name, values in options.items()}
    file = io.BytesIO()
    first = {name: values[0] for name, values in options.items()}
    pictures[0].save(file, "TIFF", save_all=True, append_images=pictures[1:], **first)
    return file.getvalue()


def convert(tmp_path: Path, data: bytes, engine: EngineOptions, out: str = "a.tif", **options: object):
    source, target = tmp_path / "a.tif", tmp_path / "out" / out
    source.write_bytes(data)
    return target, convert_images([source], target, "same", ImageOptions(**options), engine)


def test_pages_of_different_sizes_and_depths(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    pages = [noise(20, 30), noise(33, 17, 3, np.uint16, 1), noise(8, 8, 4, seed=2), noise(50, 40, seed=3)]
    done, data = cv2.imencodemulti(".tiff", pages)
    assert done
    target, result = convert(tmp_path, data.tobytes(), exact)
    assert (result.converted, result.frames, result.dropped, result.failures) == (1, 4, [], [])
    _, after = cv2.imreadmulti(str(target), flags=cv2.IMREAD_UNCHANGED)
    for number in (0, 1, 3):
        assert after[number].dtype == pages[number].dtype and np.array_equal(after[number], pages[number])
    with Image.open(target) as made:
        numbers = []
        for page in range(made.n_frames):
            made.seek(page)
            numbers.append(made.tag_v2[PAGE_NUMBER])
        made.seek(2)
        assert np.array_equal(np.array(made), pages[2][:, :, [2, 1, 0, 3]]), "OpenCV would multiply alpha in"
    assert numbers == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_each_page_keeps_its_own_metadata(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    pages = [noise(12, 16, seed=seed) for seed in range(3)]
    options = {"description": ["first", "second", "third"], "dpi": [(300, 300), (600, 600), (72, 72)]}
    target, result = convert(tmp_path, document(pages, **options), exact)
    assert not result.dropped and not result.failures
    with Image.open(target) as made:
        assert made.n_frames == 3
        for number, page in enumerate(pages):
            made.seek(number)
            assert np.array_equal(np.array(made), page)
            assert made.tag_v2[DESCRIPTION] == options["description"][number]
            assert made.info["dpi"] == options["dpi"][number] and made.tag_v2[UNIT] == 2


@pytest.mark.parametrize("big", [False, True])
def test_big_tiffs_are_read(tmp_path: Path, same: str, exact: EngineOptions, big: bool) -> None:
    pages = [noise(12, 16, seed=seed) for seed in range(3)]
    target, result = convert(tmp_path, document(pages, big_tiff=[big] * 3), exact)
    assert (tmp_path / "a.tif").read_bytes()[2] == (43 if big else 42) and not result.failures
    _, after = cv2.imreadmulti(str(target), flags=cv2.IMREAD_UNCHANGED)
    assert all(np.array_equal(page[:, :, ::-1], before) for page, before in zip(after, pages, strict=True))


def test_a_reduced_copy_is_no_page(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    pages = [noise(5, 5), noise(20, 30, seed=1)]
    small = {254: 1}  # NewSubfileType: a reduced copy of another page
    target, result = convert(tmp_path, document(pages, tiffinfo=[small, {254: 0}]), exact)
    assert (result.converted, result.frames) == (1, 1)
    assert np.array_equal(read_rgb(target), pages[1])


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif"])
def test_pages_fit_only_a_tiff(tmp_path: Path, same: str, exact: EngineOptions, kind: str) -> None:
    target, result = convert(tmp_path, document([noise(8, 8), noise(8, 8)]), exact, f"a.{kind}")
    (failure,) = result.failures
    assert failure.reason == (
        '2 pages in one file, which only TIFF holds: leave `format` out, or use `format="tiff"`'
    )
    assert not target.exists()


def test_a_damaged_page_fails_the_file(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    """OpenCV makes strips black that cannot be decoded, and says nothing."""
    data = bytearray(
        document([noise(20, 30, seed=seed) for seed in range(3)], compression=["tiff_deflate"] * 3)
    )
    with Image.open(io.BytesIO(data)) as made:
        made.seek(1)
        (start,) = made.tag_v2[273]
    data[start : start + 40] = bytes(40)
    _, result = convert(tmp_path, bytes(data), exact)
    (failure,) = result.failures
    assert failure.reason == "page 2 of 3: damaged or cut short: the checksum of its pixels is wrong"
    assert not [name for name in names(tmp_path) if name != "a.tif" or TEMPORARY_PREFIX in name]


def test_directories_that_lead_back_end(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    data = bytearray(document([noise(8, 8, seed=seed) for seed in range(2)]))
    first = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, first)[0]
    second = struct.unpack_from("<I", data, first + 2 + 12 * count)[0]
    count = struct.unpack_from("<H", data, second)[0]
    struct.pack_into("<I", data, second + 2 + 12 * count, first)
    _, result = convert(tmp_path, bytes(data), exact)
    assert (result.converted, result.frames, result.failures) == (1, 2, [])


LOOKS = [
    {"strength": 0.0},
    {"strength": 0.4, "keep_colours": True},
    {"stroke": "large"},
]


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: "-".join(look))
def test_a_look_holds_for_every_frame_and_page(
    tmp_path: Path, small: str, exact: EngineOptions, look: dict[str, object]
) -> None:
    """Each frame and page is what the picture alone becomes with the same options."""
    pictures = [noise(48, 64, seed=seed) for seed in range(3)]
    expected = []
    for number, picture in enumerate(pictures):
        source, target = tmp_path / f"{number}.png", tmp_path / f"alone/{number}.png"
        source.write_bytes(png(picture, 2))
        assert not convert_images([source], target, small, ImageOptions(**look), exact).failures
        expected.append(read_rgb(target).astype(int))
    (tmp_path / "a.png").write_bytes(apng((64, 48), [Part(picture) for picture in pictures], 2))
    (tmp_path / "a.tif").write_bytes(document(pictures))
    files = [tmp_path / "a.png", tmp_path / "a.tif"]
    result = convert_images(files, tmp_path / "out", small, ImageOptions(**look), exact)
    assert (result.converted, result.frames) == (2, 6)
    frames = [frame[:, :, :3] for frame in shown((tmp_path / "out/a.png").read_bytes())]
    _, pages = cv2.imreadmulti(str(tmp_path / "out/a.tif"), flags=cv2.IMREAD_UNCHANGED)
    for made in (frames, [page[:, :, ::-1] for page in pages]):
        for number, (after, alone) in enumerate(zip(made, expected, strict=True)):
            assert np.abs(after.astype(int) - alone).max() <= 1, number
    if look == {"strength": 0.0}:
        assert all(np.array_equal(frame, picture) for frame, picture in zip(frames, pictures, strict=True))


def test_a_look_keeps_what_a_gif_does_not_show(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    """Transparent pixels stay transparent with every look."""
    palette = np.stack([np.arange(256)] * 3, axis=1).astype(np.uint8)
    indices = noise(16, 16)[:, :, 0] % 200
    indices[3:9, 2:11] = 255
    parts = [Part(indices), Part(np.roll(indices, 3, 1), disposal=0)]
    (tmp_path / "a.gif").write_bytes(gif((16, 16), parts, palette, transparent=255))
    target = tmp_path / "out.gif"
    look = ImageOptions(strength=0.5, keep_colours=True)
    assert not convert_images([tmp_path / "a.gif"], target, same, look, exact).failures
    first, second = shown(target.read_bytes())
    assert np.array_equal(first[:, :, 3] == 0, indices == 255)
    both = (indices == 255) & (np.roll(indices, 3, 1) == 255)  # the second frame is drawn over the first
    assert np.array_equal(second[:, :, 3] == 0, both)
