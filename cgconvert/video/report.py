"""The report of a video's conversion, which can be written as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cgconvert.host.files import write_atomically
from cgconvert.media.video.encoder import Encoding


@dataclass(frozen=True)
class VideoReport:
    """The outcome of one video.

    `seconds` are wall seconds, `stage_seconds` what each stage was busy for. Preprocessing, translating and
    postprocessing share a thread, so `busiest` is one of decode, translate (all three) and encode, and
    `busiest_seconds` what its thread was busy for. `first_frame` counts the seconds until the first frame
    was about to be translated (loading, compiling, verifying). `resumed_frames` of
    `frames_out` were kept from a run that was broken off. `streams` says of each
    stream of the source whether it was converted, copied or dropped, and why; `path` which way the frames
    took: where they were decoded, converted and encoded, as far as there was a choice. `hdr` says how an HDR
    video was tone mapped, and whether the result is HDR too. `look` is how strongly the look shows, and
    whether the source's colours were kept.
    """

    source: str
    output: str
    model: str
    frames_in: int
    frames_out: int
    resumed_frames: int
    seconds: float
    first_frame: float
    stage_seconds: Mapping[str, float]
    busiest: str
    busiest_seconds: float
    engine: Mapping[str, Any]
    encoding: Mapping[str, Any]
    size: tuple[int, int]
    work_size: tuple[int, int]
    streams: list[Mapping[str, Any]] = field(default_factory=list)
    damage: Mapping[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    path: list[str] = field(default_factory=list)
    steady: Mapping[str, Any] | None = None
    hdr: Mapping[str, Any] | None = None
    look: Mapping[str, Any] = field(default_factory=dict)

    @property
    def frames_per_second(self) -> float:
        """Frames per second, without the time in which the engine was made ready."""
        return (self.frames_out - self.resumed_frames) / max(self.seconds - self.first_frame, 1e-9)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "frames_per_second": round(self.frames_per_second, 3)}


GROWN, LARGE = 3, 2**20
"""A result is called large if it is so many times larger than its source, and has so many bytes."""


def describe_growth(source: Path, written: int, encoding: Encoding) -> list[str]:
    """Say that a result of `written` bytes is much larger than its source, and what makes it smaller.

    The list is empty if it is not. The default quality suits sources that are hard to compress, which small
    clips of phones are not.
    """
    before = source.stat().st_size
    if not before or written < max(GROWN * before, LARGE) or encoding.quality is None:
        return []
    times = f"{written / before:.1f} times as large as its source"
    sizes = f"{written / 2**20:.1f} MiB, {before / 2**20:.1f} MiB"
    return [f"the result is {times} ({sizes}): a `crf` above {encoding.quality:g} makes it smaller"]


def write_report(path: Path, data: Mapping[str, Any]) -> None:
    """Write a report as readable JSON, whole or not at all. Raises `OutputError`.

    Bytes of file names that are no UTF-8 become JSON's escapes of the lone surrogates that Python reads them
    as: `json.loads` and `os.fsencode` give the name back.
    """
    text = json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n"
    write_atomically(path, text.encode(errors="backslashreplace"))
