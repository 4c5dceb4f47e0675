"""What `cgconvert learn` is asked for, checked before any work, and the settings that suit its pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from cgconvert.card import check_name
from cgconvert.errors import InputError, ModelError, UsageError
from cgconvert.host.files import real_path
from cgconvert.host.folders import data_folder
from cgconvert.media.picture.headers import read_header
from cgconvert.media.video.probe import probe
from cgconvert.models.catalog import installed_path, shipped_path
from trainer.data.pictures import find_images, middles
from trainer.storage.folder import RunFolder

MINUTES = 10.0
WORK_SIZE = 360
"""Height in pixels at which the network is best shown a frame: about what its training crops are cut from."""

SHORT_EDGE = 256  # pixels: pictures are seen as if their shorter edge had so many, times the scales below
PHOTO_SCALES = (0.6, 1.4)
PAINTING_SCALES = (1.0, 1.8)
SMALLEST_SCALE = 0.05  # the config's bound
HEADER_BYTES = 2**20  # enough of a file for its size in pixels
MOST_SOURCES = 300  # photographs, or frames of a video, that are looked at; more change nothing in minutes
MOST_SIZES = 100  # pictures whose sizes are looked at
REPAINT = 0.25  # of the sources are paintings without their strokes
VIDEO_COLOUR_MOVE = 0.3  # of the way from a video's colours to those of the paintings
DECAY = 0.4  # share of the images over which the learning rate falls to 0
FEW, VERY_FEW = 20, 10  # paintings


@dataclass(frozen=True)
class LearnPlan:
    """A look to learn. `source` is a video, or a folder of photographs; `run` is where its training lives.

    `go_on` continues what is there; `restart` replaces it.
    """

    name: str
    paintings: Path
    source: Path
    is_video: bool
    minutes: float | None
    go_on: bool
    restart: bool
    device: str
    run: Path
    model: Path

    @property
    def command(self) -> str:
        """The command line that goes on with this."""
        option = "--for" if self.is_video else "--photos"
        return f"cgconvert learn {self.paintings} {option} {self.source} --name {self.name} --continue"


def plan_learning(
    paintings: Path,
    video: Path | None,
    photos: Path | None,
    name: str | None,
    minutes: float | None,
    go_on: bool,
    restart: bool,
    device: str,
) -> LearnPlan:
    """Check what is asked for. Raises `UsageError`, `ModelError`, `InputError`.

    Without a name the look is called as its folder is.
    """
    if (video is None) == (photos is None):
        raise UsageError(
            "say what the look is for: `video`, whose own frames are learned from, or `photos`, a folder"
        )
    source = video if video is not None else photos
    assert source is not None
    if not source.exists():
        raise UsageError(f"{source}: is not there")
    if video is not None and video.is_dir():
        raise UsageError(f"{video}: is a folder; give it as `photos`")
    if not paintings.is_dir():
        raise UsageError(f"{paintings}: is no folder of pictures")
    if go_on and restart:
        raise UsageError("`go_on` keeps what was learned and `restart` throws it away: give one of them")
    called = check_name(name) if name else name_of(real_path(paintings))
    run, model = data_folder() / "learn" / called, installed_path(called)
    folder = RunFolder(run)
    started = folder.has(folder.checkpoint)
    if go_on and not started:
        raise UsageError(f"nothing to continue: no look {called!r} has been learned here ({run})")
    if started and not go_on and not restart:
        raise UsageError(
            f"a look {called!r} has been learned already: use `go_on` to continue, `restart` to begin again, "
            "or another `name`"
        )
    if not started and not restart and (model.exists() or shipped_path(called)):
        raise ModelError(f"there is a model {called!r} already: choose another `name`")
    return LearnPlan(
        called,
        paintings,
        source,
        video is not None,
        minutes,
        go_on,
        restart,
        device,
        run,
        model,
    )


def name_of(folder: Path) -> str:
    """A model's name from a folder's. Raises `UsageError` where nothing is left of it."""
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("-._")[:64]
    if not text:
        raise UsageError(f"{folder}: no model can be called like that; give a `name`")
    return text


def short_edge(place: Path) -> float | None:
    """The median of the shorter edges, in pixels, of a folder's pictures, or that of a video.

    None where none is readable: what is wrong is told by who reads them whole.
    """
    if place.is_file():
        try:
            info = probe(place)
        except InputError:
            return None
        return min(info.width, info.height)
    found = find_images(place)
    edges = []
    for path in [found[index] for index in middles(len(found), MOST_SIZES)]:
        try:
            with path.open("rb") as file:
                header = read_header(file.read(HEADER_BYTES))
        except (InputError, OSError, ValueError):
            continue
        edges.append(min(header.width, header.height))
    return median(edges) if edges else None


def scales(edge: float | None, of: Sequence[float]) -> list[float]:
    """The smallest and largest scale for pictures whose shorter edge has so many pixels.

    Small pictures are not enlarged further than pictures of 256 pixels would be.
    """
    factor = min(1.0, SHORT_EDGE / edge) if edge else 1.0
    return [max(SMALLEST_SCALE, round(scale * factor, 4)) for scale in of]


def settings(plan: LearnPlan, paintings: int, on_gpu: bool) -> dict[str, Any]:
    """The settings that differ from the method's own defaults, for so many readable paintings."""
    augment = ["translation"] if paintings >= 300 else ["color", "translation"]
    held = min(16, paintings // 4) if paintings >= VERY_FEW else 1
    changes: dict[str, Any] = {
        "run.method": "one_sided",
        "run.device": plan.device,
        "data.a": str(real_path(plan.source)),
        "data.b": str(real_path(plan.paintings)),
        "data.scale_a": scales(short_edge(plan.source), PHOTO_SCALES),
        "data.scale_b": scales(short_edge(plan.paintings), PAINTING_SCALES),
        "data.holdout": held,
        "data.frames_per_video": MOST_SOURCES,
        "data.pictures_per_folder": max(MOST_SOURCES, paintings),
        "loss.repaint": REPAINT,
        # A video shows few things: the mean colour of a sea is not that of all that was painted.
        "loss.colour_move": VIDEO_COLOUR_MOVE if plan.is_video else 1.0,
        "loss.diffaugment": augment if paintings >= FEW else [*augment, "cutout"],
        "watch.samples": 4,
        "watch.metric_pictures": 16,
        "watch.learned": False,
    }
    if paintings < VERY_FEW:
        # None can be spared: what is shown and measured was learned from.
        changes["data.holdout_b"] = str(real_path(plan.paintings))
    if on_gpu:
        changes |= {"data.crop_size": 192, "run.batch": 8, "network.ndf": 48}
    return changes


def schedule(images: int, batch: int, before: int = 0) -> dict[str, Any]:
    """The settings of a training that goes on from `before` images to `images` in all.

    The average of the weights reaches back over at most a sixth of the steps.
    """
    ahead = images - before
    steps = max(1, ahead // batch)
    return {
        "run.images": images,
        "run.decay_images": int(DECAY * ahead),
        "network.ema": round(min(0.998, max(0.9, 1 - 6 / steps)), 4),
        "watch.log_every": max(batch, ahead // 100),
        "watch.sample_every": 100 * images,  # at the end only
        "watch.metrics_every": 100 * images,
        "watch.checkpoint_every": max(batch, ahead // 8),
        "watch.checkpoint_minutes": 2.0,
    }


def expectation(paintings: int) -> str | None:
    """What to expect of so few pictures, None where there are enough."""
    if paintings < VERY_FEW:
        return (
            f"{paintings} pictures are very few: expect their colours and surface, not a painter's hand, and "
            "no figures, since none can be held back; from 20 on a hand shows"
        )
    if paintings < FEW:
        return f"{paintings} pictures are few: expect what they have in common, and 20 or more to look richer"
    return None
