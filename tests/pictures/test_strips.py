"""Large pictures, which go from file to file by strips and tiles: the same results as for those in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch import Tensor

from cgconvert.engines.tiles.files import PixelSink
from cgconvert.engines.tiles.geometry import Tile
from cgconvert.errors import UsageError
from cgconvert.media.picture.codec import read_picture
from cgconvert.options import EngineOptions, ImageOptions
from cgconvert.pictures import decoding
from cgconvert.pictures.pipeline import convert_images
from cgconvert.progress import Silent
from tests.pictures.pictures import exif, jpeg_with, noise, png

vips = pytest.importorskip("pyvips")

HEIGHT, WIDTH = 150, 210
WHOLE = ImageOptions(work_size="1x")


@pytest.fixture
def by_strips(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Pictures of these tests are large; the names of those that went by strips."""
    monkeypatch.setattr("cgconvert.pictures.run.PIXEL_MEMORY", 1000)
    monkeypatch.setattr(decoding, "LEAST_LARGE", 0)
    monkeypatch.setattr("cgconvert.media.picture.strips.STRIP_BYTES", 5000)
    seen: list[str] = []

    def read_pixels(large: object, *rest: object) -> None:
        seen.append(large.path.name)  # type: ignore[attr-defined]
        original(large, *rest)  # type: ignore[arg-type]

    original = decoding.read_pixels
    monkeypatch.setattr(decoding, "read_pixels", read_pixels)
    return seen


def source(folder: Path, kind: str) -> tuple[Path, Path]:
    """A file, and one of the same pixels for the way through memory."""
    rgb = cv2.GaussianBlur(noise(HEIGHT, WIDTH), (0, 0), 2)
    path = plain = folder / f"{kind}.{kind.split('-')[0]}"
    if kind == "png-16":
        path.write_bytes(png(rgb.astype(np.uint16) * 257 - 3 * (rgb > 9), 2, 16))
    elif kind == "png-alpha":
        path.write_bytes(png(np.dstack([rgb, noise(HEIGHT, WIDTH, 1)]), 6))
    elif kind == "png-gray":
        path.write_bytes(png(rgb[:, :, :1], 0))
    elif kind == "png":
        path.write_bytes(png(rgb, 2))
    elif kind == "jpg":
        path.write_bytes(jpeg_with(rgb))
    elif kind == "jpg-turned":
        path.write_bytes(jpeg_with(rgb, exif=exif(6, WIDTH, HEIGHT)))
    else:
        plain = folder / "plain.png"
        plain.write_bytes(png(rgb, 2))
        vips.Image.new_from_array(rgb).tiffsave(
            str(path),
            tile="tiles" in kind,
            pyramid="pyramid" in kind,
            bigtiff="big" in kind,
            compression="lzw",
        )
    return path, plain


@pytest.mark.parametrize(
    "kind",
    [
        *("png", "png-16", "png-alpha", "png-gray", "jpg", "jpg-turned"),
        *("tif", "tif-tiles", "tif-tiles-pyramid-big"),
    ],
)
def test_results_are_those_of_pictures_in_memory(
    kind: str, tmp_path: Path, small: str, exact: EngineOptions, by_strips: list[str]
) -> None:
    """One level apart at most, of rounding; two for JPEGs, which two decoders round by themselves."""
    large, plain = source(tmp_path, kind)
    wanted, got = tmp_path / "wanted.png", tmp_path / "got.png"
    convert_images([plain], wanted, small, WHOLE, replace(exact, tile="off"))
    assert by_strips == []
    result = convert_images([large], got, small, WHOLE, replace(exact, tile=64))
    assert (result.converted, result.failures, by_strips) == (1, [], [large.name])
    width, height = (HEIGHT, WIDTH) if kind == "jpg-turned" else (WIDTH, HEIGHT)
    assert list(result.engine["tiles"].values()) == [64]
    a, b = read_picture(wanted), read_picture(got)
    assert b.pixels.shape == (height, width, 3)
    assert (a.depth, b.depth) == ((16, 16) if kind == "png-16" else (8, 8))
    level = 257 if kind == "png-16" else 1
    allowed = 2 if kind.startswith("jpg") else 1
    assert np.abs(a.pixels.astype(int) - b.pixels).max() <= allowed * level
    assert a.pixels.std() > 5 * level
    if kind == "png-alpha":
        assert a.alpha is not None and b.alpha is not None and np.array_equal(a.alpha, b.alpha)


