"""Draw the curves of a training as one SVG picture: losses as in the run's report, and metrics.

python benchmarks/training/curves.py runs/photo2monet docs/photo2monet.curves.svg
"""

from __future__ import annotations

import argparse
import html
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cgconvert.errors import UsageError
from trainer.reporting.report import COLOURS, HEIGHT, WIDTH, curves
from trainer.storage.folder import RunFolder

METRICS = {
    "swd": "distance, normalised",
    "swd_common": "distance, common scale",
    "grid": "grid",
    "ssim": "SSIM",
}
CAPTION = 22
Series = dict[str, list[tuple[float, float]]]


def collect(lines: Iterable[Mapping[str, Any]]) -> dict[str, Series]:
    """Curves by the title of their plot: losses of one kind together, then each metric by generator."""
    plots: dict[str, Series] = defaultdict(lambda: defaultdict(list))
    metrics: dict[str, Series] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        if line["kind"] == "losses":
            for name, value in line["losses"].items():
                plots[f"{name.split('_')[0]} loss"][name].append((line["images"], value))
        elif line["kind"] == "metrics":
            for name, title in METRICS.items():
                if name in line:
                    metrics[title][line["generator"]].append((line["images"], line[name]))
    return {**plots, **metrics}


def picture(plots: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]) -> str:
    """All plots as one SVG. Raises `UsageError` where there are none."""
    if not plots:
        raise UsageError("nothing was logged yet: no curves to draw")
    parts = []
    for index, (title, series) in enumerate(plots.items()):
        drawn = re.search(r"<svg[^>]*>(.*)</svg>", curves(title, series), re.DOTALL)
        assert drawn is not None
        x, y = index % 2 * WIDTH, index // 2 * (HEIGHT + CAPTION)
        names = "".join(
            f"<tspan fill='{COLOURS[i % len(COLOURS)]}' dx='8'>{html.escape(name)}</tspan>"
            for i, name in enumerate(series)
        )
        caption = f"<text x='58' y='14' font-weight='bold'>{html.escape(title)}{names}</text>"
        plot = f"<g transform='translate(0 {CAPTION - 6})'>{drawn[1]}</g>"
        parts.append(f"<g transform='translate({x} {y})'>{caption}{plot}</g>")
    height = (len(plots) + 1) // 2 * (HEIGHT + CAPTION)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {2 * WIDTH} {height}' "
        f"font-family='sans-serif' font-size='11'><rect width='100%' height='100%' fill='white'/>"
        f"{''.join(parts)}</svg>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    arguments.output.write_text(picture(collect(RunFolder(arguments.run).lines())), encoding="utf-8")
    print(arguments.output)


if __name__ == "__main__":
    main()
