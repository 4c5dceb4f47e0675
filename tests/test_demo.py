"""`make demo`: what it prints at its end can be typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_last_lines_of_the_demo_can_be_typed(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), str(tmp_path), "identity"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    own, activate = done.stdout.splitlines()[-2:]
    program = tmp_path / own.removeprefix("your own").split()[0]
    if not program.exists():
        pytest.skip("cgconvert is not installed beside this Python")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60)
    assert version.stdout.startswith("cgconvert, version ")
    assert (tmp_path / activate.rpartition(" ")[2]).is_file()
