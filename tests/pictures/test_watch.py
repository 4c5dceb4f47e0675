"""A watched folder: pictures are taken when they have arrived whole, and tried again when they change."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cgconvert.options import EngineOptions, ImageOptions
from cgconvert.pictures import finding, pipeline
from cgconvert.pictures.files import ImageJob
from cgconvert.pictures.plan import plan_dir
from cgconvert.pictures.watch import watched
from cgconvert.progress import Silent
from tests.pictures.pictures import noise, png, read_rgb


class Looks:
    """A watched folder, looked at when the test says so."""

    def __init__(self, folder: Path, output: Path, **options: object) -> None:
        choice = ImageOptions(watch=True, **options)  # type: ignore[arg-type]
        self.plan = plan_dir(folder, output, "same", choice, EngineOptions())
        self.skipped: list[ImageJob] = []
        self.failed: list[tuple[Path, str]] = []
        self.jobs = watched(
            self.plan, self.skipped.append, lambda path, why: self.failed.append((path, why)), interval=0.02
        )

    def look(self) -> list[str]:
        """The names of what has arrived by now, after two more looks at least."""
        found, end = [], time.monotonic() + 0.2
        while time.monotonic() < end:
            job = next(self.jobs)
            if job is not None:
                found.append(job.source.name)
            else:
                time.sleep(0.005)
        return found


@pytest.fixture
def folder(tmp_path: Path, same: str) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def test_files_are_taken_once_when_they_stand_still(folder: Path, tmp_path: Path) -> None:
    looks = Looks(folder, tmp_path / "out")
    assert looks.look() == []
    (folder / "a.png").write_bytes(b"1")
    assert looks.look() == ["a.png"]
    assert looks.look() == []


def test_a_file_that_grows_is_left_alone(folder: Path, tmp_path: Path) -> None:
    looks = Looks(folder, tmp_path / "out")
    found: list[str] = []
    end = time.monotonic() + 0.4
    with (folder / "a.png").open("wb") as file:
        while time.monotonic() < end:  # it grows at every look, so it never stands still
            file.write(b"x")
            file.flush()
            job = next(looks.jobs)
            found += [job.source.name] if job else []
            time.sleep(0.004)
    assert found == []
    assert looks.look() == ["a.png"]


def test_a_file_that_changes_comes_again(folder: Path, tmp_path: Path) -> None:
    looks = Looks(folder, tmp_path / "out")
    (folder / "a.png").write_bytes(b"half")
    assert looks.look() == ["a.png"]
    (folder / "a.png").write_bytes(b"half and half")
    assert looks.look() == ["a.png"]


def test_what_was_finished_before_is_skipped_once(folder: Path, tmp_path: Path) -> None:
    (folder / "a.png").write_bytes(b"1")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.png").write_bytes(b"1")
    looks = Looks(folder, tmp_path / "out")
    assert looks.look() == looks.look() == []
    assert [job.source.name for job in looks.skipped] == ["a.png"]


def test_an_old_file_needs_no_second_look(folder: Path, tmp_path: Path) -> None:
    (folder / "a.png").write_bytes(b"1")
    os.utime(folder / "a.png", (time.time() - 60,) * 2)
    job = next(Looks(folder, tmp_path / "out").jobs)
    assert job is not None and job.source.name == "a.png"


def test_a_result_is_not_replaced_by_another_files(folder: Path, tmp_path: Path) -> None:
    looks = Looks(folder, tmp_path / "out", format="png")
    (folder / "a.png").write_bytes(b"1")
    assert looks.look() == ["a.png"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.png").write_bytes(b"1")
    (folder / "a.jpg").write_bytes(b"1")
    assert looks.look() == []
    assert looks.failed == [(folder / "a.jpg", f"its result would replace that of {folder / 'a.png'}")]


def test_the_pipeline_in_watch(
    folder: Path, tmp_path: Path, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One picture is there, one arrives, one is caught half-written and completed; then it is stopped."""
    monkeypatch.setattr(finding, "watched", lambda *arguments: watched(*arguments, interval=0.02))
    first, later, whole = noise(20, 30), noise(16, 16, seed=1), noise(18, 18, seed=2)
    (folder / "first.png").write_bytes(png(first, 2))
    steps: list[Callable[[], object]] = [
        lambda: (folder / "later.png").write_bytes(png(later, 2)),
        lambda: (folder / "slow.png").write_bytes(png(whole, 2)[:100]),
        lambda: (folder / "slow.png").write_bytes(png(whole, 2)),
    ]
    started = time.monotonic()

    class Director(Silent):
        """After each picture, well or not, the next thing happens; after the last, Ctrl-C."""

        def advance(self, done: int, busiest: str | None = None) -> None:
            assert time.monotonic() - started < 20
            if not steps:
                raise KeyboardInterrupt
            steps.pop(0)()

    plan = plan_dir(folder, tmp_path / "out", "same", ImageOptions(watch=True), exact)
    result = pipeline.run_images(plan, Director())
    assert (result.converted, result.failures, result.complete) == (3, [], True)
    for name, pixels in (("first", first), ("later", later), ("slow", whole)):
        assert np.array_equal(read_rgb(tmp_path / f"out/{name}.png"), pixels)
