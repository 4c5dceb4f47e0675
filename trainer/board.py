"""TensorBoard files beside the log, for those who want them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cgconvert.errors import UnavailableError
from trainer.augment import Pixels


class Board:
    """Writes scalars and pictures by images seen. Raises `UnavailableError` without tensorboard."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UnavailableError(
                "watch.tensorboard needs TensorBoard: pip install 'cgconvert[train]', or set it to false"
            ) from error
        self._writer: Any = SummaryWriter(str(folder))

    def scalars(self, group: str, values: Mapping[str, Any], images: int) -> None:
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self._writer.add_scalar(f"{group}/{name}", value, images)
        self._writer.flush()

    def picture(self, name: str, pixels: Pixels, images: int) -> None:
        self._writer.add_image(name, pixels, images, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
