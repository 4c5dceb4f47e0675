"""Pictures of a run: what is read, where its result goes, and whether it is there. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cgconvert.host.objects import AnyPath, Names, ObjectPath, exists
from cgconvert.media.picture.formats import FORMATS, SUFFIXES
from cgconvert.options import ImageOptions


@dataclass(frozen=True)
class ImageJob:
    """One picture, read from `source` and written to `output` as `format`.

    `options` are its own, where they are not those of the run, and `row` is its number in a manifest.
    """

    source: AnyPath
    output: AnyPath
    format: str
    options: ImageOptions | None = None
    row: int | None = None


def is_finished(job: ImageJob, options: ImageOptions, there: Names | None = None) -> bool:
    """Whether the result is there and may stay. It is complete, since outputs appear whole.

    `there` are the names of objects that were there when the run began; without it the service is asked.
    """
    if (job.options or options).overwrite:
        return False
    if there is not None and isinstance(job.output, ObjectPath):
        return job.output in there
    return exists(job.output)


def output_name(name: str, wanted: str | None) -> str:
    """Return the source's file name, with another suffix if it does not fit the wanted format."""
    suffix = Path(name).suffix
    if wanted is None or SUFFIXES.get(suffix.lower()) == wanted:
        return name
    return name.removesuffix(suffix) + FORMATS[wanted][0]
