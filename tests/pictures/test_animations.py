"""Animations through the pipeline: frames, times, loop counts, transparency, metadata, damage."""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from cgconvert import convert_dir, convert_images
from cgconvert.errors import InputError
from cgconvert.host.channels import Budget
from cgconvert.host.files import TEMPORARY_PREFIX
from cgconvert.media.picture import codec, sequences
from cgconvert.models.loading import load_model
from cgconvert.options import EngineOptions, ImageOptions
from cgconvert.pictures import items
from tests.pictures.animations import Part, apng, avif, gif, plays, shown, times, webp
from tests.pictures.pictures import XMP, chunk, exif, noise, png, png_chunks, profile, read_rgb, upright
from tests.pictures.runs import fill, names, run

PALETTE = np.random.default_rng(3).integers(0, 256, (256, 3)).astype(np.uint8)
PALETTE[7] = 0  # a colour like that under transparent pixels


def opaque(samples: np.ndarray) -> np.ndarray:
    """RGB as RGBA."""
    return np.dstack((samples, np.full(samples.shape[:2], np.iinfo(samples.dtype).max, samples.dtype)))


def stills(count: int = 4, few: bool = False) -> list[np.ndarray]:
    """Frames of 30x20, the third of which is almost the second; with `few`, of 40 colours."""
    frames = [noise(20, 30, seed=seed) for seed in range(count)]
    if few:
        frames = [PALETTE[frame[:, :, 0] % 40] for frame in frames]
    frames[2] = frames[1].copy()
    frames[2][5:8, 7:9] = frames[0][5:8, 7:9]
    return frames


def convert(tmp_path: Path, name: str, data: bytes, engine: EngineOptions, out: str = "", **options: int):
    """Convert one file with the model that changes nothing; return the result's bytes and the report."""
    source = tmp_path / name
    source.write_bytes(data)
    target = tmp_path / "out" / (out or name)
    result = convert_images([source], target, "same", ImageOptions(**options), engine)
    assert not result.failures, result.failures
    return target.read_bytes(), result


def example(kind: str, count: int = 4) -> bytes:
    """An animation of `stills` with uneven times that is shown three times; that of GIF in 1/100 s."""
    frames = stills(count, few=kind == "gif")
    steps = [33, 50, 71, 1001][:count]
    parts = [Part(frame, step) for frame, step in zip(frames, steps, strict=True)]
    if kind == "gif":
        indices = [np.argmin(np.abs(f[:, :, None].astype(int) - PALETTE[:40]).sum(3), 2) for f in frames]
        parts = [Part(i, step) for i, step in zip(indices, (3, 5, 7, 100), strict=True)]
        return gif((30, 20), parts, PALETTE, repeats=2)
    if kind == "webp":
        return webp((30, 20), parts, 3)
    if kind == "png":
        return apng((30, 20), parts, 2, plays=3)
    return avif(frames, steps)


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "avif"])
def test_frames_times_and_loops_are_kept(tmp_path: Path, same: str, exact: EngineOptions, kind: str) -> None:
    data = example(kind)
    options = {"quality": 100} if kind in ("webp", "avif") else {}
    out, result = convert(tmp_path, f"a.{kind}", data, exact, **options)
    expected = [3, 5, 7, 100] if kind == "gif" else [33, 50, 71, 1001]
    assert times(out) == [Fraction(time, 100 if kind == "gif" else 1000) for time in expected]
    assert plays(out) == (0 if kind == "avif" else 3)
    assert (result.converted, result.frames, result.dropped) == (1, 4, [])
    # Pillow's AVIF at its best quality loses up to 3 levels in each of two passes.
    tolerance = 6 if kind == "avif" else 0
    for before, after in zip(stills(few=kind == "gif"), shown(out), strict=True):
        assert np.abs(after[:, :, :3].astype(int) - before).max() <= tolerance
        assert (after[:, :, 3] == 255).all()


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "avif"])
def test_from_one_format_into_another(tmp_path: Path, same: str, exact: EngineOptions, kind: str) -> None:
    options = {"quality": 100} if kind in ("webp", "avif") else {}
    frames = stills(few=True)
    parts = [Part(frame, time) for frame, time in zip(frames, (15, 15, 15, 1000), strict=True)]
    data = apng((30, 20), parts, 2, plays=5)
    out, result = convert(tmp_path, "a.png", data, exact, f"a.{kind}", **options)
    assert plays(out) == 5
    for before, after in zip(frames, shown(out), strict=True):
        assert np.abs(after[:, :, :3].astype(int) - before).max() <= (3 if kind == "avif" else 0)
    if kind == "gif":  # frames begin at 15, 30 and 45 ms, so no error adds up
        assert times(out) == [Fraction(2, 100), Fraction(1, 100), Fraction(1, 100), Fraction(100, 100)]
        words = ["times of frames finer than 1/100 s, which GIF does not hold"]
    else:
        assert times(out) == [Fraction(time, 1000) for time in (15, 15, 15, 1000)]
        words = []
    assert [part.what for part in result.dropped] == words


