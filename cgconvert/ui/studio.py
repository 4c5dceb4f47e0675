"""Pictures for the page: frames before and after, short clips and estimates. One at a time, in one thread."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cgconvert.errors import UsageError
from cgconvert.finish import Finish
from cgconvert.media.picture.formats import SUFFIXES
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.preview.shots import Shot, is_picture, is_video, read_frame_shot, read_picture_shot
from cgconvert.scale.files import Failure, find_files

MOST_SHOTS = 8
CLIP_SECONDS = 3.0
MOST_CLIPS = 12
MOST_IN_GRID = 60
"""Pictures of a folder that are shown. All of them are converted."""
JPEG_QUALITY = 92


@dataclass(frozen=True)
class Look:
    """A look as it is set on the page."""

    model: str
    strength: float = 1.0
    keep_colours: bool = False
    stroke: str | None = None


class Studio:
    """Keeps frames and engines ready. Its calls wait for each other, since they share the processor."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shots: OrderedDict[tuple[Any, ...], Shot] = OrderedDict()
        self._clips: OrderedDict[tuple[Any, ...], Path] = OrderedDict()
        self._looks: Any = None
        self._folder = tempfile.TemporaryDirectory(prefix="cgconvert-ui-")

    def warm_up(self) -> None:
        """Load what takes seconds to load, so that the first picture does not wait for it."""
        import cgconvert.preview.looks  # noqa: F401 - brings torch in

    def frame(self, path: Path, seconds: float, look: Look | None, edge: int) -> bytes:
        """A frame or picture as JPEG, its longer edge at most `edge` pixels; a `look` of None: as it is."""
        from cgconvert.media.picture.codec import Picture, encode_picture
        from cgconvert.preview.looks import shrunk

        with self._lock:
            shot = self._shot(path, seconds)
            if look is None:
                pixels = shrunk(shot.pixels, edge)
            else:
                finish = Finish(look.strength, look.keep_colours)
                pixels = self._painter().paint(shot, look.model, finish, look.stroke, edge=edge)
        return encode_picture(Picture(pixels), "jpeg", JPEG_QUALITY)[0]

    def _shot(self, path: Path, seconds: float) -> Shot:
        key = (path, path.stat().st_mtime_ns, round(seconds, 3))
        if key not in self._shots:
            shot = read_picture_shot(path) if is_picture(path) else read_frame_shot(path, seconds)
            self._shots[key] = shot
            if len(self._shots) > MOST_SHOTS:
                self._shots.popitem(last=False)
        self._shots.move_to_end(key)
        return self._shots[key]

    def _painter(self) -> Any:
        if self._looks is None:
            from cgconvert.preview.looks import Looks

            self._looks = Looks(EngineOptions())
        return self._looks

    def clip(self, path: Path, seconds: float, look: Look) -> Path:
        """The result of three seconds of a video from a time on, as an MP4 file that browsers play."""
        from cgconvert.progress import Silent
        from cgconvert.video.pipeline import run_video
        from cgconvert.video.plan import plan_video

        key = (path, path.stat().st_mtime_ns, round(seconds, 3), look)
        with self._lock:
            if key not in self._clips:
                # Of 8 bits and moderate size, whatever the source is: every browser plays it.
                options = replace(
                    video_options(look),
                    start=seconds or None,
                    end=seconds + CLIP_SECONDS,
                    codec="h264",
                    pix_fmt="yuv420p",
                    size=None,
                    resume=False,
                    preset="veryfast",
                )
                target = Path(self._folder.name) / f"clip{time.monotonic_ns()}.mp4"
                run_video(plan_video(path, target, look.model, options, EngineOptions()), Silent())
                self._clips[key] = target
                if len(self._clips) > MOST_CLIPS:
                    self._clips.popitem(last=False)[1].unlink(missing_ok=True)
            return self._clips[key]

    def estimate(self, path: Path, look: Look, output: Path | None) -> dict[str, Any]:
        """What a conversion takes: {"text", "seconds", "result_bytes", "disk_bytes", "free", "too_large"}."""
        if not is_video(path):
            return self._estimate_pictures(path, look)
        from cgconvert.progress import Silent
        from cgconvert.video.plan import plan_video
        from cgconvert.video.trial import estimate_video

        with self._lock:
            options = replace(video_options(look), overwrite=True)
            found = estimate_video(plan_video(path, output, look.model, options, EngineOptions()), Silent())
        return {
            **asdict(found),
            "seconds": found.seconds,
            "text": found.describe(),
            "too_large": found.is_too_large,
        }

    def _estimate_pictures(self, path: Path, look: Look) -> dict[str, Any]:
        """By the time and the result of one picture of a folder, the one in the middle."""
        from cgconvert.media.picture.codec import Picture, encode_picture
        from cgconvert.progress import counted, seconds_as_clock, size_in_words

        found = pictures_in(path)
        if not found:
            raise UsageError(f"there is no picture in {path}")
        middle = found[len(found) // 2]
        finish = Finish(look.strength, look.keep_colours)
        with self._lock:
            painter = self._painter()
            painter.paint(read_picture_shot(middle), look.model, finish, look.stroke)  # makes it ready
            started = time.perf_counter()
            pixels = painter.paint(read_picture_shot(middle), look.model, finish, look.stroke)
            result, _ = encode_picture(Picture(pixels), SUFFIXES[middle.suffix.lower()])
            seconds = (time.perf_counter() - started) * len(found)
        size, free = len(result) * len(found), shutil.disk_usage(path.parent).free
        is_too_large = size > free
        text = (
            f"about {seconds_as_clock(seconds)} for {counted(len(found), 'picture')}, results of about "
            f"{size_in_words(size)} ({size_in_words(free)} are free{' and too few' if is_too_large else ''})"
        )
        return {
            "seconds": seconds,
            "result_bytes": size,
            "disk_bytes": size,
            "free": free,
            "text": text,
            "too_large": is_too_large,
        }

    def close(self) -> None:
        """Remove the clips."""
        self._folder.cleanup()


def video_options(look: Look) -> VideoOptions:
    """The options of a video's conversion in a look."""
    return VideoOptions(strength=look.strength, keep_colours=look.keep_colours, stroke=look.stroke)


def pictures_in(path: Path) -> list[Path]:
    """The picture itself, or every picture below a folder."""
    if is_picture(path):
        return [path]
    return [path / relative for relative in find_files(path, None, list[Failure](), SUFFIXES)]


def described(path: Path) -> dict[str, Any]:
    """What the page says of a video, a picture or a folder of pictures. Raises `UsageError`, `InputError`."""
    if path.is_dir():
        found = pictures_in(path)
        if not found:
            raise UsageError("there is no picture in this folder")
        return {
            "kind": "folder",
            "name": path.name,
            "path": str(path),
            "count": len(found),
            "pictures": [
                {"path": str(one), "name": str(one.relative_to(path))}
                for one in found[:MOST_IN_GRID]
                if str(one).isprintable()
            ],
        }
    facts: dict[str, Any] = {"name": path.name, "path": str(path), "bytes": path.stat().st_size}
    if is_picture(path):
        return {**facts, "kind": "picture"}
    from cgconvert.media.video.probe import probe

    info = probe(path)
    return {
        **facts,
        "kind": "video",
        "width": info.width,
        "height": info.height,
        "duration": info.duration,
        "rate": float(info.rate),
        "frames": info.frames,
    }
