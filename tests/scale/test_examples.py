"""The scripts in examples/ and the Dockerfile say what the program takes; their commands are run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from cgconvert.cli import cgconvert
from tests.pictures.runs import names
from tests.video.clips import Clip, make_clip

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def parsed(words: list[str]) -> click.Context:
    """The context of a command, which exists and takes these words. Nothing runs."""
    # click keeps the help option of a command with the names that its first context has.
    parent = click.Context(cgconvert, help_option_names=["-h", "--help"])
    command = cgconvert.get_command(parent, words[0])
    assert command is not None
    return command.make_context(command.name, words[1:], parent=parent)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `cgconvert` on the path that runs this checkout, on the CPU and without a look."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "cgconvert").write_text(
        f'#!/bin/sh\nexec {sys.executable} -m cgconvert "$@" --model identity --device cpu --engine eager\n'
    )
    (folder / "cgconvert").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_the_slurm_script_converts_its_parts(
    tmp_path: Path, program: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three tasks as SLURM would start them: together they convert every video once."""
    clips, painted = tmp_path / "clips", tmp_path / "painted"
    clips.mkdir()
    for index in range(4):
        make_clip(clips / f"{index}.mp4", Clip(frames=2))
    for name, value in (("MIN", 1), ("MAX", 3), ("COUNT", 3)):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    for task in (1, 2, 3):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        done = subprocess.run(
            ["bash", EXAMPLES / "slurm.sh", clips, painted], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert all(json.loads(line)["event"] for line in (done.stdout + done.stderr).splitlines())
    assert names(painted) == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]
    lines = "".join(path.read_text() for path in (tmp_path / "painted.reports").glob("results-*.jsonl"))
    results = [json.loads(line) for line in lines.splitlines()]
    assert sorted(Path(result["path"]).name for result in results) == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]
    assert {result["status"] for result in results} == {"converted"}
    reports = (tmp_path / "painted.reports").glob("report-*.json")
    assert sum(json.loads(path.read_text())["converted"] for path in reports) == 4


def test_the_slurm_script_has_an_array_of_even_numbers() -> None:
    settings = dict(re.findall(r"^#SBATCH --(\S+?)=(.+)$", (EXAMPLES / "slurm.sh").read_text(), re.MULTILINE))
    assert re.fullmatch(r"\d+-\d+", settings["array"])
    assert settings["signal"].startswith("B:TERM@")


def test_the_kubernetes_job_is_a_command_that_is_taken() -> None:
    yaml = pytest.importorskip("yaml")
    pytest.importorskip("obstore")
    job = yaml.safe_load((EXAMPLES / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"]) == ("Indexed", spec["parallelism"])
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["restartPolicy"] == "Never"
    given = parsed(container["args"]).params
    assert given["shard"] == f"auto/{spec['completions']}"
    assert str(given["folder"]).startswith("s3://")
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert {volume["name"] for volume in pod["volumes"]} == set(mounted)
    assert given["results"].is_relative_to(mounted["results"])
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    targets = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert container["image"].split(":")[1] in targets


def test_the_dockerfile_names_what_is_there() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE) == [
        ("python:3.11-slim", "base"),
        ("base", "cpu"),
        ("base", "cuda"),
    ]
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists(), name
            assert name in kept, f"{name} is left out by .dockerignore"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"'\.\[(.+?)\]'", text):
        assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert re.search(r"^torch==[\d.]+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert text.count('ENTRYPOINT ["cgconvert"]') == 2
    assert text.count("\nUSER cgconvert\n") == 2
