"""Files appear whole; a killed process leaves nothing for long, and two processes never write one target."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import pytest

from cgconvert.errors import OutputError
from cgconvert.host.files import atomic_path, write_atomically
from cgconvert.host.locks import locked

WRITER = """
import sys
from pathlib import Path
from cgconvert.host.files import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print("begun", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(target: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has begun to write `target`, and is killed at the end."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", WRITER, str(target)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_end_of_another_process_can_be_waited_for(tmp_path: Path) -> None:
    """As two runs on one folder do, which both write down how they convert it."""
    target = tmp_path / "a.txt"
    with another_process(target) as process:
        assert process.stdin is not None
        ends = threading.Timer(0.2, process.stdin.close)
        ends.start()
        write_atomically(target, b"whole", wait=True)
        ends.join()
        assert process.wait(30) == 0, "it was not in the way of the other one either"
    assert target.read_bytes() == b"whole" and names(tmp_path) == ["a.txt"]


def test_what_a_killed_process_left_is_removed_by_the_next_one_that_writes_the_target(tmp_path: Path) -> None:
    with another_process(tmp_path / "a.txt"), another_process(tmp_path / "b.txt"):
        pass
    left = names(tmp_path)
    assert len(left) == 4 and all(name.startswith(".cgconvert-") for name in left)
    write_atomically(tmp_path / "a.txt", b"whole")
    assert (tmp_path / "a.txt").read_bytes() == b"whole"
    assert len(names(tmp_path)) == 3, "what belongs to b.txt stays for who writes that"
    write_atomically(tmp_path / "b.txt", b"whole")
    assert names(tmp_path) == ["a.txt", "b.txt"]


def test_a_target_that_another_process_writes_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with another_process(target):
        begun = names(tmp_path)
        with pytest.raises(OutputError) as refused:
            write_atomically(target, b"whole")
        assert str(refused.value) == f"{target} is being written by another process: wait for its end"
        assert names(tmp_path) == begun, "its files are left alone"


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bug"), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_bytes(b"half")
        raise ValueError("bug")
    assert names(tmp_path) == []


def test_a_target_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with (
        pytest.raises(OutputError, match=r"a\.txt has appeared meanwhile: use `overwrite` to replace it"),
        atomic_path(target, overwrite=False) as temporary,
    ):
        temporary.write_bytes(b"new")
        target.write_bytes(b"old")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.txt"]


def test_a_lock_that_is_held_is_waited_for_or_not(tmp_path: Path) -> None:
    path, told = tmp_path / "lock", []
    holder = filelock.FileLock(path)
    holder.acquire()
    with locked(path, wait=False) as held:
        assert held is False

    def waiting() -> None:
        told.append("waiting")
        holder.release()

    with locked(path, waiting=waiting) as held:
        assert (held, told) == (True, ["waiting"])
    assert path.exists()
    with locked(path, remove=True) as held:
        assert held and path.exists()
    assert not path.exists()


def test_a_file_system_without_locks_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(self: filelock.FileLock, **options: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(filelock.FileLock, "acquire", without)
    write_atomically(tmp_path / "a.txt", b"whole")
    assert (tmp_path / "a.txt").read_bytes() == b"whole"
