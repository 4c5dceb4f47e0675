"""How much memory there is, and that a process keeps what it frees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cgconvert.host import memory


def test_the_tighter_of_machine_and_container_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.available_memory() == 5000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert memory.available_memory() == 5000 * 1024
    (tmp_path / "memory.max").write_text("4000\n")
    assert memory.available_memory() == 3000


def test_memory_that_nobody_tells_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.available_memory() is None


FAULTS = """
import resource, sys
import numpy as np
from cgconvert.host.memory import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    print("impossible"); sys.exit()
def use():
    np.ones(40_000_000, np.uint8)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_memory_is_used_again() -> None:
    """Pages that are mapped anew count as faults: 40 MB have ten thousand of 4 KiB."""

    def faults(how: str) -> str:
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    kept, given_back = faults("keep"), faults("leave")
    if kept == "impossible":
        pytest.skip("another C library than glibc")
    assert int(kept) < int(given_back) / 10
