"""CUDA graphs: a network's launches recorded once and replayed as one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UPS = 3
"""Runs before the recording: libraries load, algorithms are chosen and memory is reserved in them."""


def record_graph(run: Callable[[Tensor], Tensor], example: Tensor) -> Callable[[Tensor], Tensor]:
    """`run` for CUDA inputs of exactly the shape, type and memory format of `example`, as a graph.

    The recorded input and output have fixed addresses: the result is a copy, since the next call overwrites
    what the graph writes. The device of `example` is the current one meanwhile: a graph records what the
    current device is given, which is the first one unless somebody says otherwise.
    Follows https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
    """
    device = example.device
    with torch.cuda.device(device):
        return _record(run, example, device)


def _record(
    run: Callable[[Tensor], Tensor], example: Tensor, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """On the current device, which is `device`."""
    fixed_input = example.clone(memory_format=torch.preserve_format)
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            run(fixed_input)
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        fixed_output = run(fixed_input)

    def replay(images: Tensor) -> Tensor:
        fixed_input.copy_(images)
        graph.replay()
        return fixed_output.clone()

    return replay
