"""Tasks of the GPU job about training: how fast a step is, and a training that goes on there."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.scale import Bench, Rows
from benchmarks.training.train_step import measure
from cgconvert.errors import Interrupted
from trainer.storage.folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
GRACE = 60.0
"""Seconds that a stopped training has to finish its step and to write its checkpoint."""


def step(bench: Bench, what: str) -> Rows:
    """Images a second and peak memory of a training step ("h2_24_64_6_128 ours bf16")."""
    case, _, variant = what.partition(" ")
    yield "step", measure(case, variant, bench.device, 1, 2 * bench.seconds)


def go_on(run: Path, minutes: float, keep: Path) -> dict[str, Any]:
    """Begin or resume the training in a run's folder, stop it after some minutes, copy its files to `keep`.

    `passed` where it ended or stopped with a checkpoint written. What was learned is in `keep` even where the
    run's own folder is lost with the machine: put it back there and the training goes on exactly. Only the
    pictures of its samples are not among it; the report holds them.
    """
    folder = RunFolder(run)
    before = _last(folder)
    command = [sys.executable, "-m", "trainer", "resume" if folder.checkpoint.exists() else "run", str(run)]
    started = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, said = process.communicate(timeout=60 * minutes)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            try:
                _, said = process.communicate(timeout=GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                _, said = process.communicate()
    keep.mkdir(parents=True, exist_ok=True)
    for path in sorted(run.iterdir()) if run.is_dir() else ():
        if path.suffix in (".pt", ".toml", ".jsonl", ".html"):
            shutil.copy2(path, keep / path.name)
    ended_well = process.returncode in (0, Interrupted.exit_code)
    return {
        "passed": ended_well and folder.checkpoint.exists(),
        "exit_code": process.returncode,
        "said": said.strip().splitlines()[-3:],
        "minutes": round((time.monotonic() - started) / 60, 2),
        "before": before,
        "after": _last(folder),
    }


def _last(folder: RunFolder) -> dict[str, Any]:
    """The last line of losses of a run."""
    losses = [line for line in folder.lines() if line.get("kind") == "losses"]
    return losses[-1] if losses else {}
