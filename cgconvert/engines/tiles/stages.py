"""A generator cut at its instance norms into stages, each a plain function of every pixel's neighbourhood.

An instance norm needs the statistics of the whole picture before it can change a single pixel of it. What
lies between two norms does not: it can be computed tile by tile, if each tile is shown with enough of its
surroundings. The cut is found by tracing the network with `torch.fx`, and the surroundings by looking how far
a value that is not a number spreads, so that no architecture is described twice.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from cgconvert.errors import ModelError

CHEAP = 200
"""Multiplications for a value up to which what comes from the picture alone is computed again, not stored. A
7x7 convolution from RGB takes 147, and its result is the largest there is."""

POINTWISE_MODULES = (nn.InstanceNorm2d, nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Dropout)
POINTWISE_FUNCTIONS = (F.relu, torch.relu, F.leaky_relu)


@dataclass(frozen=True)
class Statistics:
    """What an instance norm multiplies by and adds, float32 (channels,) each."""

    scale: Tensor
    shift: Tensor


@dataclass(frozen=True)
class Kept:
    """A value that later stages need: `channels` at each point; points are `scale` pixels apart."""

    name: str
    channels: int
    scale: Fraction


@dataclass(frozen=True)
class Stage:
    """One pass over the picture.

    `network` takes the tensors of `inputs` (in order; "" is the picture), then scale and shift of each norm
    in `norms`. It returns a tuple: the input of the norm `measured`, or the network's result where that is
    None, then the other values of `outputs`, which are stored for later stages; `stores_measured` says that
    the first is one of them. Those in `released` are not needed after this stage. `reach`: the pixels around
    a tile that it has to be shown with.
    """

    network: fx.GraphModule
    inputs: tuple[str, ...]
    norms: tuple[str, ...]
    measured: str | None
    outputs: tuple[str, ...]
    stores_measured: bool
    released: tuple[str, ...]
    reach: int


@dataclass(frozen=True)
class StagedNetwork:
    """A generator as stages. `multiple`: tiles begin and end at multiples of so many pixels.

    `kept` has every value that is stored on the way; `norms` the instance norms by name. `peak_values` are
    the stored values for each pixel of the picture at the worst moment.
    """

    stages: tuple[Stage, ...]
    kept: dict[str, Kept]
    norms: dict[str, nn.InstanceNorm2d]
    multiple: int
    peak_values: float


class _Tracer(fx.Tracer):
    """Opens only what has an instance norm inside; everything else is one operation."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return is_picture_norm(module) or not any(map(is_picture_norm, module.modules()))


def is_picture_norm(module: nn.Module) -> bool:
    """Whether a layer normalises with the statistics of the picture that it is shown."""
    return isinstance(module, nn.InstanceNorm2d) and not module.track_running_stats


