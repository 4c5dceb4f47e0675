"""Keep a training in figures: its settings, its losses averaged over tenths of the run, its metrics.

    python benchmarks/training/summary.py runs/horse2zebra

It reads the run's config and log. Call it on the machine that trained, because it writes that machine beside
the figures. Writes results/training_RUN.json.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common import option_parser, save
from cgconvert.errors import UsageError
from trainer.config import Config, read_config
from trainer.storage.folder import RunFolder

PARTS = 10


def summarise(folder: RunFolder) -> dict[str, Any]:
    """What `save` keeps of a run. Raises `UsageError` where nothing was logged."""
    lines = list(folder.lines())
    losses = [line for line in lines if line["kind"] == "losses"]
    if not losses:
        raise UsageError(f"{folder.log}: no losses were logged; name the folder of a run that has trained")
    metrics: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        if line["kind"] == "metrics":
            figures = {key: value for key, value in line.items() if key not in ("kind", "generator")}
            metrics.setdefault(line["generator"], []).append(figures)
    return {
        "images": losses[-1]["images"],
        "seconds": losses[-1]["seconds"],
        "settings": settings(read_config(folder.config)),
        "losses": tenths(losses),
        "metrics": metrics,
    }


def settings(config: Config) -> dict[str, Any]:
    """Those that differ from the defaults; of a path only its last two parts, which name the data."""
    defaults, changed = Config().to_dict(), {}
    for section, values in config.to_dict().items():
        for key, value in values.items():
            if value != defaults[section][key]:
                is_path = isinstance(value, str) and value.startswith("/")
                changed[f"{section}.{key}"] = "/".join(Path(value).parts[-2:]) if is_path else value
    return changed


def tenths(losses: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """The mean of each loss over each tenth of the log, and the images seen at its end.

    A loss that is not asked for in every step is averaged over the lines that have it.
    """
    parts = min(PARTS, len(losses))
    rows = []
    for part in range(parts):
        lines = losses[part * len(losses) // parts : (part + 1) * len(losses) // parts]
        values: dict[str, list[float]] = {}
        for line in lines:
            for name, value in line["losses"].items():
                values.setdefault(name, []).append(value)
        means = {name: round(fmean(found), 5) for name, found in values.items()}
        rows.append({"images": lines[-1]["images"], **means})
    return rows


def main() -> None:
    parser = option_parser(__doc__, "training_RUN")
    parser.add_argument("run", type=Path)
    arguments = parser.parse_args()
    folder = RunFolder(arguments.run)
    print(save(arguments.name or f"training_{arguments.run.resolve().name}", summarise(folder)))


if __name__ == "__main__":
    main()
