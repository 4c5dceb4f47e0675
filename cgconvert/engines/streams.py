"""Pictures side by side on a CPU: each in a thread of its own, with its share of the cores.

Within one picture every layer splits its work over the cores and waits for the slowest of them, a hundred
times and more; whole pictures never wait for each other, and a neighbour that takes a core for a while
delays one of them only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

MOST_STREAMS = 4
"""Each holds the memory of a picture; with many cores the larger layers make good use of several."""


def count_streams(device: torch.device) -> int:
    """How many pictures are best worked on side by side; one on devices that do so by themselves."""
    return min(MOST_STREAMS, torch.get_num_threads()) if device.type == "cpu" else 1


class Streams:
    """`count` threads that share torch's threads among them. `close` when done."""

    def __init__(self, count: int) -> None:
        self.count = count
        threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(count, "cgconvert-stream")
        together = threading.Barrier(count + 1)

        def settle() -> None:
            torch.get_num_threads()  # the first call in a thread sets it to the common number
            torch.set_num_threads(max(1, threads // count))
            together.wait()

        settling = [self._pool.submit(settle) for _ in range(count)]
        together.wait()
        for one in settling:
            one.result()
        torch.set_num_threads(threads)  # for this thread and those to come; the pool's keep theirs

    def run(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """What `network` makes of images (N, C, H, W), one picture at a time in each thread, in order."""
        return torch.cat(list(self._pool.map(network, images.split(1))))

    def close(self) -> None:
        """End the threads after what they are doing."""
        self._pool.shutdown()
