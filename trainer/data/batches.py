"""Training batches: decoded once, kept as uint8, drawn by position so that a run can be continued exactly."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from threading import Lock
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cgconvert.errors import UsageError
from trainer.config import DataConfig
from trainer.data.augment import WHOLE, Pixels, SizeRule, augment, prepare
from trainer.data.pictures import Picture, iterate_frames, read_image

Batch = dict[str, Tensor]


class PictureCache:
    """Prepared pictures by their place in a list, decoded at first use, kept up to a bound in bytes.

    Beyond the bound pictures are decoded again at each use: slower, never wrong. Frames of a video are
    decoded together at the first use of one, since reaching a frame means decoding those before it; no more
    of them than the bound allows are held. `rule` is `prepared_size`'s.
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

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Pixels:
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        picture = self._pictures[index]
        if picture.frame is not None:
            return self._video_frame(index, picture)
        return self._keep(index, self.prepared(read_image(picture.path)))

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

    def _video_frame(self, index: int, picture: Picture) -> Pixels:
        places = {p.frame: i for i, p in enumerate(self._pictures) if p.path == picture.path}
        # Where no more can be kept, only the one that is asked for.
        wanted = [f for f in places if f is not None and (f == picture.frame or not self._full)]
        result = None
        with closing(iterate_frames(picture.path, wanted)) as frames:  # type: ignore[type-var]
            for frame, pixels in frames:
                place = places[frame]
                if place == index:
                    result = self._keep(place, self.prepared(pixels))
                elif not self._full and place not in self._kept:
                    self._keep(place, self.prepared(pixels))
                if self._full and result is not None:
                    break  # what comes after could not be kept
        if result is None:
            raise UsageError(f"{picture.path}: frame {picture.frame} is gone; has the file changed?")
        return result


class PairCache(PictureCache):
    """Side-by-side pictures: the left half is A and the right half B, prepared apart and kept joined."""

    def prepared(self, pixels: Pixels) -> Pixels:
        half = pixels.shape[1] // 2
        if half == 0:
            raise UsageError("a side-by-side picture must be at least 2 pixels wide")
        left, right = pixels[:, :half], pixels[:, half : 2 * half]
        return np.concatenate([super().prepared(left), super().prepared(right)], axis=2)


class MatchedCache:
    """Pictures of two parallel folders, joined over their channels; each pair has one size, once prepared."""

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
    """The endless stream of training images of one source: image number k depends on (seed, k) alone.

    Every epoch is a new permutation, so each picture comes once before any comes twice.
    """

    def __init__(self, pictures: Pictures, config: DataConfig, seed: int, stream: int) -> None:
        self._pictures = pictures
        self._config = config
        self._key = (seed, stream)
        self._orders: OrderedDict[int, np.ndarray] = OrderedDict()

    def __getitem__(self, number: int) -> Pixels:
        """Training image `number`: uint8 (H, W, C)."""
        epoch, place = divmod(number, len(self._pictures))
        picture = self._pictures[int(self._order(epoch)[place])]
        return augment(picture, self._config, np.random.default_rng([*self._key, 1, number]))

    def _order(self, epoch: int) -> np.ndarray:
        order = self._orders.get(epoch)
        if order is None:
            order = np.random.default_rng([*self._key, 0, epoch]).permutation(len(self._pictures))
            self._orders[epoch] = order
            while len(self._orders) > 4:
                self._orders.popitem(last=False)
        return order


def to_tensor(pixels: Pixels) -> Tensor:
    """uint8 (H, W, C) to uint8 (C, H, W) without copying; scaled to [-1, 1] only on the device."""
    return torch.from_numpy(pixels).permute(2, 0, 1)


class BatchSource:
    """Batches by position: {"a": NCHW, "b": NCHW} uint8, prepared ahead in threads.

    `unpaired` holds a sampler a domain, `paired` one sampler of six channels. `rank` of `world` processes
    takes its share of each joined batch, so that together they see what one process would.
    """

    def __init__(
        self,
        samplers: dict[str, Sampler],
        batch: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 1,
    ) -> None:
        self._samplers = samplers
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
        return result

    def stream(self, images_seen: int) -> Iterator[Batch]:
        """Batches from a position on, some prepared ahead; the order does not depend on the workers."""
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
