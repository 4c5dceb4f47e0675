"""A landscape that is computed, so that pictures of the page show nobody's photographs: hills around a lake.

    python benchmarks/page/scene.py FOLDER

writes lake.mp4, a folder `holiday` of pictures, and a folder `paintings` of the same land in dabs of paint.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

MAP = 1024
"""Cells of the map in each direction; it repeats."""
WATER = 0.30
FAR = 900.0


def noise(size: int, seed: int, octaves: int, first: int = 4, roughness: float = 0.5) -> np.ndarray:
    """Fractal noise that repeats, float32 (size, size) from 0 to 1."""
    random = np.random.default_rng(seed)
    result = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        cells = first * 2**octave
        grid = np.pad(random.random((cells, cells), np.float32), 2, mode="wrap")
        large = cv2.resize(grid, None, fx=size / cells, fy=size / cells, interpolation=cv2.INTER_CUBIC)
        edge = 2 * size // cells
        result += roughness**octave * large[edge : edge + size, edge : edge + size]
    result -= result.min()
    return result / result.max()


@dataclass(frozen=True)
class Land:
    """A map: heights (0 to 1), colours (RGB, 0 to 1, lit), and the sun's place."""

    heights: np.ndarray
    colours: np.ndarray
    clouds: np.ndarray
    grain: np.ndarray
    evening: float


