"""Reads checkpoints of other software without running anything in them, and recognises wrong files."""

from __future__ import annotations

import os
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from cgconvert.errors import ModelError, first_line
from cgconvert.models.files import is_regular_file, read_header
from cgconvert.models.pickles import UnreasonableError, check_pickle

SIZE_LIMIT = 4 * 2**30
"""Bytes. The largest generators have 0.3 GB, a training checkpoint with optimizers a few times that."""

HEADER_LIMIT = 8 * 2**20
"""Bytes of the header of a safetensors checkpoint: it may hold the states of optimizers, a model may not."""

DIRECTORY_LIMIT = 4 * 2**20
"""Bytes of the directory of a zip archive: PyTorch writes some 70 for each tensor."""

LEGACY_PICKLES = 5
"""What PyTorch's older format begins with: a mark, a version, the system, the content, names of storages."""

HEAD = 512
MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (
        0,
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself: run `git lfs pull` where it is from",
    ),
    (0, b"\x89HDF\r\n", "a Keras/HDF5 file; only PyTorch weights are read"),
    (0, b"\x93NUMPY", "a NumPy array, not a checkpoint"),
    (0, b"\x89PNG", "a PNG picture, not a checkpoint"),
    (0, b"\xff\xd8\xff", "a JPEG picture, not a checkpoint"),
    (0, b"GIF8", "a GIF picture, not a checkpoint"),
    (0, b"%PDF", "a PDF document, not a checkpoint"),
    (0, b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (0, b"BZh", "compressed with bzip2: unpack it first"),
    (0, b"\xfd7zXZ", "compressed with xz: unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it first"),
    (0, b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (0, b"Rar!", "a RAR archive: unpack it first"),
    (0, b"GGUF", "a GGUF language model"),
    (0, b"\x7fELF", "a program, not a checkpoint"),
    (4, b"TFL3", "a TensorFlow Lite model; only PyTorch weights are read"),
    (4, b"ftyp", "a video or HEIF picture, not a checkpoint"),
    (257, b"ustar", "a tar archive: unpack it first"),
)
"""Offset, bytes found there, what the file is then."""

GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


class ProgramError(ModelError):
    """A file is a TorchScript program, which nobody has said is trusted."""


def read_foreign(path: Path) -> Any:
    """The content of a checkpoint file: nested dicts of tensors, on the CPU, whatever its suffix.

    Read as safetensors or by `torch.load(weights_only=True)`, never in another way. Raises `ModelError`,
    one line that says what the file is or what is wrong with it.
    """
    _require_safe_torch()
    size = _size_of_file(path)
    head = _head(path)
    wrong = _known_wrong_kind(path, head)
    if wrong:
        raise ModelError(f"{path} is {wrong}")
    if _is_safetensors(head, size):
        return _read_safetensors(path)
    try:
        if head.startswith(b"PK"):
            _check_zip(path, size)
        else:
            with path.open("rb") as file:
                for _ in range(LEGACY_PICKLES):
                    check_pickle(file)
    except UnreasonableError as error:
        raise ModelError(f"{path}: refused: {error}, which no checkpoint needs") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    return _read_torch(path, head)


def _require_safe_torch() -> None:
    release = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if release < (2, 10):
        raise ModelError(
            f"PyTorch {torch.__version__} does not read foreign checkpoints safely: 2.10 or newer is needed"
        )


def _size_of_file(path: Path) -> int:
    """Bytes in a regular file of sensible size; `ModelError` otherwise."""
    if os.path.isdir(path):  # noqa: PTH112 - never raises
        inside = sorted(entry.name for entry in path.glob("*_net_G*.pth"))[:4]
        hint = f"; did you mean one of {', '.join(inside)}?" if inside else ""
        raise ModelError(f"{path} is a folder, not a checkpoint{hint}")
    if not os.path.exists(path):  # noqa: PTH110 - never raises
        raise ModelError(f"no such file: {path}")
    if not is_regular_file(path):
        raise ModelError(f"{path} is no regular file")
    size = path.stat().st_size
    if size == 0:
        raise ModelError(f"{path} is empty: get the file anew")
    if size > SIZE_LIMIT:
        raise ModelError(
            f"{path} has {size / 2**30:.1f} GiB, more than any generator (limit {SIZE_LIMIT // 2**30} GiB)"
        )
    return size


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error


def _known_wrong_kind(path: Path, head: bytes) -> str | None:
    """What the file is, where its first bytes show that it is no checkpoint."""
    for offset, magic, words in MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return words
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return "a web page saved in place of a checkpoint: download the file itself"
    return None


def _is_safetensors(head: bytes, size: int) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40 and size > 8


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    read_header(path, HEADER_LIMIT)  # says "cut short" where the header itself is
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{path}: damaged or cut short safetensors file ({first_line(error)})") from error


def _check_zip(path: Path, size: int) -> None:
    """Raise `ModelError` unless the zip archive is a whole PyTorch file that unpacks to its own size.

    Raises `UnreasonableError` where what is in it is too large to be looked at.
    """
    try:
        with path.open("rb") as file:
            directory = _directory_bytes(file, size)
        if directory > DIRECTORY_LIMIT:
            raise UnreasonableError(f"its directory has {directory} bytes")
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            for entry in entries:
                if entry.filename.endswith("/data.pkl") and entry.file_size <= size:
                    with archive.open(entry) as content:
                        check_pickle(content)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError) as error:
        raise ModelError(f"{path} is cut short or damaged ({size} bytes): get the file anew") from error
    names = [entry.filename for entry in entries]
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise ProgramError(
            f"{path} is a TorchScript program, and importing it runs code of the file: use `trust=True` if "
            "you trust whoever made it, or save the state_dict of its network"
        )
    if not any(name.endswith("/data.pkl") for name in names):
        inside = [name for name in names if name.lower().endswith((".pth", ".pt", ".safetensors"))]
        hint = f" with {inside[0]!r:.80} in it: unpack it first" if inside else " without PyTorch weights"
        raise ModelError(f"{path} is a zip archive{hint}")
    if sum(entry.file_size for entry in entries) > size:
        raise ModelError(f"{path}: refused: it unpacks to more than its own size, which no PyTorch file does")


