"""Videos in buckets: copied to this machine, converted here, and put in one upload.

FFmpeg seeks in a source, and segments are joined to a result, so both are files. They lie in our data folder
(`CGCONVERT_HOME`) until the result is put. An interrupted conversion continues there on the same machine.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cgconvert.errors import BusyError, InputError
from cgconvert.host.files import output_error
from cgconvert.host.folders import data_folder
from cgconvert.host.locks import locked
from cgconvert.host.objects import AnyPath, ObjectPath
from cgconvert.host.parts import SUFFIX
from cgconvert.video.folder import VideoJob
from cgconvert.video.target import Place


@dataclass(frozen=True)
class Staged:
    """The files of this machine that stand for a job's source and place while it is converted."""

    source: Path
    place: Place | Path
    final: Place | AnyPath

    def deliver(self, result: Path, overwrite: bool) -> AnyPath:
        """Put the result where it belongs, and return that. Raises `OutputError`."""
        final = self.final
        if isinstance(final, Place):
            if not isinstance(final.folder, ObjectPath):
                return result
            final = final.folder / result.name
        if isinstance(final, ObjectPath):
            final.write(result, overwrite)
        return final


@contextmanager
def staged(job: VideoJob) -> Iterator[Staged]:
    """Give files in the place of objects for as long as a video is converted.

    They are kept if the block fails after a segment was finished. Raises `InputError`, `OutputError`, and
    `BusyError` if another process of this machine converts the same video.
    """
    where = job.place.folder if isinstance(job.place, Place) else job.place
    if isinstance(job.source, Path) and isinstance(where, Path):
        assert not isinstance(job.place, ObjectPath)
        yield Staged(job.source, job.place, job.place)
        return
    name = hashlib.sha256(f"{job.source} {job.place}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    folder = data_folder() / "staging" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock", wait=False) as held:
            if not held:
                raise BusyError(f"{job.source} is being converted by another process")
            output = _emptied(folder / "out")
            try:
                source = job.source
                if isinstance(source, ObjectPath):
                    source = _downloaded(source, folder)
                place: Place | Path
                if isinstance(job.place, ObjectPath):
                    place = output / job.place.name
                elif isinstance(job.place, Place) and isinstance(job.place.folder, ObjectPath):
                    place = Place(output, job.place.name, job.place.is_shared)
                else:
                    place = job.place
                yield Staged(source, place, job.place)
            except BaseException:
                if not any(output.glob(f"*{SUFFIX}/*")):
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise output_error(folder, error) from error


def _emptied(folder: Path) -> Path:
    """A folder that holds nothing but the segments of an interrupted conversion. Raises `OSError`."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.is_file():  # a result that could not be put
            path.unlink()
    return folder


def _downloaded(source: ObjectPath, folder: Path) -> Path:
    """The copy of an object, which is there already if it is the same version. Raises `InputError`."""
    version = source.version()
    target, note = folder / f"source{source.suffix.lower()}", folder / "source.json"
    try:
        if target.is_file() and json.loads(note.read_bytes()) == version:
            return target
    except (OSError, ValueError):
        pass
    try:
        source.download(target)
    except OSError as error:
        raise output_error(target, error) from error
    if target.stat().st_size != version["size"]:
        raise InputError("has changed while it was read")
    note.write_text(json.dumps(version))
    return target
