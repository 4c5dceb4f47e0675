"""How steady results are: the warp error of videos (Lai et al. 2018), and that of shifted pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cgconvert.errors import UsageError
from cgconvert.media.picture.filters import mean_gradient
from cgconvert.media.video.motion import optical_flow
from trainer.data.augment import Pixels
from trainer.losses.temporal import warp

SQUARE = 8
"""Edge, in pixels, of the squares in which results are compared where strokes are not to count."""
STILL = 0.15
"""Pixels from frame to frame below which a place counts as still."""
SHIFT = (3, 5)  # pixels down and right; odd, so that no stride divides them


@dataclass(frozen=True)
class WarpError:
    """Mean squared difference of a frame and its predecessor moved onto it, in [0, 1], where both are seen.

    `source` is the figure of the video itself (what flow and noise alone give), `result` that of the
    converted video.
    `sharpness` is the mean gradient of the result over the source's, or a blur would win. `still` is the
    ratio over the places that move by less than `STILL`, or None where there are none: strokes that stay
    where they are on the canvas count in `ratio` where the picture moves below them, and not in `still`.
    """

    source: float
    result: float
    sharpness: float
    still: float | None

    @property
    def ratio(self) -> float:
        return self.result / max(self.source, 1e-12)


def _visible(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Where going there and coming back ends near the start (Sundaram et al. 2010), inside the frame."""
    back, inside = _moved(backward, forward)
    bound = 0.01 * ((forward**2).sum(-1) + (backward**2).sum(-1)) + 0.5
    return (((forward + back) ** 2).sum(-1) < bound) & inside


def _moved(values: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 (H, W, C) at the places that a flow (H, W, 2) leads to, and where those lie in the frame."""
    moved, inside = warp(torch.from_numpy(values).permute(2, 0, 1)[None], torch.from_numpy(flow)[None])
    return moved[0].permute(1, 2, 0).numpy(), inside[0, 0].numpy() > 0


def warp_error(source: Sequence[Pixels], result: Sequence[Pixels]) -> WarpError:
    """Warp error over successive frames; the flow is that of the source. Frames are uint8 of one size.

    Raises `UsageError` for fewer than two frames.
    """
    if len(source) < 2 or len(source) != len(result):
        raise UsageError("the warp error needs at least two frames, and as many results as sources")
    errors: list[tuple[float, float]] = []
    still = np.zeros(2)
    for index in range(1, len(source)):
        forward = optical_flow(source[index], source[index - 1])
        backward = optical_flow(source[index - 1], source[index])
        seen = _visible(forward, backward)
        if not seen.any():
            continue
        calm = seen & ((forward**2).sum(-1) < STILL**2)
        pair, calm_pair = [], []
        for video in (source, result):
            now, before = (video[i].astype(np.float32) / 255 for i in (index, index - 1))
            squares = (now - _moved(before, forward)[0]) ** 2
            pair.append(float(squares[seen].mean()))
            calm_pair.append(float(squares[calm].sum(dtype=np.float64)))
        errors.append((pair[0], pair[1]))
        still += calm_pair
    if not errors:
        raise UsageError("no two frames show the same scene: the warp error is not defined")
    own, converted = np.mean(errors, axis=0)
    sharpness = sum(map(mean_gradient, result)) / max(sum(map(mean_gradient, source)), 1e-12)
    return WarpError(
        float(own), float(converted), sharpness, float(still[1] / still[0]) if still[0] > 0 else None
    )


def ghosting(
    source: Sequence[Pixels], result: Sequence[Pixels], plain: Sequence[Pixels]
) -> tuple[float, float]:
    """What steadying leaves of things that have moved on: (behind them, elsewhere), in levels of 255.

    `plain` is the result that was not steadied, so nothing that is gone can be seen in it. Both results are
    averaged over squares of `SQUARE` pixels, which takes out single strokes. The mean absolute difference is
    taken over the squares of which the source uncovers more than half (forward and backward flow do not
    agree), and over the others. Frames are uint8 of one size. Zero where no square is uncovered.
    """
    sums, counts = np.zeros(2), np.zeros(2)
    for index in range(1, len(source)):
        forward = optical_flow(source[index], source[index - 1])
        backward = optical_flow(source[index - 1], source[index])
        uncovered = _squares(~_visible(forward, backward)[..., None]) > 0.5
        difference = np.abs(_squares(result[index]) - _squares(plain[index])).mean(-1)
        for place, where in enumerate((uncovered[..., 0], ~uncovered[..., 0])):
            sums[place] += difference[where].sum()
            counts[place] += where.sum()
    behind, elsewhere = sums / np.maximum(counts, 1)
    return float(behind), float(elsewhere)


def _squares(values: np.ndarray) -> np.ndarray:
    """Means over squares of (H, W, C), float64; what is left at the ends is left out."""
    height, width = (size // SQUARE for size in values.shape[:2])
    whole = values[: height * SQUARE, : width * SQUARE].astype(np.float64)
    return whole.reshape(height, SQUARE, width, SQUARE, -1).mean((1, 3))


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
