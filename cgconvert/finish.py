"""What becomes of a network's result: how strongly it shows, in whose colours, and with how much detail.

    look = enlarged(result) + gain * (light - smoothed(light))     (the second part only for luma)
    look = its luma with the source's chroma, with `keep_colours`
    what is written = source + strength * (look - source)

`light` is the source's luma at full size. `smoothed` makes it as small as what the network saw and as large
again, so that the difference is the detail that the network was not shown. `gain` says how far the result
follows its source around a place: the slope of result over source in small windows of what the network saw,
which is the coefficient `a` of the guided filter (He et al. 2010) with the source as guide. It is near 1 at
edges that the network keeps, so these become sharp, and near 0 where it paints strokes of its own, which stay
as they are.

Keeping colours is the luminance-only transfer of Gatys et al. 2016, "Preserving color in neural artistic
style transfer", with Y'CbCr in the place of YIQ: of a video in its own matrix, of pictures in that of BT.709.

`media/picture/finish.py` does this to pictures and `media/video/finish.py` to a video's planes on the
processor, and `tensors/finish.py` to planes on a GPU. No torch, no numpy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cgconvert.errors import UsageError

WINDOW = 5
"""Edge, in pixels of what the network saw, of the windows in which the gain is found."""
FLAT = 5.0
"""Standard deviation of luma in a window, in levels of 255, at which the gain is half of the slope: less is
grain or a gradient, whose detail is not worth having."""
LUMA_BT709 = (0.2126, 0.7152, 0.0722)


@dataclass(frozen=True)
class Finish:
    """How results are finished. Checked when made: `UsageError`.

    `strength` is from 0 (the source itself) to 1 (the look); `keep_colours`: the source's chroma stays.
    """

    strength: float = 1.0
    keep_colours: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.strength) and 0 <= self.strength <= 1):
            raise UsageError(f"`strength={self.strength:g}` is not a number from 0 to 1")

    @property
    def is_plain(self) -> bool:
        """Whether a result of the size that is written needs nothing of its source."""
        return self.strength == 1 and not self.keep_colours

    def describe(self) -> str:
        """One line for people."""
        told = [f"strength {self.strength:g}"] if self.strength < 1 else []
        return ", ".join([*told, *(["the source's colours"] if self.keep_colours else [])])


def lacks_detail(seen: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether what the network saw is smaller than what is written: only then is there detail to be given."""
    return seen != size and all(small <= large for small, large in zip(seen, size, strict=True))
