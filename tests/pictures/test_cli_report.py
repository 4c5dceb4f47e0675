"""`--report` beside pictures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np


def test_a_report_never_replaces_a_picture(tmp_path: Path) -> None:
    picture = tmp_path / "in" / "a.png"
    picture.parent.mkdir()
    cv2.imwrite(str(picture), np.zeros((8, 8, 3), np.uint8))
    before = picture.read_bytes()
    command = [sys.executable, "-m", "cgconvert", "dir", str(picture.parent), "--model", "identity"]
    done = subprocess.run([*command, "--report", str(picture)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--report" in done.stderr
    assert picture.read_bytes() == before
    assert not (tmp_path / "in.identity").exists()
