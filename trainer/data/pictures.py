"""Finding and reading pictures: folders of any depth, and videos as sources of frames."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from cgconvert.errors import InputError, UsageError
from trainer.data.augment import Pixels

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jp2", ".ppm", ".pgm", ".avif")
)
VIDEO_SUFFIXES = frozenset((".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts"))
FEW = 100
log = logging.getLogger("trainer")


@dataclass(frozen=True)
class Picture:
    """Where one picture is: an image file, or a frame of a video by its index.

    `folder` is that of its domain, `size` its width and height, where they are known.
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


def read_image(path: Path) -> Pixels:
    """One image file as uint8 RGB (H, W, 3), turned as its EXIF says. Raises `InputError`."""
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error:
        bgr = None
    if bgr is None:
        raise InputError(f"{path}: not an image, or damaged; remove it or get it anew")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def find_images(folder: Path) -> list[Path]:
    """All image files below a folder, sorted by path; hidden ones left out. Raises `UsageError`."""
    if folder.is_file():
        raise UsageError(f"{folder}: is a file, neither a folder of pictures nor a video")
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise UsageError(f"{folder}: no permission to read this folder")
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def read_frames(
    path: Path, indices: Sequence[int] | None = None, count: int | None = None
) -> dict[int, Pixels]:
    """Frames of a video as uint8 RGB by index: all that `iterate_frames` gives, at once in memory."""
    return dict(iterate_frames(path, indices, count))


def iterate_frames(
    path: Path, indices: Sequence[int] | None = None, count: int | None = None
) -> Iterator[tuple[int, Pixels]]:
    """Frames of a video as uint8 RGB with their index: those in `indices`, or `count` evenly spaced ones.

    One at a time: five hundred of a large video are more than a machine's memory. Raises `InputError` where
    the file cannot be opened or holds no frame.
    """
    import av

    found = False
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path}: has no video stream")
            if indices is None:
                total = sum(1 for packet in container.demux(video=0) if packet.size)
                wanted = min(count or total, total)
                indices = sorted({int((i + 0.5) * total / wanted) for i in range(wanted)}) if wanted else []
                container.seek(0)
            keep, last = set(indices), max(indices, default=-1)
            for index, frame in enumerate(container.decode(video=0)):
                if index in keep:
                    found = True
                    yield index, frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
                if index >= last:
                    break
    except av.error.FFmpegError as error:
        raise InputError(f"{path}: cannot be read as a video ({error.strerror})") from error
    if not found:
        raise InputError(f"{path}: holds no readable frame")


def scan_domain(where: str, frames_per_video: int = 500, least: int = 2, warn: bool = True) -> Domain:
    """Every picture of a folder or video, each decoded once to see that it can be.

    Unreadable files are named in a warning and left out. Raises `UsageError` below `least` readable ones;
    warns below a hundred if `warn`.
    """
    path = Path(where)
    if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
        pictures = _scan_video(path, frames_per_video)
        unreadable: list[InputError] = []
    else:
        pictures, unreadable = _scan_folder(path)
    for bad in unreadable:
        log.warning("left out: %s", bad)
    if len(pictures) < least:
        found = f"{len(pictures) or 'no'} readable picture{'s' * (len(pictures) != 1)}"
        others = f" and {len(unreadable)} unreadable" if unreadable else ""
        raise UsageError(f"{where}: {found}{others}; at least {least} are needed")
    if warn and len(pictures) < FEW:
        log.warning("%s: only %d pictures; expect overfitting below some hundreds", where, len(pictures))
    by_area = sorted((picture.size for picture in pictures), key=lambda size: size[0] * size[1])
    return Domain(where, tuple(pictures), len(unreadable), by_area[0], by_area[-1])


def _scan_video(path: Path, count: int) -> list[Picture]:
    with closing(iterate_frames(path, count=count)) as frames:  # type: ignore[type-var]
        return [Picture(path, index, None, (pixels.shape[1], pixels.shape[0])) for index, pixels in frames]


def _scan_folder(folder: Path) -> tuple[list[Picture], list[InputError]]:
    """Readable pictures with their sizes, and what is wrong with the others."""

    def size(path: Path) -> tuple[int, int] | InputError:
        try:
            height, width = read_image(path).shape[:2]
        except InputError as error:
            return error
        return width, height

    paths = find_images(folder)
    with ThreadPoolExecutor(4) as threads:
        sizes = list(threads.map(size, paths))
    pairs = list(zip(paths, sizes, strict=True))
    good = [Picture(path, None, folder, found) for path, found in pairs if isinstance(found, tuple)]
    return good, [found for found in sizes if isinstance(found, InputError)]


def split_holdout(domain: Domain, count: int) -> tuple[Domain, Domain]:
    """Training and hold-out pictures: `count` of them, evenly spaced, but at most a quarter, are held out."""
    from dataclasses import replace

    total = len(domain.pictures)
    count = min(count, total // 4)
    chosen = {int((index + 0.5) * total / count) for index in range(count)} if count else set()
    rest = tuple(p for i, p in enumerate(domain.pictures) if i not in chosen)
    # With so few pictures that none can be spared, training ones are shown; they are not measured as new.
    held = tuple(domain.pictures[i] for i in sorted(chosen)) or domain.pictures[:1]
    return replace(domain, pictures=rest), replace(domain, pictures=held)