def make_land(seed: int, evening: float) -> Land:
    """Draw a map. `evening` from 0 to 1 makes the light low and warm."""
    ridges = 1 - np.abs(2 * noise(MAP, seed, 8, 3, 0.48) - 1)
    broad = noise(MAP, seed + 1, 3, 2)
    heights = np.clip(ridges**2.2 * (0.25 + 0.75 * broad) * 1.15, 0, 1)
    slope_x, slope_y = np.gradient(heights, axis=1) * 90, np.gradient(heights, axis=0) * 90
    normal = np.stack([-slope_x, -slope_y, np.ones_like(slope_x)], -1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    sun = np.array([0.75, 0.25, 0.85 - 0.5 * evening])
    light = np.clip(normal @ (sun / np.linalg.norm(sun)), 0, 1)
    spots, fine = noise(MAP, seed + 2, 7, 8, 0.7), noise(MAP, seed + 3, 5, 64, 0.8)
    steep = np.clip((1 - normal[..., 2]) * 2.6, 0, 1)
    grass = mix((0.33, 0.42, 0.14), (0.58, 0.56, 0.22), spots)
    wood = mix((0.06, 0.16, 0.07), (0.14, 0.26, 0.09), fine)
    rock = mix((0.34, 0.30, 0.27), (0.55, 0.51, 0.47), fine)
    ground = blend(grass, wood, smooth(spots + 0.35 * fine, 0.52, 0.68))
    ground = blend(ground, rock, smooth(steep + 0.7 * heights, 0.62, 0.85))
    ground = blend(ground, np.full_like(rock, 0.95), smooth(heights + 0.12 * fine - 0.25 * steep, 0.58, 0.68))
    ground = blend(
        mix((0.55, 0.48, 0.33), (0.66, 0.58, 0.42), fine), ground, smooth(heights, WATER, WATER + 0.02)
    )
    warm = mix((1.0, 0.98, 0.94), (1.15, 0.82, 0.55), evening)
    lit = ground * (0.28 * np.array((0.75, 0.9, 1.25)) + 1.0 * light[..., None] * warm)
    return Land(heights, np.clip(lit * (0.8 + 0.4 * fine[..., None]), 0, 1).astype(np.float32),
                noise(MAP, seed + 4, 7, 4, 0.55), fine, evening)  # fmt: skip


def mix(
    low: tuple[float, float, float], high: tuple[float, float, float], share: np.ndarray | float
) -> np.ndarray:
    """Colours between two, by a share from 0 to 1."""
    return blend(np.array(low), np.array(high), np.asarray(share))


def blend(below: np.ndarray, above: np.ndarray, share: np.ndarray) -> np.ndarray:
    """`above` over `below`, as far as the share says."""
    return below + (above - below) * share[..., None]


def smooth(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between."""
    share = np.clip((values - low) / (high - low), 0, 1)
    return share * share * (3 - 2 * share)


def looked_up(map_: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A map at places in cells, between which it is interpolated."""
    return cv2.remap(map_, (x % MAP).astype(np.float32), (y % MAP).astype(np.float32), cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_WRAP)  # fmt: skip


def view(
    land: Land, size: tuple[int, int], place: tuple[float, float], turn: float, up: float = 0.16
) -> np.ndarray:
    """The land as seen from `up` above the water at a place, uint8 RGB of a size (width, height)."""
    width, height = size
    horizon = int(height * 0.46)
    sky = _sky(land, width, height, horizon, turn)
    picture = sky.copy()
    angles = turn + np.linspace(-0.55, 0.55, width)
    left_open = np.full(width, height)  # rows from this one on are drawn already
    rows = np.arange(height)[:, None]
    eye = max(
        WATER + up,
        float(looked_up(land.heights, np.array([[place[0]]]), np.array([[place[1]]]))[0, 0]) + 0.06,
    )
    haze_colour = sky[horizon - 1].mean(0)
    distance = 4.0
    while distance < FAR:
        x = (place[0] + distance * np.sin(angles) / np.cos(angles - turn))[None]
        y = (place[1] - distance * np.cos(angles) / np.cos(angles - turn))[None]
        land_height = looked_up(land.heights, x, y)[0]
        near = np.clip(1 - distance / 90, 0, 1)  # what lies near shows grain that the map is too coarse for
        grain = 1 + near * (looked_up(land.grain, x * 14, y * 14)[0] - 0.5) * 0.9
        colour = looked_up(land.colours, x, y)[0] * grain[:, None]
        is_water = land_height < WATER
        top = horizon + (eye - np.maximum(land_height, WATER)) * 110 / distance * height
        top = np.clip(top, 0, height).astype(int)
        drawn = (rows >= top) & (rows < left_open)
        haze = 1 - np.exp(-((distance / 420) ** 1.3))
        shown = blend(colour, haze_colour[None], np.full(width, haze))
        shown[is_water] = -1  # filled below, by what it reflects
        row, column = np.nonzero(drawn)
        picture[row, column] = shown[column]
        left_open = np.minimum(left_open, top)
        distance *= 1.006
    picture = _reflected(picture, sky, horizon, land, place)
    return (np.clip(picture, 0, 1) ** 0.9 * 255 + 0.5).astype(np.uint8)


def _sky(land: Land, width: int, height: int, horizon: int, turn: float) -> np.ndarray:
    share = np.linspace(1, 0, horizon)[:, None] ** 0.8
    low = mix((0.80, 0.87, 0.94), (1.0, 0.74, 0.48), land.evening)
    high = mix((0.22, 0.45, 0.80), (0.27, 0.30, 0.58), land.evening)
    sky = np.ones((height, width, 3)) * low
    sky[:horizon] = blend(low, high, np.broadcast_to(share, (horizon, width)))
    depth = 60 / (np.linspace(1, 0, horizon)[:, None] * 1.6 + 0.12)
    across = np.linspace(-0.55, 0.55, width)[None] + turn
    cover = looked_up(land.clouds, across * depth * 4.0 + 900, depth * 3.0 + 0 * across)
    share = smooth(cover, 0.5, 0.78) * np.linspace(1, 0.25, horizon)[:, None]
    sky[:horizon] = blend(sky[:horizon], mix((0.99, 0.99, 1.0), (1.0, 0.86, 0.76), land.evening), share * 0.9)
    return sky


def _reflected(
    picture: np.ndarray, sky: np.ndarray, horizon: int, land: Land, place: tuple[float, float]
) -> np.ndarray:
    """Fill the water with the picture turned over at the horizon, in ripples."""
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    depth = np.clip(60 / ((rows - horizon) / height + 0.02), 0, 3000)
    ripple = (
        looked_up(land.clouds, columns / width * depth * 0.8 + place[0] * 4, depth * 6 + place[1] * 40) - 0.5
    )
    near = (rows - horizon) / height
    source_row = np.clip(2 * horizon - rows + ripple * 70 * near, 0, horizon - 1)
    source_column = np.clip(columns + ripple * 26 * near, 0, width - 1)
    above = np.where(picture < 0, sky, picture).astype(np.float32)
    mirror = cv2.remap(above, source_column, source_row.astype(np.float32), cv2.INTER_LINEAR)
    water = (
        blend(mirror, np.array((0.10, 0.22, 0.30)), np.clip(0.18 + 0.6 * near, 0, 0.6))
        + ripple[..., None] * 0.10
    )
    return np.where(picture < 0, water, picture)


def painted(pixels: np.ndarray, seed: int) -> np.ndarray:
    """A picture in dabs of paint, large ones first and small ones where it has detail."""
    random = np.random.default_rng(seed)
    height, width = pixels.shape[:2]
    canvas = np.full_like(pixels, (214, 200, 172))
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    for length in (height // 9, height // 18, height // 34):
        soft = cv2.GaussianBlur(pixels, (0, 0), length / 5)
        along = cv2.GaussianBlur(grey, (0, 0), length / 3).astype(np.float32)
        direction = (
            np.arctan2(cv2.Sobel(along, cv2.CV_32F, 0, 1), cv2.Sobel(along, cv2.CV_32F, 1, 0)) + np.pi / 2
        )
        count = int(height * width / length**2 * 9)
        for y, x in zip(random.integers(0, height, count), random.integers(0, width, count), strict=True):
            if length < height // 9 and np.abs(canvas[y, x].astype(int) - pixels[y, x]).sum() < 30:
                continue
            colour = np.clip(soft[y, x] * random.uniform(0.86, 1.12) + random.normal(0, 9, 3), 0, 255)
            angle = np.degrees(direction[y, x]) + random.normal(0, 14)
            axes = (int(length * random.uniform(0.5, 0.9)), max(1, int(length * 0.16)))
            cv2.ellipse(
                canvas, (int(x), int(y)), axes, float(angle), 0, 360, colour.tolist(), -1, cv2.LINE_AA
            )
    return canvas


def write_clip(path: Path, size: tuple[int, int], frames: int) -> None:
    """A flight over the lake, 25 frames a second, with a quiet tone."""
    land = make_land(37, 0.2)
    with av.open(str(path), "w") as container:
        video = container.add_stream("h264", 25, options={"crf": "17"})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        sound = container.add_stream("aac", 48000)
        for number in range(frames):
            pixels = view(land, size, (226 - number * 0.06, 713 + number * 0.02), 5.02 + number * 0.0008)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels)))
        samples = np.arange(frames * 1920)
        wave = 0.1 * np.sin(2 * np.pi * 220 * samples / 48000).astype(np.float32)
        audio = av.AudioFrame.from_ndarray(np.stack([wave, wave]), "fltp", "stereo")
        audio.sample_rate, audio.time_base = 48000, Fraction(1, 48000)
        container.mux(sound.encode(audio))
        for stream in (video, sound):
            container.mux(stream.encode(None))


