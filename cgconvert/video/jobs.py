"""The list of conversions that were begun and not finished, so that they can be found again. No torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cgconvert.errors import OutputError, UsageError
from cgconvert.host.files import output_error, write_atomically
from cgconvert.host.folders import data_folder
from cgconvert.host.locks import locked
from cgconvert.host.packages import package_version
from cgconvert.host.parts import STATE, part_folder, remove_folder, source_identity
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.video import resume
from cgconvert.video.plan import VideoPlan, encoding_as_dict
from cgconvert.video.resume import LOCK, ResumableRun, resumable_run


def identity_of(plan: VideoPlan) -> dict[str, Any]:
    """All that the frames of a plan's result depend on. Raises `OSError`."""
    options = asdict(plan.options)
    return {
        "source": source_identity(plan.source),
        "model": {"name": plan.card.name, "weights": plan.card.weights_sha256},
        "network size": list(plan.work_size),
        "encoding": encoding_as_dict(plan),
        "options": {
            name: options[name] for name in ("start", "end", "compare", "decoder", "deinterlace", "hdr")
        },
        "look": asdict(plan.look),
        "steady": asdict(plan.steadiness) if plan.steadiness is not None else None,
        "versions": {name: package_version(name) for name in ("cgconvert", "av", "torch")},
        "segment frames": resume.SEGMENT_FRAMES,
    }


def request_of(plan: VideoPlan) -> dict[str, Any]:
    """What the user asked for, as the list of unfinished conversions tells it."""
    return {
        "source": str(plan.source.absolute()),
        "model": str(plan.model),
        "options": asdict(plan.options),
        "engine": asdict(plan.engine),
        "frames": plan.info.frames,
    }


@contextmanager
def kept_segments(plan: VideoPlan, keep: bool = False) -> Iterator[ResumableRun]:
    """The segments of a plan's result, those that are kept already among them, and its place on the list.

    `keep`: they stay when the block ends well. Raises as `resumable_run`.
    """
    identity, request = identity_of(plan), request_of(plan)
    remember(plan.output)
    try:
        with resumable_run(plan.output, identity, request, plan.options.restart, keep) as run:
            yield run
    finally:
        if not part_folder(plan.output).exists():
            forget(plan.output)


@dataclass(frozen=True)
class Job:
    """A conversion that is not finished: its request, how far it is, the bytes of its segments.

    `total` is None where the length of the source is unknown. `running` says whether a process works on it.
    """

    output: Path
    source: Path
    model: str
    options: VideoOptions
    engine: EngineOptions
    frames: int
    total: int | None
    bytes: int
    running: bool

    def describe(self) -> str:
        """One line for people."""
        of = f" of {self.total}" if self.total else ""
        state = "running" if self.running else "broken off"
        size = f"{self.bytes / 2**20:.1f} MiB"
        return f"{self.output} ({state}, {self.frames}{of} frames, {size} kept; from {self.source})"


def _entry(output: Path) -> Path:
    """The file of the list that names a result."""
    name = hashlib.sha256(str(output.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return data_folder() / "jobs" / f"{name}.json"


def remember(output: Path) -> None:
    """Put a result on the list. A list that cannot be written is no reason to stop."""
    with suppress(OSError, OutputError):
        write_atomically(_entry(output), json.dumps({"output": str(output.absolute())}).encode())


def forget(output: Path) -> None:
    """Take a result off the list."""
    with suppress(OSError):
        _entry(output).unlink(missing_ok=True)


def list_jobs() -> list[Job]:
    """Every unfinished conversion in order of its result's path; entries without a folder are dropped."""
    jobs = []
    folder = data_folder() / "jobs"
    for entry in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        try:
            output = Path(json.loads(entry.read_bytes())["output"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        job = read_job(output)
        if job is None:
            forget(output)
        else:
            jobs.append(job)
    return sorted(jobs, key=lambda job: job.output)


def read_job(output: Path) -> Job | None:
    """The unfinished conversion into `output`, or None if there is none that can be read."""
    folder = part_folder(output)
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_bytes())
        request = state["request"]
        with locked(folder / LOCK, wait=False) as free:
            running = not free
        return Job(
            output=output,
            source=Path(request["source"]),
            model=request["model"],
            options=VideoOptions(**request["options"]),
            engine=EngineOptions(**request["engine"]),
            frames=sum(segment["frames"] for segment in state["segments"]),
            total=request["frames"],
            bytes=sum(segment["bytes"] for segment in state["segments"]),
            running=running,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_job(jobs: list[Job], name: str) -> Job:
    """A job by the path or the name of its result. Raises `UsageError` if none or several are called so."""
    wanted = Path(name).absolute()
    found = [job for job in jobs if job.output == wanted] or [job for job in jobs if job.output.name == name]
    if len(found) == 1:
        return found[0]
    what = "is no unfinished job" if not found else "names several jobs: give the whole path"
    listed = "".join(f"\n  {job.output}" for job in jobs) or " none"
    raise UsageError(f"{name} {what}; there are:{listed}")


def remove_job(job: Job) -> None:
    """Remove what is kept of a job. Raises `UsageError` while a process works on it, `OutputError`."""
    folder = part_folder(job.output)
    with locked(folder / LOCK, wait=False) as free:
        if not free:
            raise UsageError(f"{job.output} is being converted by another process: stop that one first")
        try:
            remove_folder(folder)
        except OSError as error:
            raise output_error(folder, error) from error
    forget(job.output)
