"""Puts a training together, fresh or from its checkpoint, and runs it."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
import torch

from cgconvert.errors import OutputError, UnavailableError, UsageError, first_line
from trainer.compute.distributed import World, joined_world
from trainer.compute.precision import choose_precision
from trainer.config import config_from_checkpoint
from trainer.data.domains import open_data
from trainer.methods import build_method
from trainer.networks.building import WHOLE_PICTURES
from trainer.reporting.gan_watch import GanWatch
from trainer.reporting.watch import Watch
from trainer.runs.health import Health
from trainer.runs.loop import train
from trainer.runs.schedule import Schedule
from trainer.runs.setup import located, teacher_places
from trainer.runs.training import Training
from trainer.storage.checkpoint import load_checkpoint
from trainer.storage.folder import RunFolder

log = logging.getLogger("trainer")
FIXED = (
    "run.method",
    "data.direction",
    "loss.ablation",
    "network.generator",
    "network.arguments",
    "network.reverse_generator",
    "network.reverse_arguments",
    "network.noise",
)
"""Settings that may not change within a run: its state would not fit, or go on as another experiment."""

SHORT_OF_MEMORY = "the GPU's memory is too small for this: lower run.batch or data.crop_size"


def start(
    folder: RunFolder,
    changes: Mapping[str, Any] | None = None,
    resume: bool = False,
    watch: Callable[..., Watch] | None = None,
    command: str = "",
) -> Training:
    """Run the training of a folder from its start, or on from its checkpoint, to its end.

    `changes` are settings that replace those of the config file for this start only. A run that goes on logs
    which settings differ from those of its checkpoint. `watch` makes what looks at the training, `command` is
    the command line that goes on with it (by default `cgconvert train resume`). Raises what `train` raises,
    `UsageError` for a config, data or a checkpoint that do not fit, and `UnavailableError` where the GPU's
    memory is too small.
    """
    with joined_world() as world:
        try:
            with folder.locked() if world.first else nullcontext():
                training = prepare(folder, changes or {}, resume, world, watch, command)
                _train(training)
                if world.first:
                    _tell_what_next(training)
        except OutputError as error:
            raise OutputError(_what_stays(str(error), folder, command)) from error
        except torch.OutOfMemoryError as error:
            raise UnavailableError(_what_stays(SHORT_OF_MEMORY, folder, command)) from error
        return training


def _train(training: Training) -> None:
    """Run the training; where a full disk or too little memory ends it, the report says so."""
    try:
        train(training)
    except (OutputError, torch.OutOfMemoryError) as error:
        why = str(error) if isinstance(error, OutputError) else SHORT_OF_MEMORY
        with suppress(OutputError):
            training.report("stopped", why)
        raise


def _tell_what_next(training: Training) -> None:
    """Say, at the end of a run, where its results are and how a model is made of them."""
    path, main = training.folder.path, training.method.main
    which = f" --generator {main}" if len(training.method.cards) > 1 else ""
    log.info("finished; results: %s", training.folder.report)
    if training.config.run.method == "gan":
        log.info("more of its pictures: cgconvert train sample %s -o PICTURES.png", path)
        return
    log.info("a model of it: cgconvert train export %s NAME.safetensors%s", path, which)


def _what_stays(text: str, folder: RunFolder, command: str) -> str:
    if not folder.has(folder.checkpoint):
        return text
    return f"{text}; the last checkpoint is whole, go on with `{command or resume_command(folder)}`"


def resume_command(folder: RunFolder) -> str:
    """The command line that goes on with a run."""
    return f"cgconvert train resume {folder.path}"


def prepare(
    folder: RunFolder,
    changes: Mapping[str, Any],
    resume: bool,
    world: World,
    watch: Callable[..., Watch] | None = None,
    command: str = "",
) -> Training:
    """A training that is ready to run: its data is checked and its state is loaded."""
    written = located(folder.read_config(), folder.path)
    config = written.with_changes({**changes, **teacher_places(changes)})
    if not resume and folder.has(folder.checkpoint):
        raise UsageError(
            f"{folder.path}: has a checkpoint already; "
            "go on with `cgconvert train resume`, or take another folder"
        )
    state = load_checkpoint(folder.checkpoint) if resume else None
    for dotted, (kept, now) in config.changes_since(written).items() if world.first else ():
        log.info("%s = %r for this start only; %s keeps %r", dotted, now, folder.config, kept)
    torch.set_flush_denormal(True)  # gradients of frozen features run into them, and they are slow
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    precision = choose_precision(config.run, world.local_rank)
    # cuDNN tries its algorithms once for a size of images; with sizes that change it would try all the time.
    torch.backends.cudnn.benchmark = config.data.preprocess not in WHOLE_PICTURES
    if world.first:
        log.info("%s on %s in %s", config.run.method, precision.device, precision.name)
    on_card = precision.device.type == "cuda"
    data = open_data(config, folder.path, world.rank, world.size, pinned=on_card)
    for line in data.describe() if world.first else ():
        log.info("%s", line)
    # Every process starts with the same weights, and goes on with random numbers of its own.
    _seed(config.run.seed, 0)
    method = build_method(config, precision, world.joined)
    _seed(config.run.seed, world.rank)
    make_watch = watch or (GanWatch if config.run.method == "gan" else Watch)
    training = Training(
        folder,
        config,
        method,
        data,
        Schedule(config.run),
        Health(config.loss.gan),
        make_watch(folder, config, data, method, world.first),
        world,
        command=command or resume_command(folder),
    )
    if state is not None:
        _continue(training, state)
    return training


def _continue(training: Training, state: dict[str, Any]) -> None:
    before = config_from_checkpoint(state, str(training.folder.checkpoint))
    changed = training.config.changes_since(before)
    for dotted in FIXED:
        if dotted in changed:
            was, now = changed[dotted]
            raise UsageError(
                f"{training.folder.checkpoint}: was made with {dotted} = {was!r}, the config says {now!r}; "
                f"put it back in {training.folder.config} or with `changes`, or start a new run"
            )
    try:
        training.load_state_dict(state)
    except torch.OutOfMemoryError:  # a RuntimeError too, but it says nothing about the checkpoint
        raise
    except (RuntimeError, KeyError, ValueError) as error:
        reason = first_line(error)
        raise UsageError(f"{training.folder.checkpoint}: does not fit the config ({reason})") from error
    training.watch.kept, training.resumed_at = before, training.method.images_seen
    if training.world.first:
        training.folder.cut_log(training.method.images_seen)
        log.info("going on from %d images", training.method.images_seen)
        _tell_changes(training, changed)


def _tell_changes(training: Training, changed: dict[str, tuple[Any, Any]]) -> None:
    """Say, and keep in the log, which settings differ from those that the checkpoint was made with."""
    for dotted, (was, now) in changed.items():
        log.info("%s %s, was %s", dotted, now, was)
    if changed:
        line = {"kind": "settings", "images": training.method.images_seen}
        line["changed"] = {dotted: list(values) for dotted, values in changed.items()}
        if line not in training.folder.lines():  # said before by a start that got no further
            training.folder.append(line)


def _seed(seed: int, rank: int) -> None:
    random.seed(seed + 7919 * rank)
    np.random.seed((seed + 7919 * rank) % 2**32)
    torch.manual_seed(seed + 7919 * rank)
    with suppress(RuntimeError):
        torch.cuda.manual_seed_all(seed + 7919 * rank)
