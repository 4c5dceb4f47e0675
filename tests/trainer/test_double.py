"""Double precision, the reference: nothing in a step narrows it, and a run in it works to its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cgconvert.models.loading import load_model
from tests.trainer.conftest import H2_TINY, SMALL, write_run
from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.exporting.export import export_model
from trainer.methods import Method, build_method
from trainer.runs.start import start
from trainer.storage.checkpoint import load_checkpoint
from trainer.storage.folder import RunFolder

EVERY_LOSS = {
    "loss.temporal": 1.0,
    "loss.feature_matching": 1.0,
    "loss.r1": 1.0,
    "loss.r1_every": 1,
    "loss.diffaugment": ["color", "translation", "cutout"],
}


class Narrowings(TorchDispatchMode):
    """Notes every operation that takes a float64 tensor and gives a floating one of a narrower type."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        taken, given = (
            {t.dtype for t in tree_leaves(values) if isinstance(t, torch.Tensor) and t.is_floating_point()}
            for values in ((args, kwargs), result)
        )
        if torch.float64 in taken and given - {torch.float64}:
            self.found.add(str(func))
        return result


def make(method: str, **changes: Any) -> Method:
    torch.manual_seed(0)
    settings = {**SMALL, "run.method": method, **changes}
    return build_method(Config().with_changes(settings), Precision(torch.device("cpu"), "fp64"))


def batch(edge: int = 32) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    return {name: torch.randint(0, 256, (1, 3, edge, edge), generator=random).byte() for name in ("a", "b")}


@pytest.fixture
def teacher(tmp_path: Path, domains: dict[str, str]) -> str:
    run = write_run(tmp_path / "teacher", {**domains, "run.images": 2, "run.decay_images": 0})
    start(RunFolder(run))
    export_model(run / "checkpoint.pt", tmp_path / "teacher.safetensors", "gen_ab", "fp32")
    return str(tmp_path / "teacher.safetensors")


@pytest.mark.parametrize("method", ["cyclegan", "pix2pix", "cut", "distill", "one_sided"])
def test_nothing_narrows_a_step(method: str, request: pytest.FixtureRequest) -> None:
    changes: dict[str, Any] = dict(EVERY_LOSS)
    if method == "cyclegan":
        changes["loss.colour"] = 1.0
    if method == "one_sided":
        changes |= {"data.crop_size": 64, "loss.projected": 1.0, "loss.content": 1.0, "loss.colour": 1.0}
        changes |= {"network.arguments": {**H2_TINY, "norm": "batch"}, "network.noise": 2}
    if method == "distill":
        changes["distill.teacher"] = request.getfixturevalue("teacher")
    made = make(method, **changes)
    with Narrowings() as narrowings:
        for _ in range(2):
            losses = made.train_step(batch(changes.get("data.crop_size", 32)))
    assert not narrowings.found
    assert {value.dtype for value in losses.values()} == {torch.float64}
    state = made.state_dict()
    kept = [state["networks"], state["ema"], state["pools"], state.get("colours", {})]
    moments = [
        {
            name: value for name, value in entry.items() if name != "step"
        }  # a count, which torch keeps in float32
        for optimizer in state["optimizers"].values()
        for entry in optimizer["state"].values()
    ]
    types = {
        t.dtype for t in tree_leaves([kept, moments]) if isinstance(t, torch.Tensor) and t.is_floating_point()
    }
    assert types == {torch.float64}


def test_half_precision_losses_and_the_mode_itself_are_noticed() -> None:
    made = make("cyclegan")
    with Narrowings() as narrowings:
        made.images(batch()["a"]).float()
    assert narrowings.found == {"aten._to_copy.default"}


def test_a_run_in_double_precision(tmp_path: Path, domains: dict[str, str]) -> None:
    changes = {"run.precision": "fp64", "run.images": 4, "run.decay_images": 2, "watch.metrics_every": 2}
    folder = RunFolder(write_run(tmp_path / "run", {**domains, **changes}))
    start(folder, {"run.images": 2})
    start(folder, resume=True)
    weights = load_checkpoint(folder.checkpoint)["method"]["ema"]["weights"]["gen_ab"]
    assert {tensor.dtype for tensor in weights.values()} == {torch.float64}
    kinds = [line["kind"] for line in folder.lines()]
    assert kinds.count("metrics") == 4, "both generators, at 2 and at 4 images"
    assert list(folder.samples.glob("gen_ba-*.png"))
    card = export_model(folder.checkpoint, tmp_path / "look.safetensors", "gen_ab", "fp32")
    assert card.arguments == H2_TINY
    exported = load_model(str(tmp_path / "look.safetensors")).generator.state_dict()
    for name, tensor in exported.items():
        torch.testing.assert_close(tensor, weights[name].float(), rtol=0, atol=0)
