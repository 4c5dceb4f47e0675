"""Learning a look: the rate measured, the schedule fitted, the training, the model, its figures."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cgconvert.errors import UsageError
from cgconvert.host.files import output_error, write_atomically
from cgconvert.models.loading import load_model
from cgconvert.progress import Progress, shown_stage
from trainer.compute.precision import choose_device
from trainer.config import Config, config_from_checkpoint
from trainer.data.domains import open_data
from trainer.data.loading import evenly, load_pictures
from trainer.data.pictures import scan_domain
from trainer.exporting.export import CardText, export_model
from trainer.learn.plan import (
    MINUTES,
    VERY_FEW,
    WORK_SIZE,
    LearnPlan,
    expectation,
    schedule,
    settings,
)
from trainer.learn.watch import LearnWatch, preview_of
from trainer.metrics.evaluate import evaluate_video
from trainer.metrics.light import flat_light_error
from trainer.metrics.swd import sliced_wasserstein
from trainer.runs.rate import measure_rate
from trainer.runs.setup import DEFAULTS
from trainer.runs.start import start
from trainer.runs.template import commented_toml
from trainer.storage.checkpoint import load_checkpoint
from trainer.storage.folder import RunFolder

LEAST_IMAGES = 400  # of a training that shows anything
SOON = 1500  # images, below which hardly more than colours is learned
SHARE = 0.92  # of the time is for the steps themselves; reading, previews and checkpoints take the rest
FRAMES, VIDEO_EDGE = 12, 640  # of the video that the steadiness is measured on
PICTURES = 32  # of each side that the texture is measured on


@dataclass(frozen=True)
class LearnResult:
    """A look that has been learned: its model, preview, and lines with figures."""

    model: Path
    preview: Path
    images: int
    figures: tuple[str, ...]


def learn(plan: LearnPlan, progress: Progress) -> LearnResult:
    """Learn a look and install its model.

    Raises `Interrupted` after a signal (the training can go on), and what reading, training and writing
    raise.
    """
    began = time.monotonic()
    folder = RunFolder(plan.run)
    if plan.restart and plan.run.exists():
        _remove(plan.run)
    with shown_stage(progress, "looking at the pictures"):
        paintings = scan_domain(str(plan.paintings), warn=False)
    progress.note(paintings.describe())
    count = len(paintings.pictures)
    if told := expectation(count):
        progress.note(told)
    on_gpu = choose_device(plan.device).type == "cuda"
    config = Config().with_changes(DEFAULTS["one_sided"] | settings(plan, count, on_gpu))
    with shown_stage(progress, "measuring how fast this machine learns"):
        rate = measure_rate(config)
    changes, seconds = _schedule(plan, folder, config, rate, began, progress)
    if not plan.go_on:
        write_atomically(folder.config, commented_toml(config.with_changes(changes)).encode())
    progress.note(f"preview, which grows: {preview_of(plan.run)}")
    try:
        training = start(
            folder,
            (settings(plan, count, on_gpu) | changes) if plan.go_on else {},
            resume=plan.go_on,
            watch=partial(
                LearnWatch,
                progress=progress,
                task=f"learning {plan.name}",
                seconds=seconds,
            ),
            command=plan.command,
        )
    finally:
        progress.finish()
    with shown_stage(progress, "writing the model"):
        text = CardText(
            title=f"{plan.name}, learned from {count} pictures",
            target_domain=plan.name,
            source_domain="video" if plan.is_video else "photo",
            work_size=WORK_SIZE,
        )
        export_model(folder.checkpoint, plan.model, text=text, overwrite=True)
    with shown_stage(progress, "measuring the look"):
        figures = _figures(plan, training.config, count)
    return LearnResult(plan.model, preview_of(plan.run), training.method.images_seen, tuple(figures))


def _schedule(
    plan: LearnPlan, folder: RunFolder, config: Config, rate: float, began: float, progress: Progress
) -> tuple[dict[str, Any], float | None]:
    """Settings that make the training last as long as is asked for, and the seconds for its steps.

    None are given to one that was stopped, which keeps to the end that it had. Says what all that means.
    """
    batch = config.run.batch
    before, planned, stored = 0, 0, config
    if plan.go_on:
        state = load_checkpoint(folder.checkpoint)
        before = int(state["method"]["images_seen"])
        stored = config_from_checkpoint(state, str(folder.checkpoint))
        planned = stored.run.images
    if plan.minutes is None and planned > before:
        # It was stopped on its way: it goes on to the end that it had, exactly.
        progress.note(f"{rate:.1f} pictures a second: {planned - before} of {planned} are left")
        return {key: setting(stored, key) for key in schedule(planned, batch)}, None
    minutes = plan.minutes or MINUTES
    seconds = SHARE * max(1.0, 60 * minutes - (time.monotonic() - began))
    images = max(LEAST_IMAGES, round(seconds * rate)) // batch * batch
    progress.note(f"{rate:.1f} pictures a second: {images} in {minutes:g} minutes")
    if before + images < SOON:
        wanted = max(1, round(2 * SOON / rate / 60))
        progress.note(
            f"that is little, expect hardly more than colours: `minutes={wanted}` shows strokes here"
        )
    return schedule(before + images, batch, before), seconds


def setting(config: Config, dotted: str) -> Any:
    """A setting by its name SECTION.KEY."""
    section, _, key = dotted.partition(".")
    return getattr(getattr(config, section), key)


def _figures(plan: LearnPlan, config: Config, paintings: int) -> list[str]:
    """Lines with what was measured of the model on pictures that it has not learned from."""
    model = load_model(plan.model)
    model.generator.to(choose_device(plan.device))
    lines = []
    if paintings >= VERY_FEW:
        data = open_data(config, plan.run)
        edge = config.watch.metric_size
        sources, held, known = (
            load_pictures(evenly(domain.pictures, PICTURES), edge)
            for domain in (data.holdout["a"], data.holdout["b"], data.training["b"])
        )
        results = [model.convert(pixels) for pixels in sources]
        before, after, among = (
            sliced_wasserstein(pictures, held, edge).mean_normalised for pictures in (sources, results, known)
        )
        lines.append(
            f"texture: {after:.0f} to paintings held back; unchanged {before:.0f}, paintings among "
            f"themselves {among:.0f} (sliced Wasserstein x 1000)"
        )
    lines.append(f"light: flat pictures come out at most {flat_light_error(model.convert):.0f} of 255 off")
    if plan.is_video:
        try:
            steady = evaluate_video(str(plan.model), plan.source, FRAMES, VIDEO_EDGE, plan.device)
        except UsageError:  # a video whose frames show nothing twice
            return lines
        lines.append(
            f"steadiness: warp error {steady.ratio:.1f} times the video's own, "
            f"sharpness {steady.sharpness:.1f}"
        )
    return lines


def _remove(run: Path) -> None:
    try:
        shutil.rmtree(run)
    except OSError as error:
        raise output_error(run, error) from error
