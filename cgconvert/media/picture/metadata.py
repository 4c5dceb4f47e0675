"""Reads EXIF, XMP, IPTC, ICC profile and density from picture files, and puts them into results.

They are kept byte for byte, except for what is no longer true of an upright picture (`for_result`). OpenCV
returns only part of them and refuses profiles that libpng does not like. So they are read and written here
for JPEG, PNG and TIFF. OpenCV writes them into WebP and AVIF, for `cgconvert.media.picture.codec`.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass, replace

from cgconvert.errors import InputError
from cgconvert.media.picture import captions, exif
from cgconvert.media.picture.headers import ImageHeader, jpeg_segments, png_chunks, webp_chunks
from cgconvert.media.picture.tiff_tags import Tag, little_endian, read_directories, short, write_tree

JPEG_JFIF = b"JFIF\0"
JPEG_EXIF = b"Exif\0\0"
JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
JPEG_XMP_MORE = b"http://ns.adobe.com/xmp/extension/\0"
JPEG_ICC = b"ICC_PROFILE\0"
SEGMENT_LIMIT = 65533
PNG_XMP = b"XML:com.adobe.xmp"
PNG_KEPT = (b"cHRM", b"gAMA", b"sRGB", b"cICP", b"tEXt", b"zTXt", b"iTXt", b"tIME")
PROFILE_LIMIT = 64 << 20
TIFF_XMP, TIFF_IPTC, TIFF_RESOURCES, TIFF_ICC, TIFF_EXTRA_SAMPLES = 0x02BC, 0x83BB, 0x8649, 0x8773, 0x0152
TIFF_X_RESOLUTION, TIFF_Y_RESOLUTION, TIFF_RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128

_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>\s*))[1-8]")


@dataclass(frozen=True)
class Density:
    """Pixels per unit, across and down. `unit` is "inch", "cm" or "m", or "" if only their ratio is known."""

    x: int
    y: int
    unit: str = ""

    def per(self, unit: str) -> tuple[int, int]:
        """Return the pixels per another unit, rounded. A ratio stays as it is."""
        metres = {"inch": 0.0254, "cm": 0.01, "m": 1.0}
        if not self.unit or unit == self.unit:
            return self.x, self.y
        factor = metres[unit] / metres[self.unit]
        return round(self.x * factor), round(self.y * factor)

    def coded(self) -> tuple[int, int, int]:
        """Return unit, x and y. Units are numbered as in JPEG: 0 none, 1 inch, 2 cm. TIFF adds 1."""
        unit = "inch" if self.unit == "m" else self.unit
        return ("", "inch", "cm").index(unit), *self.per(unit)

    def describe(self) -> str:
        """Return words such as "300x300 per inch"."""
        x, y = self.per("inch")
        return f"{x}x{y} per inch" if self.unit else f"pixels of {self.y}:{self.x}"


@dataclass(frozen=True)
class Metadata:
    """What a picture's file carries beside its pixels.

    `orientation` says in the numbers of EXIF how the stored pixels must be turned. `chunks` are PNG chunks
    that only PNG can hold, and `comments` those of JPEG and GIF. `resources` are those of Photoshop, with the
    IPTC captions among them. `left_out` says in words what the file has and the result cannot have.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    icc: bytes | None = None
    orientation: int = 1
    chunks: tuple[tuple[bytes, bytes], ...] = ()
    left_out: tuple[str, ...] = ()
    density: Density | None = None
    comments: tuple[bytes, ...] = ()
    resources: bytes = b""


def read_metadata(data: bytes, header: ImageHeader) -> Metadata:
    """Return the metadata of a file. Damaged parts count as absent, so it never raises."""
    if header.avif is not None:
        # The EXIF block comes with the pixels. Only the orientation in the boxes counts.
        return Metadata(None, header.avif.xmp, header.avif.icc, header.avif.orientation)
    if header.gif is not None:
        return Metadata(None, header.gif.xmp, header.gif.icc, comments=tuple(header.gif.comments))
    readers = {
        "jpeg": _from_jpeg,
        "png": _from_png,
        "webp": _from_webp,
        "tiff": _from_tiff,
        "bmp": _from_bmp,
    }
    reader = readers.get(header.format)
    try:
        return reader(data) if reader else Metadata()
    except (struct.error, IndexError, ValueError, zlib.error, InputError):
        return Metadata(left_out=("metadata that is damaged",))


