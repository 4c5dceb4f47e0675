"""Two runs on one output folder share the work: each picture is converted once, none is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cgconvert.options import EngineOptions
from cgconvert.pictures import decoding
from cgconvert.pictures.claims import Claims, Elsewhere, state_of
from cgconvert.pictures.files import ImageJob
from tests.pictures.runs import fill, names, run

COMMAND = [sys.executable, "-m", "cgconvert", "dir"]
EXACT = ["-m", "same", "--engine", "eager", "--precision", "fp32", "--device", "cpu", "--report"]
HOLDER = """
import sys, time
from pathlib import Path
from cgconvert.pictures.claims import Claims
claims = Claims()
print(claims.take(Path(sys.argv[1])), flush=True)
time.sleep(60)
"""


def test_two_runs_convert_each_picture_once(tmp_path: Path, same: str) -> None:
    fill(tmp_path / "in", 60)
    runs = []
    for number in range(2):
        report = str(tmp_path / f"{number}.json")
        command = [*COMMAND, str(tmp_path / "in"), "-o", str(tmp_path / "out"), *EXACT, report]
        runs.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    ended = [process.communicate(timeout=240) for process in runs]
    assert [process.returncode for process in runs] == [0, 0], ended
    counts = [json_of(tmp_path / f"{number}.json") for number in range(2)]
    assert sum(count["converted"] for count in counts) == 60
    assert [count["converted"] + count["skipped"] for count in counts] == [60, 60]
    # Nothing else is left: no claim, no lock, no temporary file.
    assert names(tmp_path / "out") == [f"{index:03}.png" for index in range(60)]


def json_of(path: Path) -> dict[str, int]:
    import json

    found: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_what_a_killed_run_had_taken_is_converted(
    tmp_path: Path, same: str, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "in", 2)
    output = tmp_path / "out" / "000.png"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, output], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "True\n"
    seen: list[list[str]] = []

    def look(self: Elsewhere, claims: Claims, skip: object) -> bool | None:
        seen.append(names(tmp_path / "out"))
        if "001.png" in seen[-1]:  # the other picture was not kept waiting
            holder.kill()
            holder.wait()
        return plain(self, claims, skip)  # type: ignore[arg-type]

    plain = Elsewhere.settle
    monkeypatch.setattr(Elsewhere, "settle", look)
    done = run(tmp_path / "in", tmp_path / "out", same, exact)
    assert (done.converted, done.skipped, done.failures) == (2, 0, [])
    assert "000.png" not in seen[0]
    assert names(tmp_path / "out") == ["000.png", "001.png"]


def test_a_picture_that_another_run_writes_meanwhile_is_skipped(tmp_path: Path) -> None:
    """With `overwrite` too, where a result from before is there all the time."""
    output, skipped = tmp_path / "a.png", []
    output.write_bytes(b"before")
    theirs, ours = Claims(), Claims()
    assert theirs.take(output)
    assert not ours.take(output)
    other = Elsewhere(ImageJob(tmp_path / "in.png", output, "png"), state_of(output))
    assert other.settle(ours, skipped.append) is None
    output.write_bytes(b"after")
    os.utime(output, (1, 1))
    theirs.give_back(output)
    assert other.settle(ours, skipped.append) is True
    assert [job.output for job in skipped] == [output]
    assert theirs.take(output)  # it is nobody's again
    theirs.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_run_that_fails_gives_back_what_it_took(
    tmp_path: Path, same: str, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    fill(tmp_path / "in", 3)
    monkeypatch.setattr(decoding, "checked_header", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run(tmp_path / "in", tmp_path / "out", same, exact)
    assert names(tmp_path / "out") == []
