"""The pictures of a domain: found in a folder or a video, checked, and read as a conversion reads them."""

from __future__ import annotations

import logging
import os
from collections.abc import Container
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from cgconvert.errors import InputError, UsageError
from cgconvert.media.picture import codec
from cgconvert.media.picture.formats import FOREIGN_SUFFIXES, SUFFIXES
from cgconvert.media.video.random_access import VideoFrames
from cgconvert.scale import files
from trainer.data.augment import Pixels

FEW = 100
"""Pictures below which a domain is likely to be learned by heart."""

log = logging.getLogger("trainer")


@dataclass(frozen=True)
class Picture:
    """Where one picture is: a picture file, or a frame of a video by its number.

    `folder` is the folder of its domain, `size` its width and height, where they are known.
    """

    path: Path
    frame: int | None = None
    folder: Path | None = None
    size: tuple[int, int] = (0, 0)

    @property
    def name(self) -> str:
        """What pairs it with a picture of another domain: its path below the domain's folder, no suffix."""
        if self.frame is not None:
            return f"{self.path.stem}-{self.frame:06d}"
        below = self.path.relative_to(self.folder) if self.folder else Path(self.path.name)
        return below.with_suffix("").as_posix()


@dataclass(frozen=True)
class Domain:
    """The readable pictures of a domain, how many were not readable, and the range of their sizes."""

    where: str
    pictures: tuple[Picture, ...]
    unreadable: int = 0
    smallest: tuple[int, int] = (0, 0)
    largest: tuple[int, int] = (0, 0)

    def describe(self) -> str:
        """One line for people."""
        low, high = (f"{width}x{height}" for width, height in (self.smallest, self.largest))
        sizes = low if low == high else f"{low} to {high}"
        text = f"{self.where}: {len(self.pictures)} pictures, {sizes}"
        return f"{text}, {self.unreadable} unreadable" if self.unreadable else text


def read_picture(picture: Picture) -> Pixels:
    """One picture as upright uint8 RGB (H, W, 3). Raises `InputError`."""
    if picture.frame is None:
        return read_image(picture.path)
    for _, pixels in video_frames(picture.path).read([picture.frame]):
        return codec.to_8_bit(pixels)
    raise InputError(f"{picture.path}: frame {picture.frame} cannot be decoded; has the file changed?")


def read_image(path: Path) -> Pixels:
    """One picture file as upright uint8 RGB (H, W, 3): alpha is left out, 16 bits are rounded to 8.

    Raises `InputError`.
    """
    try:
        return codec.to_8_bit(codec.read_picture(path).pixels)
    except (InputError, MemoryError) as error:
        raise InputError(f"{path}: {error}") from error


def video_frames(path: Path) -> VideoFrames:
    """The frames of a video, whose packets are counted once for as long as the file stays as it is.

    Raises `InputError` and `UsageError`.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return _counted_frames(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=16)
def _counted_frames(path: Path, changed: int, size: int) -> VideoFrames:
    return VideoFrames(path)


def find_images(folder: Path, suffixes: Container[str] = SUFFIXES) -> list[Path]:
    """All picture files below a folder, sorted by path; hidden ones left out. Raises `UsageError`."""
    if folder.is_file():
        raise UsageError(f"{folder}: is a file, neither a folder of pictures nor a video")
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise UsageError(f"{folder}: no permission to read this folder")
    failures: list[files.Failure] = []
    found = sorted(folder / path for path in files.find_files(folder, None, failures, suffixes))
    for failure in failures:
        log.warning("left out: %s: %s", failure.file, failure.reason)
    return found


def scan_domain(
    where: str, frames_per_video: int = 500, least: int = 2, warn: bool = True, per_folder: int = 0
) -> Domain:
    """Every picture of a folder, or `frames_per_video` of a video, each decoded once to see that it can be.

    Above 0, `per_folder` takes so many of a folder's pictures at most, evenly spaced.

    Unreadable files are named in a warning and left out. Raises `UsageError` below `least` readable ones,
    and `InputError` for a video that cannot be read at all; warns below a hundred if `warn`.
    """
    path = Path(where)
    if path.is_file() and path.suffix.lower() not in (SUFFIXES.keys() - {".gif"}):  # read as a video
        pictures, unreadable = _scan_video(path, frames_per_video)
    else:
        pictures, unreadable = _scan_folder(path, per_folder)
    if len(pictures) < least:
        found = f"{len(pictures) or 'no'} readable picture{'s' * (len(pictures) != 1)}"
        others = f" and {unreadable} unreadable" if unreadable else ""
        raise UsageError(f"{where}: {found}{others}; at least {least} are needed")
    if warn and len(pictures) < FEW:
        log.warning("%s: only %d pictures; expect overfitting below some hundreds", where, len(pictures))
    by_area = sorted((picture.size for picture in pictures), key=lambda size: size[0] * size[1])
    return Domain(where, tuple(pictures), unreadable, by_area[0], by_area[-1])


def _scan_video(path: Path, count: int) -> tuple[list[Picture], int]:
    """`count` evenly spaced frames as far as they can be decoded, and how many cannot."""
    frames = video_frames(path)
    wanted = middles(len(frames), count)
    size = (frames.info.width, frames.info.height)
    pictures = [Picture(path, number, None, size) for number, _ in frames.read(wanted)]
    if unreadable := len(wanted) - len(pictures):
        log.warning("left out: %s: %d of %d frames cannot be decoded", path, unreadable, len(wanted))
    return pictures, unreadable


def _scan_folder(folder: Path, most: int) -> tuple[list[Picture], int]:
    """Readable pictures with their sizes, and how many files are not readable; `most` above 0 at most."""

    def look(path: Path) -> Picture | InputError:
        try:
            height, width = read_image(path).shape[:2]
        except InputError as error:
            return error
        return Picture(path, None, folder, (width, height))

    # Those of formats that are not supported are looked at too, so that each is named and not just missing.
    paths = find_images(folder, (*SUFFIXES, *FOREIGN_SUFFIXES))
    if most:
        paths = [paths[index] for index in middles(len(paths), most)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(look, paths))
    errors = [result for result in found if isinstance(result, InputError)]
    for error in errors:
        log.warning("left out: %s", error)
    return [result for result in found if isinstance(result, Picture)], len(errors)


def middles(total: int, count: int) -> list[int]:
    """The middles of `count` equal parts of `total` places, ascending; all places where there are fewer."""
    count = min(count, total)
    return [int((index + 0.5) * total / count) for index in range(count)]


def split_holdout(domain: Domain, count: int) -> tuple[Domain, Domain]:
    """Training and hold-out pictures: `count` of them, evenly spaced, but at most a quarter, are held out."""
    total = len(domain.pictures)
    chosen = set(middles(total, min(count, total // 4)))
    rest = tuple(p for i, p in enumerate(domain.pictures) if i not in chosen)
    # With so few pictures that none can be spared, training ones are shown; they are not measured as new.
    held = tuple(domain.pictures[i] for i in sorted(chosen)) or domain.pictures[:1]
    return replace(domain, pictures=rest), replace(domain, pictures=held)
