"""Two processes learn what one learns from the joined batch, and stop, save and go on together."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cgconvert.errors import UsageError
from tests.trainer.conftest import SMALL, make_domain, make_pairs, write_run
from tests.trainer.test_resume import CYCLEGAN, ENVIRONMENT, PIX2PIX, assert_same, losses_of
from tests.trainer.two_processes import JOINED, STOPPED
from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.methods import build_method
from trainer.runs.start import start
from trainer.storage.checkpoint import load_checkpoint
from trainer.storage.folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
TOGETHER = {
    "cyclegan": {"loss.colour": 2.0},
    "pix2pix": {
        "run.method": "pix2pix",
        "network.generator": "resnet",  # without the batch norm of the U-Net, which sees only its own half
        "network.arguments": {"ngf": 4, "blocks": 1},
        "data.preprocess": "crop",
    },
    # CUT draws its places, so all of them are compared; in two layers of few places.
    "cut": {"run.method": "cut", "loss.nce_patches": 100_000, "loss.nce_layers": [2, 4]},
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Settings that name the pictures of each method."""
    folder = tmp_path_factory.mktemp("pictures")
    domains = {
        "data.a": str(make_domain(folder / "a", True)),
        "data.b": str(make_domain(folder / "b", False)),
    }
    pairs = {"data.pairs": str(make_pairs(folder / "pairs"))}
    return {"cyclegan": domains, "pix2pix": pairs, "cut": domains}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, places: dict[str, dict[str, str]]) -> Path:
    """The folder of all runs of `two_processes`, after they have ended."""
    folder = tmp_path_factory.mktemp("runs")
    for name in JOINED:
        write_run(folder / f"{name}-two", {**joined_settings(name, places), "run.batch": 2})
    # Batch norms that keep their statistics from the twelfth image on, after the stop at the tenth.
    frozen = PIX2PIX | {"network.norm_frozen": 0.75}
    for name, settings in zip(STOPPED, (CYCLEGAN, frozen), strict=True):
        length = {"run.images": 16, "run.decay_images": 8, "watch.checkpoint_every": 100}
        for kind in ("straight", "stopped"):
            write_run(folder / f"{name}-{kind}", settings | places[name] | length)
    length = {"run.images": 8, "run.decay_images": 2, "watch.checkpoint_every": 4}
    write_run(folder / "faded", places["cyclegan"] | length)
    length = {"run.images": 100, "run.decay_images": 100, "run.hours": 1 / 3600}
    write_run(folder / "hours", places["cyclegan"] | length)
    write_run(folder / "signalled", {**places["cyclegan"], "run.images": 8, "run.decay_images": 2})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    # One process that waits for the other for ever is what this is about: the time limit is its failure.
    done = subprocess.run(
        [*command, "-m", "tests.trainer.two_processes", str(folder)],
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)},
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def joined_settings(name: str, places: dict[str, dict[str, str]]) -> dict[str, Any]:
    """A training of three steps with four images each, without random numbers in a step."""
    length = {"run.images": 12, "run.decay_images": 4, "watch.log_every": 4, "watch.checkpoint_every": 100}
    return {**places[name], **TOGETHER[name], **length, "run.precision": "fp64", "loss.pool": 0}


@pytest.mark.parametrize("name", JOINED)
def test_two_processes_are_one_with_the_joined_batch(
    tmp_path: Path, runs: Path, places: dict[str, dict[str, str]], name: str
) -> None:
    """In double precision, so that only the order of sums differs, by some 1e-15 of them."""
    one, two = tmp_path / "one", runs / f"{name}-two"
    write_run(one, {**joined_settings(name, places), "run.batch": 4})
    start(RunFolder(one))
    first, second = losses_of(one), losses_of(two)
    assert [images for images, _ in first] == [images for images, _ in second] == [4, 8, 12]
    for (images, alone), (_, together) in zip(first, second, strict=True):
        assert together == pytest.approx(alone, rel=1e-9), images
    weights = [load_checkpoint(run / "checkpoint.pt")["method"]["networks"] for run in (one, two)]
    for network, tensors in weights[0].items():
        for key, tensor in tensors.items():
            torch.testing.assert_close(weights[1][network][key], tensor, atol=1e-7, rtol=0)


def test_a_learning_teacher_is_refused_in_several_processes(tmp_path: Path, domains: dict[str, str]) -> None:
    teacher = write_run(tmp_path / "teacher", {**domains, "run.images": 1, "run.decay_images": 1})
    start(RunFolder(teacher))
    settings = {**SMALL, "run.method": "distill", "distill.checkpoint": str(teacher), "distill.online": True}
    with pytest.raises(UsageError, match="online needs a single process"):
        build_method(
            Config().with_changes(settings), Precision(torch.device("cpu"), "fp32"), distributed=True
        )


def test_a_run_of_two_is_not_continued_by_one(runs: Path) -> None:
    with pytest.raises(UsageError, match="made by 2 processes and cannot be continued exactly by 1"):
        start(RunFolder(runs / "cyclegan-two"), resume=True)


@pytest.mark.parametrize("name", STOPPED)
def test_two_stopped_processes_go_on_exactly(runs: Path, name: str) -> None:
    one, two = runs / f"{name}-straight", runs / f"{name}-stopped"
    first, second = (load_checkpoint(run / "checkpoint.pt") for run in (one, two))
    assert first["method"]["step"] == 8
    assert_same(first, second)
    assert losses_of(one) == losses_of(two)
    assert len(losses_of(one)) == 8


def test_what_only_the_first_process_sees_keeps_all_from_saving(runs: Path) -> None:
    state = load_checkpoint(runs / "faded" / "checkpoint.pt")
    assert state["method"]["images_seen"] == 8, "the end is kept"
    assert len(state["processes"]) == 2


def test_by_the_clock_all_processes_follow_the_first_ones(runs: Path) -> None:
    rates, others = (json.loads((runs / f"rates-{rank}").read_text()) for rank in (0, 1))
    assert rates == others
    assert rates[0] > 0.9, "not that of the second, whose clock is an hour further"
    assert len(rates) > 5
    assert rates == sorted(rates, reverse=True)


def test_a_signal_to_one_process_stops_all(runs: Path) -> None:
    for rank in (0, 1):
        assert (runs / f"told-{rank}").read_text().startswith("stopped after 0 images; go on with")
    assert "<p>interrupted, 0 images" in (runs / "signalled" / "report.html").read_text()
