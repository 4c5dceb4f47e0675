"""Fast equals slow: an engine's images against those of the plain float32 network."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cgconvert.engines.base import Engine
from cgconvert.engines.eager import SEEN_DEVICES, EagerEngine
from cgconvert.errors import ModelError
from cgconvert.tensors.images import Crop, pixels_to_images, psnr

BOUNDS_DB = {"fp32": 60.0, "bf16": 40.0, "fp16": 40.0, "int8": 30.0}
"""Least PSNR, in decibels on images in [-1, 1], that a precision must reach."""


class VerificationError(ModelError):
    """An engine's pictures are not those of the model."""


@dataclass(frozen=True)
class Verification:
    """One comparison: the PSNR in decibels (infinite if equal), its bound, how many pictures were compared.

    `size` is their (width, height) in pixels.
    """

    psnr_db: float
    bound_db: float
    pictures: int
    size: tuple[int, int]
    finite: bool = True

    @property
    def passed(self) -> bool:
        """Whether every value was a number and the PSNR reaches the bound."""
        return self.finite and self.psnr_db >= self.bound_db

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, which knows no infinity: a PSNR of None means exactly equal."""
        return {
            "psnr_db": round(self.psnr_db, 2) if math.isfinite(self.psnr_db) else None,
            "bound_db": self.bound_db,
            "pictures": self.pictures,
            "size": list(self.size),
        }

    def describe(self) -> str:
        """What is wrong, or how well it went, in words."""
        if not self.finite:
            return "values that are not numbers (NaN or infinite)"
        if math.isinf(self.psnr_db):
            return "equal to the plain float32 network"
        sign = "above" if self.passed else "below"
        return (
            f"{self.psnr_db:.1f} dB to the plain float32 network, {sign} the bound of {self.bound_db:.0f} dB"
        )


def reference_images(engine: Engine, pixels: np.ndarray) -> tuple[Tensor, Crop]:
    """What the plain float32 network makes of pixels (N, H, W, 3), one picture at a time, on the CPU.

    It runs on the engine's device, or on the CPU where float32 on that kind of device has not been compared.
    Raises `ModelError` if it makes NaN of them: then no engine can do better.
    """
    device = engine.device if engine.device.type in SEEN_DEVICES else torch.device("cpu")
    reference = EagerEngine(engine.model, device, "fp32")
    try:
        with torch.inference_mode():
            images, crop = pixels_to_images(pixels, engine.model.card, device)
            # A copy: an engine that changes its input in place must not change what it is compared with.
            results = torch.cat([reference(image[None].clone()).cpu() for image in images])
    finally:
        reference.close()
    results = results[:, :, : crop.height, : crop.width]
    if not torch.isfinite(results).all():
        raise ModelError(
            f"model {engine.model.card.name!r} returns values that are not numbers for this picture, in "
            "plain float32 too: its weights are broken, get or train it anew"
        )
    return results, crop


def verify(engine: Engine, pixels: np.ndarray, run: Callable[[Tensor], Tensor] | None = None) -> Verification:
    """Compare an engine with the plain float32 network on pixels (N, H, W, 3). Raises `ModelError`.

    `run` makes images on the engine's device, if not the engine by itself.
    """
    wanted, crop = reference_images(engine, pixels)
    bound, size = BOUNDS_DB[engine.precision], (pixels.shape[2], pixels.shape[1])
    if engine.is_reference and run is None:
        return Verification(math.inf, bound, len(pixels), size)
    with torch.inference_mode():
        images, _ = pixels_to_images(pixels, engine.model.card, engine.device)
        got = (run or engine)(images)[:, :, : crop.height, : crop.width].float().cpu()
    if got.shape != wanted.shape:
        raise VerificationError(f"{engine.name} returns {tuple(got.shape)} instead of {tuple(wanted.shape)}")
    finite = bool(torch.isfinite(got).all())
    return Verification(psnr(got, wanted) if finite else math.nan, bound, len(pixels), size, finite)
