"""Make the papers' ablation tables on any data: CycleGAN's five conditions, or pix2pix's five losses.

    python benchmarks/training/ablations.py cyclegan runs/ablations --a horses/ --b zebras/ --images 20000
    python benchmarks/training/ablations.py pix2pix runs/ablations --pairs facades/train --images 5000

Every condition is a training in a folder of its own. All have the same seed, pictures, order and number of
images, and are measured on the same hold-out by the trainer's metrics. A condition that is finished does not
run again and one that was stopped goes on, so the same command continues the table.

The papers give FCN scores, which need a network trained on Cityscapes. These tables give distances to the
target domain (swd), structure kept (ssim) and, for pairs, the distance to the truth (l1, truth_ssim).
Compare the order of the rows with the papers', not the figures.

Writes results/ablations_METHOD.json, and the table as Markdown into the folder of the runs.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common import option_parser, save
from cgconvert.errors import CgconvertError, UsageError
from trainer.cli import parse_settings
from trainer.config import Config, config_from_checkpoint
from trainer.runs.loop import CollapsedError
from trainer.runs.setup import DEFAULTS, completed, init_run
from trainer.runs.start import start
from trainer.storage.checkpoint import load_checkpoint
from trainer.storage.folder import RunFolder

CONDITIONS = {
    "cyclegan": {
        "cycle-alone": "Cycle alone",
        "gan-alone": "GAN alone",
        "gan-forward": "GAN + forward cycle",
        "gan-backward": "GAN + backward cycle",
        "full": "CycleGAN",
    },
    "pix2pix": {
        "l1-alone": "L1",
        "gan-alone": "GAN",
        "cgan-alone": "cGAN",
        "l1-gan": "L1 + GAN",
        "full": "L1 + cGAN",
    },
}
"""Each paper's rows, in its order, by the trainer's name."""

COLUMNS = {
    "cyclegan": ("swd", "swd_common", "ssim", "cycle_psnr"),
    "pix2pix": ("l1", "truth_ssim", "swd", "swd_common"),
}
SMALL: dict[str, dict[str, Any]] = {
    "cyclegan": {
        "network.generator": "resnet",
        "network.arguments": {"ngf": 16, "blocks": 6},
        "network.ndf": 32,
        # Not in the whole either, so that the rows differ by adversarial and cycle losses only.
        "loss.lambda_identity": 0.0,
    },
    "pix2pix": {"network.arguments": {"ngf": 32, "depth": 7}, "network.ndf": 32},
}
"""Networks for a machine without a GPU; --set network... gives others."""


def settings(options: argparse.Namespace, condition: str) -> dict[str, Any]:
    """What a condition's config says: the same for all but for the losses that count."""
    places = {"data.a": options.a, "data.b": options.b, "data.pairs": options.pairs}
    return {
        "run.method": options.method,
        "run.images": options.images,
        "run.decay_images": options.images // 2,
        "data.load_size": options.edge * 286 // 256,
        "data.crop_size": options.edge,
        "data.holdout": 50,  # or a quarter of what there is; data.holdout_... names folders of their own
        "watch.sample_size": options.edge,
        "watch.metric_size": max(options.edge, 32),
        "watch.sample_every": max(options.images // 4, 1),
        "watch.metrics_every": options.images,
        "watch.log_every": max(options.images // 40, 1),
        "watch.checkpoint_minutes": 2.0,
        # A condition that fails is a row of the table, not a fault to be mended.
        "watch.collapse": False,
        "loss.ablation": condition,
        **{key: str(Path(value).expanduser().resolve()) for key, value in places.items() if value},
        **DEFAULTS.get(options.method, {}),
        **SMALL[options.method],
        **parse_settings(tuple(options.set)),
    }


def train_condition(folder: RunFolder, wanted: dict[str, Any]) -> dict[str, Any]:
    """Run a condition to its end, from where it is; returns the state of its last checkpoint.

    Raises `UsageError` where the folder holds a run with other settings.
    """
    config = completed(Config().with_changes(wanted))
    if folder.checkpoint.exists():
        state = load_checkpoint(folder.checkpoint)
        changed = config.changes_since(config_from_checkpoint(state, str(folder.checkpoint)))
        if changed:
            names = ", ".join(changed)
            raise UsageError(f"{folder.path}: was made with other settings ({names}); take another folder")
    else:
        init_run(folder.path, wanted, None, overwrite=True)
        state = {}
    if not state or not finished(state, config):
        start(folder, resume=bool(state))
        state = load_checkpoint(folder.checkpoint)
    return state


def finished(state: dict[str, Any], config: Config) -> bool:
    """Whether a run is at its end and measured."""
    return state["method"]["images_seen"] >= config.run.images and bool(state["watch"]["last"])


def markdown(method: str, rows: dict[str, dict[str, Any]]) -> str:
    """The table, a block for each generator."""
    columns = COLUMNS[method]
    generators = sorted({name for row in rows.values() for name in row.get("metrics", {})})
    lines = []
    for generator in generators:
        lines += ["", f"| {generator} | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
        for condition, row in rows.items():
            found = row.get("metrics", {}).get(generator)
            if found is None:
                cells = [row.get("problem", "")] + [""] * (len(columns) - 1)
            else:
                cells = [f"{found[key]:.4g}" if key in found else "" for key in columns]
            lines.append(f"| {CONDITIONS[method][condition]} | {' | '.join(cells)} |")
    return "\n".join(lines).strip() + "\n"


def main() -> None:
    parser = option_parser(__doc__, "ablations_METHOD")
    parser.add_argument("method", choices=tuple(CONDITIONS))
    parser.add_argument("folder", type=Path, help="where the runs are kept")
    parser.add_argument("--a", help="pictures of domain A")
    parser.add_argument("--b", help="pictures of domain B")
    parser.add_argument("--pairs", help="pix2pix: side-by-side pictures instead")
    parser.add_argument("--images", type=int, default=2000, help="for each condition, of one domain")
    parser.add_argument("--edge", type=int, default=128, help="of the images that are trained on")
    parser.add_argument("--conditions", nargs="+", help="only these")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("trainer").setLevel(logging.INFO)
    conditions = options.conditions or list(CONDITIONS[options.method])
    unknown = set(conditions) - set(CONDITIONS[options.method])
    if unknown:
        known = ", ".join(CONDITIONS[options.method])
        parser.error(f"{options.method} has no condition {', '.join(unknown)}; known: {known}")
    rows: dict[str, dict[str, Any]] = {}
    try:
        for condition in conditions:
            rows[condition] = row(options, condition)
    except CgconvertError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    table = markdown(options.method, rows)
    (options.folder / f"{options.method}.md").write_text(table, encoding="utf-8")
    print(table)
    figures = {"images": options.images, "edge": options.edge, "settings": options.set, "rows": rows}
    print(save(options.name or f"ablations_{options.method}", figures))


def row(options: argparse.Namespace, condition: str) -> dict[str, Any]:
    """A condition's metrics by generator, and what they took; a run that broke says how."""
    folder = RunFolder(options.folder / f"{options.method}-{condition}")
    print(f"{condition}: {folder.path}", flush=True)
    try:
        state = train_condition(folder, settings(options, condition))
    except CollapsedError as error:
        return {"problem": str(error)}
    seen, hours = state["method"]["images_seen"], round(state["elapsed"] / 3600, 3)
    return {"images_seen": seen, "hours": hours, "metrics": state["watch"]["last"]}


if __name__ == "__main__":
    main()
