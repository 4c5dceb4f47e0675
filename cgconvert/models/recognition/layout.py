"""Names and shapes of a state dict, what was recognised in them, and how its norm layers are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cgconvert.models.files import STATISTICS

Shape = tuple[int, ...]
INNER_PREFIXES = ("module.", "_orig_mod.")
"""What data-parallel wrappers and compilers put before, or in the middle of, every name."""


class UnrecognisedError(Exception):
    """The state dict is of no supported network; the text says which tensor shows it."""


@dataclass(frozen=True)
class Layout:
    """Shapes by tensor name, and `versions` by module name where the file has them.

    The versions come from the metadata of a PyTorch state dict, which names modules without weights too;
    it is empty for files from other hands. `padding` is what a configuration beside the file says of it.
    """

    shapes: Mapping[str, Shape]
    versions: Mapping[str, int] = field(default_factory=dict)
    padding: str | None = None

    def shape(self, name: str, dimensions: int = 4) -> Shape:
        """The shape of a tensor that has to be there. Raises `UnrecognisedError`."""
        if name not in self.shapes:
            raise UnrecognisedError(f"{name!r} is missing")
        shape = self.shapes[name]
        if len(shape) != dimensions or 0 in shape:
            raise UnrecognisedError(
                f"{name!r} has shape {list(shape)}, a convolution's weights were expected"
            )
        return shape

    def is_conv(self, name: str) -> bool:
        """Whether a tensor of this name is there and has the four dimensions of a convolution."""
        return len(self.shapes.get(name, ())) == 4


@dataclass(frozen=True)
class Recognised:
    """An architecture with its arguments; the names that carry nothing; what the user should know.

    `renamed` has the names in the file for which our generator has others.
    """

    architecture: str
    arguments: dict[str, Any]
    unused: frozenset[str] = frozenset()
    remarks: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NormReading:
    """The kind of norm as the generators name it, and names of statistics that it does not use."""

    norm: str
    unused: frozenset[str] = frozenset()
    remarks: tuple[str, ...] = ()


def strip_wrappers(name: str) -> str:
    """A tensor's name without what wrappers put into it: "module.model.1.weight" -> "model.1.weight"."""
    parts = [part for part in name.split(".") if f"{part}." not in INNER_PREFIXES]
    return ".".join(parts)


def read_norm(layout: Layout, places: Iterable[str], conv_bias: bool) -> NormReading:
    """The norm of a network whose norm layers sit at `places` (module names), all of one kind.

    Scale, shift and running statistics: batch norm. Scale and shift alone: batch norm that keeps no
    statistics, or affine instance norm; for one picture at a time they are the same, so the second is
    taken. Statistics alone: instance norm from before PyTorch 0.4, or from the short time when it kept
    them; the original ignores them and so do we. Nothing: instance norm or none; the original gives
    convolutions a bias only before instance norm, and newer files say which module was there.
    """
    places = list(places)
    kinds = {place: _kind_at(layout, place) for place in places}
    first = places[0]
    for place, kind in kinds.items():
        if kind != kinds[first]:
            raise UnrecognisedError(f"{place!r} is {_words(kind)} where {first!r} is {_words(kinds[first])}")
    affine, statistics = kinds[first]
    if affine and statistics:
        remark = "batch norm uses its running statistics, as the original does with --eval"
        return NormReading("batch", remarks=(remark,))
    if affine:
        remark = "its norm layers keep no running statistics: read as instance norm with learned scale"
        return NormReading("instance_affine", remarks=(remark,))
    if statistics:
        unused = {place + end for place in places for end in STATISTICS if place + end in layout.shapes}
        remark = f"left out {len(unused)} unused running statistics of instance norm, as the original does"
        return NormReading("instance", frozenset(unused), (remark,))
    # Norm layers say version 2 in a state dict's metadata, the identity in their place says 1.
    named = any(layout.versions.get(place) == 2 for place in places)
    return NormReading("instance" if conv_bias or named else "none")


def _kind_at(layout: Layout, place: str) -> tuple[bool, bool]:
    affine = {f"{place}.weight" in layout.shapes, f"{place}.bias" in layout.shapes}
    statistics = {f"{place}.running_mean" in layout.shapes, f"{place}.running_var" in layout.shapes}
    if len(affine) > 1 or len(statistics) > 1:
        raise UnrecognisedError(f"the norm layer at {place!r} is incomplete")
    return affine.pop(), statistics.pop()


def _words(kind: tuple[bool, bool]) -> str:
    affine, statistics = kind
    if affine:
        return (
            "a norm layer with scale, shift and statistics"
            if statistics
            else "a norm layer without statistics"
        )
    return "a norm layer with statistics only" if statistics else "a layer without weights"