def test_times_of_other_clocks_stay_exact(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    parts = [Part(frame, time) for frame, time in zip(stills(3), (1, 2, 1), strict=True)]
    data = apng((30, 20), parts, 2, scale=30)
    for kind in ("png", "avif"):
        out, _ = convert(tmp_path, "a.png", data, exact, f"a.{kind}")
        assert times(out) == [Fraction(1, 30), Fraction(2, 30), Fraction(1, 30)]


def test_frames_without_a_time_keep_none(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    data = gif((30, 20), [Part(np.full((20, 30), i), 0) for i in range(3)], PALETTE, repeats=0)
    out, _ = convert(tmp_path, "a.gif", data, exact)
    assert times(out) == [0, 0, 0] and plays(out) == 0
    assert [int(frame[0, 0, 0]) for frame in shown(out)] == PALETTE[:3, 0].tolist()


def test_a_gif_is_drawn_with_all_disposals(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    """Each frame against what the specification says, drawn by hand."""
    whole = np.arange(48).reshape(6, 8)
    patch = np.full((2, 3), 50)
    patch[0, 0] = 255  # transparent
    parts = [
        Part(whole, disposal=1),
        Part(patch, left=1, top=1, disposal=3),  # drawn, then as before it
        Part(patch, left=4, top=3, disposal=2),  # drawn, then transparent
        Part(patch, left=0, top=0, disposal=0),
    ]
    data = gif((8, 6), parts, PALETTE, transparent=255)
    base = opaque(PALETTE[whole])
    drawn = np.array([*PALETTE[50], 255], np.uint8)
    expected = [base.copy() for _ in range(4)]
    for frame, (left, top) in ((1, (1, 1)), (2, (4, 3)), (3, (0, 0))):
        for y, x in ((0, 1), (0, 2), (1, 0), (1, 1), (1, 2)):
            expected[frame][top + y, left + x] = drawn
    expected[3][3:5, 4:7] = 0
    for name in ("a.gif", "a.webp", "a.png"):
        out, _ = convert(tmp_path, "a.gif", data, exact, name, **({"quality": 100} if "webp" in name else {}))
        for before, after in zip(expected, shown(out), strict=True):
            visible = before[:, :, 3] == 255
            assert np.array_equal(after[:, :, 3], before[:, :, 3]), name
            assert np.array_equal(after[visible], before[visible]), name


def test_pixels_become_transparent_again_in_a_gif(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    first, second = np.full((6, 8), 3), np.full((6, 8), 4)
    first[:, 4:] = 255
    second[:, :4] = 255
    second[0, 0] = 9
    third = np.full((6, 8), 7)  # black, and opaque
    parts = [Part(first, disposal=2), Part(second, disposal=2), Part(third)]
    out, _ = convert(tmp_path, "a.gif", gif((8, 6), parts, PALETTE, transparent=255), exact)
    for before, after in zip((first, second, third), shown(out), strict=True):
        expected = np.dstack((PALETTE[before], np.where(before == 255, 0, 255)))
        seen = expected[:, :, 3] == 255
        assert np.array_equal(after[:, :, 3], expected[:, :, 3])
        assert np.array_equal(after[seen], expected[seen])


def test_an_animated_png_is_blended_and_disposed(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    base = opaque(noise(8, 10))
    half = np.full((2, 4, 4), (200, 100, 50, 128), np.uint8)
    parts = [
        Part(base, disposal=0),
        Part(half, left=2, top=1, disposal=2, blend=1),
        Part(half, left=3, top=3, disposal=1, blend=0),
        Part(half[:1], left=0, top=7, blend=1),
    ]
    out, _ = convert(tmp_path, "a.png", apng((10, 8), parts), exact)
    expected = [base.copy() for _ in range(4)]
    mixed = base[1:3, 2:6, :3] + (np.array((200, 100, 50)) - base[1:3, 2:6, :3].astype(float)) * 128 / 255
    expected[1][1:3, 2:6, :3] = np.rint(mixed)
    expected[2][3:5, 3:7] = half
    expected[3][3:5, 3:7] = 0
    expected[3][7, :4, :3] = np.rint(
        base[7, :4, :3] + (np.array((200, 100, 50)) - base[7, :4, :3].astype(float)) * 128 / 255
    )
    for number, (before, after) in enumerate(zip(expected, shown(out), strict=True)):
        assert np.array_equal(after[:, :, 3], before[:, :, 3]), number
        visible = before[:, :, 3] > 0
        assert np.abs(after[visible].astype(int) - before[visible]).max() <= 1, number


def test_an_animated_webp_is_blended_and_disposed(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    base = opaque(noise(8, 10))
    patch = opaque(noise(2, 4, seed=5))
    patch[0, 0] = 0
    parts = [
        Part(base, 40),
        Part(patch, 50, left=2, top=2, disposal=1, blend=1),  # its hole shows the first frame
        Part(patch, 60, left=4, top=4, blend=0),  # its hole is a hole
    ]
    out, _ = convert(tmp_path, "a.webp", webp((10, 8), parts), exact)
    second, third = base.copy(), base.copy()
    second[2:4, 2:6] = np.where(patch[:, :, 3:] == 0, base[2:4, 2:6], patch)
    third[2:4, 2:6] = 0
    third[4:6, 4:8] = patch
    for before, after in zip((base, second, third), shown(out), strict=True):
        assert np.array_equal(after[:, :, 3], before[:, :, 3])
        assert np.array_equal(after[before[:, :, 3] > 0], before[before[:, :, 3] > 0])


def test_16_bits_of_an_animated_png_are_kept(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    frames = [noise(8, 10, 3, np.uint16, seed) for seed in range(3)]
    data = apng((10, 8), [Part(frame) for frame in frames], 2, 16)
    out, result = convert(tmp_path, "a.png", data, exact)
    assert out[24] == 16 and not result.dropped
    header = codec.checked_header(out, single=False)
    pictures = sequences.open_sequence(out, header).pictures()
    for before, after in zip(frames, pictures, strict=True):
        assert np.array_equal(after.pixels, before)
    out, result = convert(tmp_path, "a.png", data, exact, "a.gif")
    assert [part.what for part in result.dropped] == ["16 bits a sample, of which GIF holds 8"]


def test_a_picture_for_others_is_no_frame(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    frames = stills(3)
    data = apng((30, 20), [Part(frame) for frame in frames], 2, hidden=noise(20, 30, seed=9))
    out, result = convert(tmp_path, "a.png", data, exact)
    assert [part.what for part in result.dropped] == ["the picture for programs that do not show animations"]
    assert all(np.array_equal(a[:, :, :3], b) for a, b in zip(shown(out), frames, strict=True))


def test_many_colours_in_a_gif(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    """In full colour, a few pixels together have the right colour, although each one alone has not."""
    y, x = np.mgrid[0:96, 0:128]
    frames = [
        np.stack([x * 2 % 256, y * 2 + shift, 255 - x - y], -1).astype(np.uint8) for shift in (0, 20, 40)
    ]
    data = apng((128, 96), [Part(frame) for frame in frames], 2)
    out, result = convert(tmp_path, "a.png", data, exact, "a.gif")
    assert not result.dropped
    for before, after in zip(frames, shown(out), strict=True):
        apart = after[:, :, :3].astype(np.float32) - before
        together = cv2.GaussianBlur(apart, (0, 0), 2)
        assert np.abs(apart).mean() < 4.5  # measured: 3.6; with one palette for all frames up to 11.1
        assert np.abs(together).mean() < 0.5  # measured: 0.34; without error diffusion 0.73
        assert np.abs(apart.mean((0, 1))).max() < 0.2


def test_a_single_gif_is_a_picture(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    indices = np.arange(48).reshape(6, 8)
    indices[2, 3] = 255
    data = gif((8, 6), [Part(indices)], PALETTE, transparent=255)
    out, result = convert(tmp_path, "a.gif", data, exact)
    (frame,) = shown(out)
    visible = indices != 255
    assert np.array_equal(frame[:, :, 3], np.where(visible, 255, 0))
    assert np.array_equal(frame[visible][:, :3], PALETTE[indices][visible])
    assert b"NETSCAPE" not in out
    out, _ = convert(tmp_path, "a.gif", data, exact, "a.png")
    assert np.array_equal(read_rgb(tmp_path / "out/a.png")[visible][:, :3], PALETTE[indices][visible])
    assert result.frames == 1


def test_half_transparent_pixels_in_a_gif_are_told(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    samples = opaque(np.full((4, 4, 3), 90, np.uint8))
    samples[0, :, 3] = (0, 127, 128, 254)
    out, result = convert(tmp_path, "a.png", png(samples, 6), exact, "a.gif")
    words = ["partial transparency (pixels of a GIF are visible or not)"]
    assert [part.what for part in result.dropped] == words
    assert shown(out)[0][0, :, 3].tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "avif"])
def test_metadata_of_animations(tmp_path: Path, same: str, exact: EngineOptions, kind: str) -> None:
    xmp, icc, block = XMP % 1, profile(), exif(1, 30, 20)
    frames = stills(3)
    parts = [Part(frame) for frame in frames]
    if kind == "gif":
        packet = b"\x21\xff\x0bXMP DataXMP" + xmp + bytes((1, *range(255, -1, -1), 0))
        pieces = b"".join(bytes((len(p),)) + p for p in (icc[:255], icc[255:510], icc[510:])) + b"\0"
        extra = packet + b"\x21\xff\x0bICCRGBG1012" + pieces + b"\x21\xfe\x05hello\0"
        data = gif((30, 20), [Part(frame[:, :, 0]) for frame in frames], PALETTE, extra=extra)
    elif kind == "webp":
        data = webp((30, 20), parts, exif=block, xmp=xmp, icc=icc)
    elif kind == "png":
        more = chunk(b"iCCP", b"name\0\0" + zlib.compress(icc)) + chunk(b"eXIf", block)
        more += chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp) + chunk(b"tEXt", b"Title\0one")
        data = apng((30, 20), parts, 2, extra=more)
    else:
        data = avif(frames, [10] * 3, exif=block, xmp=xmp, icc_profile=icc)
    out, result = convert(tmp_path, f"a.{kind}", data, exact)
    assert not result.dropped
    assert len(shown(out)) == 3
    assert xmp in out
    if kind == "gif":
        assert packet in out and b"ICCRGBG1012" + pieces in out and b"\x21\xfe\x05hello\0" in out
    elif kind == "png":
        chunks = png_chunks(out)
        assert (b"eXIf", block) in chunks and (b"tEXt", b"Title\0one") in chunks
    else:
        assert icc in out and (block in out or kind == "avif")
    if kind == "avif":  # Pillow has made the source, and has written the block anew without an orientation
        made = codec.avif_exif(data)
        assert made is not None and codec.avif_exif(out) == made and b"Maker" in made
    out, result = convert(tmp_path, f"a.{kind}", data, exact, "other.gif")
    lost = {"gif": [], "png": ["PNG chunks tEXt", "EXIF data, which GIF does not hold"]}
    assert [part.what for part in result.dropped] == lost.get(kind, ["EXIF data, which GIF does not hold"])


def test_frames_are_turned_upright(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    frames = stills(3)
    data = webp((30, 20), [Part(frame) for frame in frames], exif=exif(6, 30, 20))
    out, _ = convert(tmp_path, "a.webp", data, exact)
    for before, after in zip(frames, shown(out), strict=True):
        assert np.array_equal(after[:, :, :3], upright(before, 6))
    assert exif(1, 20, 30) in out


@pytest.mark.parametrize("kind", ["jpeg", "bmp", "tiff"])
def test_a_format_without_frames_is_refused(
    tmp_path: Path, same: str, exact: EngineOptions, kind: str
) -> None:
    fill(tmp_path / "in", 2)
    (tmp_path / "in/a.gif").write_bytes(example("gif"))
    result = run(tmp_path / "in", tmp_path / "out", same, exact, format=kind)
    words = f"4 frames in one file, which {kind.upper()} does not hold: use `format` gif, webp, png, avif"
    assert [failure.reason for failure in result.failures] == [words]
    assert result.converted == 2 and not [name for name in names(tmp_path / "out") if name.startswith("a.")]


def test_frames_go_through_the_network_as_pictures(tmp_path: Path, small: str) -> None:
    """Batches mix stills and frames of several files; each file has its own frames in their order."""
    fill(tmp_path / "in", 3, (20, 30))
    for name, seed in (("a.png", 10), ("b.png", 20), ("c.png", 30)):
        parts = [Part(noise(20, 30, seed=seed + i), i + 1) for i in range(7)]
        (tmp_path / "in" / name).write_bytes(apng((30, 20), parts, 2))
    options = EngineOptions("cpu", "eager", "fp32", 4)
    result = convert_dir(tmp_path / "in", tmp_path / "out", small, engine_options=options)
    assert (result.converted, result.frames) == (6, 24)
    model = load_model(small)
    for name, seed in (("a.png", 10), ("b.png", 20), ("c.png", 30)):
        out = (tmp_path / "out" / name).read_bytes()
        assert times(out) == [Fraction(i + 1, 1000) for i in range(7)]
        for i, frame in enumerate(shown(out)):
            expected = model.convert(noise(20, 30, seed=seed + i)).astype(int)
            assert np.abs(frame[:, :, :3].astype(int) - expected).max() <= 1, (name, i)
    again = convert_dir(tmp_path / "in", tmp_path / "out", small, engine_options=options)
    assert (again.converted, again.skipped) == (0, 6)


def test_memory_is_that_of_a_few_frames(
    tmp_path: Path, same: str, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With memory for one frame, two animations, a document and stills get through, one frame at a time."""
    most = 0
    take = Budget.take

    def watching(self: Budget, count: int) -> None:
        nonlocal most
        take(self, count)
        most = max(most, self.taken)

    monkeypatch.setattr(Budget, "take", watching)
    monkeypatch.setattr("cgconvert.pictures.run.PIXEL_MEMORY", 1)
    fill(tmp_path / "in", 3)
    data = apng((30, 20), [Part(noise(20, 30, seed=i)) for i in range(9)], 2)
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).write_bytes(data)
    done, pages = cv2.imencodemulti(".tiff", [noise(8, 8, seed=i) for i in range(5)])
    assert done
    (tmp_path / "in/c.tif").write_bytes(pages.tobytes())
    for workers in (1, 3):
        result = run(tmp_path / "in", tmp_path / f"out{workers}", same, exact, workers)
        assert (result.converted, result.frames) == (6, 3 + 18 + 5)
        assert most == 30 * 20 * 4 * 2 * 3 + len(data), "one frame, and its file"


def test_a_slow_writer_holds_the_reader_back(
    tmp_path: Path, same: str, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long an animation is, only so many of its frames are on their way."""
    most = 0
    prepare = items.FrameResults.wait_to_read

    def watching(self: items.FrameResults, number: int) -> None:
        nonlocal most
        prepare(self, number)
        most = max(most, number - self.taken + 1)

    monkeypatch.setattr(items.FrameResults, "wait_to_read", watching)
    monkeypatch.setattr(items, "FRAMES_AHEAD", 3)
    data = apng((30, 20), [Part(noise(20, 30, seed=i), i + 1) for i in range(40)], 2)
    out, result = convert(tmp_path, "a.png", data, exact)
    assert result.frames == 40 and times(out) == [Fraction(i + 1, 1000) for i in range(40)]
    assert 1 <= most <= 3


def broken(kind: str) -> bytes:
    """An animation whose third frame cannot be decoded."""
    data = bytearray(example(kind))
    if kind == "gif":
        at = [i for i in range(len(data)) if data[i : i + 3] == b"\x21\xf9\x04"][2]
        data[at + 8 + 10 + 1 + 40 : at + 8 + 10 + 1 + 60] = b"\xff" * 20
    elif kind == "webp":
        at = data.index(b"VP8L", data.index(b"VP8L", data.index(b"VP8L") + 4) + 4)
        data[at + 8 : at + 40] = bytes(32)
    else:
        frames = stills(4)
        parts = [Part(frame) for frame in frames]
        parts[2] = Part(frames[2][:5], left=0, top=0)
        data = bytearray(apng((30, 20), parts, 2))
        at = [i for i in range(len(data)) if data[i : i + 4] == b"fcTL"][2]
        control = bytearray(data[at + 4 : at + 30])
        control[8:12] = struct.pack(">I", 12)  # twelve rows, of which there are five
        data[at - 4 : at + 34] = chunk(b"fcTL", bytes(control))
    return bytes(data)


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_a_damaged_frame_fails_the_file_alone(
    tmp_path: Path, same: str, exact: EngineOptions, kind: str
) -> None:
    fill(tmp_path / "in", 2)
    (tmp_path / "in" / f"a.{kind}").write_bytes(broken(kind))
    (tmp_path / "in" / "b.gif").write_bytes(example("gif"))
    result = run(tmp_path / "in", tmp_path / "out", same, exact)
    (failure,) = result.failures
    assert failure.file.name == f"a.{kind}" and failure.reason.startswith("frame 3 of 4: damaged")
    assert result.converted == 3
    assert not [name for name in names(tmp_path / "out") if name == f"a.{kind}" or TEMPORARY_PREFIX in name]


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "avif"])
def test_animations_cut_short_are_refused(tmp_path: Path, same: str, exact: EngineOptions, kind: str) -> None:
    data = example(kind)
    for share in (0.3, 0.6, 0.9, 0.999):
        source = tmp_path / f"a.{kind}"
        source.write_bytes(data[: int(len(data) * share)])
        result = convert_images([source], tmp_path / "out" / source.name, same, engine_options=exact)
        assert result.failed == 1 and not (tmp_path / "out" / source.name).exists()


def test_bombs_are_refused_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(data: bytes) -> str:
        with pytest.raises(InputError) as caught:
            codec.checked_header(data, single=False)
        return str(caught.value)

    dot = Part(np.zeros((1, 1), int))
    large = gif((20_000, 20_000), [dot] * 51, PALETTE)
    assert len(large) < 3000
    words = "51 frames of 20000x20000: more than the 20000 million pixels allowed in one file"
    assert refusal(large) == words
    assert refusal(gif((65_535, 65_535), [dot, dot], PALETTE)).startswith("65535x65535: more than the 400")
    huge = bytearray(gif((8, 8), [dot, dot], PALETTE))  # a frame much larger than what it is drawn on
    at = huge.rindex(b"\x2c", 0, -1)
    huge[at + 5 : at + 9] = b"\xff" * 4
    assert refusal(bytes(huge)).startswith("65535x65535: more than the 400")
    parts = [Part(np.zeros((1, 1, 4), np.uint8))] * 60
    assert refusal(apng((20_000, 20_000), parts)).startswith("60 frames of 20000x20000: more than the 20000")
    assert refusal(webp((16_000, 16_000), parts * 2)).startswith("120 frames of 16000x16000: more than")


def test_random_damage_never_crashes(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    for kind in ("gif", "webp", "png", "avif"):
        data = example(kind)
        for _ in range(60):
            hurt = bytearray(data)
            for at in rng.integers(0, len(hurt), 3):
                hurt[at] = rng.integers(0, 256)
            if kind == "png":
                hurt = mended(hurt)
            try:
                header = codec.checked_header(bytes(hurt), 1_000_000, single=False)
                if header.frames > 1:
                    for picture in sequences.open_sequence(bytes(hurt), header).pictures():
                        assert picture.pixels.size
            except InputError:
                continue


def mended(data: bytearray) -> bytearray:
    """A PNG with right checksums, so that damage reaches the decoder; as it is where a length is wrong."""
    at, fixed = 8, data[:8]
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        if at + 12 + length > len(data):
            return data
        fixed += chunk(bytes(data[at + 4 : at + 8]), bytes(data[at + 8 : at + 8 + length]))
        at += 12 + length
    return fixed
