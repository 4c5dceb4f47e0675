"""Devices and number formats: as asked, or refused."""

from __future__ import annotations

import pytest
import torch

from cgconvert.errors import UnavailableError, UsageError
from trainer.compute.precision import choose_device, choose_precision
from trainer.config import RunConfig


def test_devices_and_precisions_are_as_asked_or_refused() -> None:
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(UsageError, match="unknown device 'tpux': use auto, cpu"):
        choose_device("tpux")
    with pytest.raises(UsageError, match=r"device 'gpu' \(Intel\) is for conversions only"):
        choose_device("gpu")
    with pytest.raises(UnavailableError, match="fp16 training needs a GPU"):
        choose_precision(RunConfig(device="cpu", precision="fp16"))
    if not torch.cuda.is_available():
        with pytest.raises(UnavailableError, match="no device cuda"):
            choose_device("cuda")
    assert choose_precision(RunConfig(device="cpu", precision="fp32")).name == "fp32"


def test_each_process_of_a_training_takes_its_own_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(choose_device(name, 1)) for name in ("auto", "cuda", "cuda:0")] == [
        "cuda:1",
        "cuda:1",
        "cuda:0",
    ]
    with pytest.raises(UnavailableError, match="no device cuda:2: 2 CUDA devices are visible"):
        choose_device("auto", 2)
