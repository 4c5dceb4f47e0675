"""The boxes of an AVIF file: size, turning, and the metadata that OpenCV does not hand out. Bytes only."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass


class BoxError(ValueError):
    """The bytes are no AVIF file."""


@dataclass(frozen=True)
class AvifInfo:
    """Size in pixels as stored; `orientation` as EXIF numbers it (1 to 8), from the file's own turning."""

    width: int
    height: int
    frames: int = 1
    orientation: int = 1
    depth: int = 8
    exif: bytes | None = None
    xmp: bytes | None = None
    icc: bytes | None = None


# What `irot` (quarter turns to the left), then `imir` (0: up-down, 1: left-right) do, as EXIF says it.
_ORIENTATIONS = {
    (0, None): 1, (1, None): 8, (2, None): 3, (3, None): 6,
    (0, 0): 4, (1, 0): 5, (2, 0): 2, (3, 0): 7,
    (0, 1): 2, (1, 1): 7, (2, 1): 4, (3, 1): 5,
}  # fmt: skip


def is_avif(data: bytes) -> bool:
    """Whether a file that begins with `ftyp` says that it is AVIF."""
    size = struct.unpack_from(">I", data)[0]
    brands = data[8 : min(max(size, 16), 256)]
    return any(brands[at : at + 4] in (b"avif", b"avis") for at in range(0, len(brands), 4) if at != 4)


def read_avif(data: bytes) -> AvifInfo:
    """Read what the boxes say of the primary picture. Raises `BoxError`, `struct.error`."""
    top = dict(_boxes(data))
    meta = top.get(b"meta")
    if meta is None:
        raise BoxError("no meta box")
    inside = dict(_boxes(meta[4:]))
    pitm = inside.get(b"pitm", b"")
    primary = _integer(pitm, 4, 2 if pitm[:1] == b"\0" else 4)
    size, turn, mirror, depth, icc = (0, 0), 0, None, 8, None
    for kind, payload in _properties(inside.get(b"iprp", b""), primary):
        if kind == b"ispe":
            size = struct.unpack_from(">II", payload, 4)
        elif kind == b"irot":
            turn = payload[0] & 3
        elif kind == b"imir":
            mirror = payload[0] & 1
        elif kind == b"pixi" and payload[4:]:
            depth = payload[5]
        elif kind == b"colr" and payload[:4] in (b"prof", b"rICC"):
            icc = payload[4:]
    items = _metadata_items(data, inside)
    frames = _sequence_length(top.get(b"moov", b"")) if data[8:12] == b"avis" else 1
    return AvifInfo(*size, max(frames, 1), _ORIENTATIONS[turn, mirror], depth, *items, icc)


def _integer(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise BoxError("a box is cut short")
    return int.from_bytes(data[at : at + size], "big")


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1:
            size, start = _integer(data, at + 8, 8), at + 16
        end = at + size if size else len(data)
        if end < start:
            raise BoxError("a box of impossible size")
        yield kind, data[start:end]
        at = end


def _properties(iprp: bytes, item: int) -> Iterator[tuple[bytes, bytes]]:
    """The properties that belong to an item, in order."""
    inside = dict(_boxes(iprp))
    known = list(_boxes(inside.get(b"ipco", b"")))
    ipma = inside.get(b"ipma", b"")
    if not ipma:
        return
    id_size = 2 if ipma[0] == 0 else 4
    wide = bool(ipma[3] & 1)
    at = 8
    for _ in range(_integer(ipma, 4, 4)):
        identity = _integer(ipma, at, id_size)
        count = _integer(ipma, at + id_size, 1)
        at += id_size + 1
        for _ in range(count):
            index = _integer(ipma, at, 2) & 0x7FFF if wide else _integer(ipma, at, 1) & 0x7F
            at += 2 if wide else 1
            if identity == item and 1 <= index <= len(known):
                yield known[index - 1]


def _metadata_items(data: bytes, meta: dict[bytes, bytes]) -> tuple[bytes | None, bytes | None]:
    """The EXIF block and the XMP packet, where the file has them."""
    iinf = meta.get(b"iinf", b"\0" * 6)
    entries = _boxes(iinf[6:] if iinf[0] == 0 else iinf[8:])
    kinds: dict[int, bytes] = {}
    for kind, entry in entries:
        if kind == b"infe" and entry[:1] in (b"\2", b"\3"):
            id_size = 2 if entry[0] == 2 else 4
            kinds[_integer(entry, 4, id_size)] = entry[4 + id_size + 2 :]
    exif = xmp = None
    for identity, payload in _locate(data, meta):
        description = kinds.get(identity, b"")
        if description[:4] == b"Exif" and len(payload) > 4:
            exif = payload[4 + _integer(payload, 0, 4) :]
        elif description[:4] == b"mime" and b"application/rdf+xml" in description:
            xmp = payload
    return exif, xmp


def _locate(data: bytes, meta: dict[bytes, bytes]) -> Iterator[tuple[int, bytes]]:
    """Every item of `iloc` with its bytes, from the file or from `idat`."""
    iloc = meta.get(b"iloc", b"")
    if not iloc:
        return
    version = iloc[0]
    offset_size, length_size, base_size = iloc[4] >> 4, iloc[4] & 15, iloc[5] >> 4
    index_size = iloc[5] & 15 if version else 0
    wide = 4 if version == 2 else 2
    count, at = _integer(iloc, 6, wide), 6 + wide
    for _ in range(count):
        identity, at = _integer(iloc, at, wide), at + wide
        method = 0
        if version:
            method, at = _integer(iloc, at, 2) & 15, at + 2
        base, at = _integer(iloc, at + 2, base_size), at + 2 + base_size
        extents, at = _integer(iloc, at, 2), at + 2
        parts = []
        for _ in range(extents):
            at += index_size
            offset, at = _integer(iloc, at, offset_size), at + offset_size
            length, at = _integer(iloc, at, length_size), at + length_size
            source = meta.get(b"idat", b"") if method == 1 else data
            parts.append(source[base + offset : base + offset + length])
        yield identity, b"".join(parts)


def _sequence_length(moov: bytes) -> int:
    """How many pictures the longest track of an image sequence has."""
    longest = 0
    for kind, track in _boxes(moov):
        if kind != b"trak":
            continue
        box: dict[bytes, bytes] = dict(_boxes(track))
        for name in (b"mdia", b"minf", b"stbl"):
            box = dict(_boxes(box.get(name, b"")))
        stsz = box.get(b"stsz", b"")
        if len(stsz) >= 12:
            longest = max(longest, _integer(stsz, 8, 4))
    return longest
