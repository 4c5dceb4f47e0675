"""The job for a machine with a GPU: how it runs its tasks, and the tasks on the processor."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import job, task
from benchmarks.gpu.scale import UnavailableHere, bench_for
from benchmarks.gpu.training import go_on
from cgconvert.errors import Interrupted
from tests.trainer.conftest import make_domain, write_run
from trainer.storage.checkpoint import load_checkpoint

TASK = """
import json, os, sys, time
def record(**content):
    print("\\x1e" + json.dumps(content), flush=True)
card = os.environ.get("CARD", "one")
record(about=None if card == "none" else {"card": card, "torch": "2"})
name = sys.argv[1]
if name == "machine":
    record(row="engines", figures={"candidates": ["eager fp32", "compile fp16"]})
    record(row="limits", figures={"macs": {}, "copy_bytes": 1.0})
elif name == "equality/yuv420p":
    print("about to crash", flush=True)
    record(row="rgb", figures={"largest_difference": 0})
    os.abort()
elif name == "equality/yuv420p10le":
    record(row="rgb", figures={"largest_difference": 0})
    os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "600")
    time.sleep(600)
elif name == "norms":
    record(state="failed", error="RuntimeError: no such kernel")
    sys.exit(0)
elif name == "graphs":
    record(state="unavailable", error="CUDA graphs need a GPU")
    sys.exit(0)
