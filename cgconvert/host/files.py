"""Files that appear whole, written under a temporary name and renamed; checksums of files."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from cgconvert.errors import BusyError, OutputError
from cgconvert.host.locks import locked
from cgconvert.host.objects import AnyPath, ObjectPath

TEMPORARY_PREFIX = ".cgconvert-"


def real_path(path: Path) -> Path:
    """Return the absolute path with its links followed. A link that leads back to itself stays as it is.

    Whether `Path.resolve` raises a RuntimeError for such a link depends on the version of Python.
    """
    return Path(os.path.realpath(path))


def output_error(path: Path, error: OSError) -> OutputError:
    """Return the `OutputError` that says why `path` could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"disk full while writing {path}: free some space, or choose another place")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"no permission to write {path}: choose another place")
    if error.errno == errno.ENAMETOOLONG:
        return OutputError(f"cannot write {path}: its name is too long; choose a shorter one")
    if error.errno == errno.EEXIST:  # the folder was to be made, not the file
        return OutputError(f"cannot write {path}: {path.parent} is no folder, or a link that leads nowhere")
    return OutputError(f"cannot write {path}: {error.strerror or error}")


def concerns_all(error: OutputError) -> bool:
    """Whether the next output will meet the same: a full disk will, a name too long for the disk won't."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno != errno.ENAMETOOLONG


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal. Raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush_to_disk(path: Path) -> None:
    """Ask the system to put the file's bytes on the disk, so that a rename after it is safe."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_path(target: Path, overwrite: bool = True, wait: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `target` that is renamed to it on success and removed on failure.

    Every process uses the same temporary name for a target, and a lock beside it. So the next process
    removes what a killed one has left, and two never write the same target at once.

    With `wait`, a process that writes the target already is let finish first.

    Raises `OutputError` if another process writes the target and `wait` is False, if the target exists and
    `overwrite` is False (which is checked again before the rename), or if folder, disk or permissions do not
    allow it.
    """
    name = f"{TEMPORARY_PREFIX}{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}"
    temporary = target.parent / f"{name}{target.suffix}"
    try:
        if (target.exists() or target.is_symlink()) and not overwrite:
            raise OutputError(f"{target} exists already: use `overwrite` to replace it")
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent / f"{name}.lock", wait, remove=True) as held:
            if not held:
                raise BusyError(f"{target} is being written by another process: wait for its end")
            try:
                temporary.unlink(missing_ok=True)  # a killed process has left it
                yield temporary
                flush_to_disk(temporary)
                if overwrite:
                    temporary.replace(target)
                else:
                    _rename_new(temporary, target)
            finally:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
    except OSError as error:
        raise output_error(target, error) from error


def _rename_new(temporary: Path, target: Path) -> None:
    """Rename, but fail if the target has appeared meanwhile."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise OutputError(f"{target} has appeared meanwhile: use `overwrite` to replace it") from None
    except OSError:  # a file system without hard links
        if target.exists():
            raise OutputError(f"{target} has appeared meanwhile: use `overwrite` to replace it") from None
        temporary.replace(target)


def write_atomically(target: AnyPath, data: bytes, overwrite: bool = True, wait: bool = False) -> None:
    """Write `data` to `target` so that it is there whole or not at all. The rest is as for `atomic_path`."""
    if isinstance(target, ObjectPath):
        target.write(data, overwrite)
        return
    with atomic_path(target, overwrite, wait) as temporary:
        temporary.write_bytes(data)


@contextmanager
def atomic_output(target: AnyPath, overwrite: bool = True) -> Iterator[Path]:
    """As `atomic_path`, for objects too, whose temporary file is in the system's temporary folder."""
    if not isinstance(target, ObjectPath):
        with atomic_path(target, overwrite) as temporary:
            yield temporary
        return
    with TemporaryDirectory(prefix=TEMPORARY_PREFIX) as folder:
        temporary = Path(folder, target.name)
        yield temporary
        target.write(temporary, overwrite)
