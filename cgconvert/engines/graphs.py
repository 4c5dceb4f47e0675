"""CUDA graphs: a network's launches recorded once and replayed as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

WARM_UPS = 3
"""Runs before the recording: libraries load, algorithms are chosen and memory is reserved in them."""

_failed: list[torch.cuda.CUDAGraph] = []
"""Graphs whose recording failed, kept since torch's allocator of pinned memory points to them."""


class RecordedGraph:
    """A network's launches for inputs of one shape. Made by `record_graph`."""

    def __init__(
        self,
        run: Callable[..., Any],
        graph: torch.cuda.CUDAGraph,
        fixed_inputs: Sequence[Tensor],
        fixed_output: Any,
    ) -> None:
        # The graph calls the code of `run` and reads its weights, and keeps neither of them alive itself.
        self.run = run
        self.graph, self.fixed_inputs, self.fixed_output = graph, fixed_inputs, fixed_output

    def __call__(self, *inputs: Tensor) -> Any:
        """What was recorded makes of CUDA inputs like the recorded ones: one tensor, or several.

        They are copies, since the next call overwrites what the graph writes.
        """
        for fixed, given in zip(self.fixed_inputs, inputs, strict=True):
            fixed.copy_(given)
        self.graph.replay()
        if isinstance(self.fixed_output, Tensor):
            return self.fixed_output.clone()
        return [one.clone() for one in self.fixed_output]


def record_graph(run: Callable[..., Any], *examples: Tensor) -> RecordedGraph:
    """`run` for CUDA inputs of exactly the shapes, types and memory formats of `examples`, as a graph.

    The device of the examples is the current one meanwhile, and its current stream is the same afterwards,
    also where the recording fails. Raises as `run` and torch do.
    Follows https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
    """
    device = examples[0].device
    with torch.cuda.device(device):
        before = torch.cuda.current_stream(device)
        fixed_inputs = [one.clone(memory_format=torch.preserve_format) for one in examples]
        # A stream of our own: torch's is one for the whole process, on the device of the first recording.
        side = torch.cuda.Stream(device)
        side.wait_stream(before)
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                run(*fixed_inputs)
        before.wait_stream(side)
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        try:
            # "thread_local": what other threads do on the device, such as allocating, breaks no recording.
            with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
                fixed_output = run(*fixed_inputs)
        except BaseException:
            _clean_up(graph, pool, device)
            raise
        finally:
            # Where a recording fails, torch leaves the thread in the stream that was recorded.
            torch.cuda.set_stream(before)
    return RecordedGraph(run, graph, fixed_inputs, fixed_output)


def _clean_up(graph: torch.cuda.CUDAGraph, pool: tuple[int, int], device: torch.device) -> None:
    """Tell torch's allocator that a recording which failed is over.

    `CUDAGraph.capture_end` does so only where CUDA ends the recording well. Otherwise the allocator takes it
    for still going on: it reuses no memory that another stream has used, and `empty_cache` fails.
    """
    try:
        graph.pool()
    except RuntimeError:
        _failed.append(graph)
        with suppress(RuntimeError):  # where the recording had not even begun
            torch._C._cuda_endAllocateToPool(device.index, pool)
            torch._C._cuda_releasePool(device.index, pool)
    # Else the recording was ended, such as after a shortage of memory, and the graph gives its memory back.
