"""The job for a machine with a GPU, as far as a machine without one can carry it out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import job as gpu_job
from benchmarks.gpu import training as gpu_training
from cgconvert.errors import Interrupted
from tests.trainer.conftest import make_domain, write_run
from trainer.storage.checkpoint import load_checkpoint


def run_job(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The job's exit code, with the processor in the card's place."""
    monkeypatch.setattr(gpu_job, "CUDA", torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(sys, "argv", ["gpu_job.py", *map(str, words)])
    return gpu_job.main()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A small training, not begun."""
    a, b = make_domain(tmp_path / "a", True), make_domain(tmp_path / "b", False)
    length = {"run.images": 4, "run.decay_images": 0, "watch.log_every": 1}
    settings: dict[str, Any] = {"data.a": str(a), "data.b": str(b), **length}
    return write_run(tmp_path / "run", settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_card_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_job.py", "--output", str(tmp_path / "gpu.json")])
    assert gpu_job.main() == 2
    assert capsys.readouterr().err == "no CUDA device: this job is for a machine that has one\n"
    assert not (tmp_path / "gpu.json").exists()


def test_a_section_that_fails_is_recorded_and_the_next_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken() -> dict[str, Any]:
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(gpu_job.SECTIONS, "norms", broken)
    output = tmp_path / "results" / "gpu.json"
    assert run_job(monkeypatch, "--output", output, "--sections", "norms,conversions,hardware") == 1
    told = json.loads(output.read_text())
    assert told["norms"]["passed"] is False and told["norms"]["error"] == "no such kernel"
    assert told["conversions"]["passed"] is True
    assert told["conversions"]["milliseconds"].keys() == {"pixels to images", "images to pixels"}
    assert told["hardware"]["libx264"] == "works"
    assert told["macs_resnet9_1080p"] == pytest.approx(1.568e12, rel=0.01)


def test_a_training_is_begun_and_its_files_are_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Path
) -> None:
    output, keep = tmp_path / "gpu.json", tmp_path / "keep"
    words = ("--output", output, "--sections", "none", "--train", run, "--keep", keep)
    assert run_job(monkeypatch, *words) == 0
    told = json.loads(output.read_text())["train"]
    assert told["exit_code"] == 0 and told["before"] == {} and told["after"]["images"] == 4
    assert {"config.toml", "checkpoint.pt", "metrics.jsonl", "report.html"} <= {
        p.name for p in keep.iterdir()
    }
    assert load_checkpoint(keep / "checkpoint.pt")["method"]["images_seen"] == 4


def test_a_log_that_ends_in_half_a_line_keeps_no_training_from_going_on(tmp_path: Path, run: Path) -> None:
    (run / "metrics.jsonl").write_text('{"kind": "los')
    told = gpu_training.go_on(run, 5, tmp_path / "keep")
    assert told["passed"] and told["before"] == {} and told["after"]["images"] == 4


@pytest.mark.slow
def test_a_training_is_stopped_after_its_minutes_and_goes_on_from_there(tmp_path: Path, run: Path) -> None:
    config = run / "config.toml"
    config.write_text(config.read_text().replace("images = 4 ", "images = 1000000 "))
    first = gpu_training.go_on(run, 0.4, tmp_path / "keep")
    second = gpu_training.go_on(run, 0.4, tmp_path / "keep")
    assert first["passed"] and second["passed"]
    assert first["exit_code"] == second["exit_code"] == Interrupted.exit_code
    assert second["before"] == first["after"]
    assert second["after"]["images"] > first["after"]["images"] > 0


def test_a_training_that_cannot_begin_has_not_passed(tmp_path: Path) -> None:
    told = gpu_training.go_on(tmp_path / "nothing", 1, tmp_path / "keep")
    assert not told["passed"] and told["exit_code"] == 2
    assert "no config.toml there" in told["said"][-1]
