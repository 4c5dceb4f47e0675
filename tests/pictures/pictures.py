"""Pictures, files and metadata blocks for tests, made by code of their own."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>'
    b'<rdf:Description tiff:Orientation="%d" dc:title="a title"/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


def noise(height: int, width: int, channels: int = 3, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    """Random samples over the whole range of the type, (H, W, C) or (H, W) for one channel."""
    peak = int(np.iinfo(dtype).max) + 1
    samples = np.random.default_rng(seed).integers(0, peak, (height, width, channels)).astype(dtype)
    return samples[:, :, 0] if channels == 1 else samples


def smooth(height: int, width: int) -> np.ndarray:
    """A gentle ramp in colour, which lossy formats keep well."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, 255 - x * 255 // width], -1).astype(np.uint8)


def profile(space: bytes = b"RGB ", size: int = 600) -> bytes:
    """The shape of an ICC profile: its header, and filling that cannot be mistaken for another's."""
    head = struct.pack(">I", size) + b"test" + b"\x04\x30\0\0mntr" + space + b"XYZ " + bytes(12) + b"acsp"
    filling = np.random.default_rng(7).integers(0, 256, size - len(head), dtype=np.uint8)
    return head + filling.tobytes()


def exif(orientation: int, width: int, height: int, order: str = "<", thumbnail: bytes = b"") -> bytes:
    """An EXIF block: maker, orientation, sizes and a date in the sub-directory, a thumbnail if given."""
    pack = struct.pack
    main_at, sub_at, maker_at, date_at = 8, 8 + 2 + 3 * 12 + 4, 200, 210
    main = pack(order + "H", 3)
    main += pack(order + "HHII", 0x010F, 2, 6, maker_at)
    main += pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    main += pack(order + "HHII", 0x8769, 4, 1, sub_at)
    next_at = 240 if thumbnail else 0
    main += pack(order + "I", next_at)
    sub = pack(order + "H", 3) + pack(order + "HHII", 0x9003, 2, 20, date_at)
    sub += pack(order + "HHII", 0xA002, 4, 1, width) + pack(order + "HHII", 0xA003, 4, 1, height) + bytes(4)
    block = ((b"II" if order == "<" else b"MM") + pack(order + "HI", 42, main_at) + main + sub).ljust(
        200, b"\0"
    )
    block += b"Maker\0".ljust(10, b"\0") + b"2020:01:02 03:04:05\0"
    if thumbnail:
        block = block.ljust(240, b"\0")
        first = pack(order + "H", 2) + pack(order + "HHII", 0x0201, 4, 1, 280)
        first += pack(order + "HHII", 0x0202, 4, 1, len(thumbnail)) + bytes(4)
        block = (block + first).ljust(280, b"\0") + thumbnail
    return block


def chunk(kind: bytes, payload: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png(samples: np.ndarray, colour: int, depth: int = 8, extra: bytes = b"") -> bytes:
    """A PNG of raw samples (H, W[, C]) in colour type 0 gray, 2 RGB, 3 palette, 4 gray+alpha, 6 RGBA.

    Depth 1 packs samples of 0 and 1; `extra` chunks stand before the pixels.
    """
    height, width = samples.shape[:2]
    rows = samples.reshape(height, -1)
    if depth == 1:
        data = [np.packbits(row.astype(np.uint8)).tobytes() for row in rows]
    else:
        data = [row.astype(">u2" if depth == 16 else "u1").tobytes() for row in rows]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in data))
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """All chunks of a PNG but its pixels."""
    found, at = [], 8
    while at < len(data):
        length = struct.unpack_from(">I", data, at)[0]
        if data[at + 4 : at + 8] != b"IDAT":
            found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def tiff(
    samples: np.ndarray, photometric: int, order: str = "<", more: dict[int, tuple] | None = None
) -> bytes:
    """An uncompressed TIFF in one strip; `more`: further tags as {number: (type, values or bytes)}."""
    height, width = samples.shape[:2]
    count = 1 if samples.ndim == 2 else samples.shape[2]
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    tags: dict[int, tuple] = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [samples.itemsize * 8] * count), 259: (3, [1]),
        262: (3, [photometric]), 273: (4, [8]), 277: (3, [count]), 278: (4, [height]), 279: (4, [len(data)]),
        **(more or {}),
    }  # fmt: skip
    at = 8 + len(data) + len(data) % 2
    values_at = at + 2 + 12 * len(tags) + 4
    entries = values = b""
    for number, (kind, value) in sorted(tags.items()):
        code = {3: "H", 4: "I"}.get(kind)
        body = struct.pack(f"{order}{len(value)}{code}", *value) if code else bytes(value)
        entries += struct.pack(order + "HHI", number, kind, len(value) // (8 if kind == 5 else 1))
        if len(body) <= 4:
            entries += body.ljust(4, b"\0")
        else:
            entries += struct.pack(order + "I", values_at + len(values))
            values += body + b"\0" * (len(body) % 2)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, at)
    directory = struct.pack(order + "H", len(tags)) + entries + bytes(4) + values
    return head + data.ljust(at - 8, b"\0") + directory