class Told(Silent):
    """Progress that keeps what it was told."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, int | None, str]] = []
        self.done: list[int] = []
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def begin(self, task: str, total: int | None, unit: str) -> None:
        self.tasks.append((task, total, unit))

    def advance(self, done: int, busiest: str | None = None) -> None:
        self.done.append(done)


def test_a_single_picture_is_counted_by_tiles(
    tmp_path: Path, same: str, exact: EngineOptions, by_strips: list[str]
) -> None:
    large, _ = source(tmp_path, "png")
    told = Told()
    convert_images([large], tmp_path / "out.png", same, WHOLE, replace(exact, tile=64), told)
    assert told.tasks == [("Converting", 1, "picture"), ("Converting png.png", 12, "tile")]
    assert told.done == list(range(1, 13))


def test_a_pyramid_stays_a_pyramid(
    tmp_path: Path, small: str, exact: EngineOptions, by_strips: list[str]
) -> None:
    large, plain = source(tmp_path, "tif-tiles-pyramid-big")
    convert_images([large], tmp_path / "out.tif", small, WHOLE, replace(exact, tile=64))
    convert_images([plain], tmp_path / "out.png", small, WHOLE, replace(exact, tile=96))
    out = vips.Image.new_from_file(str(tmp_path / "out.tif"))
    assert out.get("n-pages") == vips.Image.new_from_file(str(large)).get("n-pages") > 1
    assert out.get_typeof("tile-width")
    other = read_picture(tmp_path / "out.png").pixels.astype(int)
    assert np.abs(out.numpy() - other).max() <= 1, "whatever the size of tiles"


def test_metadata_is_kept(tmp_path: Path, small: str, exact: EngineOptions, by_strips: list[str]) -> None:
    icc = vips.Operation.call("profile_load", "srgb")
    rgb, xmp = noise(HEIGHT, WIDTH), b"<x:xmpmeta xmlns:x='adobe:ns:meta/'></x:xmpmeta>"
    block = exif(8, WIDTH, HEIGHT, thumbnail=b"\xff\xd8thumbnail\xff\xd9")
    (tmp_path / "a.jpg").write_bytes(jpeg_with(rgb, exif=block, icc=icc, xmp=xmp))
    result = convert_images([tmp_path / "a.jpg"], tmp_path / "b.jpg", small, WHOLE, exact)
    assert result.converted == 1 and by_strips == ["a.jpg"]
    written = read_picture(tmp_path / "b.jpg")
    assert written.pixels.shape == (WIDTH, HEIGHT, 3)
    assert (written.metadata.icc, written.metadata.orientation) == (icc, 1)
    assert written.metadata.xmp is not None and b"xmpmeta" in written.metadata.xmp
    assert written.metadata.exif is not None and b"thumbnail" not in (tmp_path / "b.jpg").read_bytes()


def test_files_that_are_cut_short_fail_alone_and_silently(
    tmp_path: Path,
    small: str,
    exact: EngineOptions,
    by_strips: list[str],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    data, good = png(noise(HEIGHT, WIDTH), 2), tmp_path / "g\udcffod.png"  # a name that is no text
    good.write_bytes(data)
    cut = [tmp_path / "cut.png", tmp_path / "cut.jpg"]
    for path, whole in zip(cut, (data, jpeg_with(noise(HEIGHT, WIDTH))), strict=True):
        path.write_bytes(whole[: len(whole) // 2])
    result = convert_images([*cut, good], tmp_path / "out", small, WHOLE, replace(exact, tile=64))
    assert result.converted == 1 and len(result.failures) == 2
    for failure in result.failures:
        assert failure.reason.startswith("damaged or cut short")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [good.name]
    assert capfd.readouterr() == ("", "") and caplog.records == []


def test_pictures_that_the_network_sees_smaller_stay_in_memory(
    tmp_path: Path, small: str, exact: EngineOptions, by_strips: list[str]
) -> None:
    large, _ = source(tmp_path, "png")
    for options in (ImageOptions(work_size="0.5x"), replace(WHOLE, strength=0.5)):
        convert_images([large], tmp_path / "out.png", small, replace(options, overwrite=True), exact)
    convert_images([large], tmp_path / "out.webp", small, WHOLE, exact)
    assert by_strips == []


@pytest.mark.parametrize("large", [False, True])
def test_the_pixel_limit_can_be_raised(
    large: bool, tmp_path: Path, same: str, exact: EngineOptions, request: pytest.FixtureRequest
) -> None:
    if large:
        request.getfixturevalue("by_strips")
    (tmp_path / "a.png").write_bytes(png(np.zeros((1000, 1200, 1), np.uint8), 0))
    files, target = [tmp_path / "a.png"], tmp_path / "b.png"
    told = convert_images(files, target, same, replace(WHOLE, pixel_limit=1), exact)
    assert [failure.reason for failure in told.failures] == [
        "1200x1000: more than the 1 million pixels allowed; raise `pixel_limit` if you trust the file"
    ]
    done = convert_images(files, target, same, replace(WHOLE, pixel_limit=2), exact)
    assert done.converted == 1
    with pytest.raises(UsageError, match="`pixel_limit=0` is not at least 1"):
        convert_images(files, None, same, ImageOptions(pixel_limit=0), exact)


class Killed(Exception):
    """The end of a run at an unexpected moment."""


@pytest.fixture
def tiles_done(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts the tiles of results; where `killed_at` is set the run ends before so many are stored."""
    counts = {"stored": 0}
    store = PixelSink.store

    def counted(sink: PixelSink, kept: Tensor, part: Tile) -> None:
        if counts["stored"] == counts.get("killed_at"):
            raise Killed
        store(sink, kept, part)
        counts["stored"] += 1

    monkeypatch.setattr(PixelSink, "store", counted)
    monkeypatch.setattr("cgconvert.engines.tiles.exact.SECONDS_BETWEEN_RECORDS", 0.0)
    return counts


