"""Half precision: float16 with a scaled loss, whose overflow skips one step; and what must stay float32.

`choose_precision` refuses float16 on a CPU, where it is slow, but the arithmetic is there; so what a GPU runs
is tested here but for its kernels.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainer.conftest import SMALL, write_run
from tests.trainer.test_resume import assert_same
from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.losses.contrastive import patch_nce
from trainer.losses.features import gram
from trainer.losses.ssim import ssim_map
from trainer.methods import Method, build_method
from trainer.runs import start as start_module
from trainer.runs.start import start
from trainer.storage.checkpoint import load_checkpoint
from trainer.storage.folder import RunFolder

HALF = Precision(torch.device("cpu"), "fp16")
START = 2.0**10  # torch starts higher, and skips some steps to come down


def make(method: str = "cyclegan", precision: Precision = HALF) -> Method:
    torch.manual_seed(0)
    changes = {"run.method": method, "loss.pool": 0}
    return at_scale(build_method(Config().with_changes({**SMALL, **changes}), precision))


def at_scale(method: Method) -> Method:
    state = method.state_dict()
    if state["scaler"]:
        state["scaler"]["scale"] = START
        method.load_state_dict(state)
    return method


def batch(seed: int = 1) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {name: torch.rand(1, 3, 32, 32, generator=random) * 2 - 1 for name in ("a", "b")}


def weights(method: Method, names: tuple[str, ...]) -> list[torch.Tensor]:
    return [p.detach().clone() for name in names for p in method.networks[name].parameters()]


@pytest.mark.parametrize("method", ["cyclegan", "pix2pix", "cut"])
def test_losses_are_near_those_of_float32_and_weights_stay_float32(method: str) -> None:
    half, plain = make(method), make(method, Precision(torch.device("cpu"), "fp32"))
    results = []
    for made in (half, plain):
        torch.manual_seed(3)
        results.append([made.train_step(batch(step)) for step in range(2)][-1])
    for name, value in results[1].items():
        assert float(results[0][name]) == pytest.approx(float(value), rel=0.05, abs=0.02), name
    for network in half.networks.values():
        assert all(p.dtype == torch.float32 for p in network.parameters())
    assert half.state_dict()["scaler"]["scale"] == START


def test_an_overflow_skips_that_optimizer_once_and_halves_the_scale() -> None:
    method = make()
    method.train_step(batch())
    generators, discs = ("gen_ab", "gen_ba"), ("disc_a", "disc_b")
    before, judges = weights(method, generators), weights(method, discs)
    moments = method.optimizers["generators"].state_dict()["state"][0]["exp_avg"].clone()
    parameter = next(method.networks["gen_ab"].parameters())
    handle = parameter.register_hook(lambda gradient: gradient * float("inf"))
    losses = method.train_step(batch())
    handle.remove()
    assert all(torch.isfinite(value) for value in losses.values()), "the loss is fine, its gradient was not"
    for old, new in zip(before, weights(method, generators), strict=True):
        assert torch.equal(old, new)
    assert torch.equal(method.optimizers["generators"].state_dict()["state"][0]["exp_avg"], moments)
    assert any(not torch.equal(o, n) for o, n in zip(judges, weights(method, discs), strict=True))
    assert method.state_dict()["scaler"]["scale"] == START / 2
    method.train_step(batch())
    assert any(not torch.equal(o, n) for o, n in zip(before, weights(method, generators), strict=True))
    assert method.state_dict()["scaler"]["scale"] == START / 2, "once"
    assert method.step == 3


def test_the_scale_grows_again_after_many_good_steps() -> None:
    method = make()
    method.train_step(batch())
    state = method.state_dict()
    state["scaler"]["_growth_tracker"] = state["scaler"]["growth_interval"] - 1
    method.load_state_dict(state)
    method.train_step(batch())
    assert method.state_dict()["scaler"]["scale"] == 2 * START


def test_a_run_goes_on_with_its_scale_bit_for_bit(
    tmp_path: Path, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_module, "choose_precision", lambda config, rank: HALF)
    whole, halves = (
        RunFolder(write_run(tmp_path / name, {**domains, "run.images": 6, "run.decay_images": 0}))
        for name in ("whole", "halves")
    )
    make_overflow(monkeypatch, at=2)
    start(whole)
    make_overflow(monkeypatch, at=2)
    start(halves, {"run.images": 3})
    assert load_checkpoint(halves.checkpoint)["method"]["scaler"]["scale"] == START / 2
    start(halves, resume=True)
    first, second = (load_checkpoint(folder.checkpoint)["method"] for folder in (whole, halves))
    assert first["scaler"]["scale"] == START / 2
    assert first["scaler"]["_growth_tracker"] == 4
    assert_same(first, second)


def make_overflow(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Make the gradients of step `at` overflow, in methods made from now on."""
    build = build_method

    def built(config: Config, precision: Precision, distributed: bool = False) -> Method:
        method = at_scale(build(config, precision, distributed))
        parameter = next(method.networks["gen_ab"].parameters())
        parameter.register_hook(lambda g: g * float("inf") if method.step == at - 1 else g)
        return method

    monkeypatch.setattr(start_module, "build_method", built)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_differences_of_large_numbers_are_taken_in_float32(dtype: torch.dtype) -> None:
    """Half precision made variances of smooth pictures negative: distillation in bfloat16 became NaN."""
    random = torch.Generator().manual_seed(0)
    smooth = 0.9 + 0.02 * torch.randn(2, 3, 4, 4, generator=random)
    first = torch.nn.functional.interpolate(smooth, size=64, mode="bicubic")
    second = first + 0.01 * torch.randn(first.shape, generator=random)
    vectors = torch.nn.functional.normalize(torch.randn(2, 64, 256, generator=random), dim=-1)

    def results() -> list[torch.Tensor]:
        near = vectors + 0.001
        return [ssim_map(first, second, 2.0), gram(100 * first), patch_nce(near, vectors, 0.07)]

    wanted = results()
    assert wanted[0].min() > -1
    assert wanted[0].max() <= 1 + 1e-5
    with torch.autocast("cpu", dtype):
        for found, plain in zip(results(), wanted, strict=True):
            assert found.dtype == torch.float32
            assert torch.equal(found, plain)
