"""A picture of any size through a network, stage by stage and tile by tile, as the untiled network does it.

Between two instance norms every tile is computed and the statistics of all of them are gathered. Then the
norm is applied with those of the whole picture. Values wait in host memory or in files and pass through the
device tile by tile. The next tile is read and the last one written beside the computing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from cgconvert.engines.base import Engine
from cgconvert.engines.eager import exact_float32
from cgconvert.engines.tiles.activations import Activation, InMemory, OnDisk
from cgconvert.engines.tiles.geometry import Tile, tiles_of
from cgconvert.engines.tiles.stages import Stage, StagedNetwork, Statistics, norm_terms
from cgconvert.host.files import output_error, write_atomically
from cgconvert.host.interrupts import Breakable
from cgconvert.host.parts import STATE
from cgconvert.tensors.transfers import Arrival, transfers_for

SECONDS_BETWEEN_RECORDS = 20.0
"""A run that is broken off loses at most what was computed since the last record."""


class Source(Protocol):
    """The picture. `load` runs beside the computing, `images` on the network's device."""

    def load(self, part: Tile) -> Tensor:
        """What a rectangle of the padded picture is made of, in host memory or on the device."""
        ...

    def images(self, loaded: Tensor, part: Tile) -> Tensor:
        """Images (1, C, h, w) of what was loaded, float32 in [-1, 1]."""
        ...


class Sink(Protocol):
    """The result. `encoded` runs on the network's device; `store` gets the tiles in order.

    `on_device`: what is encoded stays on the network's device, and is not brought to host memory.
    """

    on_device: bool

    def encoded(self, images: Tensor, part: Tile) -> Tensor:
        """What is to be kept of images (1, C, h, w)."""
        ...

    def store(self, kept: Tensor, part: Tile) -> None:
        """Keep it; it is in host memory unless it stays on the device."""
        ...

    def flush(self) -> None:
        """Return when what was stored would survive a loss of power."""
        ...


class TensorSource:
    """Images (1, C, H, W) that are at hand as a whole."""

    def __init__(self, images: Tensor) -> None:
        self.whole = images

    def load(self, part: Tile) -> Tensor:
        """A view of the images."""
        return self.whole[:, :, part.top : part.bottom, part.left : part.right]

    def images(self, loaded: Tensor, part: Tile) -> Tensor:
        """What was loaded."""
        return loaded


class TensorSink:
    """Results as one tensor (1, C, H, W) on the network's device."""

    on_device = True

    def __init__(self, whole: Tensor) -> None:
        self.whole = whole

    def encoded(self, images: Tensor, part: Tile) -> Tensor:
        """The images as they are."""
        return images

    def store(self, kept: Tensor, part: Tile) -> None:
        """Copy a tile to its place."""
        self.whole[:, :, part.top : part.bottom, part.left : part.right] = kept

    def flush(self) -> None:
        """Main memory has nothing to flush."""


@dataclass(frozen=True)
class Storage:
    """Where values between stages wait: in main memory, in that of the network's device if `on_device`, or in
    files of `folder`.

    The files have no names if `nameless`, so that the system removes them however the process ends. Otherwise
    they make a run resumable; `identity` is what a state in the folder must have been made of to be gone on
    from.
    """

    dtype: torch.dtype = torch.float32
    on_device: bool = False
    folder: Path | None = None
    nameless: bool = False
    identity: str = ""


@dataclass
class State:
    """How far a run is: stages that are done, tiles of the next one, and the statistics gathered so far.

    `moments`: mean and variance of each tile of the stage under way.
    """

    stage: int = 0
    tile: int = 0
    statistics: dict[str, Statistics] = field(default_factory=dict)
    moments: list[np.ndarray] = field(default_factory=list)


class Network(Protocol):
    """What computes the stages of a network. `even`: best with tiles that are shown with equal sizes."""

    network: StagedNetwork
    device: torch.device
    even: bool

    def run(self, index: int, values: Sequence[Tensor], terms: Sequence[Statistics]) -> Sequence[Tensor]:
        """The values of a stage for one tile, or for a batch of them."""
        ...


class WholeEngine:
    """An engine for a network of one stage without norms."""

    even = True

    def __init__(self, network: StagedNetwork, engine: Engine) -> None:
        self.network, self.engine, self.device = network, engine, engine.device

    def run(self, index: int, values: Sequence[Tensor], terms: Sequence[Statistics]) -> Sequence[Tensor]:
        """The engine's images."""
        return [self.engine(values[0])]


