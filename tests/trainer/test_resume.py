"""A run that is killed and continued ends where one that was never stopped ends, bit for bit."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from cgconvert.errors import Interrupted
from tests.trainer.conftest import H2_TINY, make_pairs, write_run
from trainer.exporting.export import export_model
from trainer.methods.cut import Cut
from trainer.methods.cyclegan import CycleGan
from trainer.methods.distill import Distill
from trainer.methods.one_sided import OneSided
from trainer.methods.pix2pix import Pix2Pix
from trainer.networks.efficientnet import load_efficientnet
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


KILLED = """
import os, signal, sys
from pathlib import Path
from trainer.methods import METHODS
from trainer.runs.start import start
from trainer.storage.folder import RunFolder

folder = RunFolder(Path(sys.argv[1]))
method = METHODS[folder.read_config().run.method]
train_step = method.train_step

def killed(self, batch):
    if self.step == 6:  # the checkpoint is of step 4, the log has 6 lines
        os.kill(os.getpid(), signal.SIGKILL)
    return train_step(self, batch)

method.train_step = killed
start(folder)
"""


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
METHODS = {
    "cyclegan": (CYCLEGAN, CycleGan),
    "pix2pix": (PIX2PIX, Pix2Pix),
    "cut": (CUT, Cut),
    "one_sided": (ONE_SIDED, OneSided),
}


@pytest.mark.parametrize("case", ["cyclegan", "one_sided"])
def test_killed_run_goes_on_exactly(tmp_path: Path, domains: dict[str, str], case: str) -> None:
    settings, _ = METHODS[case]
    length = {"run.images": 8, "run.decay_images": 4, "watch.checkpoint_every": 4}
    one, two = (RunFolder(write_run(tmp_path / name, settings | domains | length)) for name in ("one", "two"))
    start(one)
    done = subprocess.run([sys.executable, "-c", KILLED, str(two.path)], env=ENVIRONMENT, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert load_checkpoint(two.checkpoint)["method"]["images_seen"] == 4
    assert losses_of(two.path)[-1][0] == 6
    load_efficientnet.cache_clear()  # another process reads it anew
    start(two, resume=True)
    first, second = (load_checkpoint(run.checkpoint) for run in (one, two))
    assert first["method"]["step"] == 8
    assert_same(first, second)
    assert losses_of(one.path) == losses_of(two.path), "the log has each line once"
    assert len(losses_of(one.path)) == 8


@pytest.mark.parametrize("case", [*METHODS, "distill", "distill-run", "distill-online"])
def test_stopped_run_goes_on_exactly(
    tmp_path: Path, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    settings, method = METHODS.get(case, (DISTILL, Distill))
    if case == "pix2pix":
        domains = {"data.pairs": str(make_pairs(tmp_path / "pairs"))}
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
    length = {"run.images": 8, "run.decay_images": 4, "watch.checkpoint_every": 100}
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
    load_efficientnet.cache_clear()  # and it reads the network anew
    start(runs[1], resume=True)
    first, second = (load_checkpoint(run.checkpoint) for run in runs)
    assert first["method"]["step"] == 8
    assert_same(first, second)
    assert losses_of(runs[0].path) == losses_of(runs[1].path)
    assert len(losses_of(runs[0].path)) == 8


def test_interrupted_run_says_how_to_go_on(tmp_path: Path, domains: dict[str, str]) -> None:
    run = write_run(tmp_path / "run", {**domains, "run.images": 100_000, "run.decay_images": 0})
    command = [sys.executable, "-m", "trainer", "run", str(run)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (run / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("Error: stopped after")
    assert "cgconvert train resume" in errors
    logged = losses_of(run)[-1][0]
    assert load_checkpoint(run / "checkpoint.pt")["method"]["images_seen"] >= logged > 0


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
