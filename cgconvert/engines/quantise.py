"""Int8 by post-training quantisation: NNCF learns the value ranges of every layer from pictures."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np

from cgconvert.card import ModelCard
from cgconvert.engines.base import Samples
from cgconvert.host.interrupts import Breakable

CALIBRATION_PICTURES = 16
CALIBRATION_EDGE = 128
"""What int8 learns its ranges from: more pictures or larger ones made it slower to build and no better."""

IN_FLOAT = ("GroupConvolution", "Subtract", "Multiply", "Minimum", "Maximum", "ReduceMax")
"""Kinds of layers that stay in floating point; see `quantise`."""


def calibration_pictures(samples: Samples, card: ModelCard) -> list[np.ndarray]:
    """Pictures (H, W, 3) to calibrate int8 on: the middle of each sample, at most `CALIBRATION_EDGE` high
    and wide, or as much as the network needs at least."""
    edge = max(CALIBRATION_EDGE, card.size_minimum)
    with Breakable():
        return [_middle(picture, edge) for picture in samples(CALIBRATION_PICTURES)]


def _middle(picture: np.ndarray, edge: int) -> np.ndarray:
    height, width = picture.shape[:2]
    top, left = max(0, height - edge) // 2, max(0, width - edge) // 2
    return picture[top : top + edge, left : left + edge]


def quantise(network: Any, images: Sequence[np.ndarray]) -> Any:
    """An OpenVINO network in int8, calibrated on images (1, C, H, W), float32 in [-1, 1].

    Weights get symmetric ranges, activations asymmetric ones where they need them (NNCF's "mixed" preset).
    Biases are not corrected: most convolutions have a norm behind them that takes any bias away again.
    Depthwise convolutions stay in floating point: they are all memory traffic, so int8 makes them no faster,
    and fixed filters with small taps, such as H2's last one, lose most by it. So do layers that are no
    convolutions: with what H2 does at full size to keep black and detail in int8, a frame of 960x540 took
    329 ms of a core instead of 278.
    """
    import nncf

    nncf.set_log_level(logging.ERROR)
    with redirect_stdout(io.StringIO()):  # it draws progress bars of its own
        return nncf.quantize(
            network,
            nncf.Dataset(list(images)),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(types=list(IN_FLOAT), validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True),
        )
