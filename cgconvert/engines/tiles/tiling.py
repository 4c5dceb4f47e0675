"""Which pictures of a job go through its network in tiles, how large tiles are, and where values wait."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cgconvert.engines.base import Engine
from cgconvert.engines.batches import if_it_fits
from cgconvert.engines.tiles.exact import (
    ExactTiling,
    Network,
    Sink,
    Source,
    Stages,
    Storage,
    TensorSink,
    TensorSource,
    WholeEngine,
    how_begun,
)
from cgconvert.engines.tiles.fast import (
    Difference,
    gather,
    measure,
    one_pass,
    reducing_factor,
    tile_seconds,
)
from cgconvert.engines.tiles.stages import StagedNetwork, Statistics, as_one_stage, cut_into_stages
from cgconvert.errors import ModelError, OutputError
from cgconvert.host.memory import available_memory
from cgconvert.host.rectangles import scratch_folder
from cgconvert.progress import Progress
from cgconvert.tensors.dtypes import DTYPES

EDGES = {"cpu": 512, "cuda": 1024, "mps": 1024, "xpu": 1024}
"""Of a tile, in pixels, where it is chosen and memory allows."""

SMALLEST_EDGE = 64

TILE_SHARE = 0.25
"""Share of the free memory that one tile may take in the network: the next one and the last are there too."""

VALUES_SHARE = 0.5
"""Share of the free memory that values between stages may take; tiles and pictures need the rest."""

DISK_SHARE = 0.8
"""Share of the free disk space that values between stages may take."""

FAST_FROM = 3.0
"""How many times as long exact tiles take from which the fast way is chosen."""

FAST = " fast"
"""Added to the identity of a kept picture that takes the fast way."""

SECONDS_BETWEEN_TELLING = 5.0
"""Between two looks at how far a picture is."""


@dataclass(frozen=True)
class Kept:
    """A folder in which what is done of a picture is kept, so that a run that was broken off goes on.

    `identity` is all that the result depends on, besides its size and its tiles.
    """

    folder: Path
    identity: str


class Tiling:
    """How the pictures of a job go through in tiles, with the result of the untiled network.

    With `fast`, tiles of networks with instance norms go through in one pass, whose result is not exact
    (`cgconvert.engines.tiles.fast`). Without it that is done for sizes for which exact tiles take more than
    `FAST_FROM` times as long, or do not fit, unless `asked` is given.

    `asked` is the edge of a tile in pixels: every picture that is larger goes through in tiles. None: those
    of the sizes that `take` was called for, because they do not fit. `note` gets lines for the report,
    `progress` how far a picture is. Making it raises `ModelError` for a network that cannot be tiled as
    asked.
    """

    def __init__(
        self,
        engine: Engine,
        asked: int | None,
        note: Callable[[str], None],
        progress: Progress,
        fast: bool = False,
    ) -> None:
        self.engine, self.asked, self.note, self.progress = engine, asked, note, progress
        self.edges: dict[tuple[int, int], int] = {}
        self.used: dict[tuple[int, int], int] = {}
        self.asked_fast = fast
        self.why_fast: dict[tuple[int, int], str] = {}
        self.differences: dict[tuple[int, int], Difference] = {}
        self._one_pass: Network | None = None
        self._slower: float | None = None
        self._ready: Network | None = None
        # Of a network that cannot be tiled as asked that is told now, and not at the first large picture.
        self._network = self._cut() if asked is not None else None

    @property
    def network(self) -> StagedNetwork:
        """The generator, cut at its instance norms. Raises `ModelError` where that cannot be done."""
        if self._network is None:
            self._network = self._cut()
        return self._network

    def is_fast(self, height: int, width: int) -> bool:
        """Whether pictures of this padded size, which is tiled, take the fast way."""
        return bool(self.network.norms) and (self.asked_fast or (height, width) in self.why_fast)

    def choice_for(self, height: int, width: int) -> int | str | None:
        """How pictures of this padded size go through, as `EngineOptions.tile` has it; None: untiled."""
        edge = self.edge_for(height, width)
        return f"fast:{edge}" if edge is not None and self.is_fast(height, width) else edge

    def _cut(self) -> StagedNetwork:
        card = self.engine.model.card
        return cut_into_stages(
            self.engine.model.generator, card.network_channels, card.size_multiple, card.size_minimum
        )

    def edge_for(self, height: int, width: int) -> int | None:
        """The edge in pixels of the tiles that pictures of this padded size go through in; None: untiled."""
        if self.asked is None:
            return self.edges.get((height, width))
        edge = self._whole_multiple(self.asked)
        return edge if max(height, width) > edge else None

    def take(self, height: int, width: int, pixel_bytes: float, free: int) -> bool:
        """Let pictures of this padded size, which do not fit, go through in tiles; whether that is possible.

        A pixel of a tile takes `pixel_bytes` of the `free` bytes of the device's memory. Where tiles are too
        large in spite of that, the next call takes smaller ones.
        """
        if self.asked is not None:
            return False
        try:
            around = 2 * max(stage.reach for stage in self.network.stages)
        except ModelError as error:
            self.note(str(error))
            return False
        before = self.edges.get((height, width), max(height, width))
        edge = EDGES[self.engine.device.type]
        while edge > SMALLEST_EDGE and edge >= before:
            edge //= 2
        while edge > SMALLEST_EDGE and pixel_bytes * (edge + around) ** 2 > TILE_SHARE * free:
            edge //= 2
        edge = self._whole_multiple(edge)
        if pixel_bytes * (edge + around) ** 2 > free or edge >= before:
            return False
        storage = self._values_place(height, width)
        why = self._why_fast(edge, storage, pixel_bytes, free)
        if storage is None and why is None:
            return False
        if why is not None:
            self.why_fast[height, width] = why
        self.edges[height, width] = edge
        return True

    def _why_fast(self, edge: int, storage: Storage | None, pixel_bytes: float, free: int) -> str | None:
        """Why tiles of so many pixels take the fast way; None if they do not.

        `storage` is where values between stages would wait, the other arguments are those of `take`.
        """
        if not self.network.norms:
            return None
        fast = self._fast_network()
        around = 2 * fast.network.stages[0].reach
        if pixel_bytes * (edge + around) ** 2 > free:
            return None
        if storage is None:
            return "values between layers have no room for exact tiles"
        if self._slower is None:
            channels = self.engine.model.card.network_channels
            exact, one = (
                if_it_fits(partial(tile_seconds, network, edge, channels, storage))
                for network in (self._made_ready(), fast)
            )
            self._slower = 0.0 if exact is None or one is None else exact / one
        return f"exact tiles take {self._slower:.1f} times as long" if self._slower > FAST_FROM else None

    def _fast_network(self) -> Network:
        """The network as one stage with its statistics as inputs, built once."""
        if self._one_pass is None:
            card = self.engine.model.card
            whole = as_one_stage(
                self.engine.model.generator, card.network_channels, card.size_multiple, card.size_minimum
            )
            self._one_pass = one_pass(whole, self.engine, self._dtype)
        return self._one_pass

    def _whole_multiple(self, edge: int) -> int:
        """A length rounded up to what the network's tiles can have."""
        multiple = self.engine.model.card.size_multiple
        return -(-edge // multiple) * multiple

    def __call__(self, images: Tensor, edge: int | None = None) -> Tensor:
        """Results of padded images (N, C, H, W) on the engine's device, one after another, likewise float32.

        `edge` of the tiles in pixels; None: as for this size. Raises `OutputError` where memory and disk have
        no room for the values between stages.
        """
        height, width = images.shape[2:]
        card = self.engine.model.card
        results = torch.empty(len(images), card.out_channels, height, width, device=images.device)
        for index in range(len(images)):
            part = slice(index, index + 1)
            self.translate(TensorSource(images[part]), TensorSink(results[part]), height, width, edge)
        return results

    def translate(
        self,
        source: Source,
        sink: Sink,
        height: int,
        width: int,
        edge: int | None = None,
        tell: Callable[[int, int], None] | None = None,
        kept: Kept | None = None,
    ) -> None:
        """One padded picture in tiles of `edge` pixels, or as for this size. Raises as calling does.

        With `kept` it goes on where an earlier run of the same picture was broken off; what the sink has
        stored has to be there still. Only values that wait on the device are lost.

        `tell` gets the tiles that are done, and how many there are, each stage counted by itself. None: the
        progress gets a line from time to time.
        """
        is_fast = edge is None and self.is_fast(height, width)
        if edge is None:
            edge = self._edge_to_use(height, width)
        storage: Storage | None = Storage()
        if not is_fast:
            storage = self._values_place(height, width, kept)
        elif kept is not None:
            storage = Storage(folder=kept.folder, identity=kept.identity + FAST)
        place = kept.folder if kept is not None else scratch_folder()
        if storage is None:
            raise OutputError(
                f"{width}x{height} pixels in tiles need "
                f"{self.network.peak_values * height * width * 2 / 2**30:.1f} GiB for values between layers, "
                f"and neither the memory nor {place} has them: free some space, or set TMPDIR to a folder "
                "with more"
            )
        stages = self._fast_network() if is_fast else self._made_ready()
        total = -(-height // edge) * -(-width // edge) * len(stages.network.stages)
        told = time.monotonic()
        is_shown = False

        def advance(share: float) -> None:
            nonlocal told, is_shown
            if tell is not None:
                tell(round(share * total), total)
            elif time.monotonic() > told + SECONDS_BETWEEN_TELLING:
                told, is_shown = time.monotonic(), True
                self.progress.stage(f"{width}x{height} in tiles, {share:.0%} done")

        try:
            statistics = self._statistics(source, height, width, edge, storage) if is_fast else None
            ExactTiling(stages, height, width, edge, storage, advance, statistics).run(source, sink)
        finally:
            if is_shown:
                self.progress.stage(None)

    def _statistics(
        self, source: Source, height: int, width: int, edge: int, storage: Storage
    ) -> Mapping[str, Statistics]:
        """Those of a picture's norms for the fast way. Of the first picture of a size the error is measured.

        None for a picture that is gone on from, with which they are kept.
        """
        exact, fast, card = self._made_ready(), self._fast_network(), self.engine.model.card
        if storage.folder is not None:
            begun = how_begun(storage.folder, storage.identity, height, width, 1)
            if begun is not None and begun.edge == edge:
                return {}
        if (height, width) not in self.differences:
            self.differences[height, width] = measure(exact, fast, source, (height, width), edge, card)
            self.note(self._described(height, width, edge))
        factor = reducing_factor(height, width, card)
        values = self.network.peak_values * height * width / factor**2
        waiting = choose_storage(self.engine.device, values, self._dtype) or Storage(torch.bfloat16)
        return gather(exact, source, (height, width), edge, factor, card, waiting)

    def _edge_to_use(self, height: int, width: int) -> int:
        """The edge of the tiles for pictures of a size that is tiled, which the report will name."""
        edge = self.edge_for(height, width)
        assert edge is not None, "this size is not tiled"
        self.used[height, width] = edge
        if not self.is_fast(height, width):  # of that the error is told as well, once it has been measured
            self.note(self._described(height, width, edge))
        return edge

    def describe(self) -> dict[str, Any]:
        """The edge in pixels of the tiles of each padded size, such as "960x540", that was tiled.

        Of sizes that took the fast way it is in a dictionary with the difference from exact tiles.
        """
        told: dict[str, Any] = {}
        for (height, width), edge in self.used.items():
            apart = self.differences.get((height, width))
            told[f"{width}x{height}"] = (
                edge if apart is None else {"edge": edge, "difference_from_exact": asdict(apart)}
            )
        return told

    def _described(self, height: int, width: int, edge: int) -> str:
        """A line about pictures of this padded size for the report."""
        how = "each in one pass"
        if self.is_fast(height, width):
            factor = reducing_factor(height, width, self.engine.model.card)
            how += f" with the norm statistics of the picture at 1/{factor} of its size"
            if why := self.why_fast.get((height, width)):
                how += f" ({why})"
            if (height, width) in self.differences:
                how += f"; {self.differences[height, width].describe()}"
        elif self.network.norms:
            how = f"layer by layer in {str(self._dtype).removeprefix('torch.')}"
            if storage := self._values_place(height, width):
                how += f", {describe(storage)}"
        return f"{width}x{height} goes through the network in tiles of {edge} pixels, {how}"

    @property
    def _dtype(self) -> torch.dtype:
        """What stages are computed in. Where the engine computes in int8, that is float32."""
        return DTYPES.get(self.engine.precision, torch.float32)

    def _made_ready(self) -> Network:
        """Networks without instance norms go through the engine itself, the others layer by layer."""
        if self._ready is None:
            if self.network.norms:
                self._ready = Stages(self.network, self.engine.device, self._dtype)
            else:
                self._ready = WholeEngine(self.network, self.engine)
        return self._ready

    def go_on(self, height: int, width: int, kept: Kept) -> None:
        """Let a picture of this padded size have the tiles with which it was begun, if it was.

        Its progress is told.
        """
        try:
            network = self.network
        except ModelError:  # that will be told where the picture is to be tiled
            return
        begun = how_begun(kept.folder, kept.identity, height, width, len(network.stages))
        if begun is None and network.norms:
            begun = how_begun(kept.folder, kept.identity + FAST, height, width, 1)
            if begun is not None and self.asked is None:
                self.why_fast[height, width] = "as it was begun"
        if begun is None:
            return
        if self.asked is None:
            self.edges[height, width] = begun.edge
        if begun.edge == self.edge_for(height, width):
            self.progress.note(f"going on at {begun.share:.0%} of the tiles, which was reached before")

    def _values_place(self, height: int, width: int, kept: Kept | None = None) -> Storage | None:
        if kept is not None:
            begun = how_begun(kept.folder, kept.identity, height, width, len(self.network.stages))
            if begun is not None:  # its files have taken the room already
                return Storage(begun.dtype, folder=kept.folder, identity=kept.identity)
        values = self.network.peak_values * height * width
        return choose_storage(self.engine.device, values, self._dtype, kept)


def choose_storage(
    device: torch.device, values: float, dtype: torch.dtype, kept: Kept | None = None
) -> Storage | None:
    """Where so many values between stages wait; None if nowhere.

    What is `kept` waits in its folder rather than in memory, as long as it has the room.

    That is on the device, in main memory or on disk as they are computed, and only where neither has the room
    in bfloat16, which rounds them: as long as it can, the result does not depend on the free memory.
    """
    memory, folder = available_memory(), kept.folder if kept is not None else scratch_folder()
    disk = shutil.disk_usage(folder).free
    on_card = device.type == "cuda" and torch.cuda.mem_get_info(device)[0]
    for stored in dict.fromkeys((dtype, torch.bfloat16)):
        needed = values * stored.itemsize
        if on_card and values and needed <= VALUES_SHARE * on_card:
            return Storage(stored, on_device=True)
        if kept is not None and needed <= DISK_SHARE * disk:
            return Storage(stored, folder=folder, identity=kept.identity)
        if memory is None or needed <= VALUES_SHARE * memory:
            return Storage(stored)
        if needed <= DISK_SHARE * disk:
            return Storage(stored, folder=folder, nameless=True)
    return None


def describe(storage: Storage) -> str:
    """Where values between stages wait, in words."""
    place = f"in files in {storage.folder}" if storage.folder else "in memory"
    if storage.on_device:
        place = "on the device"
    rounded = ", rounded to bfloat16" if storage.dtype == torch.bfloat16 else ""
    return f"values between layers {place}{rounded}"
