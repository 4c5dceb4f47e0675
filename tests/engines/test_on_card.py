"""The forms of layers for a card: the same functions, and taken only where they are measured to be faster."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cgconvert.engines.compiled import CompileEngine
from cgconvert.engines.fuse import WideConvolution, operate
from cgconvert.engines.on_card import (
    PaddedConvolution,
    ShiftedSum,
    forms_of,
    measured_forms,
    with_forms,
    with_shifted_sums,
)
from cgconvert.generators.layers import GridFilter, NarrowGridFilter
from cgconvert.tensors.images import psnr
from tests.engines.models import make_model

CPU = torch.device("cpu")


def images(channels: int = 3, height: int = 32, width: int = 48) -> torch.Tensor:
    return torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("kind", ["h2", "h2_noise"])
def test_shifted_sums_are_the_same_filters(kind: str) -> None:
    network = operate(make_model(kind).generator)
    changed = with_shifted_sums(network)
    filters = [layer for layer in changed.modules() if isinstance(layer, GridFilter | NarrowGridFilter)]
    assert filters == [] and sum(isinstance(layer, ShiftedSum) for layer in changed.modules()) == 2
    given = images(5 if kind == "h2_noise" else 3)
    with torch.inference_mode():
        assert psnr(changed(given), network(given)) > 110
        half = changed.to(torch.bfloat16)(given.bfloat16())
    assert half.dtype == torch.bfloat16 and torch.isfinite(half).all()


def test_every_form_of_a_layer_is_the_same_function() -> None:
    network = operate(make_model("resnet").generator)
    layers = {name: layer for name, layer in network.named_modules() if forms_of(layer)}
    assert {type(layer) for layer in layers.values()} == {nn.Conv2d, WideConvolution}
    found = set()
    with torch.inference_mode():
        for layer in layers.values():
            given = images(layer.weight.shape[1], 38, 54)
            for form, other in forms_of(layer).items():
                found.add(form)
                assert psnr(other(given), layer(given)) > 110, form
                for one in (one for one in other.modules() if isinstance(one, PaddedConvolution)):
                    assert one.weight.shape[0] % 8 == 0 and one.weight.shape[1] % 8 == 0
    assert found == {"plain", "padded", "wide and padded"}


def timed(*seconds: float) -> Callable[[Callable[[], object]], float]:
    """Runs what it is given, and says these seconds, one for each run."""
    times = iter(seconds)

    def run(work: Callable[[], object]) -> float:
        work()
        return next(times)

    return run


def test_a_form_is_taken_where_it_is_clearly_faster() -> None:
    network = operate(make_model("resnet").generator)
    # The first convolution as it is and padded, then the last: wide, plain, padded, wide and padded.
    chosen = measured_forms(network, images(), timed(1.0, 0.99, 1.0, 0.9, 0.5, 0.6))
    ((name, form),) = chosen.items()
    assert form == "padded" and isinstance(network.get_submodule(name), WideConvolution)
    changed = with_forms(network, chosen)
    assert isinstance(changed.get_submodule(name), PaddedConvolution)
    assert isinstance(network.get_submodule(name), WideConvolution), "the network itself stays as it is"
    assert measured_forms(network, images(), timed(1.0, 0.9, 1.0, 2.0, 2.0, 2.0)) == {
        next(name for name, layer in network.named_modules() if forms_of(layer)): "padded"
    }
    with torch.inference_mode():
        assert psnr(changed(images()), network(images())) > 100


def test_an_engine_on_a_card_measures_when_it_is_built_and_keeps_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here with a network in main memory and invented times; what is traced again has the same forms."""
    engine = CompileEngine(make_model("resnet"), CPU, "fp32")
    engine.why_traced = "there is no CUDA toolkit (CUDA_HOME)"
    compiled: list[Any] = []

    def compile(network: nn.Module, **options: Any) -> nn.Module:
        compiled.append(network)
        return network

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(torch.compiler, "save_cache_artifacts", lambda: (b"kernels", None))
    monkeypatch.setattr(torch.compiler, "load_cache_artifacts", lambda data: None)
    engine.write(tmp_path, (1, 32, 48))
    assert compiled[-1] is engine.network, "on a processor nothing is measured"
    monkeypatch.setattr(CompileEngine, "changes_layers", True)
    times = [1.0, 0.5] + [1.0] * 4
    monkeypatch.setattr("cgconvert.engines.compiled.seconds_on", lambda device: timed(*times))
    engine.write(tmp_path, (1, 32, 48))
    built = [type(layer) for layer in compiled[-1].modules()]
    assert built.count(PaddedConvolution) == 1
    run = engine._load(tmp_path)
    assert [type(layer) for layer in compiled[-1].modules()] == built
    kept = json.loads((tmp_path / "recipe.json").read_text())
    assert list(kept["forms"].values()) == ["padded"]
    with torch.inference_mode():
        assert psnr(run(images()), engine.model.generator(images())) > 100
