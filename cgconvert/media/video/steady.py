"""Makes results steady in time: a frame changes where its source does, and as much.

A network that paints every frame by itself chooses other strokes in each, also where the source stands still.
Here the last result is moved along with the optical flow of the source, and the new result is mixed into it
as far as the source has changed:

    result = moved + share * (new - moved),    share = c * (1 + (r / TURN)^2) * r / d    (at most 1)

`r` is the change of the source without its noise, and `d` that of the results, both averaged over some
pixels. `r` is not the distance from the last frame, but from what the mixed result stands for: the source is
mixed in the same way and kept, so that no change is overlooked by small steps. A large change is taken over
at once, a small one slowly. A small change of light over a large area, as in a fade, is given to the moved
result itself.

Where the flow bends strongly, as at the edges of what moves, strokes would be drawn out of shape and stay so.
Such places are in doubt for some frames, in which the new result is mixed in faster. An average of strokes is
softer than strokes, and interpolation makes it softer or stronger: its fine detail is brought back to the
strength that it has in the new result. Nothing is lighter or darker than what the new result has around it,
which wipes away what was left behind (compare Karis 2014, "High-quality temporal supersampling").
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from cgconvert.media.picture.colours import luminance
from cgconvert.media.video.motion import MotionEstimator

TURN = 12.0
"""Change of the source, in levels of 255, from which its results are taken over much faster."""
NOISE_QUANTILE, NOISE_MOST, NOISE_MEMORY = 0.25, 3.0, 0.9
"""The noise is the change in the quietest quarter of a frame, at most so many levels, averaged over time."""
BENT, TORN = 0.1, 0.3
"""Gradient of the flow, in pixels a pixel, from which a place is in doubt, and entirely so."""
DOUBT_SHARE, DOUBT_MEMORY = 0.25, 0.85
"""Share of the new result where a place is in doubt, and what is left of the doubt a frame later."""
LEAST_SHARE = 0.02
"""Share of the new result everywhere, so that nothing stays for ever."""
WINDOW = 10
"""Pixels over which changes are averaged."""
DETAIL = 1.5
"""Standard deviation, in pixels, of the blur that is taken off to see fine detail."""
DETAIL_KEPT, DETAIL_MOST = 0.98, 1.6
"""How strong the fine detail is to be at least, and what it is multiplied by at most in one frame."""
REACH, MARGIN = 13, 4.0
"""Pixels along a side of what is around a place, and levels by which a result may be beyond that."""
LIGHT_AREA, LIGHT_MOST, LIGHT_LEAST, LIGHT_NOISE = 32, 16.0, 4.0, 1.0
"""A change of light is a mean over squares of so many pixels, of at most so many levels a frame. It is a
factor, damped where the source has few levels, and nothing at all below the last number of levels."""
SWEEP, SWEEP_ALL = (3.0, 0.06), (6.0, 0.12)
"""Mean change of the source in one way, in levels and over its own level, from which the whole picture is in
doubt, and from which it is taken over as it is: a dissolve, or a fade in from black."""
SWEEP_DARK = 8.0
"""Levels that are added to the source's own, so that the noise of black is no change."""
CUT = 22.0
"""Mean change of the source after all motion, in levels, that is a cut or a flash: nothing is kept."""


@dataclass
class _Memory:
    """What the next frame needs: at full size the result (H, W, 3) and the source's luma (H, W), at half size
    the source that the result stands for (h, w, 3) and the doubt about it (h, w)."""

    result: np.ndarray
    luma: np.ndarray
    source: np.ndarray
    doubt: np.ndarray
    noise: float


