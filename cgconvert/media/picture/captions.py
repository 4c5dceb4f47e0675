"""Captions of the press (IPTC) and the other image resources of Photoshop, which JPEG and TIFF hold.

Their structure is that of Adobe's "Photoshop File Formats Specification", section "Image Resources". The
captions are one of them, as records of the IPTC Information Interchange Model.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

MARK = b"Photoshop 3.0\0"
"""What segments of a JPEG begin with that hold resources. A resource may go on in the next segment."""
IPTC = 0x0404
_STALE = (0x0409, 0x040C, 0x040F, 0x0422, 0x0423, 0x0424)
"""Thumbnails, which show the source, and copies of ICC, EXIF and XMP data, which have places of their own."""


def _resources(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield number, content, and all bytes of every resource before the first that is damaged."""
    at = 0
    while at + 12 <= len(data):
        kind, number, name = struct.unpack_from(">4sHB", data, at)
        start = at + 6 + (name + 2) // 2 * 2 + 4  # the name with its length has an even size
        if kind != b"8BIM" or start > len(data):
            return
        size = struct.unpack_from(">I", data, start - 4)[0]
        if start + size > len(data):
            return
        end = start + size + size % 2
        yield number, data[start : start + size], data[at:end].ljust(end - at, b"\0")
        at = end


def kept(data: bytes, captions: bytes | None = None) -> bytes:
    """Return the resources of a file that hold for its result as well; `captions` replace those in `data`."""
    parts = [
        whole
        for number, _, whole in _resources(data)
        if number not in _STALE and not (captions and number == IPTC)
    ]
    if captions:
        head = struct.pack(">4sHHI", b"8BIM", IPTC, 0, len(captions))
        parts.insert(0, head + captions + b"\0" * (len(captions) % 2))
    return b"".join(parts)


def captions_in(resources: bytes) -> bytes | None:
    """Return the IPTC records among resources, or None."""
    return next((content for number, content, _ in _resources(resources) if number == IPTC), None)


def without_captions(resources: bytes) -> bytes:
    """Return all resources but the IPTC records."""
    return b"".join(whole for number, _, whole in _resources(resources) if number != IPTC)
