"""Steps on a GPU: every precision, compiled, continued."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainer.conftest import SMALL, write_run
from trainer.compute.precision import choose_precision
from trainer.config import Config
from trainer.methods import build_method
from trainer.runs.start import start
from trainer.storage.checkpoint import load_checkpoint
from trainer.storage.folder import RunFolder

pytestmark = pytest.mark.needs_cuda


def batch() -> dict[str, torch.Tensor]:
    return {name: torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8) for name in ("a", "b")}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("method", ["cyclegan", "pix2pix", "cut"])
def test_steps_of_every_precision(method: str, compiled: bool, precision: str) -> None:
    changes = {
        "run.method": method,
        "run.device": "cuda",
        "run.precision": precision,
        "run.compile": compiled,
    }
    config = Config().with_changes({**SMALL, **changes})
    made = build_method(config, choose_precision(config.run))
    for _ in range(3):
        losses = made.train_step(batch())
    assert all(torch.isfinite(value) for value in losses.values())
    assert next(made.networks["disc_a" if method == "cyclegan" else "disc"].parameters()).is_cuda


def test_gpu_and_cpu_take_the_same_step() -> None:
    data = batch()
    results = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        config = Config().with_changes(
            {**SMALL, "run.device": device, "run.precision": "fp64", "loss.pool": 0}
        )
        made = build_method(config, choose_precision(config.run))
        results.append({name: float(value) for name, value in made.train_step(data).items()})
    for name, value in results[0].items():
        assert results[1][name] == pytest.approx(value, rel=1e-9)


def test_a_run_goes_on_on_the_gpu(tmp_path: Path, domains: dict[str, str]) -> None:
    run = write_run(
        tmp_path / "run",
        {**domains, "run.device": "cuda", "run.precision": "fp16", "run.images": 8, "run.decay_images": 4},
    )
    start(RunFolder(run))
    start(RunFolder(run), {"run.images": 12}, resume=True)
    state = load_checkpoint(run / "checkpoint.pt")
    assert state["method"]["images_seen"] == 12
    assert state["method"]["scaler"]["scale"] > 0