def for_result(metadata: Metadata, width: int, height: int) -> Metadata:
    """Return the metadata for a result that is an upright colour picture of `width` x `height` pixels."""
    block = metadata.exif and exif.made_upright(metadata.exif, width, height)
    xmp = metadata.xmp and _XMP_ORIENTATION.sub(rb"\g<1>1", metadata.xmp)
    icc, left_out = metadata.icc, metadata.left_out
    if icc and icc[16:20] not in (b"RGB ",):
        space = {b"GRAY": "gray", b"CMYK": "CMYK"}.get(icc[16:20], "foreign")
        icc, left_out = None, (*left_out, f"a {space} colour profile, which says nothing of a colour picture")
    density = metadata.density
    if density and metadata.orientation in (5, 6, 7, 8):
        density = replace(density, x=density.y, y=density.x)
    return replace(metadata, exif=block, xmp=xmp, icc=icc, orientation=1, left_out=left_out, density=density)


_HELD = {
    "jpeg": ("EXIF data", "XMP data", "ICC data", "IPTC data", "Photoshop data", "a comment"),
    "png": ("EXIF data", "XMP data", "ICC data"),
    "webp": ("EXIF data", "XMP data", "ICC data"),
    "gif": ("XMP data", "ICC data", "a comment"),
    "tiff": ("EXIF data", "XMP data", "ICC data", "IPTC data", "Photoshop data"),
    "avif": ("EXIF data", "XMP data", "ICC data"),
    "bmp": (),
}


def not_held(metadata: Metadata, kind: str) -> tuple[str, ...]:
    """Return in words which parts of the metadata a format cannot hold."""
    parts = {
        "EXIF data": metadata.exif,
        "XMP data": metadata.xmp,
        "ICC data": metadata.icc,
        "IPTC data": captions.captions_in(metadata.resources),
        "Photoshop data": captions.without_captions(metadata.resources),
        "a comment": metadata.comments,
    }
    lost = (name for name, part in parts.items() if part and name not in _HELD[kind])
    return tuple(f"{name}, which {kind.upper()} does not hold" for name in lost)


def embed(encoded: bytes, kind: str, metadata: Metadata, alpha: bool) -> tuple[bytes, tuple[str, ...]]:
    """Put metadata into an encoded JPEG, PNG, TIFF or BMP. Also returns in words what is too large for it."""
    if kind == "jpeg":
        return _into_jpeg(encoded, metadata)
    if kind == "png":
        at = 8 + 12 + 13
        return encoded[:at] + png_metadata(metadata) + encoded[at:], ()
    if kind == "tiff":
        return _into_tiff(encoded, metadata, alpha), ()
    if kind == "bmp" and metadata.density and metadata.density.unit:
        encoded = encoded[:38] + struct.pack("<ii", *metadata.density.per("m")) + encoded[46:]
    return encoded, ()


def _from_jpeg(data: bytes) -> Metadata:
    block = xmp = density = None
    pieces: dict[int, bytes] = {}
    left_out: list[str] = []
    comments: list[bytes] = []
    resources = b""
    for marker, _, payload in jpeg_segments(data):
        if marker == 0xE0 and payload.startswith(JPEG_JFIF) and len(payload) >= 12:
            unit, x, y = struct.unpack_from(">BHH", payload, 7)
            density = _density(unit, x, y, ("", "inch", "cm"))
        elif marker == 0xE1 and payload.startswith(JPEG_EXIF) and block is None:
            block = payload[len(JPEG_EXIF) :]
        elif marker == 0xE1 and payload.startswith(JPEG_XMP) and xmp is None:
            xmp = payload[len(JPEG_XMP) :]
        elif marker == 0xE1 and payload.startswith(JPEG_XMP_MORE):
            left_out.append("extended XMP data")
        elif marker == 0xE2 and payload.startswith(JPEG_ICC) and len(payload) > 14:
            pieces[payload[12]] = payload[14:]
        elif marker == 0xE2 and payload.startswith(b"MPF\0"):
            left_out.append("further pictures in the file (a gain map, a preview)")
        elif marker == 0xED and payload.startswith(captions.MARK):
            resources += payload[len(captions.MARK) :]
        elif marker == 0xFE:
            comments.append(payload)
    icc = b"".join(pieces[number] for number in sorted(pieces)) or None
    turn = exif.orientation(block) if block else 1
    return Metadata(
        block,
        xmp,
        icc,
        turn,
        left_out=tuple(dict.fromkeys(left_out)),
        density=density,
        comments=tuple(comments),
        resources=captions.kept(resources),
    )


