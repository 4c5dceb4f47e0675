"""TIFF directories as plain data: the structure of TIFF files and of every EXIF block. Bytes only."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

TYPE_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
"""The bytes of one value, by the type number of a directory entry."""

_SWAP_UNIT = {3: 2, 8: 2, 4: 4, 9: 4, 11: 4, 13: 4, 5: 4, 10: 4, 12: 8, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}

EXIF_POINTER = 0x8769
GPS_POINTER = 0x8825
INTEROP_POINTER = 0xA005
ENTRY_LIMIT = 4096


class TagError(ValueError):
    """The bytes are no TIFF directory."""


@dataclass(frozen=True)
class Tag:
    """One entry: its type number, the bytes of its value in the file's byte order, and their offset."""

    type: int
    data: bytes
    offset: int


@dataclass(frozen=True)
class Directory:
    """The entries of one directory by tag number. `order` is their byte order, "<" or ">".

    It lies at `offset`, and at `next_position` the offset of the next one, `next_offset`, or 0.
    """

    order: str
    tags: Mapping[int, Tag]
    next_offset: int
    next_position: int = 0
    offset: int = 0

    def numbers(self, tag: int) -> tuple[int, ...]:
        """Return the values of an integer tag, or none if it is absent or of another type."""
        entry = self.tags.get(tag)
        if entry is None or entry.type not in _INTEGERS:
            return ()
        count = len(entry.data) // TYPE_SIZES[entry.type]
        return struct.unpack(f"{self.order}{count}{_INTEGERS[entry.type]}", entry.data)

    def number(self, tag: int, default: int = 0) -> int:
        """Return the first value of an integer tag."""
        return next(iter(self.numbers(tag)), default)


def first_offset(data: bytes | bytearray) -> tuple[str, bool, int]:
    """Return byte order, whether it is BigTIFF, and the first directory's offset. Raises `TagError`."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    if order is None or len(data) < 8:
        raise TagError("no TIFF header")
    magic = struct.unpack_from(order + "H", data, 2)[0]
    if magic == 42:
        return order, False, struct.unpack_from(order + "I", data, 4)[0]
    if magic == 43 and len(data) >= 16:
        return order, True, struct.unpack_from(order + "Q", data, 8)[0]
    raise TagError("no TIFF header")


def read_directory(data: bytes, order: str, offset: int, big: bool = False) -> Directory:
    """Read the directory at `offset`, without entries that point outside the bytes. Raises `TagError`."""
    count_format, entry_size, offset_format, inline = ("Q", 20, "Q", 8) if big else ("H", 12, "I", 4)
    try:
        count = struct.unpack_from(order + count_format, data, offset)[0]
        position = offset + struct.calcsize("=" + count_format)
        if count > ENTRY_LIMIT:
            raise TagError(f"{count} entries in one directory")
        tags: dict[int, Tag] = {}
        for index in range(count):
            at = position + index * entry_size
            number, kind, values = struct.unpack_from(f"{order}HH{offset_format}", data, at)
            size = TYPE_SIZES.get(kind, 0) * values
            where = at + entry_size - inline
            if size > inline:
                where = struct.unpack_from(order + offset_format, data, where)[0]
            if size and where + size <= len(data):
                tags.setdefault(number, Tag(kind, bytes(data[where : where + size]), where))
        end = position + count * entry_size
        following = (
            struct.unpack_from(order + offset_format, data, end)[0] if end + inline <= len(data) else 0
        )
    except struct.error as error:
        raise TagError("a directory is cut short") from error
    return Directory(order, tags, following, end, offset)


def read_directories(data: bytes, limit: int = 10_000) -> list[Directory]:
    """Read the chain of main directories (the pages of a TIFF), at most `limit`. Raises `TagError`."""
    order, big, offset = first_offset(data)
    found: list[Directory] = []
    seen: set[int] = set()
    while offset and offset not in seen and len(found) < limit:
        seen.add(offset)
        found.append(read_directory(data, order, offset, big))
        offset = found[-1].next_offset
    return found


def begin_with(data: bytearray, directory: Directory) -> None:
    """Let the header of a TIFF point to another of its directories, so that this is the first."""
    _, big, _ = first_offset(data)
    struct.pack_into(directory.order + ("Q" if big else "I"), data, 8 if big else 4, directory.offset)


def sub_directory(data: bytes, parent: Directory, pointer: int, big: bool = False) -> Directory | None:
    """Read the directory that tag `pointer` of `parent` points to, or return None without a readable one."""
    offset = parent.number(pointer)
    try:
        return read_directory(data, parent.order, offset, big) if offset else None
    except TagError:
        return None


def little_endian(tag: Tag, order: str) -> Tag:
    """Return the same value in little-endian bytes."""
    unit = _SWAP_UNIT.get(tag.type, 1)
    if order == "<" or unit == 1:
        return tag
    data = b"".join(tag.data[i : i + unit][::-1] for i in range(0, len(tag.data), unit))
    return Tag(tag.type, data, tag.offset)


def short(*values: int) -> Tag:
    """Return a tag of little-endian 16-bit numbers."""
    return Tag(3, struct.pack(f"<{len(values)}H", *values), 0)


def long(*values: int) -> Tag:
    """Return a tag of little-endian 32-bit numbers."""
    return Tag(4, struct.pack(f"<{len(values)}I", *values), 0)


def write_directory(tags: Mapping[int, Tag], base: int) -> bytes:
    """Return a little-endian directory followed by its values, for the even offset `base` of a file."""
    entries, values = bytearray(), bytearray()
    values_at = base + 2 + 12 * len(tags) + 4
    for number in sorted(tags):
        tag = tags[number]
        count = len(tag.data) // TYPE_SIZES[tag.type]
        entries += struct.pack("<HHI", number, tag.type, count)
        if len(tag.data) <= 4:
            entries += tag.data.ljust(4, b"\0")
            continue
        entries += struct.pack("<I", values_at + len(values))
        values += tag.data + b"\0" * (len(tag.data) % 2)
    return struct.pack("<H", len(tags)) + bytes(entries) + b"\0\0\0\0" + bytes(values)


def write_tree(tags: Mapping[int, Tag], children: Mapping[int, Mapping[int, Tag]], base: int) -> bytes:
    """Return a directory for `base` and its sub-directories, the `children` by their pointer tags."""
    pointers = {number: long(0) for number, child in children.items() if child}
    size = len(write_directory({**tags, **pointers}, base))
    parts: list[bytes] = []
    at = base + size
    for number, child in children.items():
        if child:
            pointers[number] = long(at)
            parts.append(write_directory(child, at))
            at += len(parts[-1])
    return write_directory({**tags, **pointers}, base) + b"".join(parts)
