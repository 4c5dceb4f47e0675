"""Built engines, kept on disk: one folder an engine, named by everything that made it. Needs no torch.

An entry is complete or absent: it is built in a folder beside and renamed. A lock lets the second of two
builders wait for the first; the system releases it when a builder dies. `entry.json` in each folder says
in words what the engine is for and holds the checksum of every file, so that damage is found and rebuilt.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from cgconvert.errors import UnavailableError
from cgconvert.host.files import file_sha256, flush_to_disk, output_error
from cgconvert.host.interrupts import Breakable
from cgconvert.host.locks import locked

Loaded = TypeVar("Loaded")
Note = Callable[[str], None]

ENTRY = "entry.json"
BUILDING = ".building-"
OFF = "CGCONVERT_NO_CACHE"
"""Environment variable that turns the cache off; `--no-cache` sets it."""
NAME = re.compile(r"[0-9a-f]{32}")
"""Of an entry. Other folders beside them are no engines of ours, such as what OpenVINO keeps for a GPU."""

NEARLY_FULL = 16 * 2**20
"""Free bytes below which a failed build is put down to the disk: compilers and runtimes seldom say so."""


@dataclass(frozen=True)
class CacheEntry:
    """A kept engine: where, what it is for, what made it, its bytes, when (ISO 8601, UTC), a problem."""

    path: Path
    about: str
    parts: Mapping[str, Any]
    size: int
    created: str
    problem: str | None = None


def engines_folder() -> Path:
    """Where built engines are kept (not created): `CGCONVERT_HOME`/engines, or the platform's cache."""
    home = os.environ.get("CGCONVERT_HOME")
    if home:
        return Path(home).expanduser() / "engines"
    from platformdirs import user_cache_path

    return user_cache_path("cgconvert", appauthor=False) / "engines"


def cache_is_on() -> bool:
    """Whether engines are kept."""
    return os.environ.get(OFF, "") in ("", "0")


def digest(parts: Mapping[str, Any]) -> str:
    """The name of an entry: 32 hexadecimal digits of the SHA-256 of its parts, whatever their order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def get_or_build(
    parts: Mapping[str, Any],
    build: Callable[[Path], None],
    load: Callable[[Path], Loaded],
    about: str = "",
    note: Note = lambda line: None,
) -> Loaded:
    """What `load(folder)` makes of the entry for `parts`, which `build(folder)` fills if it is not there.

    `parts` (JSON values) are everything that makes the engine; `about` says in words what it is for. A
    damaged entry, or one that `load` cannot read, is built anew, once. Without a cache, or where it cannot
    be written, the engine is built in a temporary folder. `note` is told what takes time.
    """
    if not cache_is_on():
        return _build_and_forget(build, load)
    folder = engines_folder() / digest(parts)
    waiting = "waiting for another process that builds the same engine"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = locked(_lock_of(folder), waiting=lambda: note(waiting))
        with Breakable():  # another process may build for minutes
            lock.__enter__()
    except OSError as error:
        note(f"engines are not kept: {_why_not_kept(folder, error)}")
        return _build_and_forget(build, load)
    try:
        return _load_or_build(folder, parts, about, build, load, note)
    finally:
        lock.__exit__(None, None, None)


def _lock_of(folder: Path) -> Path:
    return folder.parent / f"{folder.name}.lock"


def _load_or_build(
    folder: Path,
    parts: Mapping[str, Any],
    about: str,
    build: Callable[[Path], None],
    load: Callable[[Path], Loaded],
    note: Note,
) -> Loaded:
    """Under the lock: load the entry if it is whole, build it first if not, elsewhere if the disk is full."""
    _remove_leftovers(folder)
    if folder.is_dir():
        problem = find_damage(folder)
        if problem is None:
            try:
                return _loaded(folder, load)
            except UnavailableError:
                raise
            except Exception as error:  # whatever a library makes of a file that it cannot read
                problem = f"{type(error).__name__}: {error}"
        note(f"a kept engine is damaged and built anew ({problem:.200})")
        shutil.rmtree(folder, ignore_errors=True)
    temporary = folder.parent / f"{BUILDING}{folder.name}-{secrets.token_hex(4)}"
    try:
        temporary.mkdir()
        build(temporary)
        _seal(temporary, parts, about)
        temporary.rename(folder)
    except Exception as error:
        if not (isinstance(error, OSError) or _is_nearly_full(folder.parent)):
            _raise_if_temporary_is_full(error)
            raise
        problem = _why_not_kept(folder, error)
    else:
        return _loaded(folder, load)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    note(f"the engine is built anew and not kept: {problem}")
    return _build_and_forget(build, load)


def _why_not_kept(folder: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{output_error(folder.parent, error)} with CGCONVERT_HOME"
    return f"the disk of {folder.parent} is full: free some space, or set CGCONVERT_HOME"


def _is_nearly_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < NEARLY_FULL


def _loaded(folder: Path, load: Callable[[Path], Loaded]) -> Loaded:
    """What `load` makes of an entry. Some runtimes unpack it into the temporary folder.

    Raises `UnavailableError` where that is full.
    """
    try:
        return load(folder)
    except Exception as error:
        _raise_if_temporary_is_full(error)
        raise


def _raise_if_temporary_is_full(error: Exception) -> None:
    """Raise `UnavailableError` if the disk that compilers write to is full, which they seldom say."""
    # Python takes another folder where the one that is asked for is full; compilers do not.
    for place in {os.environ.get("TMPDIR") or tempfile.gettempdir(), tempfile.gettempdir()}:
        with suppress(OSError):
            if _is_nearly_full(Path(place)):
                raise UnavailableError(
                    f"an engine cannot be built or loaded: the disk of {place} is full; free some space, set "
                    'TMPDIR to a folder with more, or use `engine="eager"`, which builds nothing'
                ) from error


def _build_and_forget(build: Callable[[Path], None], load: Callable[[Path], Loaded]) -> Loaded:
    """In a temporary folder, where no engine outlives its loading. Raises `UnavailableError`."""
    try:
        with tempfile.TemporaryDirectory(prefix="cgconvert-engine-", ignore_cleanup_errors=True) as text:
            build(Path(text))
            return load(Path(text))
    except OSError as error:
        place = tempfile.gettempdir()
        raise UnavailableError(
            f"an engine cannot be built in {place} ({error.strerror or error}): set TMPDIR to a folder with "
            'space, or use `engine="eager"`, which builds nothing'
        ) from error
    except Exception as error:
        _raise_if_temporary_is_full(error)
        raise


def _remove_leftovers(folder: Path) -> None:
    """What a builder of this entry left when it was killed; the lock says that none is at work."""
    for path in folder.parent.glob(f"{BUILDING}{folder.name}-*"):
        shutil.rmtree(path, ignore_errors=True)


def _seal(folder: Path, parts: Mapping[str, Any], about: str) -> None:
    """Flush every file of a finished engine to the disk, then write the JSON that makes it an entry."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = file_sha256(path)
            flush_to_disk(path)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    entry = {"about": about, "created": created, "parts": dict(parts), "files": files}
    with (folder / ENTRY).open("w") as file:
        json.dump(entry, file, indent=2)
        file.flush()
        os.fsync(file.fileno())


