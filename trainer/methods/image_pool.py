"""A pool of earlier fakes for the discriminator (Shrivastava et al. 2017), as CycleGAN uses it."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor


class ImagePool:
    """Holds up to `size` images, and exchanges half of the new ones for older ones once it is full.

    Images are float NCHW. With size 0 it returns what it is given. The state is plain data and tensors, so
    that a continued run has the same images and the same draws.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._random = random.Random(seed)
        self._images: list[Tensor] = []

    def query(self, images: Tensor) -> Tensor:
        """For each of `images` the image itself, or one from the pool whose place it takes."""
        if self._size == 0:
            return images
        chosen = []
        for image in images.detach():
            if len(self._images) < self._size:
                self._images.append(image.clone())
                chosen.append(image)
            elif self._random.random() > 0.5:
                place = self._random.randrange(self._size)
                chosen.append(self._images[place])
                self._images[place] = image.clone()
            else:
                chosen.append(image)
        return torch.stack(chosen)

    def state_dict(self) -> dict[str, Any]:
        version, internal, gauss = self._random.getstate()
        return {"images": [image.cpu() for image in self._images], "random": [version, list(internal), gauss]}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        self._images = [image.to(device) for image in state["images"]]
        version, internal, gauss = state["random"]
        self._random.setstate((version, tuple(internal), gauss))
