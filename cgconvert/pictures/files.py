"""Pictures of a run: what is read, where its result goes, and whether it is there. Imports no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cgconvert.media.picture.formats import FORMATS, SUFFIXES
from cgconvert.options import ImageOptions


@dataclass(frozen=True)
class ImageJob:
    """One picture, read from `source` and written to `output` as `format`.

    `options` are its own, where they are not those of the run, and `row` is its number in a manifest.
    """

    source: Path
    output: Path
    format: str
    options: ImageOptions | None = None
    row: int | None = None


def is_finished(job: ImageJob, options: ImageOptions) -> bool:
    """Whether the result is there and may stay. It is complete, since outputs appear whole."""
    return not (job.options or options).overwrite and os.path.lexists(job.output)


def output_name(name: str, wanted: str | None) -> str:
    """Return the source's file name, with another suffix if it does not fit the wanted format."""
    suffix = Path(name).suffix
    if wanted is None or SUFFIXES.get(suffix.lower()) == wanted:
        return name
    return name.removesuffix(suffix) + FORMATS[wanted][0]