def encode(suffix: str, rgb: np.ndarray, options: tuple[int, ...] = (), **metadata: bytes) -> bytes:
    """A file by OpenCV's encoder from RGB or RGBA, with `exif`, `xmp` and `icc` where it can."""
    code = cv2.COLOR_RGBA2BGRA if rgb.shape[2] == 4 else cv2.COLOR_RGB2BGR
    kinds = [("exif", "xmp", "icc").index(name) for name in metadata]
    blocks = [np.frombuffer(block, np.uint8) for block in metadata.values()]
    done, data = cv2.imencodeWithMetadata(suffix, cv2.cvtColor(rgb, code), kinds, blocks, list(options))
    assert done
    return data.tobytes()


def jpeg_with(rgb: np.ndarray, quality: int = 95, **metadata: bytes) -> bytes:
    """A JPEG whose metadata segments are put in by hand, a profile in as many pieces as it needs."""
    options = (cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111)
    plain = encode(".jpg", rgb, options)
    bodies = []
    if "exif" in metadata:
        bodies.append((0xE1, b"Exif\0\0" + metadata["exif"]))
    if "xmp" in metadata:
        bodies.append((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + metadata["xmp"]))
    if "icc" in metadata:
        icc = metadata["icc"]
        pieces = [icc[at : at + 60000] for at in range(0, len(icc), 60000)]
        for number, piece in enumerate(pieces, 1):
            bodies.append((0xE2, b"ICC_PROFILE\0" + bytes((number, len(pieces))) + piece))
    segments = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in bodies)
    return plain[:2] + segments + plain[2:]


def png_with(rgb: np.ndarray, **metadata: bytes) -> bytes:
    """A PNG with metadata chunks put in by hand."""
    extra = b""
    if "icc" in metadata:
        extra += chunk(b"iCCP", b"name\0\0" + zlib.compress(metadata["icc"]))
    if "xmp" in metadata:
        extra += chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata["xmp"])
    if "exif" in metadata:
        extra += chunk(b"eXIf", metadata["exif"])
    return png(rgb, 2, extra=extra)


def read_rgb(path: Path) -> np.ndarray:
    """What OpenCV sees in a file, unturned: RGB (H, W, 3), RGBA (H, W, 4) or gray (H, W)."""
    raw = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert raw is not None, path
    if raw.ndim == 2:
        return raw
    return cv2.cvtColor(raw, cv2.COLOR_BGRA2RGBA if raw.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """What the EXIF standard says a picture of this orientation looks like."""
    turned = {
        1: lambda p: p,
        2: np.fliplr,
        3: lambda p: np.rot90(p, 2),
        4: np.flipud,
        5: lambda p: np.rot90(np.fliplr(p), 1),
        6: lambda p: np.rot90(p, -1),
        7: lambda p: np.rot90(np.fliplr(p), -1),
        8: lambda p: np.rot90(p, 1),
    }
    return turned[orientation](pixels)
