"""Kept engines: complete or absent, found by what made them, rebuilt when damaged, built by one at a time."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from cgconvert.engines import cache
from cgconvert.engines.cache import clear, digest, engines_folder, get_or_build, list_entries
from cgconvert.errors import UnavailableError

PARTS = {"engine": "test", "size": [64, 64]}


def build(folder: Path) -> None:
    (folder / "network.bin").write_bytes(b"engine" * 1000)


def load(folder: Path) -> bytes:
    return (folder / "network.bin").read_bytes()


def never(folder: Path) -> None:
    raise AssertionError("it is kept and must not be built again")


def test_an_engine_is_built_once() -> None:
    first = get_or_build(PARTS, build, load, about="test, any size")
    assert get_or_build(PARTS, never, load) == first == b"engine" * 1000
    (entry,) = list_entries()
    assert entry.parts == PARTS and entry.about == "test, any size" and entry.problem is None
    assert entry.path.name == digest(PARTS) and entry.size > 6000
    readable = json.loads((entry.path / "entry.json").read_text())
    assert readable["parts"]["engine"] == "test"


@pytest.mark.parametrize("change", [{"size": [64, 65]}, {"weights": "0"}])
def test_another_part_is_another_engine(change: dict) -> None:
    assert digest({**PARTS, **change}) != digest(PARTS)
    assert digest(dict(reversed(PARTS.items()))) == digest(PARTS)


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "json", "no json"])
def test_a_damaged_entry_is_built_anew(damage: str) -> None:
    get_or_build(PARTS, build, load)
    folder = engines_folder() / digest(PARTS)
    file, entry = folder / "network.bin", folder / "entry.json"
    if damage == "flip":
        file.write_bytes(b"E" + file.read_bytes()[1:])
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "missing":
        file.unlink()
    elif damage == "json":
        entry.write_text("{")
    else:
        entry.unlink()
    assert list_entries()[0].problem
    notes: list[str] = []
    assert get_or_build(PARTS, build, load, note=notes.append) == b"engine" * 1000
    assert "damaged" in notes[0]
    assert list_entries()[0].problem is None


def test_an_entry_that_cannot_be_loaded_is_built_anew() -> None:
    get_or_build(PARTS, lambda folder: (folder / "network.bin").write_bytes(b"old"), load)

    def strict(folder: Path) -> bytes:
        data = load(folder)
        if data == b"old":
            raise RuntimeError("made by another version")
        return data

    assert get_or_build(PARTS, build, strict) == b"engine" * 1000


def test_a_failed_build_leaves_nothing() -> None:
    def fail(folder: Path) -> None:
        build(folder)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        get_or_build(PARTS, fail, load)
    assert [path for path in engines_folder().iterdir() if path.is_dir()] == []


def test_without_a_cache_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.OFF, "1")
    assert get_or_build(PARTS, build, load) == b"engine" * 1000
    assert not engines_folder().exists()


def test_a_folder_that_cannot_be_written_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("CGCONVERT_HOME", str(blocked))
    notes: list[str] = []
    assert get_or_build(PARTS, build, load, note=notes.append) == b"engine" * 1000
    assert "not kept" in notes[0]


def short_of_space(folder: Path) -> None:
    """Builds anywhere but where engines are kept."""
    build(folder)
    if folder.is_relative_to(engines_folder()):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_no_obstacle() -> None:
    """What cannot be kept is built in a temporary folder."""
    notes: list[str] = []
    assert get_or_build(PARTS, short_of_space, load, note=notes.append) == b"engine" * 1000
    (told,) = notes
    assert "not kept: disk full" in told and "choose another place with CGCONVERT_HOME" in told
    assert list_entries() == [] and not list(engines_folder().glob(".building-*"))
    assert get_or_build(PARTS, build, load) == b"engine" * 1000
    assert len(list_entries()) == 1


@pytest.mark.parametrize(("free", "works"), [(1_000_000, True), (1_000_000_000, False)])
def test_a_compiler_does_not_say_that_the_disk_is_full(
    free: int, works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> None:
        build(folder)
        if folder.is_relative_to(engines_folder()):
            raise RuntimeError("cc1plus failed")

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    if works:
        assert get_or_build(PARTS, fail, load) == b"engine" * 1000
    else:
        with pytest.raises(RuntimeError, match="cc1plus"):
            get_or_build(PARTS, fail, load)
    assert list_entries() == []


def test_no_space_anywhere_is_an_engine_that_is_not_available() -> None:
    """So that `auto` takes one that builds nothing."""

    def fail(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UnavailableError, match=r"No space left.*TMPDIR.*`engine=.eager.`"):
        get_or_build(PARTS, fail, load)


def test_other_folders_are_no_engines() -> None:
    """OpenVINO keeps what it compiles for a GPU in a folder of its own beside ours."""
    get_or_build(PARTS, build, load)
    other = engines_folder() / "openvino-gpu"
    other.mkdir()
    (other / "1.blob").write_bytes(b"x" * 100)
    (entry,) = list_entries()
    assert entry.parts == PARTS
    count, freed = clear()
    assert count == 1 and freed > 6100
    assert not other.exists()


def test_clearing_removes_all() -> None:
    get_or_build(PARTS, build, load)
    get_or_build({**PARTS, "more": 1}, build, load)
    count, freed = clear()
    assert count == 2 and freed > 12000
    assert list_entries() == []
    assert clear() == (0, 0)


BUILDER = """
import sys, time
from pathlib import Path
from cgconvert.engines.cache import get_or_build
def build(folder):
    (folder / "network.bin").write_bytes(b"x" * 10)
    with open(sys.argv[1], "a") as log:
        print("built", file=log, flush=True)
    time.sleep(float(sys.argv[2]))
