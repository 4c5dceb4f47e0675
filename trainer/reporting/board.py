"""TensorBoard files beside the log, for those who want them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cgconvert.errors import UnavailableError
from cgconvert.host.files import output_error
from trainer.data.augment import Pixels


class Board:
    """Writes scalars and pictures by images seen; every way it raises `OutputError`.

    Raises `UnavailableError` without tensorboard.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UnavailableError(
                "watch.tensorboard needs TensorBoard: pip install 'cgconvert[train]', or set it to false"
            ) from error
        self._folder = folder
        with self._one_line():
            self._writer: Any = SummaryWriter(str(folder))

    def scalars(self, group: str, values: Mapping[str, Any], images: int) -> None:
        with self._one_line():
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self._writer.add_scalar(f"{group}/{name}", value, images)
            self._writer.flush()

    def picture(self, name: str, pixels: Pixels, images: int) -> None:
        with self._one_line():
            self._writer.add_image(name, pixels, images, dataformats="HWC")
            self._writer.flush()

    def close(self) -> None:
        with self._one_line():
            self._writer.close()

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        """Turns what the file system refuses into an `OutputError`.

        TensorBoard writes in a thread of its own, whose error arrives here; that it prints its traceback as
        well is prevented.
        """
        before = threading.excepthook

        def quiet(args: threading.ExceptHookArgs) -> None:
            if not issubclass(args.exc_type, OSError):
                before(args)

        threading.excepthook = quiet
        try:
            yield
        except OSError as error:
            raise output_error(self._folder, error) from error
        finally:
            threading.excepthook = before
