"""What every engine is: a generator made ready for a device, a precision and a size."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from cgconvert.models.loading import Model
from cgconvert.progress import Progress

if TYPE_CHECKING:
    from cgconvert.engines.verify import Verification

Samples = Callable[[int], Sequence[np.ndarray]]
"""Gives up to N pictures (H, W, 3), spread over a job."""


class Engine(ABC):
    """A generator made ready. Use: `prepare`, then call with batches of up to `batch` images, then `close`.

    An engine accepts any height and width that the card allows; a size that was not prepared is prepared at
    its first call. Images are float32 NCHW in [-1, 1] on `device`, results likewise, whatever the precision
    inside. Engines are used by one thread at a time.

    `is_reference` says that it is the plain float32 network itself, to which others are compared;
    `batch` is the number of pictures that go through together best; `verifications` says how its results
    compared with the reference: for the size it was made ready for, then for each that it built something
    for; `stage_seconds` what the parts of `convert` took (a GPU works on while the next part begins, so there
    the wait for it counts as postprocessing); `build_seconds` what building or loading what is built took,
    which is part of no rate; `pixel_bytes` the memory that a pixel of a batch needs, once it has been
    measured; `notes` says what was chosen or given up on the way, for the report.
    """

    name: ClassVar[str]
    builds: ClassVar[bool] = False
    """Whether `prepare` builds something, which takes seconds to minutes."""

    streams: int = 1
    """Pictures that it works on side by side: a batch of fewer leaves part of the device idle."""

    best_batch: int | None = None
    """The batch this kind of engine is best with; None: as memory allows."""

    def __init__(self, model: Model, device: torch.device, precision: str) -> None:
        self.model = model
        self.device = device
        self.precision = precision
        self.batch = 1
        self.verifications: list[Verification] = []
        self.is_reference = False
        self.notes: list[str] = []
        self.prepare_seconds = 0.0
        self.build_seconds = 0.0
        self.pixel_bytes: float | None = None
        self.stage_seconds = dict.fromkeys(("preprocess", "translate", "postprocess"), 0.0)

    @classmethod
    def precisions(cls, device: torch.device) -> tuple[str, ...]:
        """The precisions that this kind of engine has on a kind of device; none if it does not run there."""
        return ("fp32", "bf16", "fp16") if device.type == "cuda" else ("fp32", "bf16")

    @classmethod
    def why_not(cls, device: torch.device, precision: str) -> str | None:
        """Why this kind of engine cannot run here, with what would change it; None if it should.

        Looks at what is installed and at the device; nothing is built.
        """
        return None

    def calibrate(self, samples: Samples, progress: Progress) -> None:
        """Learn the value ranges of int8 from up to N pictures (H, W, 3) that `samples(N)` gives.

        Called once, before `prepare`; other precisions need nothing.
        """
        return

    @abstractmethod
    def prepare(self, height: int, width: int, batch: int) -> None:
        """Make ready for images of this padded size (pixels) and up to `batch` of them; may take minutes."""

    def built_for(self, height: int, width: int) -> bool:
        """Whether something is built for this padded size alone, which has to be verified by itself then."""
        return False

    def forget(self, height: int, width: int, above: int = 0) -> None:
        """Drop what is built for this padded size and more than `above` pictures, with its memory."""
        return

    def refuse(self, height: int, width: int, why: str) -> None:
        """Use nothing built for this padded size any more: its pictures go through layer by layer."""
        self.forget(height, width)
        self.notes.append(why)

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """Translate images (N, C, H, W); any N from 1 on."""

    def layer_by_layer(self, images: Tensor) -> Tensor:
        """The same without anything that is built for a size; nothing is built for it either."""
        return self(images)

    def convert(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (N, H, W, 3), uint8 or uint16, to pixels of the same shape and type."""
        from cgconvert.tensors.images import images_to_pixels, pixels_to_images

        started = time.perf_counter()
        with torch.inference_mode():
            images, crop = pixels_to_images(pixels, self.model.card, self.device)
            prepared = time.perf_counter()
            results = self(images)
            translated = time.perf_counter()
            pixels = images_to_pixels(results, crop, pixels.dtype)
        self.stage_seconds["preprocess"] += prepared - started
        self.stage_seconds["translate"] += translated - prepared
        self.stage_seconds["postprocess"] += time.perf_counter() - translated
        return pixels

    def describe(self) -> dict[str, Any]:
        """What it is, for the report: engine, device, precision and what else was chosen."""
        return {
            "engine": self.name,
            "device": str(self.device),
            "precision": self.precision,
            "batch": self.batch,
            "verified": [verification.to_dict() for verification in self.verifications],
            "prepare_seconds": round(self.prepare_seconds, 3),
            "build_seconds": round(self.build_seconds, 3),
            "notes": list(self.notes),
        }

    @abstractmethod
    def close(self) -> None:
        """Give back memory; the engine cannot be called afterwards. Calling it twice is harmless."""
