"""What the figures of the GPU job say: the ratios and shares that are aimed at, and whether they are met."""

from __future__ import annotations

from typing import Any

Figures = dict[str, Any]

WANTED_SPEEDUP = 6.0
"""ResNet-9 ngf 64 in fp16 at 1080p over eager float32: least ratio."""
WANTED_SHARE = 0.5
"""Its least share of the rate that a large convolution reaches in fp16 in the same run."""
MOST_NETWORK = 0.3
"""Most of the busy seconds of a 1080p video with photo2monet that may be the network's."""
WANTED_TRAINING = 3.0
"""Our training step of the ResNet-9 over the published one: least ratio."""

SPEED, TRAINING = "speed/resnet9-ngf64 1080p", "training/resnet9_ngf64_256"


def summarise(data: Figures) -> Figures:
    """The aims by name: the best figure, what produced it, what was wanted, and whether it is met.

    An aim whose tasks have not run is left out. `data` is what the job writes.
    """
    rows = {name: task["rows"] for name, task in data["tasks"].items() if task["state"] == "passed"}
    found: Figures = {}
    fast = {
        name.removeprefix(f"{SPEED} "): row
        for name, task in rows.items()
        if name.startswith(SPEED) and name.endswith("fp16")
        for row in task.values()
        if row.get("network")
    }
    base = next((row["network"] for row in rows.get(f"{SPEED} eager fp32", {}).values()), None)
    if base:
        ratios = {name: row["network"] / base for name, row in fast.items()}
        _add(found, "ResNet-9 1080p fp16 over eager fp32", ratios, WANTED_SPEEDUP)
    shares = {name: row["share"] for name, row in fast.items() if row.get("share")}
    _add(found, "ResNet-9 1080p fp16, share of the convolution rate", shares, WANTED_SHARE)
    videos = {
        name.removeprefix("video/"): -row["network_share"]
        for name, task in rows.items()
        if name.startswith("video/") and name != "video/whole-frame"
        for row in task.values()
    }
    _add(found, "1080p video with photo2monet, network's share", videos, -MOST_NETWORK)
    published = rows.get(f"{TRAINING} published", {}).get("step", {}).get("images_per_second")
    if published:
        steps = {
            name.removeprefix(f"{TRAINING} "): task["step"]["images_per_second"] / published
            for name, task in rows.items()
            if name.startswith(f"{TRAINING} ours")
        }
        _add(found, "training step of ResNet-9 over the published one", steps, WANTED_TRAINING)
    return found


def _add(found: Figures, aim: str, figures: dict[str, float], wanted: float) -> None:
    """Enter the best of some figures for an aim. Of a share that has to stay small all signs are turned."""
    if figures:
        best = max(figures, key=lambda name: figures[name])
        figure = figures[best]
        found[aim] = {
            "figure": round(abs(figure), 3),
            "by": best,
            "wanted": f"{'at most' if wanted < 0 else 'at least'} {abs(wanted):g}",
            "met": figure >= wanted,
        }
