"""How steady results are: the warp error of videos (Lai et al. 2018), and that of shifted pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from cgconvert.errors import UsageError
from trainer.data.augment import Pixels

SHIFT = (3, 5)  # pixels down and right; odd, so that no stride divides them


@dataclass(frozen=True)
class WarpError:
    """Mean squared difference of a frame and its predecessor moved onto it, in [0, 1], where both are seen.

    `source` is the figure of the video itself (what flow and noise alone give), `result` that of the
    converted video.
    `sharpness` is the mean gradient of the result over the source's, or a blur would win.
    """

    source: float
    result: float
    sharpness: float

    @property
    def ratio(self) -> float:
        return self.result / max(self.source, 1e-12)


def _flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return dis.calc(first, second, None)


def _warped(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(
        image, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _visible(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Where going there and coming back ends near the start (Sundaram et al. 2010), inside the frame."""
    height, width = forward.shape[:2]
    returned = forward + _warped(backward, forward)
    bound = 0.01 * ((forward**2).sum(-1) + (backward**2).sum(-1)) + 0.5
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    to_x, to_y = x + forward[..., 0], y + forward[..., 1]
    inside = (to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1)
    return ((returned**2).sum(-1) < bound) & inside


def _sharpness(frame: Pixels) -> float:
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float(
        np.abs(cv2.Sobel(grey, cv2.CV_32F, 1, 0)).mean() + np.abs(cv2.Sobel(grey, cv2.CV_32F, 0, 1)).mean()
    )


def warp_error(source: Sequence[Pixels], result: Sequence[Pixels]) -> WarpError:
    """Warp error over successive frames; the flow is that of the source. Frames are uint8 of one size.

    Raises `UsageError` for fewer than two frames.
    """
    if len(source) < 2 or len(source) != len(result):
        raise UsageError("the warp error needs at least two frames, and as many results as sources")
    errors: list[tuple[float, float]] = []
    for index in range(1, len(source)):
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (source[index], source[index - 1])]
        forward, backward = _flow(grey[0], grey[1]), _flow(grey[1], grey[0])
        seen = _visible(forward, backward)
        if not seen.any():
            continue
        pair = []
        for video in (source, result):
            now, before = (video[i].astype(np.float32) / 255 for i in (index, index - 1))
            pair.append(float(((now - _warped(before, forward)) ** 2)[seen].mean()))
        errors.append((pair[0], pair[1]))
    if not errors:
        raise UsageError("no two frames show the same scene: the warp error is not defined")
    own, converted = np.mean(errors, axis=0)
    sharpness = sum(map(_sharpness, result)) / max(sum(map(_sharpness, source)), 1e-12)
    return WarpError(float(own), float(converted), sharpness)


def shift_error(pictures: Sequence[Pixels], convert: Callable[[Pixels], Pixels]) -> float:
    """Mean squared difference, in [0, 1], between the result of a shifted picture and the shifted result.

    Both see a crop of the same picture, moved by 3 and 5 pixels; a border of 16 pixels is left out, since
    there the crops truly differ. Results have their sources' sizes.
    """
    down, right = SHIFT
    errors = []
    for pixels in pictures:
        height = (pixels.shape[0] - down) // 4 * 4
        width = (pixels.shape[1] - right) // 4 * 4
        here = convert(np.ascontiguousarray(pixels[:height, :width])).astype(np.float64)
        moved = convert(np.ascontiguousarray(pixels[down : down + height, right : right + width]))
        both = here[down:, right:] - moved[: height - down, : width - right].astype(np.float64)
        inner = both[16:-16, 16:-16] if min(both.shape[:2]) > 48 else both
        errors.append(float((inner**2).mean()) / 255**2)
    return float(np.mean(errors))