def _directory_bytes(file: IO[bytes], size: int) -> int:
    """Bytes of a zip archive's directory as its end says them, 0 if it has no end.

    PKWARE's APPNOTE 6.3: 4.3.14 and 4.3.15 for archives beyond 4 GiB, 4.3.16 for others.
    """
    start = max(0, size - 65536 - 22)
    file.seek(start)
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) - end < 22:
        return 0
    found: int = struct.unpack_from("<I", tail, end + 12)[0]
    if found == 0xFFFFFFFF and end >= 20 and tail[end - 20 : end - 16] == b"PK\x06\x07":
        file.seek(struct.unpack_from("<Q", tail, end - 12)[0])
        record = file.read(56)
        found = struct.unpack_from("<Q", record, 40)[0] if len(record) == 56 else 0
    return found


def _read_torch(path: Path, head: bytes) -> Any:
    """`torch.load` in its safe mode, its many ways to fail made into one line."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # The open file, not the path: torch would choose another reader by the path's suffix.
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # any of a dozen kinds, since the bytes drive the reader
        raise ModelError(_why_unreadable(path, head, error)) from error


def _why_unreadable(path: Path, head: bytes, error: Exception) -> str:
    found = GLOBAL.search(str(error))
    if found and not _ends_with(path, found[1].rpartition(".")[2]):
        what = found[1][:80]
        hint = (
            "is a whole pickled network"
            if "torch.nn" in what or "networks" in what
            else "holds more than weights"
        )
        return (
            f"{path}: refused: it {hint} ({what}), and reading that could run code; "
            "save only the generator's state_dict in the program that made it"
        )
    if _is_text(head):
        return f"{path} is a text file, not a checkpoint"
    if head.startswith(b"PK") or head[:1] == b"\x80":
        return f"{path} is damaged or cut short, or no PyTorch checkpoint: get the file anew"
    return f"{path} is no PyTorch checkpoint and no safetensors file"


def _ends_with(path: Path, word: str) -> bool:
    """Whether the file's last bytes are this word: then a name was cut, it is not what it seems."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(word)))
        return file.read() == word.encode()


def _is_text(head: bytes) -> bool:
    try:
        text = head[: HEAD - 4].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter.isspace() for letter in text)