class Stages(nn.Module):
    """The stages of a network on a device, layer by layer, in the type that they compute in."""

    even = False

    def __init__(self, network: StagedNetwork, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.device, self.dtype, self.network = device, dtype, network
        self.modules_of = nn.ModuleList(stage.network for stage in network.stages)
        self.modules_of.to(device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(self, index: int, values: Sequence[Tensor], terms: Sequence[Statistics]) -> Sequence[Tensor]:
        """The values of a stage for one tile."""
        flat = [part.to(self.device) for term in terms for part in (term.scale, term.shift)]
        with Breakable():
            given = [value.to(self.dtype).contiguous(memory_format=torch.channels_last) for value in values]
            results: Sequence[Tensor] = self.modules_of[index](*given, *flat)
        return results


def moments(values: Tensor) -> Tensor:
    """Mean and biased variance of each channel of (1, C, h, w), float64 (2, C).

    Rows are summed in float32, which vectorises, and the rows' sums in float64.
    """
    points = values[0].permute(1, 2, 0).float()
    count = points.shape[0] * points.shape[1]
    mean = points.sum(1).double().sum(0) / count
    variance = (points - mean.float()).square_().sum(1).double().sum(0) / count
    return torch.stack([mean, variance])


def merged(parts: Sequence[np.ndarray], sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of tiles together, from those of each and its size (Chan et al. 1979)."""
    table, shares = np.stack(parts), np.asarray(sizes, np.float64)[:, None] / sum(sizes)
    mean = (table[:, 0] * shares).sum(0)
    variance = ((table[:, 1] + (table[:, 0] - mean) ** 2) * shares).sum(0)
    return torch.from_numpy(mean), torch.from_numpy(variance)


class ExactTiling:
    """One picture (padded height and width) through the stages, in tiles of `edge` pixels.

    `advance` is told the share that is done, 0 to 1, after each tile. `statistics` are those of norms that
    no stage measures.
    """

    def __init__(
        self,
        stages: Network,
        height: int,
        width: int,
        edge: int,
        storage: Storage,
        advance: Callable[[float], None] = lambda share: None,
        statistics: Mapping[str, Statistics] | None = None,
    ) -> None:
        self.statistics = dict(statistics or {})
        network = stages.network
        if edge % network.multiple or edge < network.multiple:
            raise ValueError(f"tiles of {edge} pixels are no multiples of {network.multiple}")
        self.stages, self.network, self.storage, self.advance = stages, network, storage, advance
        self.height, self.width, self.edge = height, width, edge
        self.tiles = list(tiles_of(height, width, edge))
        self.alive: dict[str, Activation] = {}
        self.transfers = transfers_for(stages.device)
        self.recorded = time.monotonic()
        self.identity = {
            "size": [height, width],
            "edge": edge,
            "dtype": str(storage.dtype).removeprefix("torch."),
            "of": storage.identity,
        }

    def run(self, source: Source, sink: Sink) -> None:
        """Translate the picture. Raises `OutputError` where the disk is full."""
        self._through(len(self.network.stages), source, sink)

    def gather(self, source: Source) -> Mapping[str, Statistics]:
        """Scale and shift of each norm for the picture, without its result. Raises as `run`."""
        return self._through(len(self.network.stages) - 1, source, None).statistics

    def _through(self, stages: int, source: Source, sink: Sink | None) -> State:
        """The first so many stages."""
        state = self._resumed()
        finished = False
        try:
            while state.stage < stages:
                self._pass(state, source, sink)
            finished = True
        except OSError as error:
            raise output_error(self.storage.folder or Path(), error) from error
        finally:
            for activation in self.alive.values():
                activation.close(delete=finished)
            self.alive.clear()
        return state

    def _pass(self, state: State, source: Source, sink: Sink | None) -> None:
        """One stage over all tiles."""
        stage = self.network.stages[state.stage]
        last = state.stage + 1 == len(self.network.stages)
        for name in (*stage.inputs, *stage.outputs):
            if name and name not in self.alive:
                self.alive[name] = self._activation(name)
        terms = [state.statistics[name] for name in stage.norms]
        for index, kept in self._computed(state.stage, state.tile, terms, source, sink if last else None):
            tile = self.tiles[index]
            if last:
                assert sink is not None
                sink.store(kept[0], tile)
            else:
                # The target's moments come first, then the values to store.
                state.moments.append(kept[0].numpy())
                if not self.storage.on_device:
                    self._keep(stage, tile, kept[1:])
            state.tile = index + 1
            self._record(state, sink if last else None)
            self.advance((state.stage + state.tile / len(self.tiles)) / len(self.network.stages))
        if stage.measured is not None:
            mean, variance = merged(state.moments, [tile.height * tile.width for tile in self.tiles])
            terms_of = norm_terms(self.network.norms[stage.measured], mean, variance)
            state.statistics[stage.measured] = terms_of
        state.stage, state.tile, state.moments = state.stage + 1, 0, []
        self._record(state, sink if last else None, now=True)
        for name in stage.released:
            self.alive.pop(name).close()

    def _computed(
        self, index: int, first: int, terms: Sequence[Statistics], source: Source, sink: Sink | None
    ) -> Iterator[tuple[int, list[Tensor]]]:
        """Each tile from `first` on with what is to be kept of it, in host memory.

        One tile is read ahead, one computed, and one on its way back to host memory.
        """
        stage = self.network.stages[index]
        with ThreadPoolExecutor(1, "cgconvert-tiles") as reader:
            ahead: Future[list[Tensor]] | None = None
            flight: tuple[int, Arrival] | None = None
            for number in range(first, len(self.tiles)):
                if ahead is None:
                    ahead = reader.submit(self._loaded, stage, self.tiles[number], source)
                loaded = ahead.result()
                ahead = None
                if number + 1 < len(self.tiles):
                    ahead = reader.submit(self._loaded, stage, self.tiles[number + 1], source)
                arrival = self._begin(index, self.tiles[number], loaded, terms, source, sink)
                if flight is not None:
                    yield flight[0], flight[1].wait()
                flight = number, arrival
            if flight is not None:
                yield flight[0], flight[1].wait()

    def _shown(self, stage: Stage, tile: Tile) -> Tile:
        """What a tile is shown with: what the stage sees, or as much as for any other tile."""
        if self.stages.even:
            return tile.of_size(self.edge + 2 * stage.reach, stage.reach, self.height, self.width)
        return tile.grown(stage.reach, self.height, self.width)

    def _loaded(self, stage: Stage, tile: Tile, source: Source) -> list[Tensor]:
        """The inputs of a stage around a tile."""
        shown = self._shown(stage, tile)
        return [
            self.alive[name].read(shown.scaled(self.network.kept[name].scale)) if name else source.load(shown)
            for name in stage.inputs
        ]

    def _begin(
        self,
        index: int,
        tile: Tile,
        loaded: Sequence[Tensor],
        terms: Sequence[Statistics],
        source: Source,
        sink: Sink | None,
    ) -> Arrival:
        """Give a tile to the device; what comes back are moments and values to store, or the result."""
        stage = self.network.stages[index]
        shown = self._shown(stage, tile)
        with torch.inference_mode(), exact_float32(self.stages.device):
            values = self.transfers.upload(loaded)
            if "" in stage.inputs:
                number = stage.inputs.index("")
                values[number] = source.images(values[number], shown)
            results = [self._cropped(result, tile, shown) for result in self.stages.run(index, values, terms)]
            if sink is not None:
                encoded = sink.encoded(results[0].float(), tile)
                return self.transfers.download([encoded], stay=sink.on_device)
            kept = results if stage.stores_measured else results[1:]
            found = moments(results[0])
            if self.storage.on_device:
                self._keep(stage, tile, kept)
                kept = []
            return self.transfers.download([found, *(value.to(self.storage.dtype) for value in kept)])

    def _keep(self, stage: Stage, tile: Tile, values: Sequence[Tensor]) -> None:
        """Store what later stages need of a tile."""
        for name, value in zip(stage.outputs, values, strict=True):
            self.alive[name].write(tile.scaled(self.network.kept[name].scale), value)

    def _cropped(self, values: Tensor, tile: Tile, shown: Tile) -> Tensor:
        """A tile's own points of values that were computed for more."""
        scale = shown.height / values.shape[2]
        rows, columns = tile.within(shown)
        return values[
            :,
            :,
            round(rows.start / scale) : round(rows.stop / scale),
            round(columns.start / scale) : round(columns.stop / scale),
        ]

    def _activation(self, name: str) -> Activation:
        kept = self.network.kept[name]
        height, width = int(self.height / kept.scale), int(self.width / kept.scale)
        if self.storage.folder is None:
            device = self.stages.device if self.storage.on_device else torch.device("cpu")
            return InMemory(height, width, kept.channels, self.storage.dtype, device)
        path = None if self.storage.nameless else self._path(name)
        return OnDisk(self.storage.folder, path, height, width, kept.channels, self.storage.dtype)

    def _record(self, state: State, sink: Sink | None, now: bool = False) -> None:
        """Write down how far the run is, if it is to be resumable and some time has passed."""
        folder = self.storage.folder
        if (
            folder is None
            or self.storage.nameless
            or (not now and time.monotonic() < self.recorded + SECONDS_BETWEEN_RECORDS)
        ):
            return
        for activation in self.alive.values():
            activation.flush()
        if sink is not None:
            sink.flush()
        write_atomically(folder / STATE, json.dumps(_as_data(state, self.identity)).encode())
        self.recorded = time.monotonic()

    def _resumed(self) -> State:
        """What an earlier run of the same picture wrote down, or the beginning."""
        folder = self.storage.folder
        if folder is None or self.storage.nameless:
            return State(statistics=dict(self.statistics))
        folder.mkdir(parents=True, exist_ok=True)
        try:
            state = _from_data(json.loads((folder / STATE).read_bytes()), self.identity)
            sizes = {name: self._path(name).stat().st_size for name in self._alive_in(state)}
        except (OSError, ValueError, KeyError, TypeError):
            return State(statistics=dict(self.statistics))
        if any(size != self._bytes(name) for name, size in sizes.items()):
            return State(statistics=dict(self.statistics))
        return state

    def _alive_in(self, state: State) -> set[str]:
        """The values that a run with this state goes on from."""
        alive: set[str] = set()
        for stage in self.network.stages[: state.stage]:
            alive = (alive | set(stage.outputs)) - set(stage.released)
        if state.tile:
            alive |= set(self.network.stages[state.stage].outputs)
        return alive

    def _path(self, name: str) -> Path:
        """The file of a value in a folder that makes a run resumable."""
        assert self.storage.folder is not None
        return self.storage.folder / f"{name}.values"

    def _bytes(self, name: str) -> int:
        kept = self.network.kept[name]
        points = int(self.height / kept.scale) * int(self.width / kept.scale)
        return points * kept.channels * self.storage.dtype.itemsize


@dataclass(frozen=True)
class Begun:
    """How a picture that is kept in a folder was begun: edge of its tiles in pixels, and how values wait.

    `share` of the work is done, from 0 to 1.
    """

    edge: int
    dtype: torch.dtype
    share: float


def how_begun(folder: Path, identity: str, height: int, width: int, stages: int) -> Begun | None:
    """What a folder says of a picture of this padded size in so many stages; None if it has nothing of it.

    `identity` is that of `Storage`.
    """
    try:
        data = json.loads((folder / STATE).read_bytes())
        told = data["identity"]
        if told["size"] != [height, width] or told["of"] != identity:
            return None
        edge, dtype = int(told["edge"]), getattr(torch, told["dtype"])
        tiles = -(-height // edge) * -(-width // edge)
        share = (int(data["stage"]) + int(data["tile"]) / tiles) / stages
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        return None
    return Begun(edge, dtype, share)


def _as_data(state: State, identity: Mapping[str, Any]) -> dict[str, Any]:
    """A state as JSON; Python writes floats so that they are read as the same."""
    return {
        "identity": dict(identity),
        "stage": state.stage,
        "tile": state.tile,
        "statistics": {
            name: [term.scale.tolist(), term.shift.tolist()] for name, term in state.statistics.items()
        },
        "moments": [part.tolist() for part in state.moments],
    }


def _from_data(data: Any, identity: Mapping[str, Any]) -> State:
    """The state that `_as_data` made. Raises `ValueError`, `KeyError` or `TypeError` for anything else."""
    if data["identity"] != identity:
        raise ValueError("another picture, model or tile size")
    return State(
        int(data["stage"]),
        int(data["tile"]),
        {
            name: Statistics(torch.tensor(scale), torch.tensor(shift))
            for name, (scale, shift) in data["statistics"].items()
        },
        [np.asarray(part) for part in data["moments"]],
    )
