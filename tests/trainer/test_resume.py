"""A run that is killed and continued ends where one that was never stopped ends, bit for bit."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from cgconvert.errors import Interrupted
from tests.trainer.conftest import H2_TINY, make_domain, make_pairs, write_run
from trainer.exporting.export import export_model
from trainer.methods.cut import Cut
from trainer.methods.distill import Distill
from trainer.methods.one_sided import OneSided
from trainer.runs.start import start
from trainer.storage.checkpoint import load_checkpoint
from trainer.storage.folder import RunFolder

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
DIFFERENT = {"elapsed", "watch"}  # time, and nothing that the training depends on

CYCLEGAN = {
    "run.method": "cyclegan",
    "loss.diffaugment": ["color", "translation"],
    "loss.temporal": 1.0,
    "loss.colour": 2.0,
    "loss.r1": 0.1,
    "loss.r1_every": 3,
}
PIX2PIX = {
    "run.method": "pix2pix",
    "network.generator": "unet",
    "network.arguments": {"ngf": 4, "depth": 5},
    "network.disc_norm": "batch",
    "loss.gan": "vanilla",
    "data.preprocess": "resize_and_crop",
    "data.load_size": 40,
}


def command(run: Path, *words: str, processes: int = 1) -> list[str]:
    if processes == 1:
        return [sys.executable, "-m", "trainer", *words, str(run)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}"]
    return [sys.executable, *torchrun, "-m", "trainer", *words, str(run)]


def straight(run: Path, processes: int = 1) -> dict[str, Any]:
    subprocess.run(command(run, "run", processes=processes), check=True, env=ENVIRONMENT, timeout=120)
    return load_checkpoint(run / "checkpoint.pt")


def images_in(run: Path) -> int:
    """Images of the last checkpoint, 0 before there is one."""
    path = run / "checkpoint.pt"
    return int(load_checkpoint(path)["method"]["images_seen"]) if path.exists() else 0


def killed_and_resumed(run: Path, after: int, processes: int = 1) -> dict[str, Any]:
    process = subprocess.Popen(
        command(run, "run", processes=processes), env=ENVIRONMENT, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 90
        while images_in(run) < after:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert images_in(run) == after, "the run was too far already"
    subprocess.run(command(run, "resume", processes=processes), check=True, env=ENVIRONMENT, timeout=120)
    return load_checkpoint(run / "checkpoint.pt")


def assert_same(first: Any, second: Any, where: str = "") -> None:
    """Equal to the last bit, all the way down."""
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            if key not in DIFFERENT:
                assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for index, (one, two) in enumerate(zip(first, second, strict=True)):
            assert_same(one, two, f"{where}[{index}]")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    else:
        assert first == second, where


def losses_of(run: Path) -> list[tuple[int, dict[str, float]]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(line["images"], line["losses"]) for line in lines if line["kind"] == "losses"]


@pytest.mark.parametrize(
    ("name", "settings", "processes"),
    [
        ("cyclegan", CYCLEGAN, 1),
        ("pix2pix", PIX2PIX, 1),
        pytest.param("cyclegan", CYCLEGAN, 2, marks=pytest.mark.slow),
        pytest.param("pix2pix", PIX2PIX, 2, marks=pytest.mark.slow),
    ],
    ids=["cyclegan", "pix2pix", "cyclegan-2-processes", "pix2pix-2-processes"],
)
def test_killed_run_goes_on_exactly(
    tmp_path: Path, name: str, settings: dict[str, Any], processes: int
) -> None:
    if name == "pix2pix":
        data = {"data.pairs": str(make_pairs(tmp_path / "pairs"))}
    else:
        a, b = make_domain(tmp_path / "a", True), make_domain(tmp_path / "b", False)
        data = {"data.a": str(a), "data.b": str(b)}
    length = {"run.images": 20 * processes, "run.decay_images": 10, "watch.checkpoint_every": 10 * processes}
    one = write_run(tmp_path / "straight", settings | data | length)
    two = write_run(tmp_path / "killed", settings | data | length)
    first = straight(one, processes)
    second = killed_and_resumed(two, 10 * processes, processes)
    assert first["method"]["step"] == 20
    assert_same(first, second)
    assert losses_of(one) == losses_of(two), "the log has each line once"
    assert len(losses_of(one)) == 20


CUT = {"run.method": "cut", "loss.diffaugment": ["color"], "loss.temporal": 1.0, "loss.nce_patches": 16}
DISTILL = {"run.method": "distill", "loss.temporal": 1.0, "optimizer.disc_lr": 1e-4}
ONE_SIDED = {
    "run.method": "one_sided",
    "data.crop_size": 64,
    "network.arguments": H2_TINY | {"norm": "batch"},
    "network.noise": 2,
    "network.norm_frozen": 0.25,  # before the stop: the statistics must still stand after it
    "loss.projected": 2.0,
    "loss.content": 0.4,
    "loss.colour": 1.5,
    "loss.temporal": 2.0,
    "loss.diffaugment": ["color", "translation"],
}
METHODS = {"cut": (CUT, Cut), "one_sided": (ONE_SIDED, OneSided)}


@pytest.mark.parametrize("case", ["cut", "one_sided", "distill", "distill-run", "distill-online"])
def test_stopped_run_goes_on_exactly(
    tmp_path: Path, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    settings, method = METHODS.get(case, (DISTILL, Distill))
    if case not in METHODS:
        settings = {**settings}
        short = {"run.images": 2, "run.decay_images": 1}
        teacher = RunFolder(write_run(tmp_path / "teacher", domains | short))
        start(teacher)
        if case == "distill":
            export_model(teacher.checkpoint, tmp_path / "big.safetensors", "gen_ab")
            settings["distill.teacher"] = str(tmp_path / "big.safetensors")
        else:
            settings |= {"distill.checkpoint": str(teacher.path), "distill.online": case == "distill-online"}
    length = {"run.images": 12, "run.decay_images": 6, "watch.checkpoint_every": 100}
    runs = [RunFolder(write_run(tmp_path / name, settings | domains | length)) for name in ("one", "two")]
    start(runs[0])
    inner = method.train_step

    def step(self: Any, batch: Any) -> Any:
        if self.images_seen == 4:
            signal.raise_signal(signal.SIGTERM)
        return inner(self, batch)

    with monkeypatch.context() as stopping:
        stopping.setattr(method, "train_step", step)
        with pytest.raises(Interrupted, match="stopped after 5 images"):
            start(runs[1])
    torch.manual_seed(99)  # another process's numbers
    start(runs[1], resume=True)
    first, second = (load_checkpoint(run.checkpoint) for run in runs)
    assert first["method"]["step"] == 12
    assert_same(first, second)
    assert losses_of(runs[0].path) == losses_of(runs[1].path)
    assert len(losses_of(runs[0].path)) == 12


def test_interrupted_run_says_how_to_go_on(tmp_path: Path, domains: dict[str, str]) -> None:
    run = write_run(tmp_path / "run", {**domains, "run.images": 100_000, "run.decay_images": 0})
    process = subprocess.Popen(command(run, "run"), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (run / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("Error: stopped after")
    assert "cgconvert train resume" in errors
    logged = losses_of(run)[-1][0]
    assert images_in(run) >= logged > 0


def test_changed_settings_are_told_and_kept(
    tmp_path: Path, domains: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trainer")
    folder = RunFolder(write_run(tmp_path / "run", {**domains, "run.images": 2, "run.decay_images": 1}))

    def told(changes: dict[str, Any]) -> list[str]:
        caplog.clear()
        start(folder, changes, resume=folder.checkpoint.exists())
        return [m for m in caplog.messages if m.startswith(("run.images", "loss.temporal"))]

    assert told({"loss.temporal": 4.0}) == [
        f"loss.temporal = 4.0 for this start only; {folder.config} keeps 0.0",
    ]
    assert told({"run.images": 3, "loss.temporal": 1.5}) == [
        f"run.images = 3 for this start only; {folder.config} keeps 2",
        f"loss.temporal = 1.5 for this start only; {folder.config} keeps 0.0",
        "run.images 3, was 2",
        "loss.temporal 1.5, was 4.0",
    ]
    # The next start goes by the file again, and says so.
    assert told({}) == ["run.images 2, was 3", "loss.temporal 0.0, was 1.5"]
    told_in_log = [line for line in folder.lines() if line["kind"] == "settings"]
    assert told_in_log == [
        {"kind": "settings", "images": 2, "changed": {"run.images": [2, 3], "loss.temporal": [4.0, 1.5]}},
        {"kind": "settings", "images": 3, "changed": {"run.images": [3, 2], "loss.temporal": [1.5, 0.0]}},
    ]
    report = folder.report.read_text()
    assert "<p>From 2 images on: run.images 3, was 2; loss.temporal 1.5, was 4.0.</p>" in report
    assert load_checkpoint(folder.checkpoint)["config"]["loss"]["temporal"] == 0.0


def test_nothing_is_told_where_nothing_changed(
    tmp_path: Path, domains: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder(write_run(tmp_path / "run", {**domains, "run.images": 2, "run.decay_images": 1}))
    start(folder)
    start(folder, resume=True)
    assert not [message for message in caplog.messages if ", was " in message or "this start" in message]
    assert not [line for line in folder.lines() if line["kind"] == "settings"]
