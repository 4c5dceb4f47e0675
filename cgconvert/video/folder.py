"""The plan of several videos: which they are, and where the result of each goes. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cgconvert.card import ModelCard
from cgconvert.errors import CgconvertError, InputError, UsageError, printable
from cgconvert.host.cuda import count_cuda_devices
from cgconvert.host.files import real_path
from cgconvert.host.objects import AnyPath, ObjectPath, exists
from cgconvert.media.picture.formats import VIDEO_SUFFIXES
from cgconvert.media.video.codecs import CONTAINERS, find_codec
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.scale.files import (
    Failure,
    check_folders,
    check_output_folder,
    default_output,
    expanded,
    find_files,
    same_file,
    without_results,
)
from cgconvert.scale.manifest import Manifest
from cgconvert.scale.marker import check_marker, look_of
from cgconvert.scale.shards import Shard
from cgconvert.video.plan import VideoPlan, check_options, find_video_model, plan_video
from cgconvert.video.target import Place, beside


@dataclass(frozen=True)
class VideoJob:
    """One of several videos. `root` is the folder of results that it belongs to; None: it was named alone.

    `key` says which shard it is in. `options` are its own, where they are not those of the run, and `row` is
    its number in a manifest.
    """

    source: AnyPath
    place: Place | AnyPath
    key: str
    root: AnyPath | None = None
    options: VideoOptions | None = None
    row: int | None = None

    @property
    def is_remote(self) -> bool:
        """Whether the source or the place is in a bucket."""
        where = self.place.folder if isinstance(self.place, Place) else self.place
        return isinstance(self.source, ObjectPath) or isinstance(where, ObjectPath)

    def finished_as(self, options: VideoOptions) -> AnyPath | None:
        """The result of an earlier run, which may stay. It is complete, since outputs appear whole."""
        if (self.options or options).overwrite:
            return None
        paths = self.place.paths() if isinstance(self.place, Place) else [self.place]
        return next((path for path in paths if exists(path)), None)


@dataclass(frozen=True)
class VideosPlan:
    """A run over several videos.

    `jobs` are those of this run, and `sources` the videos of all shards together. Each video is planned
    when its turn comes, since that opens it. `failures` are folders that cannot be read.
    """

    told_source: str
    told_output: str
    jobs: Sequence[VideoJob]
    sources: Sequence[AnyPath]
    model: Path
    card: ModelCard
    options: VideoOptions
    engine: EngineOptions
    shard: Shard | None = None
    failures: Sequence[Failure] = field(default_factory=tuple)
    notes: Sequence[str] = field(default_factory=tuple)

    def plan(self, job: VideoJob, source: Path | None = None, place: Place | Path | None = None) -> VideoPlan:
        """Plan one of the videos, with files in the place of objects. Raises as `plan_video`."""
        chosen, where = source or job.source, place or job.place
        if isinstance(chosen, ObjectPath) or isinstance(where, ObjectPath):
            raise InputError(f"{job.source} is in a bucket: it has to be copied before it can be opened")
        return plan_video(chosen, where, self.model, job.options or self.options, self.engine)

    def describe(self) -> Iterator[str]:
        """Yield the plan line by line, as `--dry-run` prints it. Every video is opened for it."""
        engine, card = self.engine, self.card
        finished = {job.key: job.finished_as(self.options) for job in self.jobs}
        done = sum(path is not None for path in finished.values())
        of = f", shard {self.shard} of {len(self.sources)}" if self.shard else ""
        yield f"source     {self.told_source} ({len(self.jobs)} videos{of})"
        yield f"model      {card.name} ({card.source_domain} -> {card.target_domain}), {self.model}"
        yield (
            f"network    device {engine.device}, engine {engine.engine}, precision {engine.precision}, "
            f"batch {engine.batch or 'auto'}"
        )
        yield f"result     {self.told_output} ({len(self.jobs) - done} to convert, {done} finished already)"
        for job in self.jobs:
            result = finished[job.key]
            if result is not None:
                yield f"finished   {printable(job.source)} -> {printable(result)}"
                continue
            if job.is_remote:  # planning it would copy all of it
                told: object = job.place
                if isinstance(job.place, Place):
                    told = job.place.path(Path(job.place.name).suffix.lower())
                yield f"video      {printable(job.source)} -> {printable(told)}"
                continue
            try:
                plan = self.plan(job)
            except CgconvertError as error:
                yield f"refused    {error}"
                continue
            size = f"{plan.size[0]}x{plan.size[1]}"
            frames = f", {plan.info.frames} frames" if plan.info.frames else ""
            yield (
                f"video      {printable(job.source)} -> {printable(plan.output)} "
                f"({size}{frames}, {plan.codec_name})"
            )
            yield from (f"note       {printable(job.source.name)}: {warning}" for warning in plan.warnings)
        yield from (f"unreadable {printable(failure.file)}: {failure.reason}" for failure in self.failures)
        yield from (f"note       {note}" for note in self.notes)


def plan_videos(
    sources: Sequence[AnyPath],
    output: AnyPath | None,
    model: str | Path,
    options: VideoOptions,
    engine: EngineOptions,
    shard: Shard | None = None,
) -> VideosPlan:
    """Find the videos of files, folders and patterns, and check what concerns all of them.

    The tree of a folder is mirrored below `output`; with several sources each folder keeps its name there.
    An `output` of None is `FOLDER.MODEL` beside a folder. A video that is named itself becomes
    NAME.MODEL.EXT, in `output` or beside its source. Raises `UsageError`, `UnavailableError`, `ModelError`,
    `OutputError`.
    """
    path, card = check_request(model, options, engine)
    given = expanded(sources)
    if output is not None:
        check_output_folder(output)
        is_file = output.suffix.lower() in CONTAINERS and not _is_folder(output)
        if is_file and len(given) == 1 and not _is_folder(given[0]):
            return _plan_of_one(given[0], output, path, card, options, engine, shard)
        if is_file:
            raise UsageError(f"{printable(output)} is the name of one video: choose a folder as `output`")
    failures: list[Failure] = []
    notes: list[str] = []
    jobs: list[VideoJob] = []
    files = [source for source in given if not _is_folder(source)]
    files = without_results(files, card, notes)
    ends = Counter((output or file.parent, file.stem) for file in files)
    for file in files:
        place = beside(file, output or file.parent, card.name)
        place = replace(place, is_shared=ends[(place.folder, file.stem)] > 1)
        jobs.append(VideoJob(file, place, file.as_posix() if isinstance(file, Path) else str(file)))
    for folder in (source for source in given if _is_folder(source)):
        if output is None:
            root = default_output(folder, card)
        else:
            name = real_path(folder).name if isinstance(folder, Path) else folder.name
            root = output if len(given) == 1 else output / name
        check_folders(folder, root)
        if not options.overwrite:
            check_marker(root, card, look_of(options))
        prefix = "" if len(given) == 1 else f"{root.name}/"
        jobs += jobs_below(folder, root, prefix, failures)
    if not jobs:
        raise UsageError(
            f"no videos in {', '.join(map(printable, given[:3]))}: looked for "
            f"{' '.join(VIDEO_SUFFIXES[:5])} and others, in folders below too"
        )
    check_clashes(jobs)
    told_source = f"{len(given)} files" if len(files) == len(given) else f"{len(given)} files and folders"
    if len(given) == 1:
        told_source = printable(given[0])
    told_output = "beside the sources"
    if output is not None:
        told_output = printable(output)
    elif len(given) == 1 and jobs[0].root is not None:
        told_output = printable(jobs[0].root)
    return VideosPlan(
        told_source=told_source,
        told_output=told_output,
        jobs=tuple(job for job in jobs if shard is None or shard.holds(job.key)),
        sources=tuple(job.source for job in jobs),
        model=path,
        card=card,
        options=options,
        engine=engine,
        shard=shard,
        failures=tuple(failures),
        notes=tuple(notes),
    )


def _is_folder(path: AnyPath) -> bool:
    """Whether this is a folder, or a prefix of objects, which has no suffix of a video.

    Raises `UsageError` for a folder of a web server.
    """
    if isinstance(path, Path):
        return path.is_dir()
    if path.suffix.lower() in VIDEO_SUFFIXES or path.suffix.lower() in CONTAINERS:
        return False
    if path.bucket.startswith("http"):
        raise UsageError(f"{path}: web servers have no folders, name each video")
    return True


def _plan_of_one(
    source: AnyPath,
    output: AnyPath,
    model: Path,
    card: ModelCard,
    options: VideoOptions,
    engine: EngineOptions,
    shard: Shard | None,
) -> VideosPlan:
    """The plan of one video that gets the name `output`."""
    job = VideoJob(source, output, source.as_posix() if isinstance(source, Path) else str(source))
    jobs = (job,) if shard is None or shard.holds(job.key) else ()
    told = printable(source), printable(output)
    return VideosPlan(*told, jobs, (source,), model, card, options, engine, shard)


def check_request(model: str | Path, options: VideoOptions, engine: EngineOptions) -> tuple[Path, ModelCard]:
    """Return the model's path and card, having checked what is the same for all videos.

    Raises `UsageError`, `UnavailableError`, `ModelError`.
    """
    check_options(options, engine)
    if options.codec is not None:
        find_codec(options.codec)
    asked = engine.device.lower()
    if asked not in ("cpu", "gpu") and (asked != "auto" or count_cuda_devices()):
        from cgconvert.engines.choose import choose_devices

        choose_devices(asked)
    return find_video_model(model)


def jobs_below(folder: AnyPath, root: AnyPath, prefix: str, failures: list[Failure]) -> Iterator[VideoJob]:
    """Yield the videos below a folder, whose results lie below `root` under the same names.

    `prefix` and the path below the folder are a video's key. Unreadable folders are added to `failures`.
    """
    found = list(find_files(folder, root, failures, VIDEO_SUFFIXES))
    stems = Counter(path.with_suffix("") for path in found)
    for path in found:
        place = Place(root / path.parent, path.name, stems[path.with_suffix("")] > 1)
        yield VideoJob(folder / path, place, prefix + path.as_posix(), root)


def check_clashes(jobs: Sequence[VideoJob]) -> None:
    """Raise `UsageError` if two videos could become the same file, or one itself."""
    claimed: dict[AnyPath, AnyPath] = {}
    for job in jobs:
        for path in job.place.paths() if isinstance(job.place, Place) else [job.place]:
            other = claimed.setdefault(path, job.source)
            if other != job.source:
                raise UsageError(
                    f"{printable(other)} and {printable(job.source)} would both become {printable(path)}: "
                    "rename one, or convert them separately"
                )
            if same_file(path, job.source):
                raise UsageError(f"{printable(path)} is the source itself: choose another `output`")


def only_video(sources: Sequence[AnyPath], output: AnyPath | None) -> Path | None:
    """Return the source if it is one that is planned alone: a single path that is no folder or pattern.

    Objects are not, since they are staged.
    """
    if len(sources) != 1 or isinstance(sources[0], ObjectPath) or isinstance(output, ObjectPath):
        return None
    try:
        found = expanded(sources)
    except UsageError:
        return sources[0]  # opening it says what is wrong
    return sources[0] if found == list(sources) and not sources[0].is_dir() else None


def plan_video_rows(
    file: Path,
    output: AnyPath | None,
    model: str | Path,
    options: VideoOptions,
    engine: EngineOptions,
    shard: Shard | None = None,
) -> VideosPlan:
    """Find the videos of a manifest, of which each row can have options of its own.

    Every row is read and checked. Results go below `output`, if it is given. Raises as `plan_videos`.
    """
    path, card = check_request(model, options, engine)
    if output is not None:
        check_output_folder(output)
    manifest = Manifest(file, output)
    jobs = []
    for row in manifest:
        own = manifest.options(row, options)
        try:
            if own != options:
                check_options(own, engine)
                find_codec(own.codec or "h264")
        except UsageError as error:
            raise manifest.error(row, error) from None
        source, result = manifest.source(row), manifest.result(row)
        place: AnyPath | Place
        if result is None:
            place = beside(source, source.parent, card.name)
        else:
            place = result if row.output is not None else Place(result.parent, result.name)
        jobs.append(VideoJob(source, place, row.path, None, None if own == options else own, row.number))
    if not jobs:
        raise UsageError(f"{printable(file)} has no rows")
    check_clashes(jobs)
    return VideosPlan(
        told_source=printable(file),
        told_output=printable(output) if output is not None else "as the manifest says",
        jobs=tuple(job for job in jobs if shard is None or shard.holds(job.key)),
        sources=tuple(job.source for job in jobs),
        model=path,
        card=card,
        options=options,
        engine=engine,
        shard=shard,
    )
