"""Animations and documents for tests, built chunk by chunk, and read by Pillow or by code of their own."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
from PIL import Image

from tests.pictures.pictures import chunk, encode


@dataclass
class Part:
    """A frame as it is stored: samples (H, W, C), its place, its time in the unit of the format."""

    samples: np.ndarray
    time: int = 10
    left: int = 0
    top: int = 0
    disposal: int = 0
    blend: int = 0


def lzw(indices: np.ndarray) -> bytes:
    """Indices as GIF packs them, with codes of 9 bits and a cleared table before they grow."""
    codes = []
    flat = indices.ravel().tolist()
    for at in range(0, len(flat), 250):
        codes += [256, *flat[at : at + 250]]
    bits = "".join(f"{code:09b}"[::-1] for code in [*codes, 257])
    bits += "0" * (-len(bits) % 8)
    data = bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))
    blocks = (data[at : at + 255] for at in range(0, len(data), 255))
    return b"\x08" + b"".join(bytes((len(block),)) + block for block in blocks) + b"\0"


def gif(
    size: tuple[int, int],
    parts: list[Part],
    palette: np.ndarray,
    transparent: int | None = None,
    repeats: int | None = None,
    extra: bytes = b"",
) -> bytes:
    """A GIF of `size` (width, height) whose parts are indices (H, W) into `palette` (256, 3)."""
    data = b"GIF89a" + struct.pack("<HHBBB", *size, 0xF7, 0, 0) + palette.astype(np.uint8).tobytes()
    if repeats is not None:
        data += b"\x21\xff\x0bNETSCAPE2.0" + struct.pack("<BBHB", 3, 1, repeats, 0)
    data += extra
    for part in parts:
        flags = part.disposal << 2 | (transparent is not None)
        data += struct.pack("<BBBBHBB", 0x21, 0xF9, 4, flags, part.time, transparent or 0, 0)
        height, width = part.samples.shape
        data += struct.pack("<BHHHHB", 0x2C, part.left, part.top, width, height, 0) + lzw(part.samples)
    return data + b"\x3b"


def apng(
    size: tuple[int, int],
    parts: list[Part],
    colour: int = 6,
    depth: int = 8,
    plays: int = 0,
    hidden: np.ndarray | None = None,
    scale: int = 1000,
    extra: bytes = b"",
) -> bytes:
    """An animated PNG of `size` (width, height), its times in 1/`scale` s. A frame is one chunk."""

    def packed(samples: np.ndarray) -> bytes:
        kind = ">u2" if depth == 16 else "u1"
        rows = (row.astype(kind).tobytes() for row in samples.reshape(samples.shape[0], -1))
        return zlib.compress(b"".join(b"\0" + row for row in rows))

    head = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra
    data += chunk(b"acTL", struct.pack(">II", len(parts), plays))
    if hidden is not None:
        data += chunk(b"IDAT", packed(hidden))
    number = 0
    for index, part in enumerate(parts):
        height, width = part.samples.shape[:2]
        place = (width, height, part.left, part.top, part.time, scale, part.disposal, part.blend)
        data += chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, *place))
        number += 1
        if index == 0 and hidden is None:
            data += chunk(b"IDAT", packed(part.samples))
        else:
            data += chunk(b"fdAT", struct.pack(">I", number) + packed(part.samples))
            number += 1
    return data + chunk(b"IEND", b"")


def riff(kind: bytes, payload: bytes) -> bytes:
    """A chunk of a WebP."""
    return kind + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)


def webp(size: tuple[int, int], parts: list[Part], plays: int = 0, **metadata: bytes) -> bytes:
    """An animated lossless WebP of `size` (width, height), its times in ms."""
    flags = 0x12 | 0x20 * ("icc" in metadata) | 0x08 * ("exif" in metadata) | 0x04 * ("xmp" in metadata)
    edges = b"".join((edge - 1).to_bytes(3, "little") for edge in size)
    body = riff(b"VP8X", bytes((flags, 0, 0, 0)) + edges)
    if "icc" in metadata:
        body += riff(b"ICCP", metadata["icc"])
    body += riff(b"ANIM", bytes(4) + struct.pack("<H", plays))
    for part in parts:
        options = (cv2.IMWRITE_WEBP_LOSSLESS_MODE, cv2.IMWRITE_WEBP_LOSSLESS_PRESERVE_COLOR)
        alone = encode(".webp", part.samples, options)
        stored = alone[alone.index(b"VP8L") :]
        height, width = part.samples.shape[:2]
        numbers = (part.left // 2, part.top // 2, width - 1, height - 1, part.time)
        frame = b"".join(number.to_bytes(3, "little") for number in numbers)
        body += riff(b"ANMF", frame + bytes((part.disposal | (0 if part.blend else 2),)) + stored)
    for name in ("exif", "xmp"):
        if name in metadata:
            body += riff(b"EXIF" if name == "exif" else b"XMP ", metadata[name])
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def avif(frames: list[np.ndarray], times: list[int], **options: object) -> bytes:
    """An animated AVIF by Pillow, nearly lossless, its times in ms."""
    file = io.BytesIO()
    pictures = [Image.fromarray(frame) for frame in frames]
    exact = {"quality": 100, "subsampling": "4:4:4", "speed": 9, "max_threads": 1}
    pictures[0].save(
        file, "AVIF", save_all=True, append_images=pictures[1:], duration=times, **exact, **options
    )
    return file.getvalue()


def shown(data: bytes) -> list[np.ndarray]:
    """Each frame of an animation as Pillow shows it, RGBA (H, W, 4)."""
    frames = []
    with Image.open(io.BytesIO(data)) as picture:
        for number in range(getattr(picture, "n_frames", 1)):
            picture.seek(number)
            frames.append(np.array(picture.convert("RGBA")))
    return frames


def times(data: bytes) -> list[Fraction]:
    """The time of each frame in seconds, exactly as the file says."""
    found = []
    if data[:4] == b"GIF8":
        at = data.find(b"\x21\xf9\x04")
        while at >= 0:
            found.append(Fraction(struct.unpack_from("<H", data, at + 4)[0], 100))
            at = data.find(b"\x21\xf9\x04", at + 8)
    elif data[:4] == b"RIFF":
        at = 12
        while at < len(data):
            size = struct.unpack_from("<I", data, at + 4)[0]
            if data[at : at + 4] == b"ANMF":
                found.append(Fraction(int.from_bytes(data[at + 20 : at + 23], "little"), 1000))
            at += 8 + size + size % 2
    elif data[:4] == b"\x89PNG":
        at = 8
        while at < len(data):
            if data[at + 4 : at + 8] == b"fcTL":
                found.append(Fraction(*struct.unpack_from(">HH", data, at + 28)))
            at += 12 + struct.unpack_from(">I", data, at)[0]
    else:
        scale = struct.unpack_from(">I", data, data.index(b"mdhd") + 24)[0]
        at = data.index(b"stts") + 8
        for entry in range(struct.unpack_from(">I", data, at)[0]):
            count, ticks = struct.unpack_from(">II", data, at + 4 + 8 * entry)
            found += [Fraction(ticks, scale)] * count
    return found


def plays(data: bytes) -> int:
    """How often a file says that it is shown, 0 for ever."""
    if data[:4] == b"GIF8":
        at = data.find(b"NETSCAPE2.0")
        repeats = struct.unpack_from("<H", data, at + 13)[0] if at >= 0 else None
        return 1 if repeats is None else repeats + 1 if repeats else 0
    if data[:4] == b"RIFF":
        return int(struct.unpack_from("<H", data, data.index(b"ANIM") + 12)[0])
    if data[:4] == b"\x89PNG":
        return int(struct.unpack_from(">I", data, data.index(b"acTL") + 8)[0])
    at = data.index(b"elst")
    length = struct.unpack_from(">Q", data, data.index(b"tkhd") + 32)[0]
    if not data[at + 7] & 1:
        return 1
    return 0 if length == (1 << 64) - 1 else length // struct.unpack_from(">Q", data, at + 12)[0]