class Steadier:
    """Makes the results of successive frames steady; all frames are of one size.

    `strength` is above 0 and at most 1. `exact`: whether motion is found the slow way.
    """

    def __init__(self, strength: float, exact: bool = False) -> None:
        self.share = 0.05 + 0.4 * (1 - strength)
        self.motion = MotionEstimator(fast=not exact)
        self.memory: _Memory | None = None

    def step(self, seen: np.ndarray, result: np.ndarray) -> np.ndarray:
        """The steady result (H, W, 3) of the next frame, of the type of `result`.

        `seen` is what the network saw and `result` what it made of it, uint8 or uint16 RGB of one size.
        """
        new, peak = _levels(result)
        eight = seen if seen.dtype == np.uint8 else cv2.convertScaleAbs(seen, alpha=1 / 257)
        luma = luminance(eight)
        size = (-(-luma.shape[1] // 2), -(-luma.shape[0] // 2))
        source = cv2.resize(eight, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        strength = _strength(_fine(cv2.cvtColor(new, cv2.COLOR_RGB2GRAY)), size)
        before = self.memory
        if before is None or before.luma.shape != luma.shape:
            self._begin(new, luma, source)
            return result
        moved, there, doubt, bent = self._moved(before, luma, size)

        change = _distance(source, there)
        if cv2.mean(change)[0] > CUT:
            self._begin(new, luma, source)
            return result
        light = _light(source, there)
        there *= cv2.resize(light, size, interpolation=cv2.INTER_LINEAR)
        moved *= cv2.resize(light, luma.shape[::-1], interpolation=cv2.INTER_LINEAR)
        around = (WINDOW // 2, WINDOW // 2)
        change = cv2.blur(_distance(source, there), around)
        quiet = min(float(np.quantile(change[::4, ::4], NOISE_QUANTILE)), NOISE_MOST)
        noise = quiet if before.noise < 0 else NOISE_MEMORY * before.noise + (1 - NOISE_MEMORY) * quiet
        # Noise goes up and down; what goes one way around a place is a change, however small.
        one_way = _mean(np.abs(cv2.blur(source - there, around)))
        change = np.maximum(change - noise, one_way)
        small = (cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in (new, moved))
        difference = cv2.blur(_distance(*small), around)
        share = self.share * (1 + (change / TURN) ** 2) * change / np.maximum(difference, 1e-3)
        sweep = _sweep(one_way, source)
        doubt = np.maximum(np.maximum(doubt * DOUBT_MEMORY, bent), sweep)
        share = np.clip(np.maximum(share, DOUBT_SHARE * doubt), max(LEAST_SHARE, sweep), 1)

        mixed = _mixed(new, moved, cv2.resize(share, luma.shape[::-1], interpolation=cv2.INTER_LINEAR))
        there = _mixed(source, there, share)
        self._strengthen(mixed, strength, size)
        window = np.ones((REACH, REACH), np.uint8)
        # In the result's own type, in which it is several times as fast as in float32.
        most, least = (_levels(limit(result, window))[0] for limit in (cv2.dilate, cv2.erode))
        cv2.min(mixed, cv2.add(most, (MARGIN,) * 4, dst=most), dst=mixed)
        cv2.max(mixed, cv2.subtract(least, (MARGIN,) * 4, dst=least), dst=mixed)
        self.memory = _Memory(mixed, luma, there, doubt, noise)
        return cv2.multiply(mixed, peak, dtype=cv2.CV_8U if peak == 1 else cv2.CV_16U)

    def _begin(self, new: np.ndarray, luma: np.ndarray, source: np.ndarray) -> None:
        """Nothing of what was is kept but how noisy the source is."""
        noise = self.memory.noise if self.memory is not None else -1.0
        doubt = np.zeros(source.shape[:2], np.float32)
        self.memory = _Memory(new, luma, source, doubt, noise)

    def _moved(
        self, before: _Memory, luma: np.ndarray, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The last result, the source that it stands for and the doubt, where they lie now; where the flow is
        bent, from 0 to 1."""
        flow = self.motion.motion(luma, before.luma)
        half = cv2.resize(flow, size, interpolation=cv2.INTER_AREA)
        slopes = [
            cv2.Sobel(half, cv2.CV_32F, along, 1 - along, ksize=3, scale=1 / 8 / 2) ** 2 for along in (0, 1)
        ]
        bend = np.sqrt(cv2.transform(slopes[0] + slopes[1], np.ones((1, 2), np.float32)))
        bent = cv2.dilate(np.clip((bend - BENT) / (TORN - BENT), 0, 1), np.ones((5, 5), np.uint8))
        half *= np.array([size[0] / luma.shape[1], size[1] / luma.shape[0]], np.float32)
        return (
            _taken(before.result, flow, cv2.INTER_CUBIC),
            _taken(before.source, half, cv2.INTER_CUBIC),
            _taken(before.doubt, half, cv2.INTER_LINEAR),
            bent,
        )

    def _strengthen(self, mixed: np.ndarray, wanted: np.ndarray, size: tuple[int, int]) -> None:
        """Bring the fine detail of what was mixed to the strength wanted, in place."""
        fine = _fine(cv2.cvtColor(mixed, cv2.COLOR_RGB2GRAY))
        ratio = np.minimum(wanted / np.maximum(_strength(fine, size), 0.2), DETAIL_MOST)
        gain = np.clip(1, DETAIL_KEPT * ratio, ratio / DETAIL_KEPT).astype(np.float32) - 1
        fine *= cv2.resize(gain, fine.shape[::-1], interpolation=cv2.INTER_LINEAR)
        cv2.add(mixed, cv2.merge([fine, fine, fine]), dst=mixed)
        np.clip(mixed, 0, 255, out=mixed)

    def checkpoint(self) -> bytes:
        """What the next frame needs, to go on from in another process.

        From here on this one goes on from the same, which is rounded to half the bytes. Not before the
        first frame.
        """
        memory = self.memory
        assert memory is not None, "no frame yet"
        stream = io.BytesIO()
        narrow = {name: getattr(memory, name).astype(np.float16) for name in ("result", "source", "doubt")}
        np.savez_compressed(stream, luma=memory.luma, noise=memory.noise, **narrow)
        self.restore(stream.getvalue())
        return stream.getvalue()

    def restore(self, state: bytes | None) -> bool:
        """Go on from a `checkpoint`; whether that is one."""
        try:
            with np.load(io.BytesIO(state or b""), allow_pickle=False) as kept:
                wide = {name: kept[name].astype(np.float32) for name in ("result", "source", "doubt")}
                self.memory = _Memory(luma=kept["luma"], noise=float(kept["noise"]), **wide)
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
            return False
        return True


def _levels(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """Pixels as float32 levels from 0 to 255, and what a level is in their type."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32), 1.0
    return pixels.astype(np.float32) / 257, 257.0


@lru_cache(maxsize=4)
def _grid(height: int, width: int) -> np.ndarray:
    """The place of each pixel, right and down: float32 (H, W, 2)."""
    return np.dstack(np.meshgrid(np.arange(width), np.arange(height))).astype(np.float32)


def _taken(picture: np.ndarray, flow: np.ndarray, method: int) -> np.ndarray:
    """A picture's values where a flow leads to; beyond the edge the last ones go on."""
    places = cv2.add(flow, _grid(*picture.shape[:2]))
    return cv2.remap(picture, places, None, method, borderMode=cv2.BORDER_REPLICATE)


def _light(source: np.ndarray, before: np.ndarray) -> np.ndarray:
    """How many times as light large areas of the source (h, w, 3) have become, on a coarse grid."""
    change = np.clip(source - before, -LIGHT_MOST, LIGHT_MOST)
    grid = [max(1, round(2 * edge / LIGHT_AREA)) for edge in (source.shape[1], source.shape[0])]
    more, level = (cv2.resize(part, grid, interpolation=cv2.INTER_AREA) for part in (change, before))
    more = np.sign(more) * np.maximum(np.abs(more) - LIGHT_NOISE, 0)
    return 1 + more / (np.maximum(level, 0) + LIGHT_LEAST)


def _sweep(one_way: np.ndarray, source: np.ndarray) -> float:
    """How far the whole picture changes to another one, from 0 to 1.

    `one_way` is the change of the source at each place (h, w) without its noise, after motion and light.
    """
    change, level = cv2.mean(one_way)[0], sum(cv2.mean(source)[:3]) / 3
    found = (change, change / (level + SWEEP_DARK))
    shares = [(it - least) / (most - least) for it, least, most in zip(found, SWEEP, SWEEP_ALL, strict=True)]
    return min(max(0.0, *shares), 1.0)


def _distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Mean absolute difference of the colours (H, W, 3) at each place: (H, W)."""
    return _mean(cv2.absdiff(one, other))


def _mean(colours: np.ndarray) -> np.ndarray:
    """The mean of three colours (H, W, 3) at each place: (H, W)."""
    return cv2.transform(colours, np.full((1, 3), 1 / 3, np.float32))


def _mixed(new: np.ndarray, old: np.ndarray, share: np.ndarray) -> np.ndarray:
    """`share` (H, W) of the new picture with the rest of the old one, float32 (H, W, 3)."""
    return cv2.blendLinear(new, old, share, 1 - share)


def _fine(gray: np.ndarray) -> np.ndarray:
    """The detail of a picture (H, W) that a small blur takes away."""
    return gray - cv2.GaussianBlur(gray, (0, 0), DETAIL)


def _strength(fine: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """How strong fine detail is around each place, at half size (h, w)."""
    return cv2.blur(cv2.resize(np.abs(fine), size, interpolation=cv2.INTER_AREA), (9, 9))
