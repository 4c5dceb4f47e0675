"""What is kept of a conversion so that it can go on after it was broken off: finished segments and a state.

A video is encoded in closed segments of `SEGMENT_FRAMES` frames, in a folder beside the result that is
called like it with `.part` added. `state.json` is replaced atomically whenever a segment is complete, so that
a crash at any moment costs the segment that was being encoded and nothing else. No torch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cgconvert.errors import BusyError, UsageError
from cgconvert.host.files import file_sha256, output_error, write_atomically
from cgconvert.host.locks import locked
from cgconvert.host.parts import STATE, part_folder, remove_folder

SEGMENT_FRAMES = 250
"""Frames in a segment: the distance of keyframes that x264 and x265 choose by themselves."""

FORMAT = 2
LOCK = "lock"


@dataclass(frozen=True)
class Segment:
    """A finished segment: its frames and their times, its file's size and SHA-256, the damage found in it.

    Times are pts in units of the result's time base. `delay` is by how many places the encoder reordered.
    """

    frames: int
    first_pts: int
    last_pts: int
    delay: int
    bytes: int
    sha256: str
    damage: Mapping[str, Any]


class ResumableRun:
    """The folder of one conversion, locked for this process. Made by `resumable_run`.

    `segments` are the finished ones in order; `choices` is what the run chose by itself (engine, precision,
    batch, tiles), which a run that goes on has to choose again. `notes` says what was found and dropped.
    """

    def __init__(self, output: Path, identity: Mapping[str, Any], request: Mapping[str, Any]) -> None:
        self.output = output
        self.folder = part_folder(output)
        self.identity = json.loads(json.dumps(identity))
        self.request = json.loads(json.dumps(request))
        self.segments: list[Segment] = []
        self.choices: dict[str, Any] = {}
        self.notes: list[str] = []

    @property
    def frames(self) -> int:
        """Frames in finished segments."""
        return sum(segment.frames for segment in self.segments)

    @property
    def last_pts(self) -> int | None:
        """The pts of the last frame in a finished segment, None if there is none."""
        return self.segments[-1].last_pts if self.segments else None

    def path_of(self, number: int) -> Path:
        """The file of a finished segment."""
        return self.folder / f"{number:06d}.packets"

    def new_path(self) -> Path:
        """Where the next segment is written until it is complete."""
        return self.folder / f"{len(self.segments):06d}.unfinished"

    def add(self, segment: Segment) -> None:
        """Take over the complete file at `new_path`, which has been flushed. Raises `OSError`."""
        self.new_path().replace(self.path_of(len(self.segments)))
        self.segments.append(segment)
        self.save()

    def keep_state(self, state: bytes) -> None:
        """Keep what making the frame after the next segment steady needs. Raises `OutputError`.

        That of the segment before stays until then: the next one may yet be lost.
        """
        number = len(self.segments)
        write_atomically(self._state_path(number), state)
        self._state_path(number - 2).unlink(missing_ok=True)

    def steady_state(self) -> bytes | None:
        """What was kept with the last finished segment; None if it is not there."""
        try:
            return self._state_path(len(self.segments) - 1).read_bytes()
        except OSError:
            return None

    def _state_path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.steady"

    def choose(self, choices: Mapping[str, Any]) -> None:
        """Remember what the run chose by itself.

        Raises `UsageError` if finished segments were made otherwise.
        """
        chosen: dict[str, Any] = json.loads(json.dumps(choices))
        if self.segments and self.choices and chosen != self.choices:
            raise UsageError(
                f"{self.folder} was begun with {_difference(self.choices, chosen)}: use `restart` to begin "
                "again, or ask for what it was begun with"
            )
        self.choices = chosen
        self.save()

    def save(self) -> None:
        """Write the state, whole or not at all. Raises `OutputError`."""
        state = {
            "format": FORMAT,
            "identity": self.identity,
            "request": self.request,
            "choices": self.choices,
            "segments": [asdict(segment) for segment in self.segments],
        }
        write_atomically(self.folder / STATE, (json.dumps(state, indent=1) + "\n").encode())

    def load(self) -> None:
        """Go on from the state in the folder, if there is one. Raises `UsageError` if it is another run's."""
        path = self.folder / STATE
        try:
            state = json.loads(path.read_bytes())
            if state["format"] != FORMAT:
                raise UsageError(
                    f"{self.folder} was begun by another version of cgconvert: use `restart` to begin again"
                )
            identity, choices = state["identity"], state["choices"]
            segments = [Segment(**segment) for segment in state["segments"]]
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            raise UsageError(f"{path} cannot be read: use `restart` to begin again") from None
        if identity != self.identity:
            raise UsageError(
                f"{self.folder} was begun with {_difference(identity, self.identity)}: use `restart` to "
                "begin again, or another `output`"
            )
        self.choices = choices
        for number, segment in enumerate(segments):
            if not self._intact(number, segment):
                self.notes.append(
                    f"segment {number} in {self.folder} is damaged: the video is converted again from frame "
                    f"{self.frames}"
                )
                break
            self.segments.append(segment)

    def _intact(self, number: int, segment: Segment) -> bool:
        try:
            return file_sha256(self.path_of(number)) == segment.sha256
        except OSError:
            return False

    def clear(self) -> None:
        """Remove every segment and the state, but not the lock."""
        self.segments, self.choices = [], {}
        (self.folder / STATE).unlink(missing_ok=True)  # first, as in `remove_folder`
        for path in self.folder.iterdir():
            if path.name != LOCK:
                path.unlink()


@contextmanager
def resumable_run(
    output: Path,
    identity: Mapping[str, Any],
    request: Mapping[str, Any],
    restart: bool = False,
    keep: bool = False,
) -> Iterator[ResumableRun]:
    """The run of a result, begun or to go on; its folder is removed when the block ends well.

    With `keep` it stays, and also when the block fails, unless no segment was finished. `identity` is all
    that the frames depend on, `request` what the user asked for. `restart` drops what is there. Raises
    `UsageError` where what is there belongs to another request, `OutputError` if another process works on it.
    """
    run = ResumableRun(output, identity, request)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        run.folder.mkdir(exist_ok=True)
        with locked(run.folder / LOCK, wait=False) as held:
            if not held:
                raise BusyError(f"{output} is being converted by another process")
            if restart:
                run.clear()
            run.load()
            run.save()
            try:
                yield run
            except BaseException:
                if not run.segments:
                    shutil.rmtree(run.folder, ignore_errors=True)
                raise
            if not keep:
                with suppress(OSError):
                    remove_folder(run.folder)
    except OSError as error:
        with suppress(OSError):
            run.folder.rmdir()  # if it is empty: nothing was begun
        raise output_error(output, error) from error


def _difference(before: Mapping[str, Any], now: Mapping[str, Any], name: str = "") -> str:
    """The first thing in which two requests differ, in words."""
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        full = f"{name}{key}".replace("_", " ")
        if isinstance(old, dict) and isinstance(new, dict):
            return _difference(old, new, f"{full} ")
        return f"{full} {old}, and this run has {new}"
    return "the same"
