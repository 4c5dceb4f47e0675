"""A result is shown in the shape of its source, whatever its size."""

from __future__ import annotations

import zlib
from fractions import Fraction
from pathlib import Path

import av
import pytest

from cgconvert import convert_video
from cgconvert.media.video import matroska
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.sizes import pixel_aspect
from tests.video.clips import Clip, make_clip, picture, read_facts

PAL, PAL_WIDE, NTSC_WIDE = Fraction(16, 15), Fraction(64, 45), Fraction(32, 27)


@pytest.mark.parametrize(
    ("aspect", "source", "size", "expected"),
    [
        (None, (1920, 1080), (1280, 720), None),
        (None, (1920, 1080), (854, 480), None),  # 853.3, which is even only with 854
        (Fraction(1), (1920, 1080), (854, 480), Fraction(1)),
        (None, (1920, 1080), (640, 480), Fraction(4, 3)),
        (None, (1920, 1080), (1080, 1080), Fraction(16, 9)),
        (None, (1080, 1920), (1080, 1080), Fraction(9, 16)),
        (PAL, (720, 576), (720, 576), PAL),
        (PAL, (720, 576), (360, 288), PAL),
        (PAL, (720, 576), (768, 576), Fraction(1)),
        (PAL_WIDE, (720, 576), (1024, 576), Fraction(1)),
        (NTSC_WIDE, (720, 480), (854, 480), Fraction(1)),  # 853.3 again
        (PAL_WIDE, (720, 576), (768, 576), Fraction(4, 3)),
        (None, (1000, 10), (10, 1000), Fraction(255)),  # the most that a codec can store
        (None, (1997, 1999), (1999, 1000), Fraction(127, 254)),
    ],
)
def test_the_shape_of_pixels(
    aspect: Fraction | None, source: tuple[int, int], size: tuple[int, int], expected: Fraction | None
) -> None:
    found = pixel_aspect(aspect, source, size)
    assert found == expected and (found is None) == (expected is None)


def shown(path: Path) -> tuple[tuple[int, int], Fraction | None]:
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        return (video.width, video.height), video.sample_aspect_ratio


def anamorphic(path: Path, rotation: int = 0) -> Path:
    """96x64 that is shown as 128x64."""
    return make_clip(
        path,
        Clip(frames=3, rotation=rotation, tags={"sample_aspect_ratio": Fraction(4, 3)}),  # type: ignore[dict-item]
    )


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mp4", "h264"), ("mkv", "h265"), ("webm", "vp9"), ("mkv", "ffv1"), ("mov", "prores")],
)
@pytest.mark.parametrize(
    ("size", "expected"),
    [(None, Fraction(4, 3)), ("0.5x", Fraction(4, 3)), ("128x64", Fraction(1)), ("64x64", Fraction(2))],
)
def test_containers_and_codecs_tell_it(
    tmp_path: Path, exact: EngineOptions, suffix: str, codec: str, size: str | None, expected: Fraction
) -> None:
    if codec == "h265" and size == "0.5x":
        pytest.skip("x265 needs 64 pixels in width")
    source = anamorphic(tmp_path / "in.mp4")
    assert shown(source) == ((96, 64), Fraction(4, 3))
    output = tmp_path / f"out.{suffix}"
    report = convert_video(source, output, "identity", VideoOptions(size=size, codec=codec), exact)
    found, aspect = shown(output)
    assert (aspect or 1) == expected
    assert Fraction(found[0], found[1]) * expected == 2, "as wide as the source is shown"
    told = [warning for warning in report.warnings if "players show" in warning]
    words = (
        "64x64 has another shape than the source: its pixels are marked as 2:1, "
        "so that players show the source's shape"
    )
    assert told == ([words] if size == "64x64" else [])


def test_a_turned_video(tmp_path: Path, exact: EngineOptions) -> None:
    source, output = anamorphic(tmp_path / "in.mp4", 90), tmp_path / "out.mp4"
    convert_video(source, output, "identity", VideoOptions(size="64x64"), exact)
    assert shown(output) == ((64, 64), Fraction(1, 2)), "upright it is shown as 64x128"
    assert read_facts(output).size == (64, 64)


