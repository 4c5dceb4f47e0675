"""Changes to files that keep enough of their structure for a change to reach what lies behind it.

Bytes that are changed anywhere are mostly found by the first checksum or length. So a file is taken apart
where its format allows it, its parts are changed, left out, doubled and put into another order, and it is put
together again with lengths and checksums that fit. One change in four is made to the bytes as they are.
"""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

INTERESTING = (0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 1023, 1024, 4095, 32767, 32768)
LARGE = (65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
MOST_BYTES = 200_000
"""Files stay small, so that a case takes milliseconds."""

Chance = random.Random


def change_bytes(data: bytes, chance: Chance, most: int = 4) -> bytes:
    """Some changes anywhere: bits, bytes, numbers, blocks."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, most)):
        if not changed:
            changed += chance.randbytes(chance.randint(1, 8))
        at = chance.randrange(len(changed))
        match chance.randrange(8):
            case 0:
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                changed[at] = chance.choice(INTERESTING) & 255
            case 2 | 3:
                size = chance.choice((2, 4, 8))
                number = chance.choice(INTERESTING + LARGE) & (256**size - 1)
                changed[at : at + size] = number.to_bytes(size, chance.choice(("little", "big")))
            case 4:
                del changed[at : at + chance.randint(1, 16)]
            case 5:
                length = chance.randint(1, 64)
                changed[at:at] = changed[at : at + length]
            case 6:
                changed[at:at] = chance.randbytes(chance.randint(1, 8))
            case 7:
                other = chance.randrange(len(changed))
                length = chance.randint(1, 32)
                changed[at : at + length] = changed[other : other + length]
    if chance.random() < 0.05:
        del changed[chance.randrange(len(changed) + 1) :]
    return bytes(changed[:MOST_BYTES])


def change_list(parts: list[Any], chance: Chance, change: Callable[[Any], Any]) -> list[Any]:
    """Change one part, or leave one out, double one, or let two change places."""
    parts = list(parts)
    if not parts:
        return parts
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(parts))
        action = chance.randrange(8)
        if action == 0 and len(parts) > 1:
            del parts[at]
        elif action == 1:
            parts.insert(chance.randrange(len(parts) + 1), parts[at])
        elif action == 2:
            other = chance.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        else:
            parts[at] = change(parts[at])
    return parts


# ---- pictures ---------------------------------------------------------------------------------------


def change_png(data: bytes, chance: Chance) -> bytes:
    """Chunks with their checksums; the pixels are changed before they are compressed again."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length

    def change(chunk: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        kind, payload = chunk
        if kind == b"IDAT" and chance.random() < 0.6:
            try:
                return kind, zlib.compress(change_bytes(zlib.decompress(payload), chance), 1)
            except zlib.error:
                pass
        if chance.random() < 0.05:
            kind = bytes(chance.choice(b"IDATPLTEtRNSacTLfcTLiCCPeXIf") for _ in range(4))
        return kind, change_bytes(payload, chance)

    chunks = change_list(chunks, chance, change)
    written = data[:8]
    for kind, payload in chunks:
        written += struct.pack(">I", len(payload)) + kind + payload
        written += struct.pack(">I", zlib.crc32(kind + payload))
    return written


def change_jpeg(data: bytes, chance: Chance) -> bytes:
    """Segments with their lengths, and the coded data behind them."""
    segments, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        length = struct.unpack_from(">H", data, at + 2)[0]
        segments.append((data[at + 1], data[at + 4 : at + 2 + length]))
        at += 2 + length
        if segments[-1][0] == 0xDA:
            break
    rest = data[at:]

    def change(segment: tuple[int, bytes]) -> tuple[int, bytes]:
        marker, payload = segment
        if chance.random() < 0.05:
            marker = chance.randrange(0xC0, 0xFF)
        return marker, change_bytes(payload, chance, 2)[:60000]

    if chance.random() < 0.3:
        rest = change_bytes(rest, chance)
    else:
        segments = change_list(segments, chance, change)
    written = data[:2]
    for marker, payload in segments:
        written += bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload
    return written + rest


def change_webp(data: bytes, chance: Chance) -> bytes:
    """RIFF's chunks with their lengths."""
    chunks, at = [], 12
    while at + 8 <= len(data):
        length = struct.unpack_from("<I", data, at + 4)[0]
        chunks.append((data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2

    def change(chunk: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        kind, payload = chunk
        if chance.random() < 0.05:
            kind = chance.choice((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF"))
        return kind, change_bytes(payload, chance)

    body = b"WEBP"
    for kind, payload in change_list(chunks, chance, change):
        body += kind + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def change_tiff(data: bytes, chance: Chance) -> bytes:
    """The entries of the first directory: tag, type, count and value."""
    order = "<" if data[:2] == b"II" else ">"
    if len(data) < 8:
        return change_bytes(data, chance)
    start = struct.unpack_from(order + "I", data, 4)[0]
    if start + 2 > len(data):
        return change_bytes(data, chance)
    count = struct.unpack_from(order + "H", data, start)[0]
    entries = [data[start + 2 + 12 * n : start + 14 + 12 * n] for n in range(count)]

    def change(entry: bytes) -> bytes:
        if len(entry) < 12:
            return entry
        tag, kind, number, value = struct.unpack(order + "HHII", entry)
        match chance.randrange(4):
            case 0:
                tag = chance.choice(
                    (256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 320, 322, 338, 339)
                )
            case 1:
                kind = chance.randrange(20)
            case 2:
                number = chance.choice(INTERESTING + LARGE)
            case 3:
                value = chance.choice(INTERESTING + LARGE + (chance.randrange(len(data)),))
        return struct.pack(order + "HHII", tag, kind, number, value & 0xFFFFFFFF)

    changed = change_list(entries, chance, change)[:count]
    changed += [entries[-1]] * (count - len(changed))  # the directory keeps its length
    body = b"".join(changed)
    return data[: start + 2] + body + data[start + 2 + len(body) :]


# ---- containers -------------------------------------------------------------------------------------

BOXES = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"dinf", b"meta", b"iprp", b"ipco"}


def _boxes(data: bytes) -> list[Any]:
    """ISO boxes (ISO/IEC 14496-12) as (type, bytes before the boxes within, payload or list of boxes)."""
    found: list[Any] = []
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if length < 8 or at + length > len(data):
            break
        payload = data[at + 8 : at + length]
        if kind in BOXES:
            before = 4 if kind == b"meta" and payload[4:8] != b"hdlr" else 0
            found.append((kind, payload[:before], _boxes(payload[before:])))
        else:
            found.append((kind, b"", payload))
        at += length
    if at < len(data):
        found.append((b"", b"", data[at:]))
    return found


def _joined_boxes(boxes: list[Any]) -> bytes:
    written = b""
    for kind, before, payload in boxes:
        body = before + (_joined_boxes(payload) if isinstance(payload, list) else payload)
        written += body if not kind else struct.pack(">I", len(body) + 8) + kind + body
    return written


def change_boxes(data: bytes, chance: Chance) -> bytes:
    """Boxes of MP4, MOV and AVIF, with the lengths of all that they are in."""

    def change(box: Any) -> Any:
        kind, before, payload = box
        if isinstance(payload, list) and payload:
            return kind, before, change_list(payload, chance, change)
        return kind, before, change_bytes(payload if isinstance(payload, bytes) else b"", chance, 2)

    return _joined_boxes(change_list(_boxes(data), chance, change))


MASTERS = {0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE0, 0xE1, 0x1F43B675, 0xA0, 0x1C53BB6B, 0xBB, 0xB7}
"""Elements of Matroska that hold others: segment, information, tracks, cluster, block group, cues."""


def _elements(data: bytes) -> list[Any]:
    """EBML elements (RFC 8794) as (identity, payload or list of elements)."""
    found: list[Any] = []
    at = 0
    while at < len(data):
        width = 9 - data[at].bit_length()
        place = at + width
        if width > 4 or place >= len(data):
            break
        size_width = 9 - data[place].bit_length()
        if size_width > 8 or place + size_width > len(data):
            break
        size = int.from_bytes(data[place : place + size_width], "big") & (2 ** (7 * size_width) - 1)
        start = place + size_width
        if size == 2 ** (7 * size_width) - 1:  # unknown: to the end
            size = len(data) - start
        if start + size > len(data):
            break
        identity = data[at:place]
        payload = data[start : start + size]
        nested = int.from_bytes(identity, "big") in MASTERS
        found.append((identity, _elements(payload) if nested else payload))
        at = start + size
    if at < len(data):
        found.append((b"", data[at:]))
    return found


def _joined_elements(elements: list[Any]) -> bytes:
    written = b""
    for identity, payload in elements:
        body = _joined_elements(payload) if isinstance(payload, list) else payload
        written += body if not identity else identity + ((1 << 56) | len(body)).to_bytes(8, "big") + body
    return written


def change_elements(data: bytes, chance: Chance) -> bytes:
    """Elements of Matroska and WebM, with the lengths of all that they are in."""

    def change(element: Any) -> Any:
        identity, payload = element
        if isinstance(payload, list) and payload:
            return identity, change_list(payload, chance, change)
        return identity, change_bytes(payload if isinstance(payload, bytes) else b"", chance, 2)

    return _joined_elements(change_list(_elements(data), chance, change))


def change_packets(data: bytes, chance: Chance) -> bytes:
    """Packets of a transport stream, each 188 bytes with its mark."""
    packets = [data[at : at + 188] for at in range(0, len(data) - 187, 188)]

    def change(packet: bytes) -> bytes:
        return packet[:1] + change_bytes(packet[1:], chance, 2).ljust(187, b"\xff")[:187]

    return b"".join(change_list(packets, chance, change))


# ---- models -----------------------------------------------------------------------------------------


def change_value(value: Any, chance: Chance, depth: int = 0) -> Any:
    """Plain data with something else at one place in it."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        changed = dict(value)
        key = chance.choice(list(changed))
        match chance.randrange(6):
            case 0:
                del changed[key]
            case 1:
                changed[change_text(str(key), chance)] = changed[key]
            case 2:
                changed[key] = changed[chance.choice(list(changed))]
            case _:
                changed[key] = change_value(changed[key], chance, depth + 1)
        return changed
    if isinstance(value, list) and value and chance.random() < 0.85:
        return change_list(value, chance, lambda one: change_value(one, chance, depth + 1))
    if isinstance(value, str) and chance.random() < 0.7:
        return change_text(value, chance)
    if isinstance(value, int) and not isinstance(value, bool) and chance.random() < 0.7:
        return chance.choice((*INTERESTING, *LARGE, -1, 2**63, 10**30, value + 1, value - 1, float(value)))
    other: tuple[Any, ...] = (None, True, -1, 0, 1, 2**63, 1e308, float("nan"), "", "x" * 300, [], {}, "\0")
    return chance.choice((*other, [value], {"in": value}))


def change_text(text: str, chance: Chance) -> str:
    return change_bytes(text.encode("utf-8", "surrogatepass"), chance, 2).decode("utf-8", "replace")


def change_safetensors(data: bytes, chance: Chance) -> bytes:
    """The JSON of the header, with its length; sometimes the card within it, or the numbers behind it."""
    length = struct.unpack_from("<Q", data)[0] if len(data) >= 8 else 0
    header, numbers = data[8 : 8 + length], data[8 + length :]
    try:
        content = json.loads(header)
    except ValueError:
        return change_bytes(data, chance)
    metadata = content.get("__metadata__") if isinstance(content, dict) else None
    if isinstance(metadata, dict) and "cgconvert" in metadata and chance.random() < 0.6:
        try:
            card = change_value(json.loads(metadata["cgconvert"]), chance)
        except (ValueError, TypeError):
            card = {}
        content = {**content, "__metadata__": {**metadata, "cgconvert": json.dumps(card)}}
    elif chance.random() < 0.3:
        numbers = change_bytes(numbers, chance)
    else:
        content = change_value(content, chance)
    header = json.dumps(content).encode()
    if chance.random() < 0.2:
        header = change_bytes(header, chance)
    return struct.pack("<Q", len(header)) + header + numbers


OPCODES = b"(.012FIJKLMNPQRSTUVX]abcdeghijlopqrstu})\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8b\x8c\x90\x93\x94"


def change_pickle(data: bytes, chance: Chance) -> bytes:
    """A pickle in which opcodes are put for others, or bytes anywhere are changed."""
    if chance.random() < 0.5:
        return change_bytes(data, chance)
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(changed) + 1)
        if chance.random() < 0.5:
            changed[at : at + 1] = bytes((chance.choice(OPCODES),))
        else:
            changed[at:at] = bytes((chance.choice(OPCODES),)) * chance.choice((1, 1, 2, 100))
    return bytes(changed)


def change_archive(data: bytes, chance: Chance) -> bytes:
    """Entries of a zip archive with their checksums, the pickle among them by its opcodes."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, RuntimeError, EOFError):
        return change_bytes(data, chance)

    def change(entry: tuple[str, bytes]) -> tuple[str, bytes]:
        name, content = entry
        if chance.random() < 0.1:
            return change_text(name, chance).replace("\0", ""), content
        return name, change_pickle(content, chance) if name.endswith(".pkl") else change_bytes(
            content, chance
        )

    pickles = [n for n, (name, _) in enumerate(entries) if name.endswith("data.pkl")]
    if pickles and chance.random() < 0.7:
        entries[pickles[0]] = change(entries[pickles[0]])
    else:
        entries = change_list(entries, chance, change)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", chance.choice((0, 0, 0, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name or "x"), content)
    return written.getvalue()


CHANGES: dict[str, Callable[[bytes, Chance], bytes]] = {
    "png": change_png,
    "jpeg": change_jpeg,
    "webp": change_webp,
    "avif": change_boxes,
    "tiff": change_tiff,
    "bmp": change_bytes,
    "gif": change_bytes,
    "mp4": change_boxes,
    "mkv": change_elements,
    "webm": change_elements,
    "ts": change_packets,
    "model": change_safetensors,
    "safetensors": change_safetensors,
    "checkpoint": change_archive,
    "old checkpoint": change_pickle,
}
"""How the files of each kind are changed."""


def mutated(kind: str, data: bytes, chance: Chance) -> bytes:
    """A changed file."""
    change = CHANGES[kind] if chance.random() < 0.75 else change_bytes
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        data = change(data, chance)
    return data[:MOST_BYTES]
