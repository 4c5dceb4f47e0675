"""The plan of the pictures of a manifest, of which each row can have options of its own. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from cgconvert.card import ModelCard
from cgconvert.errors import UsageError, printable
from cgconvert.host.objects import AnyPath
from cgconvert.media.picture.formats import FORMATS, SUFFIXES
from cgconvert.options import EngineOptions, ImageOptions
from cgconvert.pictures.files import ImageJob, output_name
from cgconvert.pictures.plan import ImagePlan, check_options, find_picture_model, job_of_file
from cgconvert.scale.files import check_output_folder
from cgconvert.scale.manifest import Manifest, Row, check_distinct
from cgconvert.scale.shards import Shard


@dataclass(frozen=True)
class RowJobs:
    """The rows of a manifest as jobs, made anew whenever they are asked for."""

    manifest: Manifest
    card: ModelCard
    options: ImageOptions
    engine: EngineOptions

    def __call__(self, shard: Shard | None) -> Iterator[ImageJob]:
        """Yield the jobs of a shard, or all of them. Raises `UsageError` for a row that is wrong."""
        return (self.job(row) for row in self.manifest.part(shard))

    def job(self, row: Row) -> ImageJob:
        """Return the job of a row. Raises `UsageError`."""
        manifest = self.manifest
        source, result = manifest.source(row), manifest.result(row)
        options = manifest.options(row, self.options)
        try:
            if options != self.options:
                check_options(options, self.engine)
            if result is None:
                job = job_of_file(source, None, 1, self.card, options)
            else:
                if row.output is None:
                    result = result.with_name(output_name(result.name, options.format))
                kind = SUFFIXES.get(result.suffix.lower())
                if kind is None:
                    known = " ".join(suffixes[0] for suffixes in FORMATS.values())
                    raise UsageError(f"{printable(result)} is no name of a picture: use one of {known}")
                if options.format not in (None, kind):
                    raise UsageError(
                        f"{printable(result)} and `format={options.format!r}` contradict each other"
                    )
                job = ImageJob(source, result, kind)
            if job.output == source:
                raise UsageError(f"{printable(source)} would become its own result: choose another `output`")
        except UsageError as error:
            raise manifest.error(row, error) from None
        return replace(job, row=row.number, options=None if options == self.options else options)


def plan_rows(
    file: Path,
    output: AnyPath | None,
    model: str | Path,
    options: ImageOptions,
    engine: EngineOptions,
    shard: Shard | None = None,
) -> ImagePlan:
    """Decide everything about the conversion of the pictures in a manifest.

    Every row is read and checked. Results go below `output`, if it is given. Raises `UsageError`,
    `ModelError`, `OutputError`.
    """
    check_options(options, engine)
    if options.watch:
        raise UsageError("`watch` is for folders: leave it out with `manifest`")
    path, card = find_picture_model(model)
    if output is not None:
        check_output_folder(output)
    manifest = Manifest(file, output)
    jobs = RowJobs(manifest, card, options, engine)
    outputs = _Outputs(jobs)
    found = check_distinct(manifest, outputs)
    if not found:
        raise UsageError(f"{printable(file)} has no rows")
    total = sum(1 for _ in manifest.part(shard)) if shard is not None else found
    return ImagePlan(
        None, (), output, path, card, options, engine, total, shard=shard, found=found, rows=jobs, listed=file
    )


@dataclass(frozen=True)
class _Outputs:
    """Every row with the path of its result, as often as they are asked for."""

    jobs: RowJobs

    def __iter__(self) -> Iterator[tuple[Row, str]]:
        return ((row, str(self.jobs.job(row).output)) for row in self.jobs.manifest)