def test_side_by_side(tmp_path: Path, exact: EngineOptions) -> None:
    source, output = anamorphic(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    convert_video(source, output, "identity", VideoOptions(size="64x64", compare="side"), exact)
    assert shown(output) == ((128, 64), Fraction(2))


def elements(data: bytes, parent: matroska.Element | None = None) -> list[matroska.Element]:
    start, end = (parent.content, parent.end) if parent else (0, len(data))
    return list(matroska._elements(data, start, end))


@pytest.mark.parametrize("suffix", ["mkv", "webm"])
def test_a_matroska_header_is_whole_after_the_change(
    tmp_path: Path, exact: EngineOptions, suffix: str
) -> None:
    """Its index points to what it says, checksums are right, and all streams are there with their times."""
    codec, audio = ("ffv1", "flac") if suffix == "mkv" else ("vp9", "libopus")
    clips = []
    for aspect in (Fraction(1), Fraction(4, 3)):
        tags = {"sample_aspect_ratio": aspect}
        clip = Clip(frames=60, audio=audio, chapters=True, tags=tags, metadata={"title": "t"})  # type: ignore[arg-type]
        source = make_clip(tmp_path / f"{aspect.denominator}.mkv", clip)
        clips.append(tmp_path / f"out{aspect.denominator}.{suffix}")
        convert_video(source, clips[-1], "identity", VideoOptions(codec=codec), exact)
    plain, told = map(read_facts, clips)
    assert shown(clips[1]) == ((96, 64), Fraction(4, 3))
    assert (told.pts, told.packets, told.chapters) == (plain.pts, plain.packets, plain.chapters)
    data = clips[1].read_bytes()
    assert len(data) == len(clips[0].read_bytes())
    _, segment = elements(data)
    parts = elements(data, segment)
    assert parts[-1].end == len(data)
    kinds = {part.start - segment.content: part.kind for part in parts}
    seen = 0
    for entry in elements(data, parts[0]):
        if entry.kind == matroska.SEEK:
            kind, position = (
                int.from_bytes(data[one.content : one.end], "big") for one in elements(data, entry)
            )
            assert kinds[position] == kind
            seen += 1
    assert seen >= 4
    summed = 0
    for part in parts:
        checksum = next(iter(elements(data, part)), None) if part.kind != matroska.VOID else None
        if checksum is not None and checksum.kind == matroska.CRC:
            stored = int.from_bytes(data[checksum.content : checksum.end], "little")
            assert stored == zlib.crc32(data[checksum.end : part.end])
            summed += 1
    assert summed >= (4 if suffix == "mkv" else 0)


def test_a_copied_video_keeps_its_shape(tmp_path: Path, exact: EngineOptions) -> None:
    """A second video of a codec that does not tell the shape itself."""
    source, output = tmp_path / "in.mov", tmp_path / "out.mkv"
    with av.open(str(source), "w") as container:
        streams = [container.add_stream("libx264", rate=25), container.add_stream("prores_ks", rate=25)]
        for stream in streams:
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv422p10le"
            stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for index in range(3):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(picture(index, 96, 64), "rgb24").reformat(
                    format="yuv422p10le"
                )
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(stream.encode(frame))  # type: ignore[union-attr]
        for stream in streams:
            container.mux(stream.encode(None))  # type: ignore[union-attr]
    convert_video(source, output, "identity", VideoOptions(), exact)
    with av.open(str(output)) as container:
        assert [video.sample_aspect_ratio for video in container.streams.video] == [Fraction(4, 3)] * 2


def test_a_header_of_another_layout_stays_as_it_is(tmp_path: Path) -> None:
    for data in (b"", b"\x1a\x45\xdf\xa3\x80", bytes(100), b"\x18\x53\x80\x67\x83\xec\x81\x00", b"\xff" * 50):
        path = tmp_path / "a.mkv"
        path.write_bytes(data)
        assert not matroska.mark_display_sizes(path, {1: (128, 64)})
        assert path.read_bytes() == data
