"""Flat frames of a video through a network with instance norms, which by themselves would lose their light.

An instance norm subtracts what is the same everywhere in a picture and scales what is left to one contrast. A
scene that fades to black keeps its light until nothing but rounding is left of it, and then becomes grey.
With the statistics of the video's other frames the same network follows the fade.

Those statistics are the mean over some frames with contrast, spread over the whole video, and not over the
frames before: so each frame still stands alone, and its result does not depend on batches, segments, the
place where a conversion was continued, or the order in which frames are converted.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from cgconvert.engines.base import Engine, Samples
from cgconvert.engines.batches import if_it_fits
from cgconvert.engines.eager import exact_float32
from cgconvert.generators.statistics import freeze_statistics, read_statistics
from cgconvert.host.interrupts import Breakable
from cgconvert.tensors.images import LUMA_BT601, pixels_to_images
from cgconvert.tensors.transfers import Arrival, transfers_for

FLAT, FULL = 0.1, 0.4
"""Contrast over that of the video's other frames: up to the first a frame has their statistics alone, from
the second on its own alone, and between them its result is a mixture. A fade passes through it."""

SAMPLES, USED = 8, 4
"""Frames that are looked at, and those of them whose statistics are taken: the ones with most contrast."""

LEAST = 4 / 255
"""Contrast of a frame from which it has statistics to give, on [-1, 1]: two levels of 255."""


def has_instance_norms(generator: nn.Module) -> bool:
    """Whether a network has what flat frames need help with."""
    return any(isinstance(module, nn.InstanceNorm2d) for module in generator.modules())


def contrast(images: Tensor) -> Tensor:
    """The standard deviation of each picture's luma, (N,), of images (N, C, H, W) in [-1, 1]."""
    if images.shape[1] >= 3:
        weights = torch.tensor(LUMA_BT601, device=images.device).view(1, 3, 1, 1)
        images = (images[:, :3] * weights).sum(1)
    return images.flatten(1).std(1, correction=0)


def own_share(own: float, others: float) -> float:
    """How much of a frame's result is made with its own statistics, from 0 to 1, by its contrast.

    Where the others have none, nothing better than its own statistics is known.
    """
    if others == 0:
        return 1.0
    place = min(1.0, max(0.0, (own / others - FLAT) / (FULL - FLAT)))
    return place * place * (3 - 2 * place)


class FlatFrames:
    """Gives flat frames the result that the network has with the statistics of the video's other frames.

    Nothing is read before a frame comes that has not much contrast, and nothing computed before a flat one.
    """

    def __init__(self, engine: Engine, samples: Samples, note: Callable[[str], None]) -> None:
        """`samples` gives frames spread over the video; `note` is told once that there are flat ones."""
        self.engine, self.samples, self.note = engine, samples, note
        self.transfers = transfers_for(engine.device)
        self.others: Others | None = None

    def look_at(self, images: Tensor) -> Arrival:
        """Begin to measure images (N, C, H, W) that go to the engine, in [-1, 1]."""
        return self.transfers.download([contrast(images)])

    def own_shares(self, looked: Arrival) -> list[float]:
        """How much of each frame's result is made with its own statistics, of what `look_at` gave for them.

        1 for each frame that is not flat. Raises what reading the video raises.
        """
        contrasts = looked.wait()[0].tolist()
        if min(contrasts) >= FULL:  # the deviation of values in [-1, 1] is 1 at most: none can be flat
            return [1.0] * len(contrasts)
        if self.others is None:
            self.others = Others(self.engine, self.samples(SAMPLES))
        return [own_share(own, self.others.contrast) for own in contrasts]

    def mend(self, images: Tensor, results: Tensor, looked: Arrival) -> Tensor:
        """The engine's results of images, those of flat frames replaced as far as they are flat.

        `looked` is what `look_at` gave for the images. Raises what reading the video raises.
        """
        shares = self.own_shares(looked)
        if min(shares) == 1:
            return results
        assert self.others is not None
        mended = results.clone()  # an engine may own its results
        for index, share in enumerate(shares):
            if share < 1:
                usual = if_it_fits(partial(self.others.convert, images[index : index + 1]))
                if usual is None:
                    self.note("memory was short for flat frames: they were converted like all others")
                else:
                    mended[index] = torch.lerp(usual[0], results[index], share)
                    self.note("flat frames, as in fades, have the norm statistics of the video's others")
        return mended


class Others:
    """The frames of a video that have statistics to give, and the network with them.

    `contrast` is the mean of theirs, 0 where there are none.
    """

    def __init__(self, engine: Engine, pictures: Sequence[np.ndarray]) -> None:
        """Chooses among pictures (H, W, 3), uint8 or uint16, of the size that the network sees."""
        self.engine = engine
        card, device = engine.model.card, engine.device
        images = [pixels_to_images(pixels[None], card, device)[0] for pixels in pictures]
        contrasts = [float(contrast(image)) for image in images]
        # A night scene among bright ones gives no statistics that are to stand for both.
        least = max(LEAST, 0.5 * max(contrasts, default=0.0))
        best = sorted(range(len(images)), key=lambda place: -contrasts[place])[:USED]
        chosen = [place for place in sorted(best) if contrasts[place] >= least]
        self.images = [images[place] for place in chosen]
        self.contrast = sum(contrasts[place] for place in chosen) / len(chosen) if chosen else 0.0
        self.network: nn.Module | None = None

    def convert(self, images: Tensor) -> Tensor:
        """The result of images (1, C, H, W) with the statistics of the chosen frames, in float32."""
        device = self.engine.device
        with Breakable(), torch.inference_mode(), exact_float32(device):
            if self.network is None:
                plain = copy.deepcopy(self.engine.model.generator).to(device)
                self.network = freeze_statistics(plain, read_statistics(plain, self.images))
                self.images = []
            result: Tensor = self.network(images)
        return result
