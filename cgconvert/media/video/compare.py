"""Source and result in one picture."""

from __future__ import annotations

import numpy as np

from cgconvert.media.picture.resize import resized


def compare(source: np.ndarray, result: np.ndarray, mode: str) -> np.ndarray:
    """Show the source left and the result right, as whole pictures ("side") or as halves of one ("split").

    The result is brought to the source's size. A white line separates the halves.
    """
    height, width, _ = source.shape
    result = resized(result, width, height)
    if mode == "side":
        return np.concatenate([source, result], axis=1)
    middle = width // 2
    line = max(1, width // 480)
    joined = np.concatenate([source[:, :middle], result[:, middle:]], axis=1)
    joined[:, middle - line : middle + line] = np.iinfo(joined.dtype).max
    return joined