VIEWS = (
    ("bay", 11, 0.1, (775, 548), 5.07),
    ("cliff", 23, 0.9, (478, 643), 3.49),
    ("islands", 11, 0.3, (486, 117), 4.10),
    ("morning", 37, 0.0, (13, 477), 2.04),
    ("mountain", 37, 0.1, (322, 796), 0.94),
    ("sunset", 23, 1.0, (194, 835), 5.52),
)
"""Pictures of the folder `holiday`: name, land, evening, place and direction."""


def waters(land: Land, count: int, seed: int) -> list[tuple[float, float]]:
    """Places on the water, from which a land is seen well."""
    wet = np.argwhere(land.heights < WATER - 0.02)
    return [(float(x), float(y)) for y, x in np.random.default_rng(seed).choice(wet, count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=100)
    arguments = parser.parse_args()
    holiday, paintings = arguments.folder / "holiday", arguments.folder / "paintings"
    for folder in (holiday, paintings):
        folder.mkdir(parents=True, exist_ok=True)
    for name, seed, evening, place, turn in VIEWS:
        pixels = view(make_land(seed, evening), (960, 640), place, turn)
        cv2.imwrite(str(holiday / f"{name}.jpg"), pixels[:, :, ::-1])
    for seed in range(50, 54):
        land = make_land(seed, (seed - 50) / 4)
        for number, place in enumerate(waters(land, 5, seed)):
            pixels = painted(view(land, (480, 360), place, 1.3 * number), number)
            cv2.imwrite(str(paintings / f"{seed - 49}{number + 1}.jpg"), pixels[:, :, ::-1])
    write_clip(arguments.folder / "lake.mp4", (640, 360), arguments.frames)


if __name__ == "__main__":
    main()
