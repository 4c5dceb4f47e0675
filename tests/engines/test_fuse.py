"""What is changed in a network before it runs changes nothing of what it computes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cgconvert.engines.fuse import WideConvolution, operate
from tests.engines.models import KINDS, make_model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_an_operated_network_computes_the_same(kind: str, size: tuple[int, int]) -> None:
    model = make_model(kind)
    images = torch.rand(2, model.card.network_channels, *size) * 2 - 1
    with torch.inference_mode():
        wanted = model.generator(images)
        got = operate(model.generator)(images)
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() < 2e-5


def test_the_original_stays_as_it_was() -> None:
    model = make_model("resnet_batch")
    before = {name: value.clone() for name, value in model.generator.state_dict().items()}
    operate(model.generator)
    after = model.generator.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_can_go_is_gone() -> None:
    plain = operate(make_model("resnet").generator)
    batch = operate(make_model("resnet_batch").generator)
    assert not any(isinstance(module, nn.BatchNorm2d | nn.Dropout) for module in batch.modules())
    assert sum(isinstance(module, WideConvolution) for module in plain.modules()) == 1
    biased = [m for m in plain.modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    assert biased == []


def test_a_bias_without_a_norm_after_it_is_kept() -> None:
    model = make_model("unet_instance")
    innermost = [m for m in operate(model.generator).modules() if isinstance(m, nn.Conv2d)]
    biased = [m for m in innermost if m.bias is not None]
    assert biased, "the first and the innermost convolution of a U-Net have no norm behind them"
