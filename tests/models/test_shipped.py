"""The shipped looks: their size and cost, and what they do to flat pictures, black bars and fades."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cgconvert
from cgconvert.doctor.limits import count_macs
from cgconvert.models.catalog import SHIPPED_FOLDER
from cgconvert.models.files import read_card
from cgconvert.models.loading import load_model
from cgconvert.tensors.images import LUMA_BT601
from trainer.runs.setup import recipes

LOOKS = sorted(path.stem for path in SHIPPED_FOLDER.glob("*.safetensors") if path.stem != "identity")
PAINTINGS = [name for name in LOOKS if name != "photo2ukiyoe"]  # a print's greys are the tone of paper
DOCS = Path(__file__).resolve().parents[2] / "docs"
FLAT = {
    "black": (0, 0, 0),
    "dark": (20, 20, 20),
    "grey": (128, 128, 128),
    "white": (255, 255, 255),
    "blue": (60, 110, 200),
    "skin": (224, 172, 140),
}


def light(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(pixels.astype(np.float64) @ np.array(LUMA_BT601))


def multiplications(name: str) -> float:
    model = load_model(name)
    return count_macs(model.generator, model.card.network_channels, 256, 256)


@pytest.mark.parametrize("name", LOOKS)
def test_a_look_is_small_and_says_where_it_comes_from(name: str) -> None:
    path = SHIPPED_FOLDER / f"{name}.safetensors"
    assert path.stat().st_size <= 3_000_000
    assert multiplications(name) <= 4e9
    card = read_card(path)
    assert card.licence == "Apache-2.0"
    assert card.work_size == 360
    assert card.training["images_seen"] >= 5_000
    assert name in recipes()
    assert (DOCS / f"{name}.curves.svg").is_file()
    assert f"| `{name}` |" in (DOCS / "looks.md").read_text(encoding="utf-8")


def test_the_fast_look_takes_half_the_multiplications_at_most() -> None:
    assert multiplications("photo2monet-fast") <= multiplications("photo2monet") / 2


@pytest.mark.parametrize("colour", FLAT)
@pytest.mark.parametrize("name", PAINTINGS)
def test_a_flat_picture_keeps_its_light(name: str, colour: str) -> None:
    pixels = np.full((96, 128, 3), FLAT[colour], np.uint8)
    result = cgconvert.load_model(name).convert(pixels)
    assert abs(light(result).mean() - light(pixels).mean()) <= 30


@pytest.mark.parametrize("name", LOOKS)
def test_bars_and_the_end_of_a_fade_are_black(name: str) -> None:
    random = np.random.default_rng(1)
    pixels = random.integers(90, 200, (96, 128, 3), dtype=np.uint8)
    pixels[:16] = pixels[-16:] = 0
    network = cgconvert.load_model(name)
    result = network.convert(pixels)
    assert result[:16].max() <= 12
    assert result[-16:].max() <= 12
    assert light(result[24:-24]).mean() > 60, "what is between the bars is painted"
    assert network.convert(np.zeros_like(pixels)).max() == 0
    fading = [light(network.convert((pixels * share).astype(np.uint8))).mean() for share in (0.5, 0.125, 0)]
    assert fading == sorted(fading, reverse=True)
