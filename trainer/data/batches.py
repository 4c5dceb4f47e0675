"""Training images to batches: pictures are kept, shuffled by epoch and augmented, ahead in threads.

Image number k of a run depends on k and the seed alone, so that a run can be continued exactly.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cgconvert.errors import UsageError
from cgconvert.media.picture.codec import to_8_bit
from trainer.config import DataConfig
from trainer.data.augment import WHOLE, Pixels, SizeRule, augment, prepare
from trainer.data.pictures import Picture, read_picture, video_frames

Batch = dict[str, Tensor]
LABELS = "labels"  # the key of a batch's labels


class PictureCache:
    """Prepared pictures by their place in a list, decoded at first use, kept up to `limit` bytes.

    Beyond the limit pictures are decoded again at each use, which is slower and changes nothing else. `rule`
    is explained at `prepared_size`.
    """

    def __init__(
        self, pictures: tuple[Picture, ...], config: DataConfig, limit: int, rule: SizeRule = WHOLE
    ) -> None:
        self._pictures = pictures
        self._config = config
        self._limit = limit
        self._rule = rule
        self._full = False
        self._kept: dict[int, Pixels] = {}
        self._bytes = 0
        self._lock = Lock()
        self._video_lock = Lock()

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Pixels:
        picture = self._pictures[index]
        if picture.frame is not None:
            # The first thread that needs a frame decodes the video; the others find theirs kept.
            with self._video_lock:
                if index not in self._kept and not self._full:
                    self._keep_frames(picture.path)
        kept = self._kept.get(index)
        return self._keep(index, self.prepared(read_picture(picture))) if kept is None else kept

    def prepared(self, pixels: Pixels) -> Pixels:
        """What is kept of a decoded picture."""
        return prepare(pixels, self._config, self._rule)

    def _keep(self, index: int, pixels: Pixels) -> Pixels:
        with self._lock:
            if index not in self._kept:
                self._full = self._bytes + pixels.nbytes > self._limit
                if not self._full:
                    self._kept[index] = pixels
                    self._bytes += pixels.nbytes
        return pixels

    def _keep_frames(self, path: Path) -> None:
        """Keep as many frames of a video as the limit allows: one pass is cheaper than a search for each."""
        places = {p.frame: i for i, p in enumerate(self._pictures) if p.path == path and p.frame is not None}
        with closing(video_frames(path).read(places)) as frames:
            for number, pixels in frames:
                self._keep(places[number], self.prepared(to_8_bit(pixels)))
                if self._full:
                    break


class PairCache(PictureCache):
    """Side-by-side pictures: the left half is A, the right half B.

    The halves are prepared apart, or a resize would mix them at the seam, and joined over their channels.
    """

    def prepared(self, pixels: Pixels) -> Pixels:
        half = pixels.shape[1] // 2
        if half == 0:
            raise UsageError("a side-by-side picture must be at least 2 pixels wide")
        left, right = pixels[:, :half], pixels[:, half : 2 * half]
        return np.concatenate([super().prepared(left), super().prepared(right)], axis=2)


class MatchedCache:
    """Pairs from two parallel folders, joined over their channels; the two have one size once prepared."""

    def __init__(self, a: PictureCache, b: PictureCache) -> None:
        self._a, self._b = a, b

    def __len__(self) -> int:
        return len(self._a)

    def __getitem__(self, index: int) -> Pixels:
        return np.concatenate([self._a[index], self._b[index]], axis=2)


class Pictures(Protocol):
    """What a sampler draws from."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pixels: ...


class Sampler:
    """The endless sequence of training images of one source.

    Every epoch is a new permutation, so that each picture comes once before any comes twice. `stream` tells
    sources of one seed apart. `labels` are those of the pictures, by their places.
    """

    def __init__(
        self,
        pictures: Pictures,
        config: DataConfig,
        seed: int,
        stream: int,
        labels: Sequence[int] | None = None,
    ) -> None:
        self._pictures = pictures
        self.labels = labels
        self._config = config
        self._key = (seed, stream)
        self._orders: OrderedDict[int, np.ndarray] = OrderedDict()

    def __getitem__(self, number: int) -> Pixels:
        """Training image `number`: uint8 (H, W, C)."""
        picture = self._pictures[self.place(number)]
        return augment(picture, self._config, np.random.default_rng([*self._key, 1, number]))

    def place(self, number: int) -> int:
        """The place in the source of the picture that training image `number` is made of."""
        epoch, place = divmod(number, len(self._pictures))
        return int(self._order(epoch)[place])

    def _order(self, epoch: int) -> np.ndarray:
        """The permutation of an epoch; a few are kept, since threads work ahead into the next one."""
        order = self._orders.get(epoch)
        if order is None:
            order = np.random.default_rng([*self._key, 0, epoch]).permutation(len(self._pictures))
            self._orders[epoch] = order
            while len(self._orders) > 4:
                self._orders.popitem(last=False)
        return order


def to_tensor(pixels: Pixels) -> Tensor:
    """uint8 (H, W, C) to uint8 (C, H, W) without copying.

    Batches stay uint8 until they are on the device, which takes a quarter of the copying.
    """
    return torch.from_numpy(pixels).permute(2, 0, 1)


class BatchSource:
    """Batches by position: {"a": NCHW, "b": NCHW} of uint8, and {"labels": (N,)} where there are labels.

    `samplers` holds one by the name of each domain, or "pairs" alone, whose images have six channels. Of
    `world` processes this one, `rank`, takes its share of each joined batch, so that together they see what
    one process would see. `pinned`: in pinned memory, from which copies to a card run beside its work.
    """

    def __init__(
        self,
        samplers: dict[str, Sampler],
        batch: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 1,
        pinned: bool = False,
    ) -> None:
        self._samplers = samplers
        self._pinned = pinned
        self._batch, self._rank, self._world = batch, rank, world
        self._workers = workers

    def batch(self, images_seen: int) -> Batch:
        """This process's part of the batch that follows after `images_seen` images."""
        first = images_seen + self._rank * self._batch
        numbers = range(first, first + self._batch)
        result: Batch = {}
        for name, sampler in self._samplers.items():
            stack = torch.stack([to_tensor(sampler[number]) for number in numbers])
            if name == "pairs":
                result["a"], result["b"] = stack[:, :3], stack[:, 3:]
            else:
                result[name] = stack
            if sampler.labels is not None:
                chosen = [sampler.labels[sampler.place(number)] for number in numbers]
                result[LABELS] = torch.tensor(chosen)
        if self._pinned:  # contiguous, since halves of pairs would pass through ordinary memory again
            result = {name: part.contiguous().pin_memory() for name, part in result.items()}
        return result

    def stream(self, images_seen: int) -> Generator[Batch, None, None]:
        """Batches from a position on, two a worker prepared ahead; their order is fixed."""
        step = self._batch * self._world
        with ThreadPoolExecutor(self._workers, "batches") as threads:
            ahead: list[Future[Batch]] = []
            try:
                while True:
                    while len(ahead) < 2 * self._workers:
                        ahead.append(threads.submit(self.batch, images_seen))
                        images_seen += step
                    yield ahead.pop(0).result()
            finally:
                for future in ahead:
                    future.cancel()
