"""Files of pictures: which lie in a folder, and where each result goes. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from cgconvert.media.picture.formats import FORMATS, SUFFIXES
from cgconvert.options import ImageOptions


@dataclass(frozen=True)
class ImageJob:
    """One picture, read from `source` and written to `output` as `format`."""

    source: Path
    output: Path
    format: str


@dataclass(frozen=True)
class ImageFailure:
    """A picture that was not converted, and why."""

    file: Path
    reason: str


def is_finished(job: ImageJob, options: ImageOptions) -> bool:
    """Whether the result is there and may stay. It is complete, since outputs appear whole."""
    return not options.overwrite and os.path.lexists(job.output)


def output_name(name: str, wanted: str | None) -> str:
    """Return the source's file name, with another suffix if it does not fit the wanted format."""
    suffix = Path(name).suffix
    if wanted is None or SUFFIXES.get(suffix.lower()) == wanted:
        return name
    return name.removesuffix(suffix) + FORMATS[wanted][0]


def find_images(
    folder: Path,
    excluded: Path | None,
    failures: list[ImageFailure],
    suffixes: Container[str] = SUFFIXES,
) -> Iterator[Path]:
    """Yield the path of every picture below `folder`, relative to it and sorted within each folder.

    Pictures are told by their suffix. Hidden files and folders are left out, and so is `excluded`. Links to
    files are followed. Links to folders are not, since they may lead back. Folders that cannot be read are
    added to `failures`.
    """
    pending = [Path()]
    while pending:
        relative = pending.pop()
        try:
            with os.scandir(folder / relative) as found:
                entries = sorted(
                    (entry for entry in found if not entry.name.startswith(".")), key=lambda e: e.name
                )
        except OSError as error:
            failures.append(ImageFailure(folder / relative, f"folder cannot be read: {error.strerror}"))
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


def same_file(first: Path, second: Path) -> bool:
    """Whether both paths exist and mean the same file."""
    try:
        return first.samefile(second)
    except OSError:
        return False
