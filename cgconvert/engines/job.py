"""What a job knows of the engine that it runs with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from cgconvert.engines.base import Engine
from cgconvert.engines.verify import Verification

if TYPE_CHECKING:
    from cgconvert.engines.tiles.tiling import Tiling


@dataclass
class EngineJob:
    """An engine in use.

    `batch` pictures go through together best. `verifications` say how the engine's results compared with the
    plain float32 network: for the size it was made ready for, then for each that it built something for.
    `prepare_seconds` is what making ready took; the `build_seconds` of it, and of sizes that came later, went
    into building or loading what is built, which is part of no rate. `pixel_bytes` is the memory that a pixel
    of a batch needs, once it has been measured; batches of up to `proven_pixels` have gone through. `tiling`
    takes pictures that are too large, unless that was refused. `any_size_compared`: whether what is built for
    any size has been compared on one of them. `measured` are the pictures a second by which `auto` has
    chosen, by engine; none if nothing was measured. `notes` say what was chosen or given up on the way, for
    the report.
    """

    engine: Engine
    batch: int = 1
    notes: list[str] = field(default_factory=list)
    verifications: list[Verification] = field(default_factory=list)
    prepare_seconds: float = 0.0
    build_seconds: float = 0.0
    pixel_bytes: float | None = None
    proven_pixels: int = 0
    tiling: Tiling | None = None
    any_size_compared: bool = False
    measured: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, images: Tensor) -> Tensor:
        """Translate padded images (N, C, H, W), in tiles if they are of a size that is tiled.

        Raises as the engine does, and `OutputError` where there is no room for the values between stages.
        """
        if self.tiling is not None and self.is_tiled(*images.shape[2:]):
            return self.tiling(images)
        return self.engine(images)

    def is_tiled(self, height: int, width: int) -> bool:
        """Whether pictures of this padded size go through in tiles."""
        return self.tile_edge(height, width) is not None

    def tile_edge(self, height: int, width: int) -> int | None:
        """The edge in pixels of the tiles that pictures of this padded size go through in; None: untiled."""
        return None if self.tiling is None else self.tiling.edge_for(height, width)

    def note(self, line: str) -> None:
        """Remember a line for the report, once."""
        if line not in self.notes:
            self.notes.append(line)

    def describe(self) -> dict[str, Any]:
        """The engine and how it did, as plain data for the report."""
        return {
            **self.engine.describe(),
            "batch": self.batch,
            "verified": [verification.to_dict() for verification in self.verifications],
            "prepare_seconds": round(self.prepare_seconds, 3),
            "build_seconds": round(self.build_seconds, 3),
            "tiles": self.tiling.describe() if self.tiling is not None else {},
            **({"measured_pictures_per_second": dict(self.measured)} if self.measured else {}),
            "notes": list(self.notes),
        }

    def close(self) -> None:
        """Give the engine's memory back."""
        self.engine.close()
