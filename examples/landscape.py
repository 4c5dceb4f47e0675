"""Draws a short video of a landscape with sound, from nothing but noise and arithmetic.

`python examples/landscape.py OUT.mp4 [SECONDS]` writes 640x360 at 24 frames/s with stereo sound: a camera
that pans over hills, trees and a lake under moving clouds. It is the demo's input and the picture in the
README, so that neither depends on anybody's photographs.
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

WIDTH, HEIGHT, RATE = 640, 360, 24
HORIZON = 205
SHORE = 262
SAMPLE_RATE = 48000


def fractal_noise(height: int, width: int, cell: int, seed: int, octaves: int = 5) -> np.ndarray:
    """Smooth noise in [0, 1], (height, width): `cell` is the size in pixels of its largest features."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width), np.float32)
    amplitude, weight = 1.0, 0.0
    for octave in range(octaves):
        size = max(1, cell >> octave)
        grid = random.random((height // size + 3, width // size + 3), np.float32)
        scaled = cv2.resize(grid, None, fx=size, fy=size, interpolation=cv2.INTER_CUBIC)
        total += amplitude * scaled[:height, :width]
        weight += amplitude
        amplitude *= 0.5
    return np.clip(total / weight, 0, 1)


def ridge(width: int, cell: int, seed: int, low: float, high: float) -> np.ndarray:
    """The height in pixels of a row of hills, (width,)."""
    line = fractal_noise(4 * cell, width, cell, seed, octaves=4)[cell]
    line = (line - line.min()) / (line.max() - line.min())
    return low + (high - low) * line


class Tree:
    """A tree as a small picture with alpha: trunk, and a crown of lit and shaded leaves."""

    def __init__(self, size: int, seed: int, conifer: bool) -> None:
        y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
        leaves = fractal_noise(size, size, max(4, size // 5), seed, octaves=4)
        if conifer:
            edge = np.abs(x - 0.5) - 0.38 * y * (0.75 + 0.5 * (np.mod(y * 6, 1)))
            crown = (edge + 0.18 * (leaves - 0.5) < 0) & (y < 0.88) & (y > 0.03)
            colour = np.array([34, 66, 44], np.float32)
        else:
            radius = np.hypot((x - 0.5) / 0.38, (y - 0.42) / 0.30)
            crown = radius + 0.9 * (leaves - 0.5) < 0.92
            colour = np.array([74, 96, 40], np.float32) + 24 * np.random.default_rng(seed).random(3)
        trunk = (np.abs(x - 0.5) < 0.035) & (y > 0.5)
        light = np.clip(0.45 + 1.1 * (leaves - 0.35) + 0.5 * (0.45 - y) + 0.35 * (0.5 - x), 0.25, 1.6)
        self.pixels = np.where(
            crown[..., None], colour * light[..., None], np.array([58, 44, 32], np.float32)
        )
        self.alpha = cv2.GaussianBlur((crown | trunk).astype(np.float32), (0, 0), 0.7)

    def draw(self, picture: np.ndarray, centre: int, foot: int) -> None:
        """Paint it with its foot at row `foot`, centred at column `centre`; what is outside is cut off."""
        size = self.alpha.shape[0]
        top, left = foot - size, centre - size // 2
        t, b = max(0, top), min(picture.shape[0], top + size)
        lo, hi = max(0, left), min(picture.shape[1], left + size)
        if t >= b or lo >= hi:
            return
        alpha = self.alpha[t - top : b - top, lo - left : hi - left, None]
        view = picture[t:b, lo:hi]
        view += alpha * (self.pixels[t - top : b - top, lo - left : hi - left] - view)


class Landscape:
    """The scene: drawn once as wide layers, shown through a window that moves at each layer's own speed."""

    def __init__(self, seconds: float) -> None:
        self.frames = round(seconds * RATE)
        self.wide = WIDTH + 400
        self.clouds = fractal_noise(HORIZON + 60, self.wide + 200, 128, 7, octaves=6)
        self.hills = [
            self._hills(91, 55, 118, (118, 138, 168), (150, 165, 186), 11, 0.10),
            self._hills(70, 28, 78, (92, 116, 112), (140, 152, 122), 12, 0.28),
            self._hills(120, 8, 46, (78, 104, 58), (168, 160, 84), 13, 0.45),
        ]
        self.meadow = self._meadow()
        random = np.random.default_rng(5)
        self.trees = []
        for index in range(26):
            near = index >= 15
            size = int(random.integers(95, 150) if near else random.integers(28, 58))
            tree = Tree(size, 100 + index, conifer=bool(random.random() < 0.4))
            foot = int(random.integers(300, 352) if near else random.integers(HORIZON + 22, SHORE - 6))
            self.trees.append((foot, int(random.integers(0, self.wide + 300)), 1.15 if near else 0.62, tree))
        self.trees.sort(key=lambda item: item[0])

    def _hills(
        self, cell: int, low: float, high: float, dark: tuple, light: tuple, seed: int, speed: float
    ) -> tuple[np.ndarray, np.ndarray, float]:
        line = ridge(self.wide, cell, seed, low, high)
        texture = fractal_noise(HEIGHT, self.wide, 34, seed + 50)
        slope = np.gradient(cv2.GaussianBlur(line[None].astype(np.float32), (0, 0), 12)[0])
        lit = np.clip(0.5 - 0.5 * slope, 0, 1)[None, :] * 0.5 + 1.1 * (texture - 0.3)
        lit = np.clip(lit, 0, 1)[..., None]
        pixels = (np.array(dark) * (1 - lit) + np.array(light) * lit).astype(np.float32)
        return line, pixels, speed

    def _meadow(self) -> np.ndarray:
        rows = np.linspace(0, 1, HEIGHT - SHORE)[:, None]
        coarse = fractal_noise(HEIGHT - SHORE, self.wide + 300, 40, 31)
        fine = fractal_noise(HEIGHT - SHORE, self.wide + 300, 6, 32, octaves=3)
        light = np.clip(0.25 + 0.5 * coarse + 0.45 * (fine - 0.4) + 0.15 * rows, 0, 1)[..., None]
        grass = np.array([58, 82, 34]) * (1 - light) + np.array([186, 180, 82]) * light
        flowers = (fractal_noise(HEIGHT - SHORE, self.wide + 300, 3, 33, octaves=1) > 0.93)[..., None]
        return np.where(flowers, np.array([214, 96, 70]), grass).astype(np.float32)

    def draw(self, index: int) -> np.ndarray:
        """Frame `index` as uint8 RGB (HEIGHT, WIDTH, 3)."""
        time = index / RATE
        pan = 60 * time
        picture = self._sky(time)
        rows = np.arange(HEIGHT)[:, None]
        for line, pixels, speed in self.hills:
            left = int(pan * speed)
            mask = rows > HORIZON + 24 - line[None, left : left + WIDTH]
            picture = np.where(mask[..., None], pixels[:, left : left + WIDTH], picture)
        trees = [(f, int(c - pan * s), t) for f, c, s, t in self.trees]
        for foot, centre, tree in trees:
            if foot < SHORE:
                tree.draw(picture, centre, foot)
        self._water(picture, time)
        left = int(pan * 1.15)
        shore = SHORE + 38 + np.round(16 * np.sin((np.arange(WIDTH) + left) / 90.0)).astype(int)
        mask = rows[SHORE:] > shore[None]
        picture[SHORE:] = np.where(mask[..., None], self.meadow[:, left : left + WIDTH], picture[SHORE:])
        for foot, centre, tree in trees:
            if foot >= SHORE:
                tree.draw(picture, centre, foot)
        return np.clip(picture, 0, 255).astype(np.uint8)

    def _sky(self, time: float) -> np.ndarray:
        rows = np.linspace(0, 1, HEIGHT)[:, None, None] * HEIGHT / HORIZON
        sky = np.array([86, 138, 206]) * (1 - rows) + np.array([236, 216, 186]) * rows
        sky = np.repeat(np.clip(sky, 0, 255), WIDTH, axis=1).astype(np.float32)
        y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
        glow = np.exp(-np.hypot(x - 470, y - 96) / 60.0)[..., None]
        sky += glow * (np.array([255, 244, 208]) - sky)
        shift = int(14 * time)
        cloud = self.clouds[:, shift : shift + WIDTH]
        cover = np.clip((cloud - 0.53) * 6, 0, 1)[..., None]
        shade = np.clip(1.22 - 0.9 * (cloud - 0.53) * 4, 0.8, 1.0)[..., None]
        top = sky[: cover.shape[0]]
        top += 0.9 * cover * (np.array([252, 246, 240]) * shade - top)
        return sky

    def _water(self, picture: np.ndarray, time: float) -> None:
        """The lake mirrors what is above it, broken by ripples that move."""
        height = HEIGHT - SHORE + 30
        top = HEIGHT - height
        rows = np.arange(height, dtype=np.float32)[:, None]
        columns = np.arange(WIDTH, dtype=np.float32)[None]
        wave = np.sin(rows * 0.9 - 5 * time + 0.02 * columns) + np.sin(
            rows * 0.37 + 3 * time - 0.05 * columns
        )
        map_y = np.clip(top - rows * 1.05 + wave * (0.6 + rows / 18), 0, top - 1).astype(np.float32)
        map_x = np.clip(columns + wave * (0.4 + rows / 40), 0, WIDTH - 1).astype(np.float32)
        mirror = cv2.remap(picture, map_x, map_y, cv2.INTER_LINEAR)
        glint = np.clip(wave - 1.25, 0, 1)[..., None] * 70
        picture[top:] = mirror * np.array([0.72, 0.80, 0.86], np.float32) + np.array([6, 14, 20]) + glint


def sound(seconds: float) -> np.ndarray:
    """Wind, water and a bird now and then: float32 stereo, (2, samples)."""
    count = int(seconds * SAMPLE_RATE)
    random = np.random.default_rng(3)
    time = np.arange(count) / SAMPLE_RATE
    channels = []
    for _ in range(2):
        noise = random.standard_normal(count).astype(np.float32)
        wind = np.convolve(noise, np.ones(400, np.float32) / 400, "same") * (0.5 + 0.3 * np.sin(1.3 * time))
        channels.append(1.2 * wind + 0.012 * noise)
    for start, pitch in ((0.6, 3200), (0.9, 3700), (2.1, 2900), (2.3, 3300), (3.2, 3500)):
        local = time - start
        envelope = np.where((local > 0) & (local < 0.18), np.sin(np.clip(local / 0.18, 0, 1) * np.pi) ** 2, 0)
        chirp = 0.10 * envelope * np.sin(2 * np.pi * (pitch * local + 2600 * local**2))
        channels[0] += chirp
        channels[1] += 0.5 * chirp
    return np.clip(np.stack(channels), -1, 1).astype(np.float32)


def write_video(path: Path, seconds: float = 4.0) -> None:
    """Draw the video and write it as H.264 with AAC."""
    scene = Landscape(seconds)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE, options={"crf": "14", "preset": "medium"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo")
        for index in range(scene.frames):
            frame = av.VideoFrame.from_ndarray(scene.draw(index), "rgb24")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = sound(seconds)
        for start in range(0, samples.shape[1], 1024):
            block = np.ascontiguousarray(samples[:, start : start + 1024])
            piece = av.AudioFrame.from_ndarray(block, "fltp", "stereo")
            piece.sample_rate, piece.pts, piece.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
            container.mux(audio.encode(piece))
        container.mux(audio.encode(None))


if __name__ == "__main__":
    write_video(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 4.0)
