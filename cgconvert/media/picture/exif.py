"""EXIF blocks: reads the orientation, and writes the block that fits the upright picture.

A block is the TIFF structure itself, without the `Exif\\0\\0` that JPEG puts before it. Edits are made in
place, because makers' private notes point to places in the block and break when anything moves.
"""

from __future__ import annotations

import struct

from cgconvert.media.picture.tiff_tags import (
    EXIF_POINTER,
    GPS_POINTER,
    INTEROP_POINTER,
    TYPE_SIZES,
    Directory,
    Tag,
    TagError,
    first_offset,
    little_endian,
    read_directory,
    sub_directory,
    write_tree,
)

ORIENTATION, X_RESOLUTION = 0x0112, 0x011A
_WIDTHS, _HEIGHTS = (0x0100, 0xA002), (0x0101, 0xA003)
_THUMBNAIL_AT, _THUMBNAIL_SIZE = 0x0201, 0x0202

# Tags in the main directory of a TIFF file that describe the picture, not how its pixels are stored.
DESCRIPTIVE_TAGS = (
    0x010D,
    0x010E,
    0x010F,
    0x0110,
    0x011A,
    0x011B,
    0x0128,
    0x0131,
    0x0132,
    0x013B,
    0x013C,
    0x8298,
)
_POINTERS = (EXIF_POINTER, GPS_POINTER, INTEROP_POINTER)


def _main_directory(block: bytes) -> Directory:
    order, big, offset = first_offset(block)
    return read_directory(block, order, offset, big)


def orientation(block: bytes) -> int:
    """Return the EXIF orientation, 1 to 8, or 1 if the block has none or is broken."""
    try:
        value = _main_directory(block).number(ORIENTATION, 1)
    except TagError:
        return 1
    return value if 1 <= value <= 8 else 1


def has_density(block: bytes) -> bool:
    """Whether the block states the density of the picture."""
    try:
        return X_RESOLUTION in _main_directory(block).tags
    except TagError:
        return False


def made_upright(block: bytes, width: int, height: int) -> bytes:
    """Return the block for an upright picture of `width` x `height`.

    The orientation becomes 1, and the sizes are set. The thumbnail is removed, since it shows the source. A
    block that cannot be read is returned as it is.
    """
    try:
        main = _main_directory(block)
    except TagError:
        return block
    edited = bytearray(block)
    details = sub_directory(block, main, EXIF_POINTER)
    for directory in (main, *((details,) if details else ())):
        _set_number(edited, directory, ORIENTATION, 1)
        for tag in _WIDTHS:
            _set_number(edited, directory, tag, width)
        for tag in _HEIGHTS:
            _set_number(edited, directory, tag, height)
    return bytes(_without_thumbnail(edited, main))


def _set_number(block: bytearray, directory: Directory, number: int, value: int) -> None:
    tag = directory.tags.get(number)
    code = {3: "H", 4: "I"}.get(tag.type) if tag else None
    if tag and code and len(tag.data) == TYPE_SIZES[tag.type] and value < 1 << 8 * TYPE_SIZES[tag.type]:
        struct.pack_into(directory.order + code, block, tag.offset, value)


def _without_thumbnail(block: bytearray, main: Directory) -> bytearray:
    if not main.next_offset or main.next_position + 4 > len(block):
        return block
    struct.pack_into("<I", block, main.next_position, 0)
    try:
        second = read_directory(bytes(block), main.order, main.next_offset)
    except TagError:
        return block
    start, size = second.number(_THUMBNAIL_AT), second.number(_THUMBNAIL_SIZE)
    if size and start >= 8 and start + size <= len(block):
        if start + size == len(block):
            return block[:start]
        block[start : start + size] = bytes(size)
    return block


def from_tiff(data: bytes) -> bytes | None:
    """Make an EXIF block of the descriptive tags in a TIFF's first directory, or None if there are none.

    Makers' private notes are copied, but what they point to is unknown and may be lost.
    """
    try:
        order, big, offset = first_offset(data)
        main = read_directory(data, order, offset, big)
    except TagError:
        return None
    kept = {n: little_endian(tag, order) for n, tag in main.tags.items() if n in DESCRIPTIVE_TAGS}
    children = _children(data, main, big)
    if not kept and not any(children.values()):
        return None
    return b"II*\0\x08\0\0\0" + write_tree(kept, children, 8)


def tags_for_tiff(block: bytes) -> tuple[dict[int, Tag], dict[int, dict[int, Tag]]]:
    """Return the descriptive tags of an EXIF block, and those of its sub-directories by pointer tag."""
    try:
        main = _main_directory(block)
    except TagError:
        return {}, {}
    kept = {n: little_endian(tag, main.order) for n, tag in main.tags.items() if n in DESCRIPTIVE_TAGS}
    return kept, _children(block, main, False)


def _children(data: bytes, main: Directory, big: bool) -> dict[int, dict[int, Tag]]:
    children: dict[int, dict[int, Tag]] = {}
    for pointer in (EXIF_POINTER, GPS_POINTER):
        directory = sub_directory(data, main, pointer, big)
        if directory:
            children[pointer] = {
                number: little_endian(tag, directory.order)
                for number, tag in directory.tags.items()
                if number not in _POINTERS and tag.type < 16
            }
    return children
