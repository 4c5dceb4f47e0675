"""Disks that are full, or fail, or take no such name: nothing half-written, the run goes on from there."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from cgconvert.errors import OutputError
from cgconvert.host.files import TEMPORARY_PREFIX
from cgconvert.options import EngineOptions, ImageOptions
from cgconvert.pictures import pipeline
from cgconvert.pictures.pipeline import run_images
from cgconvert.pictures.plan import plan_dir
from cgconvert.pictures.result import Tally
from cgconvert.progress import Silent
from tests.pictures.pictures import noise, png, read_rgb
from tests.pictures.runs import fill, names, run


def break_writing(monkeypatch: pytest.MonkeyPatch, after: int, number: int) -> None:
    """From the `after`th picture on, writing stops half-way with an error of the system."""
    whole, lock, count = Path.write_bytes, threading.Lock(), [0]

    def breaking(self: Path, data: bytes) -> int:
        if self.suffix == ".png":
            with lock:
                count[0] += 1
            if count[0] > after:
                whole(self, data[: len(data) // 2])
                raise OSError(number, os.strerror(number))
        return whole(self, data)

    monkeypatch.setattr(Path, "write_bytes", breaking)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk full while writing"),
        (errno.EACCES, "no permission to write"),
        (errno.EIO, "cannot write"),
    ],
)
def test_a_disk_that_fails_stops_the_run_and_leaves_nothing_half(
    tmp_path: Path, same: str, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    fill(tmp_path / "in", 40)
    break_writing(monkeypatch, 6, number)
    plan = plan_dir(tmp_path / "in", tmp_path / "out", same, ImageOptions(), exact)
    tally = Tally(plan)
    with pytest.raises(OutputError) as caught:
        run_images(plan, Silent(), tally)
    assert str(caught.value).startswith(words) and "the same command goes on" in str(caught.value)
    assert caught.value.exit_code == 4
    written = names(tmp_path / "out")
    assert 1 <= len(written) <= 6 and not [name for name in written if TEMPORARY_PREFIX in name]
    for name in written:
        assert np.array_equal(read_rgb(tmp_path / "out" / name), read_rgb(tmp_path / "in" / name))
    assert tally.result().converted == len(written) and not tally.result().complete
    monkeypatch.undo()
    os.environ["CGCONVERT_HOME"] = str(plan.model.parents[1])
    rest = run(tmp_path / "in", tmp_path / "out", same, exact)
    assert (rest.converted, rest.skipped) == (40 - len(written), len(written))


def test_a_full_tmpfs(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a tmpfs")
    try:
        fill(tmp_path / "in", 30, (64, 64))  # 12 KB each
        with pytest.raises(OutputError, match="disk full while writing"):
            run(tmp_path / "in", disk / "out", same, exact)
        written = names(disk / "out")
        assert 1 <= len(written) < 30 and not [name for name in written if TEMPORARY_PREFIX in name]
        for name in written:
            assert np.array_equal(read_rgb(disk / "out" / name), read_rgb(tmp_path / "in" / name))
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_name_too_long_for_the_disk_fails_alone(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    long = tmp_path / f"{'n' * 250}.png"  # with .same before .png it is longer than 255
    for path in (long, tmp_path / "a.png"):
        path.write_bytes(png(noise(8, 8), 2))
    result = pipeline.convert_images([long, tmp_path / "a.png"], None, same, engine_options=exact)
    assert result.converted == 1 and (tmp_path / "a.same.png").is_file()
    assert "too long" in result.failures[0].reason