record(state="passed")
"""
"""Stands in for the tasks: they crash, hang and fail, and no library is loaded for that."""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The job with tasks that do nothing, and times that suit them; the path of its file."""
    script = tmp_path / "task.py"
    script.write_text(TASK)
    monkeypatch.setattr(job, "TASK", script)
    monkeypatch.setattr(job, "GRACE", 0.2)
    monkeypatch.setattr(job, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(job, "home_folder", lambda: tmp_path)
    monkeypatch.setattr(job, "unpack_wheels", lambda folders, target: [])
    return tmp_path / "results" / "gpu.json"


def run(output: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """The job's exit code and its file."""
    code = job.main(["--output", str(output), *words])
    return code, json.loads(output.read_text()) if output.exists() else {}


def test_the_most_telling_tasks_come_first() -> None:
    names = [one.name for one in job.tasks(["eager fp32", "eager fp16", "compile fp32", "compile fp16"])]
    assert len(names) == len(set(names))
    assert names[:2] == ["machine", "contract/compile fp16"]
    kinds = list(dict.fromkeys(name.split("/")[0] for name in names))
    assert kinds[:6] == ["machine", "contract", "equality", "video", "speed", "training"]
    speeds = [name for name in names if name.startswith("speed/")]
    assert speeds[:3] == [
        f"speed/resnet9-ngf64 1080p {name}" for name in ("eager fp32", "compile fp16", "eager fp16")
    ]


def test_a_task_that_crashes_or_fails_is_recorded_and_the_next_goes_on(stub: Path) -> None:
    code, data = run(stub, "--tasks", "machine,equality/yuv420p,norms,graphs,wide")
    assert code == 1
    states = {name: one["state"] for name, one in data["tasks"].items()}
    assert states == {
        "machine": "passed",
        "equality/yuv420p": "crashed",
        "graphs": "unavailable",
        "norms": "failed",
        "wide": "passed",
    }
    crashed = data["tasks"]["equality/yuv420p"]
    assert crashed["rows"] == {"rgb": {"largest_difference": 0}}
    assert crashed["exit_code"] == -signal.SIGABRT and crashed["said"] == ["about to crash"]
    assert data["tasks"]["norms"]["error"] == "RuntimeError: no such kernel"
    assert data["about"] == {"card": "one", "torch": "2"} and data["rehearsal"] is False


def test_a_task_that_hangs_is_killed_with_all_that_it_started_and_tried_once_more(
    stub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(job, "tasks", lambda candidates: [job.Task("equality/yuv420p10le", 0.5)])
    started = time.monotonic()
    codes = [run(stub, "--tasks", "equality/*")[0] for _ in range(2)]
    assert time.monotonic() - started < 60
    assert codes == [3, 1]
    code, data = run(stub, "--tasks", "equality/*")
    late = data["tasks"]["equality/yuv420p10le"]
    assert code == 1 and late["state"] == "late" and late["calls"] == job.MOST_CALLS
    assert late["rows"] == {"rgb": {"largest_difference": 0}}
    assert "0 tasks run, 1 of 2 failed, 0 left" in capsys.readouterr().out


def test_the_same_command_goes_on_with_what_is_left(stub: Path) -> None:
    first, data = run(stub, "--tasks", "machine,wide")
    assert first == 0 and list(data["tasks"]) == ["machine", "wide"]
    second, data = run(stub, "--tasks", "machine,wide,memory")
    assert second == 0 and {name: one["calls"] for name, one in data["tasks"].items()} == {
        "machine": 1,
        "wide": 1,
        "memory": 1,
    }
    _, data = run(stub, "--tasks", "wide", "--again")
    assert data["tasks"]["wide"]["calls"] == 2 and data["tasks"]["machine"]["calls"] == 1


def test_when_the_time_is_over_no_task_begins(stub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, data = run(stub, "--minutes", "0", "--tasks", "machine,wide")
    assert code == 3 and list(data["tasks"]) == ["machine"]  # without it nobody knows what there is to do
    assert "1 left" in capsys.readouterr().out


def test_figures_of_another_card_do_not_come_into_the_same_file(
    stub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(stub, "--tasks", "machine")
    before = stub.read_bytes()
    monkeypatch.setenv("CARD", "another")
    code, _ = run(stub, "--tasks", "machine,wide")
    assert code == 2 and stub.read_bytes() == before
    assert capsys.readouterr().err == (
        f"{stub}: has the figures of one, torch 2; this is another, torch 2: give another --output\n"
    )
    code, _ = run(stub, "--device", "cpu")
    assert code == 2
    assert capsys.readouterr().err == f"{stub}: rehearsals and figures do not mix; give another --output\n"


def test_without_a_card_it_says_so(
    stub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CARD", "none")
    code, _ = run(stub)
    assert code == 2 and not stub.exists()
    assert capsys.readouterr().err == "no CUDA device: this job is for a machine that has one\n"


def test_a_signal_ends_the_job_and_its_task(tmp_path: Path, stub: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from benchmarks.gpu import job\n"
        f"job.TASK, job.home_folder = Path({str(tmp_path / 'task.py')!r}), lambda: Path({str(tmp_path)!r})\n"
        f"sys.exit(job.main(['--output', {str(stub)!r}, '--tasks', 'equality/yuv420p10le']))"
    )
    root = Path(job.__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    ) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if stub.exists() and "yuv420p10le" in stub.read_text():
                break
            time.sleep(0.05)
        process.terminate()
        assert process.wait(30) == Interrupted.exit_code
    assert json.loads(stub.read_text())["tasks"]["equality/yuv420p10le"]["state"] == "late"


def make_wheel(path: Path, package: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{package}/__init__.py", "VALUE = 7\n")


def test_wheels_that_fit_are_unpacked_once(tmp_path: Path) -> None:
    platform = f"manylinux_2_28_{os.uname().machine}"
    fits = ("cgfits-1-py3-none-any", f"cgstable-1-cp39-abi3-{platform}")
    for stem in (*fits, f"cgold-1-cp39-cp39-{platform}", "cgmac-1-cp39-abi3-macosx_11_0_arm64"):
        make_wheel(tmp_path / f"{stem}.whl", stem.split("-")[0])
    make_wheel(tmp_path / "numpy-1-py3-none-any.whl", "numpy")  # is installed
    for _ in range(2):
        found = job.unpack_wheels([tmp_path, tmp_path / "nothing"], tmp_path / "home")
        assert found == [tmp_path / "home" / stem for stem in fits]
    assert (found[0] / "cgfits" / "__init__.py").read_text() == "VALUE = 7\n"


def test_what_the_figures_say() -> None:
    def passed(**rows: Any) -> dict[str, Any]:
        return {"state": "passed", "rows": rows}

    speed = "speed/resnet9-ngf64 1080p"
    tasks = {
        f"{speed} eager fp32": passed(one={"network": 10.0, "share": 0.9}),
        f"{speed} compile fp16": passed(one={"network": 70.0, "share": 0.55}),
        f"{speed} eager fp16": {"state": "late", "rows": {"one": {"network": 999.0, "share": 1.0}}},
        "video/rgb": passed(video={"network_share": 0.2}),
        "video/planes": passed(video={"network_share": 0.4}),
        "video/whole-frame": passed(video={"network_share": 0.01}),
        "training/resnet9_ngf64_256 published": passed(step={"images_per_second": 10.0}),
        "training/resnet9_ngf64_256 ours bf16 compile": passed(step={"images_per_second": 25.0}),
    }
    assert job.summarise({"tasks": tasks}) == {
        "ResNet-9 1080p fp16 over eager fp32": {
            "figure": 7.0,
            "by": "compile fp16",
            "wanted": "at least 6",
            "met": True,
        },
        "ResNet-9 1080p fp16, share of the convolution rate": {
            "figure": 0.55,
            "by": "compile fp16",
            "wanted": "at least 0.5",
            "met": True,
        },
        "1080p video with photo2monet, network's share": {
            "figure": 0.2,
            "by": "rgb",
            "wanted": "at most 0.3",
            "met": True,
        },
        "training step of ResNet-9 over the published one": {
            "figure": 2.5,
            "by": "ours bf16 compile",
            "wanted": "at least 3",
            "met": False,
        },
    }
    assert job.summarise({"tasks": {}}) == {}


def rows(name: str) -> dict[str, dict[str, Any]]:
    """What a task makes on the processor, with tiny networks."""
    bench = bench_for("cpu", {"macs": {"fp32": 1e12}, "copy_bytes": 1e10})
    return dict(task.rows_of(name, bench, argparse.Namespace()))


def test_the_contract_holds_every_size_and_batch() -> None:
    found = rows("contract/eager fp32")
    checks = {name: row["passed"] for name, row in found.items() if "passed" in row}
    assert len(checks) == 14 and all(checks.values())
    assert found["opened again, same pixels"]["largest_difference"] == 0


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
def test_both_ways_of_a_video_are_equal(pixel_format: str) -> None:
    found = rows(f"equality/{pixel_format}")
    assert list(found) == ["rgb", "planes", "planes, decoder auto"]
    assert all(row["passed"] for row in found.values())
    assert found["rgb"]["path"] == [] and found["planes"]["path"] != []


@pytest.mark.parametrize("way", ["rgb", "planes"])
def test_a_video_is_measured(way: str) -> None:
    found = rows(f"video/{way}")["video"]
    assert found["passed"] and found["frames"] == [6, 6]
    assert 0 < found["network_share"] < 1


def test_what_the_processor_lacks_is_no_failure() -> None:
    for name in ("video/nvdec", "video/in-one", "graphs", "memory"):
        with pytest.raises(UnavailableHere, match=r"need|is for a GPU"):
            rows(name)


def test_speed_steps_and_conversions_are_measured() -> None:
    speed = rows("speed/resnet9-ngf64 256 eager fp32")
    assert {name: (row["batch"], row["problem"]) for name, row in speed.items()} == {
        "batch 1": (1, None),
        "batch 4": (4, None),
    }
    assert all(row["network"] > 0 and row["share"] > 0 for row in speed.values())
    for name in ("steps", "conversions", "wide"):
        found = rows(name)
        assert len(found) >= 2 and all(row["milliseconds"] > 0 for row in found.values())


def test_forms_of_layers_are_measured() -> None:
    found = rows("forms")
    assert [list(row["milliseconds"]) for row in found.values()] == [
        ["as it is", "padded"],
        ["as it is", "plain", "padded", "wide and padded"],
    ]
    assert all(row["taken"] in row["milliseconds"] for row in found.values())


def test_what_auto_takes_is_told() -> None:
    (row,) = rows("auto").values()
    assert row["passed"] and (not row["rates"] or row["engine"] in row["rates"])


def test_a_task_prints_its_rows_and_how_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    bench = bench_for("cpu", None)
    arguments = argparse.Namespace(seconds=600.0)
    assert task.carry_out("conversions", bench, arguments) == {"state": "passed"}
    printed = capsys.readouterr().out.rstrip("\n").split("\n")
    assert [json.loads(line[1:])["row"] for line in printed] == ["pixels to images", "images to pixels"]
    assert all(line.startswith(job.RECORD) for line in printed)
    arguments.seconds = 0.0
    assert task.carry_out("conversions", bench, arguments) == {"state": "late"}
    assert capsys.readouterr().out.count(job.RECORD) == 1
    assert task.carry_out("graphs", bench, arguments)["state"] == "unavailable"
    broken = task.carry_out("contract/none fp32", bench, arguments)
    assert broken["state"] == "failed" and broken["error"] == "KeyError: 'none'"


ONLY_THESE = """
import sys, importlib.metadata, importlib.machinery, runpy
ours = "cgconvert trainer benchmarks"
named = "torch numpy cv2 safetensors click rich av"
theirs = "torchgen functorch filelock sympy mpmath networkx jinja2 markupsafe fsspec typing_extensions"
allowed = set(f"{ours} {named} {theirs} setuptools markdown_it mdurl pygments".split())
finder = importlib.machinery.PathFinder
class OnlyThese:
    @staticmethod
    def find_spec(name, path=None, target=None):
        spec = finder.find_spec(name, path, target)
        installed = path is None and spec is not None and "site-packages" in str(spec.origin)
        return None if installed and name not in allowed else spec
sys.meta_path = [OnlyThese if one is finder else one for one in sys.meta_path]
known = importlib.metadata.distribution
def distribution(name):
    if name == "cgconvert":
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)
importlib.metadata.distribution = distribution
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_task_needs_only_what_the_job_says(tmp_path: Path) -> None:
    """A video with nothing installed beside torch, numpy, OpenCV, safetensors, click, rich and PyAV."""
    root = Path(job.__file__).parents[2]
    command = [sys.executable, "-c", ONLY_THESE, str(job.TASK), "video/planes", "--device", "cpu"]
    environment = {**os.environ, "CGCONVERT_HOME": str(tmp_path), "PYTHONPATH": str(root)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    records = [json.loads(line[1:]) for line in done.stdout.split("\n") if line.startswith(job.RECORD)]
    assert records and records[-1] == {"state": "passed"}, done.stdout + done.stderr
    assert records[0]["about"] == {"card": "none", "torch": torch.__version__}


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """A small training, not begun."""
    a, b = make_domain(tmp_path / "a", True), make_domain(tmp_path / "b", False)
    length = {"run.images": 4, "run.decay_images": 0, "watch.log_every": 1}
    settings: dict[str, Any] = {"data.a": str(a), "data.b": str(b), **length}
    return write_run(tmp_path / "run", settings)


def test_a_training_is_begun_and_its_files_are_kept(tmp_path: Path, training: Path) -> None:
    (training / "metrics.jsonl").write_text('{"kind": "los')  # a log that was cut off
    told = go_on(training, 5, tmp_path / "keep")
    assert told["passed"] and told["exit_code"] == 0
    assert told["before"] == {} and told["after"]["images"] == 4
    kept = {path.name for path in (tmp_path / "keep").iterdir()}
    assert {"config.toml", "checkpoint.pt", "metrics.jsonl", "report.html"} <= kept
    assert load_checkpoint(tmp_path / "keep" / "checkpoint.pt")["method"]["images_seen"] == 4


@pytest.mark.slow
def test_a_training_is_stopped_after_its_minutes_and_goes_on_from_there(
    tmp_path: Path, training: Path
) -> None:
    config = training / "config.toml"
    config.write_text(config.read_text().replace("images = 4 ", "images = 1000000 "))
    first = go_on(training, 0.4, tmp_path / "keep")
    second = go_on(training, 0.4, tmp_path / "keep")
    assert first["passed"] and second["passed"]
    assert first["exit_code"] == second["exit_code"] == Interrupted.exit_code
    assert second["before"] == first["after"]
    assert second["after"]["images"] > first["after"]["images"] > 0


def test_a_training_that_cannot_begin_has_not_passed(tmp_path: Path) -> None:
    told = go_on(tmp_path / "nothing", 1, tmp_path / "keep")
    assert not told["passed"] and told["exit_code"] == 2
    assert "no config.toml there" in told["said"][-1]
