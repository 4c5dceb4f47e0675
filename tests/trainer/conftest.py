"""Small pictures of the tests' own, and small trainings on them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

H2_TINY = {"half_channels": 8, "channels": 8, "blocks": 1}
SMALL: dict[str, Any] = {
    "run.device": "cpu",
    "run.precision": "fp32",
    "run.threads": 1,
    "run.images": 20,
    "run.decay_images": 10,
    "data.preprocess": "scale_and_crop",
    "data.crop_size": 32,
    "data.holdout": 2,
    "network.generator": "h2",
    "network.arguments": H2_TINY,
    "network.ndf": 8,
    "network.disc_layers": 2,
    "loss.pool": 4,
    "watch.log_every": 1,
    "watch.checkpoint_every": 10,
    "watch.sample_size": 48,
    "watch.metric_size": 32,
    "watch.metric_pictures": 2,
    "watch.samples": 2,
}
"""A training of a few seconds."""


def draw(random: np.random.Generator, warm: bool, size: tuple[int, int] = (48, 48)) -> np.ndarray:
    """A picture: a gradient with discs and noise, reddish or bluish; uint8 (H, W, 3)."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width]
    base = np.array([170, 110, 60] if warm else [50, 110, 180], dtype=np.float64)
    shade = 0.6 + 0.4 * np.sin(x / width * random.uniform(2, 6) + y / height * random.uniform(2, 6))
    image = shade[..., None] * base
    for _ in range(4):
        centre, radius = random.uniform(0, 1, 2) * (height, width), random.uniform(3, 12)
        inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
        image[inside] = random.uniform(0, 255, 3) * 0.5 + base * 0.5
    image += random.normal(0, 6, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def save(path: Path, pixels: np.ndarray) -> Path:
    """Write uint8 RGB (or grey, or with alpha) as an image file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    assert cv2.imwrite(str(path), pixels)
    return path


def make_domain(folder: Path, warm: bool, count: int = 12, size: tuple[int, int] = (48, 48)) -> Path:
    """A folder of drawn pictures."""
    random = np.random.default_rng(int(warm))
    for index in range(count):
        save(folder / f"{index:03d}.png", draw(random, warm, size))
    return folder


def make_pairs(folder: Path, count: int = 12, edge: int = 48) -> Path:
    """Pictures side by side: A on the left, its negative as B on the right."""
    random = np.random.default_rng(5)
    for index in range(count):
        left = draw(random, True, (edge, edge))
        save(folder / f"{index:03d}.png", np.concatenate([left, 255 - left], axis=1))
    return folder


def write_run(folder: Path, settings: dict[str, Any]) -> Path:
    """A run's folder with a small config, changed by `settings`."""
    from trainer.config import Config
    from trainer.runs.template import commented_toml

    folder.mkdir(parents=True, exist_ok=True)
    text = commented_toml(Config().with_changes({**SMALL, **settings}))
    (folder / "config.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random numbers for a test, whatever ran before it."""
    import torch

    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def domains(tmp_path: Path) -> dict[str, str]:
    """Settings that name two folders of drawn pictures."""
    a, b = make_domain(tmp_path / "a", True), make_domain(tmp_path / "b", False)
    return {"data.a": str(a), "data.b": str(b)}