print(get_or_build({"slow": 1}, build, lambda folder: (folder / "network.bin").stat().st_size))
"""


def start(log: Path, seconds: float) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", BUILDER, str(log), str(seconds)], stdout=subprocess.PIPE)


def wait_for(log: Path) -> None:
    deadline = time.monotonic() + 60
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert log.exists()


def test_two_processes_build_one_engine(tmp_path: Path) -> None:
    log = tmp_path / "log"
    both = [start(log, 1.0), start(log, 1.0)]
    assert [process.communicate(timeout=60)[0] for process in both] == [b"10\n", b"10\n"]
    assert log.read_text() == "built\n"


def test_a_killed_builder_leaves_no_half_engine(tmp_path: Path) -> None:
    log = tmp_path / "log"
    killed = start(log, 60)
    wait_for(log)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert list(engines_folder().glob(".building-*")), "it was killed in the middle of building"
    assert list_entries() == []
    second = start(log, 0)
    assert second.communicate(timeout=60)[0] == b"10\n"
    assert not list(engines_folder().glob(".building-*"))
    assert len(list_entries()) == 1


@pytest.fixture
def full_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """TMPDIR at a folder whose disk is nearly full; all others have room."""
    place = tmp_path / "full"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(cache, "_is_nearly_full", lambda folder: Path(folder) == place)
    return place


def failing(folder: Path) -> bytes:
    raise RuntimeError("C++ compile error")


@pytest.mark.parametrize("kept", [True, False])
def test_a_full_temporary_folder_is_named_in_place_of_the_compiler(
    kept: bool, full_temporary_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.OFF, "" if kept else "1")
    wanted = f"the disk of {full_temporary_folder} is full; .* set TMPDIR"
    with pytest.raises(UnavailableError, match=wanted):
        get_or_build(PARTS, failing, load)


def test_a_full_temporary_folder_does_not_cost_a_kept_engine(full_temporary_folder: Path) -> None:
    """A runtime that cannot unpack an engine there has not found it damaged."""
    get_or_build(PARTS, build, load)
    with pytest.raises(UnavailableError, match=f"the disk of {full_temporary_folder} is full"):
        get_or_build(PARTS, never, failing)
    assert get_or_build(PARTS, never, load) == b"engine" * 1000