def _density(unit: int, x: int, y: int, units: tuple[str, ...]) -> Density | None:
    """Return a density by the number of its unit in `units`, or None if it only means square pixels."""
    if not (x > 0 and y > 0) or unit >= len(units) or (not units[unit] and x == y):
        return None
    return Density(x, y, units[unit])


def _from_png(data: bytes) -> Metadata:
    block = xmp = icc = density = None
    chunks: list[tuple[bytes, bytes]] = []
    for kind, payload in png_chunks(data):
        if kind == b"eXIf":
            block = payload.removeprefix(JPEG_EXIF)
        elif kind == b"iCCP":
            compressed = payload[payload.index(b"\0") + 2 :]
            icc = zlib.decompressobj().decompress(compressed, PROFILE_LIMIT)
        elif kind == b"iTXt" and payload.startswith(PNG_XMP + b"\0"):
            xmp = _international_text(payload)
        elif kind == b"pHYs" and len(payload) == 9:
            x, y, unit = struct.unpack(">IIB", payload)
            density = _density(unit, x, y, ("", "m"))
        elif kind in PNG_KEPT:
            chunks.append((kind, payload))
    turn = exif.orientation(block) if block else 1
    return Metadata(block, xmp, icc, turn, tuple(chunks), density=density)


def _international_text(payload: bytes) -> bytes:
    """Return the text of an iTXt chunk, which follows keyword, flags, language and translated keyword."""
    rest = payload[payload.index(b"\0") + 1 :]
    compressed = rest[0] == 1
    text = rest[2:].split(b"\0", 2)[2]
    return zlib.decompressobj().decompress(text, PROFILE_LIMIT) if compressed else text


def _from_webp(data: bytes) -> Metadata:
    chunks = dict(webp_chunks(data))
    block = chunks.get(b"EXIF")
    block = block.removeprefix(JPEG_EXIF) if block else None
    turn = exif.orientation(block) if block else 1
    return Metadata(block, chunks.get(b"XMP "), chunks.get(b"ICCP"), turn)


def _from_tiff(data: bytes) -> Metadata:
    directory = read_directories(data, limit=1)[0]
    tags = directory.tags
    xmp, icc, resources, iptc = (
        tags[number].data if number in tags else None
        for number in (TIFF_XMP, TIFF_ICC, TIFF_RESOURCES, TIFF_IPTC)
    )
    if iptc and tags[TIFF_IPTC].type == 4 and iptc[0] != 0x1C:
        # Some programs call the records numbers of 32 bits, and turn them round with the byte order.
        turned = little_endian(Tag(4, iptc, 0), ">").data
        iptc = turned if turned[0] == 0x1C else iptc
    # The decoder has turned the pixels. The density is in the EXIF block, from which TIFF is written too.
    return Metadata(exif.from_tiff(data), xmp, icc, resources=captions.kept(resources or b"", iptc))


def _from_bmp(data: bytes) -> Metadata:
    if struct.unpack_from("<I", data, 14)[0] < 40:
        return Metadata()
    x, y = struct.unpack_from("<ii", data, 38)
    return Metadata(density=_density(0, x, y, ("m",)))


