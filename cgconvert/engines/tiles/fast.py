"""Tiles of a network with instance norms in one pass each, with statistics of the picture made smaller.

Exact tiling goes over the picture once for each norm, and what lies between two norms has to wait somewhere.
Here the statistics come from the picture at a fraction of its size. They are inputs of a network that is
built once, through which each tile goes as if it had no norms. The result is not exact, since a smaller
picture has other fine detail. How far it is off is measured on a part of the picture.

In a video each frame has its own statistics, so its result does not depend on the frames before it.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgconvert.card import ModelCard
from cgconvert.engines.base import Engine
from cgconvert.engines.tiles.exact import (
    ExactTiling,
    Network,
    Source,
    Stages,
    Storage,
    TensorSink,
    TensorSource,
)
from cgconvert.engines.tiles.geometry import Tile, tiles_of
from cgconvert.engines.tiles.stages import StagedNetwork, Statistics
from cgconvert.host.rectangles import RectangleFile
from cgconvert.tensors.images import psnr

REDUCED_PIXELS = 4_000_000
"""Pixels at most of the picture from which the statistics come; it is half the size at most."""

READ_EDGE = 1024
"""Edge of the squares in which a picture is read to be made smaller, in pixels."""

SAMPLE_EDGE = 1024
"""Edge of the part of a picture on which the error is measured, at most, in pixels."""

DISK_SAMPLE = 32 * 2**20
"""Bytes that are written to see how fast a disk is."""


class OnePass:
    """A network of one stage in an engine, whose instance norms have their statistics as inputs."""

    even = True

    def __init__(self, network: StagedNetwork, engine: Engine, run: Callable[..., Tensor]) -> None:
        self.network, self.device, self._run = network, engine.device, run

    def run(self, index: int, values: Sequence[Tensor], terms: Sequence[Statistics]) -> Sequence[Tensor]:
        """The result of one tile."""
        return [self._run(values[0], *(part for term in terms for part in (term.scale, term.shift)))]


class _First(nn.Module):
    """The first result of a module."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *values: Tensor) -> Tensor:
        result: Tensor = self.network(*values)[0]
        return result


def one_pass(network: StagedNetwork, engine: Engine, dtype: torch.dtype) -> Network:
    """A network of one stage, by the engine itself where that can take statistics, else layer by layer."""
    (stage,) = network.stages
    terms = [torch.ones(network.norms[name].num_features) for name in stage.norms for _ in range(2)]
    run = engine.build_function(_First(stage.network), terms)
    return Stages(network, engine.device, dtype) if run is None else OnePass(network, engine, run)


