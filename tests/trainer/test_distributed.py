"""Two processes learn what one learns from the joined batch."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from cgconvert.errors import UsageError
from tests.trainer.conftest import SMALL, make_domain, make_pairs, write_run
from tests.trainer.test_resume import CYCLEGAN, ENVIRONMENT, assert_same, command
from tests.trainer.test_resume import PIX2PIX as UNET_PIX2PIX
from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.methods import build_method
from trainer.runs.start import start
from trainer.storage.checkpoint import load_checkpoint
from trainer.storage.folder import RunFolder


def losses(run: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["losses"] for line in lines if line["kind"] == "losses"]


PIX2PIX = {
    "run.method": "pix2pix",
    "network.generator": "resnet",
    "network.arguments": {"ngf": 4, "blocks": 1},
    "data.preprocess": "crop",
}


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"loss.colour": 2.0}, id="cyclegan"),
        pytest.param(PIX2PIX, id="pix2pix", marks=pytest.mark.slow),
        pytest.param({"run.method": "cut"}, id="cut", marks=pytest.mark.slow),
    ],
)
def test_two_processes_are_one_with_the_joined_batch(tmp_path: Path, settings: dict[str, Any]) -> None:
    if settings.get("run.method") == "pix2pix":
        places = {"data.pairs": str(make_pairs(tmp_path / "pairs"))}
    else:
        places = {"data.a": str(make_domain(tmp_path / "a", True))}
        places["data.b"] = str(make_domain(tmp_path / "b", False))
    # No random numbers in the step; CUT draws its places, so there all of them are compared.
    common = {**places, **settings, "loss.pool": 0, "run.images": 12, "loss.nce_patches": 100_000}
    common |= {"watch.log_every": 4, "watch.checkpoint_every": 100}
    one = write_run(tmp_path / "one", {**common, "run.batch": 4})
    two = write_run(tmp_path / "two", {**common, "run.batch": 2})
    subprocess.run(command(one, "run"), check=True, env=ENVIRONMENT, timeout=120)
    subprocess.run(command(two, "run", processes=2), check=True, env=ENVIRONMENT, timeout=120)
    first, second = losses(one), losses(two)
    assert len(first) == len(second) == 3
    for step, (alone, together) in enumerate(zip(first, second, strict=True)):
        for name, value in alone.items():
            assert together[name] == pytest.approx(value, rel=2e-3 if step else 1e-4), (step, name)
    weights = [load_checkpoint(run / "checkpoint.pt")["method"]["networks"] for run in (one, two)]
    for network, tensors in weights[0].items():
        for name, tensor in tensors.items():
            if tensor.dim() > 1:  # biases before an instance norm walk at random
                torch.testing.assert_close(weights[1][network][name], tensor, atol=2e-4, rtol=0)


def test_a_learning_teacher_is_refused_in_several_processes(tmp_path: Path, domains: dict[str, str]) -> None:
    teacher = write_run(tmp_path / "teacher", {**domains, "run.images": 1, "run.decay_images": 1})
    start(RunFolder(teacher))
    settings = {**SMALL, "run.method": "distill", "distill.checkpoint": str(teacher), "distill.online": True}
    with pytest.raises(UsageError, match="online needs a single process"):
        build_method(
            Config().with_changes(settings), Precision(torch.device("cpu"), "fp32"), distributed=True
        )


def test_a_run_of_two_is_not_continued_by_one(tmp_path: Path, domains: dict[str, str]) -> None:
    run = write_run(tmp_path / "run", {**domains, "run.images": 4, "run.decay_images": 2, "run.batch": 1})
    subprocess.run(command(run, "run", processes=2), check=True, env=ENVIRONMENT, timeout=120)
    result = subprocess.run(
        command(run, "resume"), env=ENVIRONMENT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 2
    assert "made by 2 processes and cannot be continued exactly by 1" in result.stderr


WORKER = """
import sys, time
from pathlib import Path
from trainer.runs import loop, start
from trainer.methods import cyclegan
from trainer.storage.folder import RunFolder

folder, case = RunFolder(Path(sys.argv[1])), sys.argv[2]
inner = loop.train_until_problem

def watched(training, stop):
    if case == "faded" and training.world.first:
        training.health.faded["gen_ab"] = 1  # as after one grid of one colour: only this process sees grids
    if case == "hours":
        training.schedule.elapsed += 3600 * training.world.rank
        rates, set_rate = [], training.method.set_rate
        training.method.set_rate = lambda rate: (rates.append(rate), set_rate(rate))
    if case == "stop" and training.world.rank == 1:
        stop.append(15)
    problem = inner(training, stop)
    if case == "hours":
        Path(sys.argv[1], f"rates-{training.world.rank}").write_text(repr(rates))
    return problem

