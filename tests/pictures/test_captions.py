"""IPTC captions and Photoshop's resources, in JPEG and TIFF; Pillow reads what was written."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from PIL import Image
from PIL.IptcImagePlugin import getiptcinfo

from cgconvert.media.picture import captions
from cgconvert.media.picture.headers import jpeg_segments
from cgconvert.options import EngineOptions
from tests.pictures.pictures import encode, noise, smooth, tiff
from tests.pictures.test_formats import convert

CAPTION, CITY = "Seerosen in Giverny, Öl".encode(), b"Giverny"


def record(number: int, text: bytes) -> bytes:
    return struct.pack(">BBBH", 0x1C, 2, number, len(text)) + text


RECORDS = record(120, CAPTION) + record(90, CITY)
assert len(RECORDS) % 2 == 1, "so that the padding counts"


def resource(number: int, content: bytes, name: bytes = b"") -> bytes:
    head = b"8BIM" + struct.pack(">HB", number, len(name)) + name + b"\0" * ((len(name) + 1) % 2)
    return head + struct.pack(">I", len(content)) + content + b"\0" * (len(content) % 2)


GUIDES, URL = resource(0x0408, b"guides", b"odd"), resource(0x040B, b"http://a/", b"even")
THUMBNAIL = resource(0x040C, b"shows the source")
RESOURCES = GUIDES + THUMBNAIL + resource(captions.IPTC, RECORDS) + URL


def jpeg(resources: bytes, room: int = 60_000) -> bytes:
    """A JPEG with resources, in segments of `room` bytes."""
    plain = encode(".jpg", smooth(16, 24))
    bodies = [b"Photoshop 3.0\0" + resources[at : at + room] for at in range(0, len(resources), room)]
    return plain[:2] + b"".join(struct.pack(">HH", 0xFFED, len(b) + 2) + b for b in bodies) + plain[2:]


def written_captions(data: bytes) -> dict:
    with Image.open(io.BytesIO(data)) as picture:
        return getiptcinfo(picture) or {}


BOTH = {(2, 120): CAPTION, (2, 90): CITY}


@pytest.mark.parametrize("room", [60_000, 50])
@pytest.mark.parametrize("target", ["a.jpg", "a.tif"])
def test_captions_of_a_jpeg(tmp_path: Path, same: str, exact: EngineOptions, room: int, target: str) -> None:
    out, result = convert(tmp_path, "a.jpg", jpeg(RESOURCES, room), exact, target)
    data = out.read_bytes()
    assert not result.dropped and written_captions(data) == BOTH
    assert GUIDES in data and URL in data and b"shows the source" not in data
    if target == "a.jpg":
        (body,) = (body for marker, _, body in jpeg_segments(data) if marker == 0xED)
        assert body == b"Photoshop 3.0\0" + GUIDES + resource(captions.IPTC, RECORDS) + URL


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 4, 7])
@pytest.mark.parametrize("target", ["a.jpg", "a.tif"])
def test_captions_of_a_tiff(
    tmp_path: Path, same: str, exact: EngineOptions, order: str, kind: int, target: str
) -> None:
    """Some programs say that the records are numbers of 32 bits, and then some turn their bytes round."""
    whole = RECORDS.ljust(-(-len(RECORDS) // 4) * 4, b"\0")
    numbers = struct.unpack(f"<{len(whole) // 4}I", whole)
    more = {0x83BB: (kind, numbers if kind == 4 else RECORDS), 0x8649: (1, URL)}
    out, result = convert(tmp_path, "a.tif", tiff(noise(8, 8), 2, order, more), exact, target)
    data = out.read_bytes()
    assert not result.dropped and written_captions(data) == BOTH and URL in data


def test_a_tiff_whose_captions_stand_in_both_places(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    old = resource(captions.IPTC, record(120, b"old"))
    more = {0x83BB: (7, RECORDS), 0x8649: (1, URL + old)}
    out, _ = convert(tmp_path, "a.tif", tiff(noise(8, 8), 2, more=more), exact, "a.jpg")
    assert written_captions(out.read_bytes()) == BOTH and b"old" not in out.read_bytes()


@pytest.mark.parametrize("kind", ["png", "webp", "avif", "bmp", "gif"])
def test_formats_without_captions_say_so(tmp_path: Path, same: str, exact: EngineOptions, kind: str) -> None:
    source = jpeg(resource(captions.IPTC, RECORDS))
    _, result = convert(tmp_path, "a.jpg", source, exact, f"a.{kind}")
    assert [part.what for part in result.dropped] == [f"IPTC data, which {kind.upper()} does not hold"]
    _, result = convert(tmp_path, "b.jpg", jpeg(THUMBNAIL), exact, f"b.{kind}")
    assert not result.dropped


def test_more_than_a_segment_holds(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    large = resource(0x07D0, noise(300, 300).tobytes(), b"path")
    out, result = convert(tmp_path, "a.jpg", jpeg(large + RESOURCES), exact)
    bodies = [body for marker, _, body in jpeg_segments(out.read_bytes()) if marker == 0xED]
    assert len(bodies) == 5 and not result.dropped
    joined = b"".join(body[14:] for body in bodies)
    assert joined == large + GUIDES + resource(captions.IPTC, RECORDS) + URL


def test_damaged_resources_end_what_is_kept() -> None:
    for end in range(len(RESOURCES)):
        assert RESOURCES.startswith(captions.kept(RESOURCES[:end].replace(THUMBNAIL, b""))[: len(GUIDES)])
    assert captions.kept(URL + b"8BIM" + bytes(3)) == URL
    assert captions.kept(b"nothing") == b"" and captions.captions_in(b"") is None
    unpadded = resource(captions.IPTC, RECORDS)[:-1]
    assert captions.captions_in(unpadded) == RECORDS, "some programs leave the last byte out"
    assert captions.kept(unpadded) == unpadded + b"\0"