def _into_jpeg(encoded: bytes, metadata: Metadata) -> tuple[bytes, tuple[str, ...]]:
    payloads: list[tuple[int, bytes]] = []
    left_out: list[str] = []
    for name, prefix, part in (("EXIF", JPEG_EXIF, metadata.exif), ("XMP", JPEG_XMP, metadata.xmp)):
        if part and len(prefix) + len(part) <= SEGMENT_LIMIT:
            payloads.append((0xE1, prefix + part))
        elif part:
            left_out.append(f"{name} data of {len(part)} bytes, more than a JPEG holds")
    if metadata.icc:
        room = SEGMENT_LIMIT - len(JPEG_ICC) - 2
        pieces = [metadata.icc[at : at + room] for at in range(0, len(metadata.icc), room)]
        if len(pieces) > 255:
            left_out.append("a colour profile larger than a JPEG holds")
            pieces = []
        for number, piece in enumerate(pieces, 1):
            payloads.append((0xE2, JPEG_ICC + bytes((number, len(pieces))) + piece))
    room = SEGMENT_LIMIT - len(captions.MARK)
    pieces = [metadata.resources[at : at + room] for at in range(0, len(metadata.resources), room)]
    payloads += [(0xED, captions.MARK + piece) for piece in pieces]
    payloads += [(0xFE, comment[:SEGMENT_LIMIT]) for comment in metadata.comments]
    at = 2
    if encoded[2:4] == b"\xff\xe0":  # JFIF stays first
        at += 2 + struct.unpack_from(">H", encoded, 4)[0]
        if metadata.density:
            unit, *numbers = metadata.density.coded()
            numbers = [min(number, 0xFFFF) for number in numbers]
            encoded = encoded[:13] + struct.pack(">BHH", unit, *numbers) + encoded[18:]
    segments = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in payloads)
    return encoded[:at] + segments + encoded[at:], tuple(left_out)


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    """Return a chunk with its length and checksum."""
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png_metadata(metadata: Metadata) -> bytes:
    """Return the chunks that hold metadata in a PNG, which come after its header."""
    chunks: list[tuple[bytes, bytes]] = []
    if metadata.icc:
        chunks.append((b"iCCP", b"icc\0\0" + zlib.compress(metadata.icc)))
    # A file has either a profile or an sRGB tag.
    chunks += [chunk for chunk in metadata.chunks if not (metadata.icc and chunk[0] == b"sRGB")]
    if metadata.density:
        chunks.append((b"pHYs", struct.pack(">IIB", *metadata.density.per("m"), bool(metadata.density.unit))))
    if metadata.xmp:
        chunks.append((b"iTXt", PNG_XMP + b"\0\0\0\0\0" + metadata.xmp))
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif))
    return b"".join(png_chunk(*chunk) for chunk in chunks)


def tiff_tags(
    encoded: bytes, metadata: Metadata, alpha: bool
) -> tuple[dict[int, Tag], dict[int, dict[int, Tag]]]:
    """Return all tags of a TIFF's first directory with those of `metadata`, and its sub-directories."""
    tags = dict(read_directories(encoded, limit=1)[0].tags)
    children: dict[int, dict[int, Tag]] = {}
    if metadata.exif:
        described, children = exif.tags_for_tiff(metadata.exif)
        tags |= described
    if metadata.xmp:
        tags[TIFF_XMP] = Tag(1, metadata.xmp, 0)
    if metadata.icc:
        tags[TIFF_ICC] = Tag(7, metadata.icc, 0)
    records, others = captions.captions_in(metadata.resources), captions.without_captions(metadata.resources)
    if records:
        tags[TIFF_IPTC] = Tag(7, records, 0)
    if others:
        tags[TIFF_RESOURCES] = Tag(1, others, 0)
    if metadata.density and TIFF_X_RESOLUTION not in tags:
        unit, x, y = metadata.density.coded()
        tags[TIFF_X_RESOLUTION] = Tag(5, struct.pack("<II", x, 1), 0)
        tags[TIFF_Y_RESOLUTION] = Tag(5, struct.pack("<II", y, 1), 0)
        tags[TIFF_RESOLUTION_UNIT] = short(unit + 1)
    if alpha:
        tags[TIFF_EXTRA_SAMPLES] = short(2)  # unassociated alpha, which OpenCV writes without saying so
    return tags, children


def _into_tiff(encoded: bytes, metadata: Metadata, alpha: bool) -> bytes:
    """Append a directory with all tags and let the header point to it. The old directory stays unused."""
    base = len(encoded) + len(encoded) % 2
    return (
        b"II*\0"
        + struct.pack("<I", base)
        + encoded[8:].ljust(base - 8, b"\0")
        + write_tree(*tiff_tags(encoded, metadata, alpha), base)
    )
