"""Files of a run: which lie in a folder, where their results go, and what is refused. Imports no torch."""

from __future__ import annotations

import glob
import os
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cgconvert.card import ModelCard
from cgconvert.errors import OutputError, UsageError, printable
from cgconvert.host.files import real_path
from cgconvert.host.objects import AnyPath, ObjectPath

Place = TypeVar("Place", Path, ObjectPath, AnyPath)


@dataclass(frozen=True)
class Failure:
    """An input that was not converted, and why."""

    file: AnyPath
    reason: str


def find_files(
    folder: AnyPath, excluded: AnyPath | None, failures: list[Failure], suffixes: Container[str]
) -> Iterator[Path]:
    """Yield the path of every file below `folder` with one of the suffixes, relative and sorted by folder.

    Suffixes are compared in lower case. Hidden files and folders are left out, and so is `excluded`. Links
    to files are followed. Links to folders are not, since they may lead back. Folders that cannot be read
    are added to `failures`. The folder can be a prefix of objects, which come in the order of their names.
    """
    if isinstance(folder, ObjectPath):
        outside = excluded is None or not isinstance(excluded, ObjectPath) or not _below(excluded, folder)
        for relative in folder.find(suffixes):
            if outside or excluded is None or not _below(folder / relative, excluded):
                yield relative
        return
    pending = [Path()]
    while pending:
        relative = pending.pop()
        try:
            with os.scandir(folder / relative) as found:
                entries = sorted(
                    (entry for entry in found if not entry.name.startswith(".")), key=lambda e: e.name
                )
        except OSError as error:
            failures.append(Failure(folder / relative, f"folder cannot be read: {error.strerror}"))
            continue
        below: list[Path] = []
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if excluded is None or not same_file(folder / relative / entry.name, excluded):
                    below.append(relative / entry.name)
            elif Path(entry.name).suffix.lower() in suffixes and not _is_folder(entry):
                yield relative / entry.name
        pending.extend(reversed(below))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one. A link to itself is neither; reading it says why."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _below(path: AnyPath, folder: AnyPath) -> bool:
    """Whether an object is in a prefix, or is it."""
    return f"{path}/".startswith(f"{folder}/")


def same_file(first: AnyPath, second: AnyPath) -> bool:
    """Whether both paths exist and mean the same file."""
    if isinstance(first, ObjectPath) or isinstance(second, ObjectPath):
        return first == second
    try:
        return first.samefile(second)
    except OSError:
        return False


def default_output(folder: Place, card: ModelCard) -> Place:
    """Return `FOLDER.MODEL` beside the folder. Raises `UsageError` for a root."""
    if isinstance(folder, ObjectPath):
        if not folder.name:
            raise UsageError(f"say where the results of {folder} go, with `output`")
        return folder.with_name(f"{folder.name}.{card.name}")
    name = folder.name if folder.name not in ("", "..") else real_path(folder).name
    if not name:
        raise UsageError(f"say where the results of {printable(folder)} go, with `output`")
    parent = folder.parent if folder.name not in ("", "..") else real_path(folder).parent
    return parent / f"{name}.{card.name}"


def check_folders(folder: AnyPath, target: AnyPath) -> None:
    """Raise `OutputError` or `UsageError` unless the results of `folder` can go to the folder `target`."""
    check_output_folder(target)
    if isinstance(folder, ObjectPath) or isinstance(target, ObjectPath):
        if folder == target:
            raise UsageError(f"{printable(target)} is the source folder itself: choose another `output`")
        return
    source, result = real_path(folder), real_path(target)
    if result == source:
        raise UsageError(f"{printable(target)} is the source folder itself: choose another `output`")
    if source.is_relative_to(result):
        raise UsageError(
            f"{printable(target)} holds the source folder: results could replace sources; "
            "choose another `output`"
        )


def check_output_folder(target: AnyPath) -> None:
    """Raise `OutputError` if something that is no folder is at `target`, `UsageError` for a web server."""
    if isinstance(target, ObjectPath):
        if target.bucket.startswith("http"):
            raise UsageError(f"{target}: web servers take no results, choose another `output`")
        return
    if os.path.lexists(target) and not target.is_dir():
        what = "is a file" if target.exists() else "is a link that leads nowhere"
        raise OutputError(f"{printable(target)} {what}: choose a folder as `output`")


def without_results(sources: Sequence[Place], card: ModelCard, notes: list[str]) -> list[Place]:
    """Leave out results of an earlier run, which a pattern like *.jpg picks up beside their sources."""
    ending = f".{card.name}"
    given = {(path.parent, path.stem) for path in sources}
    kept = [
        path
        for path in sources
        if not path.stem.endswith(ending) or (path.parent, path.stem.removesuffix(ending)) not in given
    ]
    if len(kept) < len(sources):
        notes.append(f"{len(sources) - len(kept)} of the files are results of {card.name} and are left out")
    return kept


def expanded(paths: Sequence[Place]) -> list[Place]:
    """Return the paths, with what they match in the place of patterns such as `clips/**/*.mp4`.

    A path that exists is itself, whatever characters it has. Raises `UsageError` for a pattern that matches
    nothing and for a path that is not there.
    """
    found: list[Any] = []
    for path in paths:
        if isinstance(path, ObjectPath):
            found.append(path)
            continue
        if os.path.lexists(path):
            found.append(path)
            continue
        # Not `Path.glob`, which takes no absolute patterns.
        is_pattern = glob.has_magic(str(path))
        matches = sorted(glob.glob(str(path), recursive=True)) if is_pattern else []  # noqa: PTH207
        if not matches:
            raise UsageError(f"no such file: {printable(path)}")
        found += map(Path, matches)
    return list(dict.fromkeys(found))
