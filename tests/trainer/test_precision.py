"""Devices and number formats: as asked, or refused."""

from __future__ import annotations

import pytest
import torch

from cgconvert.errors import UnavailableError, UsageError
from trainer.compute.distributed import World, joined_world
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


@pytest.mark.parametrize(("cards", "rank"), [(2, 1), (1, 1), (0, 0)])
def test_a_process_is_joined_with_its_own_card(
    cards: int, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL takes the current device, which is the first one in every process unless it is told."""
    said: list[object] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: said.append(device))
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda backend, device_id: said.extend([backend, device_id])
    )
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: said.append("left"))
    with joined_world() as world:
        assert world == World(rank, 2, rank)
    card = torch.device("cuda", rank)
    wanted = [card, "cpu:gloo,cuda:nccl", card, "left"] if rank < cards else ["gloo", None, "left"]
    assert said == wanted
