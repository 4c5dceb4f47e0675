"""Programs that tests start, stop and wait for."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit code, what it had printed, and the processor seconds that it took to end.

    Processor seconds, since the wall's depend on what else the machine does.
    """

    code: int
    out: str
    err: str
    cpu_seconds: float


def cpu_seconds(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def stop(process: subprocess.Popen[str], number: int = signal.SIGINT, timeout: float = 60) -> Ended:
    """Send a signal to a program and wait for its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process.send_signal(number)
    used = cpu_seconds(process.pid)
    out, err = process.communicate(timeout=timeout)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ended(process.returncode, out, err, total - used)
