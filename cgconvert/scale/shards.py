"""Shards: which part of a run's inputs is this process's, the same on every machine and in every run."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cgconvert.errors import UsageError

SHARD = re.compile(r"(\d+)/(\d+)")
AUTO = re.compile(r"auto(?:/(\d+))?")


@dataclass(frozen=True)
class Shard:
    """Part `number`, from 1, of `count`. Checked when made: `UsageError`."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise UsageError(f"`shard` {self} is no part: N parts are 1/N to N/N")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, path: Path | str) -> bool:
        """Whether an input belongs to this part, by the SHA-256 of its path below the source.

        So it does not depend on what else is there, nor on the order in which files are found.
        """
        name = path.as_posix() if isinstance(path, Path) else path
        digest = hashlib.sha256(os.fsencode(name)).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1


def parse_shard(text: str | None, environment: Mapping[str, str] = os.environ) -> Shard | None:
    """Return `I/N`, `auto` or `auto/N` as a shard. Raises `UsageError`.

    `auto` is the task of a SLURM array (`SLURM_ARRAY_TASK_*`) or of an indexed Kubernetes job
    (`JOB_COMPLETION_INDEX`, whose number of completions Kubernetes does not tell: it is `JOB_COMPLETIONS`,
    which the job has to set, or the N of `auto/N`).
    """
    if text is None:
        return None
    if match := SHARD.fullmatch(text):
        return Shard(int(match[1]), int(match[2]))
    match = AUTO.fullmatch(text)
    if match is None:
        raise UsageError(f"`shard` {text!r} is neither I/N (such as 3/8), auto nor auto/N")
    asked = int(match[1]) if match[1] else None
    if "SLURM_ARRAY_TASK_ID" in environment:
        return _check_count(_of_slurm_array(environment), asked, "the SLURM array has")
    if "JOB_COMPLETION_INDEX" in environment:
        count = asked or _whole(environment, "JOB_COMPLETIONS", "set it, or use `shard` auto/N")
        return Shard(_whole(environment, "JOB_COMPLETION_INDEX") + 1, count)
    raise UsageError(
        "`shard` auto needs SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX, and neither is set: use I/N"
    )


def _of_slurm_array(environment: Mapping[str, str]) -> Shard:
    """The task's place in its array; the tasks of one array together hold every input."""
    task = _whole(environment, "SLURM_ARRAY_TASK_ID")
    first = _whole(environment, "SLURM_ARRAY_TASK_MIN")
    last = _whole(environment, "SLURM_ARRAY_TASK_MAX")
    count = _whole(environment, "SLURM_ARRAY_TASK_COUNT")
    step = (last - first) // (count - 1) if count > 1 else 1
    place = (task - first) / step if step else -1
    if step < 1 or first + step * (count - 1) != last or place != int(place):
        raise UsageError(
            f"`shard` auto: the numbers of this SLURM array ({count} from {first} to {last}) are not evenly "
            "spaced: use an array such as 1-8, or I/N"
        )
    return Shard(int(place) + 1, count)


def _check_count(shard: Shard, asked: int | None, what: str) -> Shard:
    if asked not in (None, shard.count):
        raise UsageError(f"`shard` auto/{asked}: {what} {shard.count} tasks")
    return shard


def _whole(environment: Mapping[str, str], name: str, remedy: str = "use `shard` I/N") -> int:
    text = environment.get(name, "")
    if not text.isdigit():
        raise UsageError(f"`shard` auto: {name} is {text!r} and no whole number: {remedy}")
    return int(text)
