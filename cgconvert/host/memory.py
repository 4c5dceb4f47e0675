"""How much memory is free, and keeping freed memory for the next use. No torch."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")

# Of glibc's malloc.h, for mallopt.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
KEPT = 1 << 30
"""Bytes of freed memory that stay with the process, and the largest piece that comes out of them."""


def available_memory() -> int | None:
    """Bytes of main memory that can be had now, within the limit of a container; None if unknown."""
    free: list[int] = []
    try:
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError, IndexError):
        pass
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        free.append(limit - int((_CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):  # no container, or "max"
        pass
    return min(free, default=None)


def peak_memory() -> int | None:
    """The most bytes of main memory that this process has had; None where the system does not say."""
    try:
        import resource  # there is none on Windows
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def keep_freed_memory() -> bool:
    """Let freed memory stay with this process for its next use; whether that was possible (glibc only).

    A network takes and gives back the same tens of megabytes for every picture. Handed back to the system
    and taken again, each of their pages is cleared and mapped anew, which took a fifth of the processor time
    of a small network at 960x540 (`docs/engines.md`). For programs whose main work is a network: a process
    keeps up to `KEPT` bytes of what it needed at its peak.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all([mallopt(_M_MMAP_THRESHOLD, KEPT), mallopt(_M_TRIM_THRESHOLD, KEPT)])