def find_entry(parts: Mapping[str, Any]) -> Path | None:
    """The folder of the entry for these parts if it is there and whole."""
    folder = engines_folder() / digest(parts)
    return folder if cache_is_on() and folder.is_dir() and find_damage(folder) is None else None


def kept_parts() -> list[Mapping[str, Any]]:
    """The parts of every kept engine, without a look at its files; none if the cache is off."""
    if not cache_is_on():
        return []
    found: list[Mapping[str, Any]] = []
    for path in engines_folder().glob(f"*/{ENTRY}"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            if NAME.fullmatch(path.parent.name):
                found.append(json.loads(path.read_text())["parts"])
    return found


def find_damage(folder: Path) -> str | None:
    """What is wrong with an entry; None if its files are those that were written."""
    try:
        files = json.loads((folder / ENTRY).read_text())["files"]
        for name, wanted in files.items():
            if file_sha256(folder / name) != wanted:
                return f"{name} has changed"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def list_entries() -> list[CacheEntry]:
    """Every kept engine, the newest first, damaged ones with the reason."""
    entries = []
    for folder in engines_folder().glob("*"):
        if not (NAME.fullmatch(folder.name) and folder.is_dir()):
            continue
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        try:
            data = json.loads((folder / ENTRY).read_text())
            entries.append(
                CacheEntry(
                    folder, str(data["about"]), data["parts"], size, str(data["created"]), find_damage(folder)
                )
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            entries.append(CacheEntry(folder, "", {}, size, "", f"{type(error).__name__}: {error}"))
    return sorted(entries, key=lambda entry: entry.created, reverse=True)


def clear() -> tuple[int, int]:
    """Remove every kept engine that nobody builds at this moment; how many, and their bytes."""
    count = freed = 0
    for folder in [path for path in engines_folder().glob("*") if path.is_dir()]:
        name = folder.name.removeprefix(BUILDING).partition("-")[0]
        with locked(_lock_of(folder.with_name(name)), wait=False) as held:
            if held:
                freed += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                shutil.rmtree(folder)
                count += NAME.fullmatch(folder.name) is not None
    return count, freed
