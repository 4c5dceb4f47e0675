"""The plan of a conversion of pictures, decided and checked before any work. Imports no torch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cgconvert.card import ModelCard
from cgconvert.errors import InputError, ModelError, OutputError, UsageError, printable
from cgconvert.finish import Finish
from cgconvert.host.objects import AnyPath, Names, ObjectPath
from cgconvert.media.picture.formats import FOREIGN_SUFFIXES, FORMATS, LOSSY, SUFFIXES, VIDEO_SUFFIXES
from cgconvert.models.catalog import find_model, renamed_note
from cgconvert.models.files import read_card
from cgconvert.options import EngineOptions, ImageOptions, check_engine_options
from cgconvert.pictures.files import ImageJob, is_finished, output_name
from cgconvert.progress import counted
from cgconvert.scale.files import (
    Failure,
    check_folders,
    default_output,
    find_files,
    same_file,
    without_results,
)
from cgconvert.scale.marker import check_marker, look_of
from cgconvert.scale.shards import Shard
from cgconvert.sizes import MAX_EDGE, check_work_size, network_size


@dataclass(frozen=True)
class ImagePlan:
    """A run over the pictures in `files`, or over every picture below `folder`, or over those of `rows`.

    `rows` gives the jobs of a shard from the manifest `listed`.

    `output` is the folder of the results; with None each lies beside its source. `total` is the number of
    pictures that were there when the plan was made. All three are those of the `shard`, if there is one;
    `found` pictures and `videos` are in all of the folder.
    """

    folder: AnyPath | None
    files: Sequence[ImageJob]
    output: AnyPath | None
    model: Path
    card: ModelCard
    options: ImageOptions
    engine: EngineOptions
    total: int
    notes: Sequence[str] = field(default_factory=tuple)
    shard: Shard | None = None
    found: int = 0
    videos: int = 0
    rows: Callable[[Shard | None], Iterator[ImageJob]] | None = None
    listed: Path | None = None

    def jobs(self, failures: list[Failure] | None = None, whole: bool = False) -> Iterator[ImageJob]:
        """Yield every job by name, one folder after the other; with `whole` those of other shards too.

        Unreadable folders are added to `failures`.
        """
        if self.rows is not None:
            yield from self.rows(None if whole else self.shard)
            return
        if self.folder is None:
            yield from self.files
            return
        assert self.output is not None
        failures = failures if failures is not None else []
        for relative in find_files(self.folder, self.output, failures, SUFFIXES):
            if whole or self.shard is None or self.shard.holds(relative):
                yield self.job_at(relative)

    def job_at(self, relative: Path) -> ImageJob:
        """Return the job of a picture by its path below the folder."""
        assert self.folder is not None
        assert self.output is not None
        target = self.output / relative
        name = output_name(relative.name, self.options.format)
        return ImageJob(self.folder / relative, target.with_name(name), SUFFIXES[Path(name).suffix.lower()])

    @property
    def finish(self) -> Finish:
        """How results are finished."""
        return self.finish_of(self.options)

    def finish_of(self, options: ImageOptions) -> Finish:
        """How a result with these options is finished."""
        return Finish(options.strength, options.keep_colours)

    def seen_size(self, width: int, height: int, options: ImageOptions | None = None) -> tuple[int, int]:
        """Width and height at which the network sees a picture. Raises `UsageError` for one that has none.

        `options` are the picture's own, None those of the run.
        """
        size, options = (width, height), options or self.options
        return network_size(options.work_size, options.stroke, self.card, size, size)

    def told_source(self) -> str:
        """Say where the pictures are."""
        place = self.folder or self.listed
        return printable(place) if place else counted(len(self.files), "file")

    def look(self) -> dict[str, Any]:
        """What besides the model decides on the look of results, as plain data."""
        return look_of(self.options)

    def describe_sizes(self) -> str:
        """Say at which size the network sees pictures."""
        if self.options.work_size is not None:
            return f"sees pictures at {self.options.work_size}"
        large, larger = (min(self.seen_size(edge, edge)) for edge in (MAX_EDGE // 2, MAX_EDGE))
        if larger == MAX_EDGE:
            return "sees all of a picture"
        return f"sees pictures at {f'{larger} lines' if large == larger else f'{larger / MAX_EDGE:g}x'}"

    def names(self) -> Names | None:
        """The objects that are where results go to, None if that is no folder of them."""
        return Names(self.output) if isinstance(self.output, ObjectPath) else None

    def place(self) -> str:
        """Say where the results are."""
        if self.output is not None:
            return printable(self.output)
        if self.listed is not None:
            return "as the manifest says"
        return printable(self.files[0].output) if len(self.files) == 1 else "beside the sources"

    def describe(self) -> Iterator[str]:
        """Yield the plan line by line, as `--dry-run` prints it."""
        engine, options = self.engine, self.options
        failures: list[Failure] = []
        kinds: Counter[str] = Counter()
        finished = 0
        there = self.names()
        for job in self.jobs(failures):
            kinds[job.format] += 1
            finished += is_finished(job, options, there)
        found = ", ".join(f"{count} {name}" for name, count in kinds.most_common()) or "none"
        source = self.told_source()
        of = f"; shard {self.shard} of {counted(self.found, 'picture')}" if self.shard else ""
        yield f"source     {source} ({found}{of})"
        card = self.card
        yield f"model      {card.name} ({card.source_domain} -> {card.target_domain}), {self.model}"
        yield (
            f"network    {self.describe_sizes()}; device {engine.device}, engine {engine.engine}, "
            f"precision {engine.precision}, batch {engine.batch or 'auto'}"
        )
        if told := self.finish.describe():
            yield f"look       {told}"
        left = sum(kinds.values()) - finished
        yield f"result     {self.place()} ({left} to convert, {finished} finished already)"
        for job in self.jobs():
            done = "finished   " if is_finished(job, options, there) else "picture    "
            yield f"{done}{printable(job.source)} -> {printable(job.output)}"
        yield from (f"unreadable {printable(failure.file)}: {failure.reason}" for failure in failures)
        yield from (f"note       {note}" for note in self.notes)


def plan_dir(
    folder: AnyPath,
    output: AnyPath | None,
    model: str | Path,
    options: ImageOptions,
    engine: EngineOptions,
    shard: Shard | None = None,
    videos_too: bool = False,
) -> ImagePlan:
    """Decide everything about the conversion of a folder and check that it can work.

    An `output` of None means `FOLDER.MODEL` beside the folder. `videos_too`: the caller converts the
    folder's videos as well, so that it may hold nothing else. Raises `UsageError`, `ModelError`,
    `OutputError`.
    """
    check_options(options, engine)
    if options.watch and shard is not None:
        raise UsageError("`watch` looks at all of a folder: leave out `shard`")
    if options.watch and (isinstance(folder, ObjectPath) or isinstance(output, ObjectPath)):
        raise UsageError("`watch` is for folders of this machine")
    if isinstance(folder, ObjectPath):
        if folder.bucket.startswith("http"):
            raise UsageError(f"{folder}: web servers have no folders, use `cgconvert image` or `manifest`")
    elif not folder.is_dir():
        if folder.exists():
            _kind_by_content(folder)  # raises if it is a video
            raise UsageError(f"{printable(folder)} is a file: use `cgconvert image`")
        raise UsageError(f"no such folder: {printable(folder)}")
    model_path, card = find_picture_model(model)
    target = output if output is not None else default_output(folder, card)
    check_folders(folder, target)
    plan = ImagePlan(folder, (), target, model_path, card, options, engine, 0, shard=shard)
    plan = replace(plan, notes=tuple(renamed_note(model)))
    if not options.overwrite:
        check_marker(target, card, plan.look())
    plan = _looked_through(plan)
    if plan.found == 0 and not options.watch and not (videos_too and plan.videos):
        known = " ".join(suffixes[0] for suffixes in FORMATS.values())
        instead = ""
        if plan.videos:
            instead = f"; it holds {counted(plan.videos, 'video')}: use `cgconvert video`"
        raise UsageError(
            f"no pictures in {printable(folder)}: looked for {known}, in its folders too{instead}"
        )
    if plan.videos and not videos_too:
        are = "is" if plan.videos == 1 else "are"
        left_out = f"{counted(plan.videos, 'video')} in {printable(folder)} {are}"
        note = f"{left_out} left out: use `videos` to convert videos too, or `cgconvert video`"
        plan = replace(plan, notes=(*plan.notes, note))
    return plan


def find_picture_model(model: str | Path) -> tuple[Path, ModelCard]:
    """Return the path and the card of a model that can convert pictures. Raises `ModelError`."""
    path = find_model(model)
    card = read_card(path)
    if card.in_channels not in (1, 3) or card.out_channels not in (1, 3):
        raise ModelError(
            f"{card.name} has {card.in_channels} -> {card.out_channels} channels: pictures need 1 or 3"
        )
    return path, card


def _looked_through(plan: ImagePlan) -> ImagePlan:
    """Return the plan with what is in its folder. Raises `UsageError` if two would write the same file."""
    assert plan.folder is not None
    total = found = videos = 0
    below: AnyPath | None = None
    names: dict[str, AnyPath] = {}
    for relative in find_files(plan.folder, plan.output, [], (*SUFFIXES, *VIDEO_SUFFIXES)):
        if relative.suffix.lower() in VIDEO_SUFFIXES:
            videos += 1
            continue
        job = plan.job_at(relative)
        if job.output.parent != below:
            below, names = job.output.parent, {}
        _claim(names, job.output.name, job)
        found += 1
        total += plan.shard is None or plan.shard.holds(relative)
    return replace(plan, total=total, found=found, videos=videos)


def _claim(claimed: dict[str, AnyPath], key: str, job: ImageJob) -> None:
    other = claimed.setdefault(key, job.source)
    if other is not job.source:
        raise UsageError(
            f"{printable(other)} and {printable(job.source)} would both become {printable(job.output)}: "
            "rename one, or convert them separately"
        )


def plan_images(
    files: Iterable[AnyPath],
    output: AnyPath | None,
    model: str | Path,
    options: ImageOptions,
    engine: EngineOptions,
) -> ImagePlan:
    """Decide everything about the conversion of single files and check that it can work.

    `output` is a file for a single source or a folder for any number of them. None means `NAME.MODEL.EXT`
    beside each. Raises `UsageError`, `ModelError`, `OutputError`.
    """
    check_options(options, engine)
    sources = list(dict.fromkeys(files))
    if not sources:
        raise UsageError("no files were given")
    for path in sources:
        if isinstance(path, Path) and path.is_dir():
            raise UsageError(f"{printable(path)} is a folder: use `cgconvert dir`")
    if not any(isinstance(path, ObjectPath) or os.path.lexists(path) for path in sources):
        raise UsageError(f"no such file: {', '.join(printable(path) for path in sources[:3])}")
    model_path, card = find_picture_model(model)
    notes = renamed_note(model)
    if output is None:
        sources = without_results(sources, card, notes)
    jobs = tuple(job_of_file(path, output, len(sources), card, options) for path in sources)
    claimed: dict[str, AnyPath] = {}
    for job in jobs:
        _claim(claimed, str(job.output), job)
        if same_file(job.source, job.output):
            raise UsageError(f"{printable(job.output)} is the source itself: choose another `output`")
    if len(jobs) == 1 and is_finished(jobs[0], options):
        raise OutputError(f"{printable(jobs[0].output)} exists already: use `overwrite` to replace it")
    as_folder = output if output is not None and not _is_file_name(output, len(sources)) else None
    return ImagePlan(None, jobs, as_folder, model_path, card, options, engine, len(jobs), tuple(notes))


def _is_file_name(output: AnyPath, count: int) -> bool:
    """Whether `output` names the one result, rather than a folder for it."""
    return count == 1 and not _is_dir(output) and output.suffix.lower() in SUFFIXES


def _is_dir(path: AnyPath) -> bool:
    """Whether this is a folder that is there; a prefix of objects is there when an object is."""
    return isinstance(path, Path) and path.is_dir()


def job_of_file(
    source: AnyPath, output: AnyPath | None, count: int, card: ModelCard, options: ImageOptions
) -> ImageJob:
    """Return the job of one of `count` files, whose `output` is as for `plan_images`.

    Raises `UsageError`, `OutputError`.
    """
    if output is not None and _is_file_name(output, count):
        kind = SUFFIXES[output.suffix.lower()]
        if options.format not in (None, kind):
            raise UsageError(
                f"`output` {printable(output)} and `format={options.format!r}` contradict each other"
            )
        return ImageJob(source, output, kind)
    if output is not None and output.suffix.lower() in FOREIGN_SUFFIXES and not _is_dir(output):
        known = ", ".join(suffixes[0] for suffixes in FORMATS.values())
        raise UsageError(f"{printable(output)}: {output.suffix} cannot be written, use one of {known}")
    if isinstance(output, Path) and output.exists() and not output.is_dir():
        raise OutputError(
            f"{printable(output)} is a file: choose a folder as `output`, or a name with a known suffix"
        )
    name = source.name
    if source.suffix.lower() not in SUFFIXES and options.format is None:
        name = f"{source.stem}{FORMATS[_kind_by_content(source)][0]}"
    name = output_name(name, options.format)
    kind = SUFFIXES[Path(name).suffix.lower()]
    if output is not None:
        return ImageJob(source, output / name, kind)
    return ImageJob(source, source.with_name(f"{Path(name).stem}.{card.name}{Path(name).suffix}"), kind)


def _kind_by_content(source: AnyPath) -> str:
    """Return the format by the first bytes of a file. Raises `UsageError` for a video.

    For what is no picture it is "png"; reading the file will then say what is wrong.
    """
    from cgconvert.media.picture.headers import identify, is_video

    try:
        if isinstance(source, ObjectPath):
            begin = source.read()[:256]
        else:
            with source.open("rb") as file:
                begin = file.read(256)
    except (OSError, InputError):
        return "png"
    kind = identify(begin)
    if kind is None and is_video(begin):
        raise UsageError(f"{printable(source)} is a video: use `cgconvert video`")
    return kind or "png"


def check_options(options: ImageOptions, engine: EngineOptions) -> None:
    """Raise `UsageError` for options that make no sense."""
    if options.format is not None and options.format not in FORMATS:
        raise UsageError(f"unknown format {options.format!r}: use {', '.join(FORMATS)}")
    if options.quality is not None and not 1 <= options.quality <= 100:
        raise UsageError(f"`quality={options.quality}` is not from 1 to 100")
    if options.quality is not None and options.format is not None and options.format not in LOSSY:
        raise UsageError(f"`quality` means nothing to {options.format}, which loses nothing: leave it out")
    check_work_size(options.work_size, options.stroke)
    Finish(options.strength, options.keep_colours)  # which checks them
    if options.pixel_limit < 1:
        raise UsageError(f"`pixel_limit={options.pixel_limit}` is not at least 1 (million pixels)")
    check_engine_options(engine)