loop.train_until_problem = watched
start.start(folder)
"""


RESUMING = """
import signal, sys
from contextlib import nullcontext
from pathlib import Path
import torch
from cgconvert.errors import Interrupted
from trainer.runs import start
from trainer.compute.distributed import joined_world
from trainer.storage.folder import RunFolder

straight, stopped = RunFolder(Path(sys.argv[1])), RunFolder(Path(sys.argv[2]))
train = start.train

def stopping(training):
    step = training.method.train_step
    def counted(batch):
        if training.world.rank == 1 and training.method.images_seen == 8:
            signal.raise_signal(signal.SIGTERM)
        return step(batch)
    training.method.train_step = counted
    train(training)

with joined_world() as world:
    start.joined_world = lambda: nullcontext(world)  # joined once: processes start slowly
    start.start(straight)
    start.train = stopping
    try:
        start.start(stopped)
    except Interrupted as error:
        assert "stopped after 10 images" in str(error), error
    start.train = train
    torch.manual_seed(99)
    start.start(stopped, resume=True)
"""


def two_processes(run: Path, case: str) -> subprocess.CompletedProcess[str]:
    return run_script(WORKER, run, case)


def run_script(text: str, run: Path, word: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in two processes with a run's folder and a word as its arguments."""
    script = run.parent / "worker.py"
    script.write_text(text)
    words = command(run, "run", processes=2)
    words = [*words[: words.index("trainer") - 1], str(script), str(run), word]
    # One that waits for the other for ever is what this is about: the time limit is its failure.
    return subprocess.run(words, env=WORKER_ENVIRONMENT, timeout=120, capture_output=True, text=True)


WORKER_ENVIRONMENT = {**ENVIRONMENT, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


@pytest.mark.parametrize(
    "settings", [pytest.param(CYCLEGAN, id="cyclegan"), pytest.param(UNET_PIX2PIX, id="pix2pix")]
)
def test_two_stopped_processes_go_on_exactly(tmp_path: Path, settings: dict[str, Any]) -> None:
    if settings is UNET_PIX2PIX:
        places = {"data.pairs": str(make_pairs(tmp_path / "pairs"))}
    else:
        places = {"data.a": str(make_domain(tmp_path / "a", True))}
        places["data.b"] = str(make_domain(tmp_path / "b", False))
    length = {"run.images": 24, "run.decay_images": 12, "watch.checkpoint_every": 100}
    one, two = (write_run(tmp_path / name, settings | places | length) for name in ("one", "two"))
    done = run_script(RESUMING, one, str(two))
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (load_checkpoint(run / "checkpoint.pt") for run in (one, two))
    assert first["method"]["step"] == 12
    assert_same(first, second)
    assert losses(one) == losses(two)
    assert len(losses(one)) == 12


def test_what_only_the_first_process_sees_keeps_all_from_saving(
    tmp_path: Path, domains: dict[str, str]
) -> None:
    length = {"run.images": 8, "run.decay_images": 2, "watch.checkpoint_every": 4}
    run = write_run(tmp_path / "run", {**domains, **length})
    done = two_processes(run, "faded")
    assert done.returncode == 0, done.stderr[-2000:]
    state = load_checkpoint(run / "checkpoint.pt")
    assert state["method"]["images_seen"] == 8, "the end is kept"
    assert len(state["processes"]) == 2


def test_by_the_clock_all_processes_follow_the_first_ones(tmp_path: Path, domains: dict[str, str]) -> None:
    length = {"run.images": 100, "run.decay_images": 100, "run.hours": 0.001}
    run = write_run(tmp_path / "run", {**domains, **length})
    done = two_processes(run, "hours")
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = ((run / f"rates-{rank}").read_text() for rank in (0, 1))
    assert first == second
    rates = json.loads(first)
    assert rates[0] > 0.3, "not that of the second, whose clock is an hour further"
    assert len(rates) > 1
    assert rates == sorted(rates, reverse=True)


def test_a_signal_to_one_process_stops_all(tmp_path: Path, domains: dict[str, str]) -> None:
    run = write_run(tmp_path / "run", {**domains, "run.images": 8, "run.decay_images": 2})
    done = two_processes(run, "stop")
    assert done.returncode != 0
    assert done.stderr.count("stopped after 0 images; go on with") >= 2, done.stderr[-2000:]
    assert "<p>interrupted, 0 images" in (run / "report.html").read_text()
