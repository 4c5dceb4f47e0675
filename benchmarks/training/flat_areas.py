"""Measure what looks do where a picture has nothing to paint: flat areas, flat frames, fades and bars.

    python benchmarks/training/flat_areas.py MODEL... --pictures PHOTOS [--size 640x360]

Pictures are cut to the size's proportions, reduced to it and converted with every option at its default.
For each model:
- `strokes`: in areas where a picture's light deviates by less than 2% of the range over 15x15 pixels, the
  energy of the result's change along a row over that along a column, and of one diagonal over the other, as
  geometric means over the pictures that have such areas; 1 is no direction.
- `flat`: for frames of one colour, how far the result's mean light is from the frame's, in levels of 255.
- `fade`: mean light of results of a picture at 1/2, 1/8 and 0 of its light, and the source's.
- `bars`: mean and maximum light of black bars, an eighth of the height at the top and at the bottom.
Writes results/flat_areas.json.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common import option_parser, save
from benchmarks.training.gallery import fitted
from cgconvert import load_model
from cgconvert.tensors.images import LUMA_BT601
from trainer.data.pictures import scan_domain

Pixels = NDArray[np.uint8]
Convert = Callable[[Pixels], Pixels]
FLAT = {
    "black": (0, 0, 0),
    "dark": (20, 20, 20),
    "grey": (128, 128, 128),
    "white": (255, 255, 255),
    "blue": (60, 110, 200),
    "skin": (224, 172, 140),
}
WINDOW, MARGIN, DEVIATION, LEAST_AREA = 15, 3, 0.02 * 255, 0.03
SHARES = (0.5, 0.125, 0.0)


def light(pixels: Pixels) -> NDArray[np.float64]:
    """Luminance (H, W) of pixels (H, W, 3), in levels of 255."""
    return np.asarray(pixels.astype(np.float64) @ np.array(LUMA_BT601))


def flat_places(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where all windows that lie around a place are flat; (H, W), False near the border."""
    windows = np.lib.stride_tricks.sliding_window_view(values, (WINDOW, WINDOW))
    calm = windows.std((2, 3)) < DEVIATION
    near = np.lib.stride_tricks.sliding_window_view(calm, (2 * MARGIN - 1, 2 * MARGIN - 1)).all((2, 3))
    places = np.zeros(values.shape, bool)
    edge = WINDOW // 2 + MARGIN - 1
    places[edge:-edge, edge:-edge] = near
    return places


def stroke_ratios(source: Pixels, result: Pixels) -> tuple[float, float] | None:
    """Energy along rows over columns, and of one diagonal over the other, or None without flat areas."""
    places = flat_places(light(source))[1:-1, 1:-1]
    if places.mean() < LEAST_AREA:
        return None
    made = light(result)
    rows, columns = made[1:-1, 2:] - made[1:-1, :-2], made[2:, 1:-1] - made[:-2, 1:-1]
    falling, rising = made[2:, 2:] - made[:-2, :-2], made[2:, :-2] - made[:-2, 2:]
    energy = [float((change[places] ** 2).mean()) + 1e-3 for change in (rows, columns, falling, rising)]
    return energy[0] / energy[1], energy[2] / energy[3]


def strokes(convert: Convert, pictures: list[Pixels]) -> dict[str, Any]:
    found = [pair for pixels in pictures if (pair := stroke_ratios(pixels, convert(pixels))) is not None]
    mean = np.exp(np.log(np.array(found)).mean(0))
    return {"rows_over_columns": float(mean[0]), "diagonals": float(mean[1]), "pictures": len(found)}


def bars(convert: Convert, pictures: list[Pixels]) -> dict[str, float]:
    height = pictures[0].shape[0] // 8
    found = []
    for pixels in pictures:
        boxed = pixels.copy()
        boxed[:height] = boxed[-height:] = 0
        result = light(convert(boxed))
        found.append(np.concatenate([result[:height], result[-height:]]))
    return {"mean": float(np.mean(found)), "maximum": float(np.max(found))}


def fade(convert: Convert, pixels: Pixels) -> dict[str, dict[str, float]]:
    shown = {share: (pixels * share).round().astype(np.uint8) for share in SHARES}
    return {
        str(share): {"source": float(light(dark).mean()), "result": float(light(convert(dark)).mean())}
        for share, dark in shown.items()
    }


def main() -> None:
    parser = option_parser(__doc__, "flat_areas")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--pictures", type=Path, required=True, help="a folder")
    parser.add_argument("--size", default="640x360")
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    files = [picture.path for picture in scan_domain(str(arguments.pictures), warn=False).pictures]
    pictures = [np.asarray(fitted(Image.open(path).convert("RGB"), width, height)) for path in files]
    kept = [stroke_ratios(pixels, pixels) for pixels in pictures]
    own = np.exp(np.log(np.array([pair for pair in kept if pair is not None])).mean(0)).tolist()
    figures: dict[str, Any] = {
        "size": arguments.size,
        "pictures": len(pictures),
        "sources_strokes": own,
        "models": {},
    }
    for name in arguments.models:
        convert: Convert = load_model(name).convert
        flat = {
            colour: float(light(convert(frame)).mean() - light(frame).mean())
            for colour, value in FLAT.items()
            for frame in [np.full((height, width, 3), value, np.uint8)]
        }
        figures["models"][Path(name).stem] = {
            "strokes": strokes(convert, pictures),
            "flat": flat,
            "fade": fade(convert, pictures[0]),
            "bars": bars(convert, pictures[: min(5, len(pictures))]),
        }
        print(name, figures["models"][Path(name).stem], flush=True)
        save(arguments.name or "flat_areas", figures)


if __name__ == "__main__":
    main()
