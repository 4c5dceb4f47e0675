"""The processes of a training that `torchrun` has started. With a single one all of this does nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from cgconvert.errors import UsageError


@dataclass(frozen=True)
class World:
    """This process's place among `size` processes."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes, prints and measures."""
        return self.rank == 0

    @property
    def joined(self) -> bool:
        return self.size > 1

    def agree(self, wish: bool) -> bool:
        """Whether any process wishes it; all get the same answer, and stop and save together."""
        if not self.joined:
            return wish
        flag = torch.tensor([int(wish)])
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag.item())

    def same(self, number: float) -> float:
        """The first process's number, in every process: clocks differ, and learning rates must not."""
        if not self.joined:
            return number
        box = torch.tensor([number], dtype=torch.float64)
        dist.broadcast(box, src=0)
        return float(box.item())

    def share(self, text: str | None) -> str | None:
        """The first process's text, in every process."""
        if not self.joined:
            return text
        box = [text]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state of the first process, with the random numbers and pools of all of them."""
        if not self.joined:
            return state
        own = {"random": state["random"], "pools": state["method"].get("pools")}
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, own)
        return {**state, "processes": parts}

    def own_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state of this process in a checkpoint. Raises `UsageError` for another number of processes."""
        parts = state.get("processes")
        found = len(parts) if parts else 1
        if found != self.size:
            raise UsageError(
                f"the run was made by {found} processes and cannot be continued exactly by {self.size}"
            )
        if not parts:
            return state
        own = parts[self.rank]
        method = {**state["method"]}
        if own["pools"] is not None:
            method["pools"] = own["pools"]
        return {**state, "random": own["random"], "method": method}


@contextmanager
def joined_world() -> Iterator[World]:
    """The processes that `torchrun` has started, joined while the context lasts; else a single one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size <= 1:
        yield World()
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    card: torch.device | None = None
    if torch.cuda.is_available() and local < torch.cuda.device_count():
        # Else NCCL takes the first card in every process, until it meets a tensor on another one.
        card = torch.device("cuda", local)
        torch.cuda.set_device(card)
    # Control messages are CPU tensors, so gloo is needed beside nccl.
    dist.init_process_group("gloo" if card is None else "cpu:gloo,cuda:nccl", device_id=card)
    try:
        yield World(rank, size, local)
    finally:
        dist.destroy_process_group()


def mean_over_processes(values: Mapping[str, float], world: World) -> dict[str, float]:
    """The mean of each value over all processes."""
    if not world.joined or not values:
        return dict(values)
    names = sorted(values)
    numbers = torch.tensor([values[name] for name in names], dtype=torch.float64)
    dist.all_reduce(numbers)
    return dict(zip(names, (numbers / world.size).tolist(), strict=True))
