"""Shards: each input is in exactly one, whatever the machine, and what schedulers say of them is read."""

from __future__ import annotations

import pytest

from cgconvert.errors import UsageError
from cgconvert.scale.shards import Shard, parse_shard

SLURM = {
    "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_ARRAY_TASK_MIN": "1",
    "SLURM_ARRAY_TASK_MAX": "8",
    "SLURM_ARRAY_TASK_COUNT": "8",
}


def test_every_input_is_in_one_shard() -> None:
    names = [f"clips/{index:04}.mp4" for index in range(1000)]
    held = [[number for number in range(1, 8) if Shard(number, 7).holds(name)] for name in names]
    assert all(len(numbers) == 1 for numbers in held)
    counts = [sum(numbers == [number] for numbers in held) for number in range(1, 8)]
    assert min(counts) > 100  # of 143 on average, with a standard deviation of 11


def test_the_split_is_the_same_for_ever() -> None:
    """Runs of today and of next year write into one folder."""
    held = [next(n for n in range(1, 5) if Shard(n, 4).holds(name)) for name in ("a", "b/c.png", "ü.mp4")]
    assert held == [3, 4, 3]


def test_an_odd_name_has_a_shard() -> None:
    assert Shard(1, 1).holds(b"\xff.png".decode("utf-8", "surrogateescape"))


@pytest.mark.parametrize(
    ("text", "environment", "wanted"),
    [
        ("3/8", {}, Shard(3, 8)),
        ("auto", SLURM, Shard(3, 8)),
        ("auto/8", SLURM, Shard(3, 8)),
        ("auto", {**SLURM, "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "7"}, Shard(4, 8)),
        ("auto", {**SLURM, "SLURM_ARRAY_TASK_MAX": "5", "SLURM_ARRAY_TASK_COUNT": "3"}, Shard(2, 3)),
        (
            "auto",
            {**SLURM, **dict.fromkeys(("SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX"), "3")}
            | {"SLURM_ARRAY_TASK_COUNT": "1"},
            Shard(1, 1),
        ),
        ("auto/4", {"JOB_COMPLETION_INDEX": "0"}, Shard(1, 4)),
        ("auto", {"JOB_COMPLETION_INDEX": "3", "JOB_COMPLETIONS": "4"}, Shard(4, 4)),
    ],
)
def test_shards_of_words_and_schedulers(text: str, environment: dict[str, str], wanted: Shard) -> None:
    assert parse_shard(text, environment) == wanted


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("0/8", {}, r"`shard` 0/8 is no part: N parts are 1/N to N/N"),
        ("9/8", {}, r"`shard` 9/8 is no part"),
        ("half", {}, r"`shard` 'half' is neither I/N \(such as 3/8\), auto nor auto/N"),
        ("auto", {}, r"needs SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX, and neither is set"),
        ("auto/9", SLURM, r"`shard` auto/9: the SLURM array has 8 tasks"),
        ("auto", {**SLURM, "SLURM_ARRAY_TASK_COUNT": "3"}, r"\(3 from 1 to 8\) are not evenly spaced"),
        ("auto", {"JOB_COMPLETION_INDEX": "0"}, r"JOB_COMPLETIONS is '' and no whole number"),
    ],
)
def test_shards_that_make_no_sense(text: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_shard(text, environment)


def test_without_a_shard_there_is_none() -> None:
    assert parse_shard(None, SLURM) is None
