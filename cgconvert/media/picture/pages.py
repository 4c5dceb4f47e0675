"""The pages of a TIFF: each read as a file of its own, and joined to one file when they are written."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO, cast

from cgconvert.errors import InputError
from cgconvert.media.picture.headers import ImageHeader
from cgconvert.media.picture.metadata import Metadata, tiff_tags
from cgconvert.media.picture.tiff_tags import Tag, begin_with, long, read_directories, short, write_tree

SUBFILE_TYPE, STRIP_OFFSETS, PAGE_NUMBER = 0x00FE, 0x0111, 0x0129


def read_pages(data: bytes, header: ImageHeader) -> Iterator[tuple[bytes, ImageHeader]]:
    """Yield for each page of a TIFF a file that begins with it, and its header.

    The file is the same buffer each time, so it is valid until the next page is taken.
    """
    buffer = bytearray(data)
    for page in header.pages:
        begin_with(buffer, page)
        width, height = page.number(0x0100), page.number(0x0101)
        own = replace(header, width=width, height=height, frames=1, tiff=page, pages=())
        yield cast(bytes, buffer), own


class PageWriter:
    """Joins TIFF files of one picture each, as `encode_picture` makes them, to one file of many pages."""

    def __init__(self, file: BinaryIO, count: int) -> None:
        self.file, self.count, self.number = file, count, 0
        self.link = 4  # where the offset of the next directory is to be written
        file.write(b"II*\0\0\0\0\0")

    def add(self, encoded: bytes, metadata: Metadata, alpha: bool) -> None:
        """Add a page that OpenCV has encoded, with its metadata. Raises `InputError` above 4 GiB."""
        start = self.file.seek(0, 2)
        tags, children = tiff_tags(encoded, metadata, alpha)
        main = read_directories(encoded, limit=1)[0]
        moved = (offset + start - 8 for offset in main.numbers(STRIP_OFFSETS))
        base = start + len(encoded) - 8 + len(encoded) % 2
        if base > (1 << 32) - (1 << 24):
            raise InputError("more than 4 GiB of pages, which TIFF does not hold")
        own: dict[int, Tag] = {
            STRIP_OFFSETS: long(*moved),
            SUBFILE_TYPE: long(2),  # a page of a document
            PAGE_NUMBER: short(min(self.number, 65535), min(self.count, 65535)),
        }
        tags |= own
        self.file.write(encoded[8:].ljust(base - start, b"\0") + write_tree(tags, children, base))
        self.file.seek(self.link)
        self.file.write(struct.pack("<I", base))
        entries = len(tags) + sum(bool(child) for child in children.values())
        self.link = base + 2 + 12 * entries
        self.number += 1