def apply_statistics(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """An instance norm with given statistics, in float32 whatever the type of `x` (N, C, H, W)."""
    if x.dtype == torch.float32:
        return torch.addcmul(shift.view(1, -1, 1, 1), x, scale.view(1, -1, 1, 1))
    wide = torch.addcmul(shift.view(1, -1, 1, 1), x.float(), scale.view(1, -1, 1, 1))
    return wide.to(x.dtype)


def norm_terms(norm: nn.InstanceNorm2d, mean: Tensor, variance: Tensor) -> Statistics:
    """Scale and shift of a norm for a picture whose channels have this mean and biased variance (float64)."""
    scale = torch.rsqrt(variance + norm.eps)
    shift = -mean * scale
    if norm.affine:
        weight, bias = norm.weight.detach().double().cpu(), norm.bias.detach().double().cpu()
        scale, shift = scale * weight, shift * weight + bias
    return Statistics(scale.float(), shift.float())


def cut_into_stages(generator: nn.Module, in_channels: int, multiple: int, minimum: int) -> StagedNetwork:
    """The stages of a generator in eval mode. Images have sizes of that multiple, at least the minimum.

    Raises `ModelError` if the network cannot be traced.
    """
    plan = _Cut(generator, in_channels, multiple, minimum)
    stages = []
    while (stage := plan.next_stage()) is not None:
        stages.append(stage)
    return StagedNetwork(tuple(stages), plan.kept, plan.norms, multiple, _peak_values(stages, plan.kept))


def as_one_stage(generator: nn.Module, in_channels: int, multiple: int, minimum: int) -> StagedNetwork:
    """The whole generator as one stage, with the statistics of every instance norm among its inputs."""
    plan = _Cut(generator, in_channels, multiple, minimum)
    return StagedNetwork((plan.whole(),), {}, plan.norms, multiple, 0.0)


def _peak_values(stages: Sequence[Stage], kept: dict[str, Kept]) -> float:
    """Stored values for each pixel of the picture while most are stored."""
    alive: set[str] = set()
    peak = 0.0
    for stage in stages:
        alive |= set(stage.outputs)
        peak = max(peak, sum(float(kept[name].channels / kept[name].scale ** 2) for name in alive))
        alive -= set(stage.released)
    return peak


class _Cut:
    """Walks the traced network from norm to norm and decides what is stored between them."""

    def __init__(self, generator: nn.Module, in_channels: int, multiple: int, minimum: int) -> None:
        if any(isinstance(module, nn.GroupNorm) for module in generator.modules()):
            raise ModelError(
                "this network cannot be cut into stages: it normalises over all channels at once"
            )
        self.root = copy.deepcopy(generator).cpu().float().eval()
        self.in_channels, self.multiple = in_channels, multiple
        self.probe = multiple * -(-max(minimum, 64) // multiple)
        try:
            graph = _Tracer().trace(self.root)
        except Exception as error:  # whatever a foreign network does with a proxy
            raise ModelError(f"this network cannot be cut into stages: {error}") from error
        self.graph = graph
        self.modules = dict(self.root.named_modules())
        self.picture = next(node for node in graph.nodes if node.op == "placeholder")
        self.result: fx.Node = next(node for node in graph.nodes if node.op == "output").args[0]
        self.shapes, self.work = self._measure()
        self.norm_nodes = [node for node in graph.nodes if self._is_norm(node)]
        self.norms = {str(node.target): self.modules[str(node.target)] for node in self.norm_nodes}
        self.kept: dict[str, Kept] = {}
        self.stored: set[fx.Node] = set()
        self.computed: set[fx.Node] = {self.picture}
        self.pending = [*self.norm_nodes, None]

    def next_stage(self) -> Stage | None:
        """The pass that makes the input of the next norm, or after the last one the result."""
        if not self.pending:
            return None
        norm = self.pending.pop(0)
        target = self.result if norm is None else _argument(norm)
        needed = self._needed(target)
        self.computed |= set(needed)
        outputs = [] if norm is None or self._is_cheap(target) else [target]
        outputs += [node for node in needed if node is not target and self._outlives(node)]
        for node in outputs:
            self.stored.add(node)
            self.kept[node.name] = self._kept(node)
        inputs = [n for n in needed if n is self.picture or (n in self.stored and n not in outputs)]
        later = set().union(*(self._needed(self._target(other)) for other in self.pending), set())
        released = [node for node in self.stored if node not in later]
        self.stored -= set(released)
        measured = None if norm is None else str(norm.target)
        shown = [target, *(node for node in outputs if node is not target)]
        network, norms = self._extract(needed, inputs, shown)
        return Stage(
            network,
            tuple("" if node is self.picture else node.name for node in inputs),
            norms,
            measured,
            tuple(node.name for node in outputs),
            target in outputs,
            tuple(node.name for node in released),
            self._reach(network, inputs, norms, shown),
        )

    def whole(self) -> Stage:
        """Everything in one pass."""
        needed = self._needed(self.result)
        network, norms = self._extract(needed, [self.picture], [self.result])
        reach = self._reach(network, [self.picture], norms, [self.result])
        return Stage(network, ("",), norms, None, (), False, (), reach)

    def _target(self, norm: fx.Node | None) -> fx.Node:
        return self.result if norm is None else _argument(norm)

    def _is_norm(self, node: fx.Node) -> bool:
        return node.op == "call_module" and is_picture_norm(self.modules[str(node.target)])

    def _needed(self, target: fx.Node) -> list[fx.Node]:
        """The nodes that make `target` of the picture and of what is stored, with these, in order."""
        found: set[fx.Node] = set()
        waiting = [target]
        while waiting:
            node = waiting.pop()
            if node in found:
                continue
            found.add(node)
            if node not in self.stored:
                waiting += node.all_input_nodes
        return [node for node in self.graph.nodes if node in found]

    def _is_cheap(self, node: fx.Node) -> bool:
        """Whether a value comes from the picture alone with little work, and need not be stored."""
        needed = self._needed(node)
        values = math.prod(self.shapes[node])
        return not self.stored & set(needed) and sum(self.work[other] for other in needed) <= CHEAP * values

    def _outlives(self, node: fx.Node) -> bool:
        """Whether a value is needed after this stage and is to be stored for that."""
        if node is self.picture or node in self.stored or node not in self.shapes:
            return False
        if all(user in self.computed for user in node.users):
            return False
        if self._is_cheap(node):
            return False
        # What is a stored value seen through a norm or an activation: that value stays instead.
        origin = node
        while self._is_pointwise(origin) and origin not in self.stored:
            origin = _argument(origin)
        return origin not in self.stored

    def _is_pointwise(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(self.modules[str(node.target)], POINTWISE_MODULES)
        return node.op == "call_function" and node.target in POINTWISE_FUNCTIONS

    def _kept(self, node: fx.Node) -> Kept:
        _, channels, height, width = self.shapes[node]
        scale = Fraction(self.probe, height)
        if Fraction(self.probe, width) != scale or (self.multiple / scale).denominator != 1:
            raise ModelError(
                f"this network cannot be cut into stages: {node.name} is {width}x{height} points"
            )
        return Kept(node.name, channels, scale)

    def _measure(self) -> tuple[dict[fx.Node, tuple[int, ...]], dict[fx.Node, int]]:
        """The shape of each value for a picture of the probe's size, and the multiplications it takes."""
        shapes: dict[fx.Node, tuple[int, ...]] = {}
        work: dict[fx.Node, int] = {}

        class Measuring(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                counter = FlopCounterMode(display=False)
                with counter:
                    value = super().run_node(n)
                work[n] = counter.get_total_flops() // 2
                if isinstance(value, Tensor) and value.ndim == 4:
                    shapes[n] = tuple(value.shape)
                return value

        empty = copy.deepcopy(self.root).to("meta")
        picture = torch.empty(1, self.in_channels, self.probe, self.probe, device="meta")
        Measuring(fx.GraphModule(empty, self.graph)).run(picture)
        return shapes, work

    def _extract(
        self, needed: Sequence[fx.Node], inputs: Sequence[fx.Node], outputs: Sequence[fx.Node]
    ) -> tuple[fx.GraphModule, tuple[str, ...]]:
        """A module from inputs and statistics to outputs, and the names of the norms that it applies."""
        graph = fx.Graph()
        made: dict[fx.Node, fx.Node] = {}
        for index, node in enumerate(inputs):
            made[node] = graph.placeholder(f"value_{index}")
        applied = [node for node in needed if self._is_norm(node) and node not in made]
        names = tuple(dict.fromkeys(str(node.target) for node in applied))
        terms = {
            name: (graph.placeholder(f"scale_{index}"), graph.placeholder(f"shift_{index}"))
            for index, name in enumerate(names)
        }
        for node in needed:
            if node in made:
                continue
            if self._is_norm(node):
                scale, shift = terms[str(node.target)]
                value = made[_argument(node)]
                made[node] = graph.call_function(apply_statistics, (value, scale, shift))
            else:
                made[node] = graph.node_copy(node, lambda other: made[other])
        graph.output(tuple(made[node] for node in outputs))
        graph.lint()
        return fx.GraphModule(self.root, graph), names

    def _reach(
        self,
        network: fx.GraphModule,
        inputs: Sequence[fx.Node],
        norms: Sequence[str],
        outputs: Sequence[fx.Node],
    ) -> int:
        """Pixels from which a tile's values are influenced, rounded up to whole multiples.

        Values that are not numbers are put into a block of the inputs; how far they spread is how far the
        stage sees.
        """
        terms: list[Tensor] = []
        for name in norms:
            features = self.norms[name].num_features
            terms += [torch.ones(features), torch.zeros(features)]
        reach = 0
        for along in (2, 3):
            long = 8 * self.multiple
            while (found := self._spread(network, inputs, terms, outputs, along, long)) is None:
                long *= 2
            reach = max(reach, found)
        return -(-reach // self.multiple) * self.multiple

    def _spread(
        self,
        network: fx.GraphModule,
        inputs: Sequence[fx.Node],
        terms: Sequence[Tensor],
        outputs: Sequence[fx.Node],
        along: int,
        long: int,
    ) -> int | None:
        """How many pixels the block's values spread along an axis of `long` pixels; None if to its ends."""
        short = max(self.probe // 4 // self.multiple * self.multiple, 4 * self.multiple, 16)
        first = long // 2 // self.multiple * self.multiple
        values = []
        for node in inputs:
            channels, scale = self._geometry(node)
            size = [1, channels, int(short / scale), int(short / scale)]
            size[along] = int(long / scale)
            value = torch.zeros(size)
            value.narrow(along, int(first / scale), int(self.multiple / scale)).fill_(torch.nan)
            values.append(value)
        try:
            with torch.inference_mode():
                results = network(*values, *terms)
        except RuntimeError:  # too small for a padding by reflection
            return None
        farthest = 0
        for node, result in zip(outputs, results, strict=True):
            _, scale = self._geometry(node)
            lost = result.isnan().any(1)[0].any(3 - along).nonzero().flatten()
            if len(lost) == 0:
                continue
            begin, end = int(lost[0]), int(lost[-1]) + 1
            if begin == 0 or end == result.shape[along]:
                return None
            before, after = first - begin * scale, end * scale - (first + self.multiple)
            farthest = max(farthest, int(-(-before // 1)), int(-(-after // 1)))
        return farthest

    def _geometry(self, node: fx.Node) -> tuple[int, Fraction]:
        _, channels, height, _ = self.shapes[node]
        return channels, Fraction(self.probe, height)


def _argument(node: fx.Node) -> fx.Node:
    """The one value that a norm or an activation takes."""
    return node.all_input_nodes[0]
