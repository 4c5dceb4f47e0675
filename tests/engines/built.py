"""A stand-in for engines that are built for one size and batch on a card, with a card's little memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from cgconvert.engines.shaped import Runner, Shape, ShapedEngine
from cgconvert.progress import Progress

SHORT = "CUDA out of memory (simulated)"


class Built(ShapedEngine):
    """What is "built" is the network itself, for exactly one shape; more pictures than fit run out of memory.

    `buildable` pictures fit while it is built and `runnable` while it runs; pixels of one picture are limited
    by `largest`. `words` are the error of a run that is short. `tried` are the shapes that were to be built.
    What is built for the sizes (height, width) in `flawed` is off by a constant.

    What is built for any size is off by `any_size_error`, or cannot be built where `any_size_fails` is an
    error. `tried_any_size` are the shapes that it was to be built with, `ran_any_size` those that it ran.
    """

    name: ClassVar[str] = "compile"
    buildable: ClassVar[int] = 64
    runnable: ClassVar[int] = 64
    largest: ClassVar[int] = 1 << 30
    flawed: ClassVar[tuple[tuple[int, int], ...]] = ()
    words: ClassVar[tuple[type[Exception], str]] = (torch.OutOfMemoryError, SHORT)
    tried: ClassVar[list[Shape]] = []
    any_size_error: ClassVar[float] = 0.0
    any_size_fails: ClassVar[Exception | None] = None
    tried_any_size: ClassVar[list[Shape]] = []
    ran_any_size: ClassVar[list[Shape]] = []

    @classmethod
    def why_not(cls, device: torch.device, precision: str) -> str | None:
        return None

    def _shape(self, height: int, width: int, batch: int) -> Shape:
        return batch, height, width

    def _runner(self, shape: Shape, progress: Progress, any_size: bool = False) -> Runner:
        if any_size:
            return self._for_any_size(shape)
        count, height, width = shape
        self.tried.append(shape)
        if count > self.buildable or height * width > self.largest:
            raise torch.OutOfMemoryError(SHORT)
        error = 0.2 if (height, width) in self.flawed else 0.0

        def run(images: Tensor) -> Tensor:
            assert tuple(images.shape[i] for i in (0, 2, 3)) == shape
            if count > self.runnable:
                kind, text = self.words
                raise kind(text)
            assert self.network is not None
            return self.network(images) + error

        return run

    def _for_any_size(self, shape: Shape) -> Runner:
        self.tried_any_size.append(shape)
        if self.any_size_fails is not None:
            raise self.any_size_fails
        assert self.network is not None
        network, error = self.network, self.any_size_error

        def run(images: Tensor) -> Tensor:
            if len(images) > self.runnable:
                raise torch.OutOfMemoryError(SHORT)
            self.ran_any_size.append((len(images), *images.shape[2:]))
            return network(images) + error

        return run

    def write(self, folder: Path, shape: Sequence[int], any_size: bool = False) -> None:
        raise AssertionError("nothing is written")

    def _load(self, folder: Path) -> Runner:
        raise AssertionError("nothing is read")