def reduced(
    source: Source, height: int, width: int, factor: int, network: StagedNetwork, channels: int
) -> Tensor:
    """A padded picture at 1/`factor` of its size: images (1, C, h, w) of whole multiples, in main memory.

    Colours, the first `channels`, are averaged. Noise keeps its strength: of it each n-th value is taken.
    """
    rows, columns = (size // factor // network.multiple * network.multiple for size in (height, width))
    whole: Tensor | None = None
    for part in tiles_of(rows, columns, max(network.multiple, READ_EDGE // factor)):
        seen = Tile(part.top * factor, part.left * factor, part.bottom * factor, part.right * factor)
        with torch.inference_mode():
            images = source.images(source.load(seen), seen)
            colours = F.avg_pool2d(images[:, :channels].float(), factor)
            small = torch.cat([colours, images[:, channels:, ::factor, ::factor].float()], 1).cpu()
        if whole is None:
            whole = torch.empty(1, small.shape[1], rows, columns)
        whole[:, :, part.top : part.bottom, part.left : part.right] = small
    assert whole is not None
    return whole


def reducing_factor(height: int, width: int, card: ModelCard) -> int:
    """How many times as small the picture is from which the statistics of a padded picture come."""
    wanted = max(2, math.ceil(math.sqrt(height * width / REDUCED_PIXELS)))
    return max(1, min(wanted, min(height, width) // max(card.size_minimum, card.size_multiple)))


class DeviceSource(TensorSource):
    """Images in main memory for a network on a device."""

    def __init__(self, images: Tensor, device: torch.device) -> None:
        super().__init__(images)
        self.device = device

    def images(self, loaded: Tensor, part: Tile) -> Tensor:
        return loaded.to(self.device)


def gather(
    stages: Network,
    source: Source,
    size: tuple[int, int],
    edge: int,
    factor: int,
    card: ModelCard,
    storage: Storage,
) -> Mapping[str, Statistics]:
    """Scale and shift of each norm for a padded picture (height, width), from it at 1/`factor` of its size.

    `stages` are those of exact tiling, and `storage` is where values between them wait.
    """
    images = reduced(source, *size, factor, stages.network, card.in_channels)
    small = DeviceSource(images, stages.device)
    height, width = images.shape[2:]
    return ExactTiling(stages, height, width, edge, storage).gather(small)


@dataclass(frozen=True)
class Difference:
    """How far the fast way is from the exact one on a part of (width, height) pixels, in levels of 255."""

    mean: float
    largest: float
    psnr_db: float
    size: tuple[int, int]

    def describe(self) -> str:
        """In words."""
        width, height = self.size
        return (
            f"on a part of {width}x{height} that differs from exact tiles by {self.mean:.2f} levels of 255 "
            f"on average and {self.largest:.0f} at most ({self.psnr_db:.1f} dB)"
        )


def measure(
    exact: Network, fast: Network, source: Source, size: tuple[int, int], edge: int, card: ModelCard
) -> Difference:
    """Put the middle of a padded picture (height, width) through in both ways, as a picture of its own.

    It is made as small for its statistics as the whole picture is for its own, as far as the network can see
    it then.
    """
    multiple = card.size_multiple
    most = max(SAMPLE_EDGE // multiple * multiple, -(-card.size_minimum // multiple) * multiple)
    rows, columns = (min(length, most) for length in size)
    top, left = (
        (length - own) // 2 // multiple * multiple for length, own in zip(size, (rows, columns), strict=True)
    )
    part = Tile(top, left, top + rows, left + columns)
    smallest = max(card.size_minimum, multiple)
    factor = max(1, min(reducing_factor(*size, card), min(rows, columns) // smallest))
    with torch.inference_mode():
        sample = TensorSource(source.images(source.load(part), part).float())
        shape = (1, card.out_channels, rows, columns)
        wanted, got = (torch.empty(shape, device=exact.device) for _ in range(2))
        ExactTiling(exact, rows, columns, edge, Storage()).run(sample, TensorSink(wanted))
        found = gather(exact, sample, (rows, columns), edge, factor, card, Storage())
        ExactTiling(fast, rows, columns, edge, Storage(), statistics=found).run(sample, TensorSink(got))
        apart = (wanted - got).abs() * 127.5
    return Difference(float(apart.mean()), float(apart.max()), psnr(got.cpu(), wanted.cpu()), (columns, rows))


def tile_seconds(network: Network, edge: int, channels: int, storage: Storage | None = None) -> float:
    """Seconds that a tile of `edge` pixels with its surroundings takes in all stages of a network, measured.

    The network's pictures have so many `channels`. With a `storage` on disk, what writing and reading values
    takes is added.
    """
    total = 0.0
    for index, stage in enumerate(network.network.stages):
        shown = edge + 2 * stage.reach
        values = []
        for name in stage.inputs:
            kept = network.network.kept.get(name)
            depth, size = (kept.channels, int(shown / kept.scale)) if kept else (channels, shown)
            values.append(torch.zeros(1, depth, size, size, device=network.device))
        terms = []
        for name in stage.norms:
            features = network.network.norms[name].num_features
            terms.append(Statistics(torch.ones(features), torch.zeros(features)))
        for _ in range(2):  # the first time libraries choose their ways
            _wait(network.device)
            started = time.perf_counter()
            with torch.inference_mode():
                network.run(index, values, terms)
            _wait(network.device)
            seconds = time.perf_counter() - started
        total += seconds
    if storage is not None and storage.folder is not None:
        stored = sum(
            float(network.network.kept[name].channels / network.network.kept[name].scale ** 2)
            for stage in network.network.stages
            for name in stage.outputs
        )
        total += 2 * stored * edge**2 * storage.dtype.itemsize * _seconds_per_byte(storage.folder)
    return total


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds_per_byte(folder: Path) -> float:
    """What writing to a disk takes, measured with random bytes."""
    data = torch.frombuffer(bytearray(os.urandom(DISK_SAMPLE)), dtype=torch.uint8).numpy()
    file = RectangleFile(folder, None, 1, DISK_SAMPLE, 1)
    try:
        started = time.perf_counter()
        file.write(0, 0, data.reshape(1, -1, 1))
        file.flush()
        return (time.perf_counter() - started) / DISK_SAMPLE
    finally:
        file.close()
