"""Pictures side by side on a CPU: each in a thread of its own, with its share of the cores.

Within one picture every layer splits its work over the cores and waits for the slowest of them, a hundred
times and more; whole pictures never wait for each other, and a neighbour that takes a core for a while
delays one of them only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue

import torch
from torch import Tensor

from cgconvert.host.channels import Worker

MOST_STREAMS = 4
"""Each holds the memory of a picture; with many cores the larger layers make good use of several."""


def count_streams(device: torch.device) -> int:
    """How many pictures are best worked on side by side; one on devices that do so by themselves."""
    return min(MOST_STREAMS, torch.get_num_threads()) if device.type == "cpu" else 1


class Streams:
    """`count` threads that share torch's threads among them. `close` when done."""

    def __init__(self, count: int) -> None:
        self.tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        together = threading.Barrier(count + 1)
        threads = torch.get_num_threads()

        def work() -> None:
            torch.get_num_threads()  # the first call in a thread sets it to the common number
            torch.set_num_threads(max(1, threads // count))
            together.wait()
            while (task := self.tasks.get()) is not None:
                task()

        self.threads = [Worker("stream", work) for _ in range(count)]
        for thread in self.threads:
            thread.start()
        together.wait()
        torch.set_num_threads(threads)  # for this thread and those to come; the streams keep theirs

    def run(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """What `network` makes of images (N, C, H, W), one picture at a time in each thread, in order.

        Raises the first error of the pictures, once all of them are through.
        """
        done: SimpleQueue[tuple[int, Tensor | BaseException]] = SimpleQueue()

        def task(index: int, image: Tensor) -> None:
            try:
                done.put((index, network(image)))
            except BaseException as error:  # whatever it is, it must reach the caller
                done.put((index, error))

        for index, image in enumerate(images.split(1)):
            self.tasks.put(partial(task, index, image))
        found = dict(done.get() for _ in range(len(images)))
        results = []
        for index in range(len(images)):
            result = found[index]
            if isinstance(result, BaseException):
                raise result
            results.append(result)
        return torch.cat(results)

    def close(self) -> None:
        """End the threads after what they are doing."""
        for _ in self.threads:
            self.tasks.put(None)
        for thread in self.threads:
            thread.join()
