"""A network with what lies before and after it, from YUV planes to YUV planes, for a compiler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cgconvert.card import ModelCard
from cgconvert.engines.flat import contrast
from cgconvert.engines.planes import PlaneFrames, PlaneTarget
from cgconvert.finish import Finish
from cgconvert.frames import YuvFormat
from cgconvert.tensors.transfers import HostTransfers


@dataclass(frozen=True)
class Passage:
    """What becomes of frames: `source` planes of (height, width) are turned, scaled, translated and stored
    as the `target` says, which has no HDR."""

    source: YuvFormat
    size: tuple[int, int]
    target: PlaneTarget

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, and for the name under which it is kept."""
        target = self.target
        return {
            "source": asdict(self.source),
            "size": list(self.size),
            "format": asdict(target.format),
            "target": [*target.size, *target.work_size, target.rotation],
            "finish": None if target.finish is None else asdict(target.finish),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Passage:
        """The inverse of `to_dict`, also of what JSON makes of it."""
        source, form = (
            YuvFormat(**{**data[key], "siting": tuple(data[key]["siting"])}) for key in ("source", "format")
        )
        width, height, work_width, work_height, rotation = data["target"]
        finish = None if data["finish"] is None else Finish(**data["finish"])
        target = PlaneTarget(form, (width, height), (work_width, work_height), rotation, finish=finish)
        rows, columns = data["size"]
        return cls(source, (rows, columns), target)

    def examples(self, count: int, device: torch.device) -> list[Tensor]:
        """Planes of `count` black frames."""
        shapes = self.source.shapes(*self.size)
        return [torch.zeros((count, *shape), dtype=torch.uint8, device=device) for shape in shapes]


class Through(nn.Module):
    """Planes (uint8, with a first dimension of N) to the planes of the results and the contrasts of what the
    network sees, (N,), by which `FlatFrames` finds frames that need help."""

    def __init__(self, network: nn.Module, card: ModelCard, passage: Passage) -> None:
        super().__init__()
        self.network, self.passage = network, passage
        self.kind = PlaneFrames(passage.target, card, HostTransfers())

    def forward(self, *planes: Tensor) -> tuple[Tensor, ...]:
        source = self.passage.source
        images, crop = self.kind.images_of(planes, source)
        results = self.network(images.contiguous(memory_format=torch.channels_last))
        return (*self.kind.planes_of(results, crop, planes, source), contrast(images))


def graph_of(through: Through, examples: Sequence[Tensor]) -> torch.export.ExportedProgram:
    """The operations of all of it, which torch traces; the filters of the scaling become constants in it."""
    with torch.no_grad():
        through(*examples)  # so that what is computed once, such as filters, is there and no part of it
        return torch.export.export(through, tuple(examples))