@pytest.mark.parametrize("model", ["small", "same"])
@pytest.mark.parametrize("what", ["goes on", "fast", "result lost", "source changed", "tile changed"])
def test_a_run_that_was_killed_goes_on_where_it_stopped(
    what: str,
    model: str,
    tmp_path: Path,
    exact: EngineOptions,
    by_strips: list[str],
    tiles_done: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """With instance norms and without. Whatever changes in between, the result is that of one whole run."""
    name = request.getfixturevalue(model)
    large, plain = source(tmp_path, "tif")
    out, part = tmp_path / "out.png", tmp_path / "out.png.part"
    options = replace(exact, tile="fast:64" if what == "fast" else 64)
    tiles_done["killed_at"] = 5
    with pytest.raises(Killed):
        convert_images([large], out, name, WHOLE, options)
    assert not out.exists() and (part / "state.json").exists() and (part / "result.pixels").exists()
    if what == "result lost":
        (part / "result.pixels").unlink()
    if what == "source changed":
        rgb = read_picture(plain).pixels[::-1].copy()
        vips.Image.new_from_array(rgb).tiffsave(str(large), compression="lzw")
        plain.write_bytes(png(rgb, 2))
    if what == "tile changed":
        options = replace(exact, tile=96)
    tiles_done.pop("killed_at")
    tiles_done["stored"] = 0
    told = Told()
    with monkeypatch.context() as changed:
        changed.setattr("cgconvert.engines.tiles.tiling.gather", None)  # statistics are kept
        assert convert_images([large], out, name, WHOLE, options, told).converted == 1
    assert tiles_done["stored"] == {"goes on": 7, "fast": 7, "tile changed": 6}.get(what, 12)
    assert any(note.startswith("going on at") for note in told.notes) == (what in ("goes on", "fast"))
    assert not part.exists()
    whole = replace(exact, tile=options.tile if what == "fast" else "off")
    convert_images([plain], tmp_path / "wanted.png", name, WHOLE, whole)
    got, wanted = (read_picture(tmp_path / file).pixels.astype(int) for file in ("out.png", "wanted.png"))
    assert np.abs(got - wanted).max() <= 1


def test_nothing_is_kept_of_a_picture_that_fails(
    tmp_path: Path, same: str, exact: EngineOptions, by_strips: list[str]
) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes(png(noise(HEIGHT, WIDTH), 2)[:-2000])
    result = convert_images([path], tmp_path / "out.png", same, WHOLE, replace(exact, tile=64))
    assert [failure.reason.split(":")[0] for failure in result.failures] == ["damaged or cut short"]
    assert [file.name for file in tmp_path.iterdir()] == ["cut.png"]


MEASURED = """
import json, resource, sys
from cgconvert.options import EngineOptions, ImageOptions
from cgconvert.pictures.pipeline import convert_images
from cgconvert.progress import Silent
result = convert_images([sys.argv[1]], sys.argv[2], "identity", ImageOptions(work_size="1x"),
    EngineOptions("cpu", "eager", "fp32", tile=1024))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"converted": result.converted, "peak": peak * (1 if sys.platform == "darwin" else 1024)}))
"""


@pytest.mark.slow
def test_a_picture_of_400_million_pixels_takes_less_than_4_gib(tmp_path: Path) -> None:
    """The system's count of the whole process, torch included. The identity leaves every pixel as it is."""
    edge = 20_000
    source = vips.Image.gaussnoise(edge, 40, mean=128, sigma=40, seed=1).cast("uchar").bandjoin([128, 7])
    source = source.replicate(1, edge // 40).copy(interpretation="srgb")
    source.tiffsave(str(tmp_path / "in.tif"), tile=True, compression="lzw")
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "in.tif"), str(tmp_path / "out.tif")]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert told["converted"] == 1
    assert told["peak"] < 4 * 2**30
    a, b = (
        vips.Image.new_from_file(str(tmp_path / name), access="sequential") for name in ("in.tif", "out.tif")
    )
    assert (a.width, a.height) == (b.width, b.height) and (a - b).abs().max() == 0
