"""Differentiable augmentation of all that a discriminator sees (Zhao et al. 2020), for small data sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cgconvert.errors import UsageError

SHIFT = 1 / 8
"""Largest translation as a share of an edge."""

CUTOUT = 1 / 2
"""Edge of the blank square as a share of the image's."""


def _uniform(images: Tensor) -> Tensor:
    return torch.rand(images.shape[0], 1, 1, 1, device=images.device, dtype=images.dtype)


def color(images: Tensor) -> Tensor:
    """Random brightness (+-0.5), saturation (x 0..2) and contrast (x 0.5..1.5) of each image."""
    images = images + (_uniform(images) - 0.5)
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * (2 * _uniform(images))
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (_uniform(images) + 0.5)


def translation(images: Tensor) -> Tensor:
    """Move each image by up to an eighth of its edges; pixels from outside are 0."""
    count, _, height, width = images.shape
    pad_y, pad_x = int(height * SHIFT + 0.5), int(width * SHIFT + 0.5)
    padded = F.pad(images, (pad_x, pad_x, pad_y, pad_y))
    top = torch.randint(0, 2 * pad_y + 1, (count, 1), device=images.device)
    left = torch.randint(0, 2 * pad_x + 1, (count, 1), device=images.device)
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    batch = torch.arange(count, device=images.device)[:, None, None]
    # Indexing on both sides of a slice moves the channels last; back again, in the memory format it had.
    last = images.is_contiguous(memory_format=torch.channels_last)
    moved = padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return moved.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def cutout(images: Tensor) -> Tensor:
    """Blank a square of half the edges at a random place, which may lie partly outside."""
    count, _, height, width = images.shape
    cut_y, cut_x = int(height * CUTOUT + 0.5), int(width * CUTOUT + 0.5)
    top = torch.randint(0, height + 1 - cut_y % 2, (count, 1, 1), device=images.device) - cut_y // 2
    left = torch.randint(0, width + 1 - cut_x % 2, (count, 1, 1), device=images.device) - cut_x // 2
    row = torch.arange(height, device=images.device)[None, :, None]
    column = torch.arange(width, device=images.device)[None, None, :]
    inside = (row >= top) & (row < top + cut_y) & (column >= left) & (column < left + cut_x)
    return images * (~inside)[:, None].to(images.dtype)


AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
}


def diff_augment(images: Tensor, names: Sequence[str]) -> Tensor:
    """Apply the named augmentations in order to float NCHW images; gradients pass through."""
    for name in names:
        if name not in AUGMENTATIONS:
            raise UsageError(f"unknown augmentation {name!r}; known: {', '.join(AUGMENTATIONS)}")
        images = AUGMENTATIONS[name](images)
    return images


def augment_alike(batches: Sequence[Tensor], names: Sequence[str]) -> list[Tensor]:
    """Batches of equal shape, each augmented as the first: picture i of every batch in the same way."""
    device, results = batches[0].device, []
    cuda = device.type == "cuda"
    state = torch.cuda.get_rng_state(device) if cuda else torch.get_rng_state()
    for images in batches:
        if cuda:
            torch.cuda.set_rng_state(state, device)
        else:
            torch.set_rng_state(state)
        results.append(diff_augment(images, names))
    return results
