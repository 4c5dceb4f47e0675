"""Whether light is kept: pictures of one colour must come out as light as they went in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trainer.data.augment import Pixels

FLAT = {
    "black": (0, 0, 0),
    "dark": (40, 40, 40),
    "grey": (128, 128, 128),
    "white": (255, 255, 255),
    "blue": (60, 110, 200),
    "skin": (224, 172, 140),
}
EDGE = 128


def flat_light_error(convert: Callable[[Pixels], Pixels]) -> float:
    """The largest difference of mean light, in levels of 255, over pictures of one colour each.

    A network with instance norms sees nothing in such a picture and gives all of them one light: fades end
    grey, and black bars become coloured ones.
    """
    errors = []
    for colour in FLAT.values():
        flat = np.full((EDGE, EDGE, 3), colour, np.uint8)
        errors.append(abs(float(convert(flat).mean()) - float(flat.mean())))
    return max(errors)
