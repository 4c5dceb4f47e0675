"""The generators compute what the original implementation of CycleGAN and pix2pix computes.

A fixture is `NAME.pth` (a state dict as the original saves it), `NAME_input.png` (8-bit RGB) and
`NAME_output.npy` (float32, CHW: what the original's generator in eval mode returned, before any clamp).
`CGCONVERT_FIXTURES` names one more folder of them.
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cgconvert.models.importing import import_checkpoint
from cgconvert.models.loading import load_model

OWN_FOLDER = Path(__file__).parents[1] / "data" / "official"
OTHER = os.environ.get("CGCONVERT_FIXTURES")
FOLDERS = [OWN_FOLDER, *([Path(OTHER)] if OTHER else [])]
FIXTURES = [path for folder in FOLDERS for path in sorted(folder.glob("*.pth"))]


def read_image(path: Path, channels: int) -> torch.Tensor:
    """The picture as (1, channels, H, W) in [-1, 1]."""
    flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
    pixels = cv2.imread(str(path), flag)
    assert pixels is not None, path
    pixels = pixels.reshape(*pixels.shape[:2], channels)
    return torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]


def test_fixtures_are_there() -> None:
    assert len(list(OWN_FOLDER.glob("*.pth"))) >= 3
    if OTHER:
        assert list(Path(OTHER).glob("*.pth")), f"CGCONVERT_FIXTURES={OTHER} has no *.pth"


@pytest.mark.parametrize("path", FIXTURES, ids=[path.stem for path in FIXTURES])
def test_generator_agrees_with_the_original(path: Path) -> None:
    import_checkpoint(path, "official")
    model = load_model("official")
    image = read_image(path.with_name(f"{path.stem}_input.png"), model.card.in_channels)
    wanted = np.load(path.with_name(f"{path.stem}_output.npy"))
    with torch.inference_mode():
        got = model.generator(image)[0].numpy()
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= 1e-4
