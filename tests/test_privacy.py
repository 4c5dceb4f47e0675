"""Nothing leaves this machine: whole runs in which every way to the network is refused and written down."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.conftest import make_domain, write_run
from tests.video.clips import Clip, make_clip

ROOT = Path(__file__).resolve().parents[1]
REFUSED_BY_THE_SYSTEM = -31
"""Exit code of a process that SIGSYS ended: native code of it has asked for an internet socket."""

COMMANDS = """
import sys
from cgconvert.cli import main
for line in sys.stdin.read().splitlines():
    print("cgconvert", line.replace("\\t", " "), flush=True)
    try:
        main(line.split("\\t"))
    except SystemExit as leave:
        if leave.code:
            sys.exit(f"exit code {leave.code}")
"""
"""Runs the commands of standard input, their parts separated by tabs, until one fails."""


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder; programs that are started now have no network, and note in `asked.log` who asked for it.

    Neither CI nor pytest shows in their environment: there some libraries hold back their telemetry.
    """
    home = tmp_path / "home"
    home.mkdir()
    for name in ("CI", "TF_BUILD", "GITHUB_ACTIONS", "CGCONVERT_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("REFUSED_NETWORK_LOG", str(tmp_path / "asked.log"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests" / "refused_network"), str(ROOT)]))
    return home


def run_offline(code: str, text: str = "", limit: float = 300) -> subprocess.CompletedProcess[str]:
    """A program without network."""
    return subprocess.run(
        [sys.executable, "-c", code], input=text, capture_output=True, text=True, timeout=limit, check=False
    )


def run_commands(home: Path, *commands: list[str]) -> None:
    """Run commands in one process; assert that they worked, asked for no network, and left home alone."""
    done = run_offline(COMMANDS, "\n".join("\t".join(command) for command in commands))
    assert done.returncode != REFUSED_BY_THE_SYSTEM, done.stdout
    assert done.returncode == 0, done.stdout + done.stderr
    asked = home.parent / "asked.log"
    assert not asked.exists(), asked.read_text(encoding="utf-8")
    # platformdirs' places of ours; and nothing of anybody else, such as OpenVINO's ~/intel.
    ours = {".cache/cgconvert", ".local/share/cgconvert"}
    found = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    assert {name for name in found if not name.startswith(tuple(ours))} == set()


def test_the_refusal_itself(offline: Path) -> None:
    """That the tests below can fail: a look-up in Python is noted, a native socket ends the process."""
    lookup = run_offline("import socket; socket.getaddrinfo('example.org', 443)")
    assert lookup.stderr.splitlines()[-1] == "PermissionError: no network in this test: socket.getaddrinfo"
    assert "'example.org', 443" in (offline.parent / "asked.log").read_text(encoding="utf-8")
    native = "import ctypes, os; assert os.environ['REFUSED_BY_THE_SYSTEM'] == '1', 'no filter here'"
    done = run_offline(f"{native}; ctypes.CDLL(None).socket(2, 1, 0)")
    if "no filter here" in done.stderr:
        pytest.skip("this system has no filter of system calls")
    assert done.returncode == REFUSED_BY_THE_SYSTEM


def test_video_int8_asks_for_no_network(offline: Path, tmp_path: Path) -> None:
    """OpenVINO and NNCF, the two that are known to call out."""
    if importlib.util.find_spec("nncf") is None:
        pytest.skip("no nncf here")
    clip = make_clip(tmp_path / "clip.mp4", Clip(frames=3))
    run_commands(offline, ["video", str(clip), "-m", "photo2monet-fast", "--precision", "int8", "--quiet"])


@pytest.mark.slow
def test_no_command_asks_for_the_network(offline: Path, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", Clip(frames=3))
    domains = {"data.a": make_domain(tmp_path / "a", True), "data.b": make_domain(tmp_path / "b", False)}
    settings = {"run.images": 2, "run.decay_images": 2, **{key: str(path) for key, path in domains.items()}}
    run = write_run(tmp_path / "run", settings)
    run_commands(
        offline,
        ["video", str(clip), "-m", "photo2monet-fast"],
        ["dir", str(tmp_path / "a"), "-m", "photo2monet-fast"],
        ["image", str(tmp_path / "b" / "000.png"), "-m", "photo2monet-fast", "--precision", "int8"],
        ["doctor"],
        ["models", "export", "photo2monet-fast", "--format", "onnx", "-o", str(tmp_path / "tiny.onnx")],
        ["train", "run", str(run)],
    )
