"""Pictures as files: their names, what lies in a folder, where each result goes. No torch."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from cgconvert.media.picture.formats import FORMATS, SUFFIXES
from cgconvert.options import ImageOptions


@dataclass(frozen=True)
class ImageJob:
    """One picture: read from `source`, written to `output` as `format`."""

    source: Path
    output: Path
    format: str


@dataclass(frozen=True)
class ImageFailure:
    """A picture that was not converted, and why."""

    file: Path
    reason: str


def printable(path: Path | str) -> str:
    """A path for a person or a report: line ends, control characters and undecodable bytes escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(path))


def is_finished(job: ImageJob, options: ImageOptions) -> bool:
    """Whether the result is there and may stay: outputs appear whole, so what is there is complete."""
    return not options.overwrite and os.path.lexists(job.output)


def output_name(name: str, wanted: str | None) -> str:
    """The result's file name: the source's, with the suffix of the wanted format if it has another."""
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
    """Paths relative to `folder` of every picture in it, by suffix, sorted within each folder.

    Hidden files and folders are left out, our own temporary files with them, and so is `excluded`. Links to
    files are followed, links to folders are not: they can go round in circles. Folders that cannot be read
    are added to `failures`.
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
    """Whether an entry is a folder or a link to one; a link in circles is none, and reading it says why."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def same_file(first: Path, second: Path) -> bool:
    """Whether both are there and one file."""
    try:
        return first.samefile(second)
    except OSError:
        return False
