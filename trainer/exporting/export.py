"""From a run to a model file: the averaged generator with a filled card, loaded back to be sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cgconvert.card import ModelCard
from cgconvert.errors import ModelError, UsageError
from cgconvert.host.files import atomic_path
from cgconvert.models.files import write_model
from cgconvert.models.loading import Model, generator_with_weights, load_model
from cgconvert.tensors.dtypes import DTYPES
from cgconvert.tensors.images import psnr
from trainer.config import Config, absolute, config_from_checkpoint
from trainer.data.domains import PAIRED
from trainer.data.loading import load_pictures
from trainer.data.pictures import scan_domain
from trainer.exporting.calibrate import calibrate
from trainer.exporting.folding import fold_batch_norms
from trainer.methods import METHODS
from trainer.networks.building import generator_card
from trainer.storage.checkpoint import load_checkpoint
from trainer.storage.folder import RunFolder

CALIBRATION = 100  # pictures of each domain
LEAST_PSNR = 45.0  # dB between the trained generator and the exported one, whose weights are rounded


@dataclass(frozen=True)
class CardText:
    """What a person says of a model."""

    title: str = ""
    source_domain: str = ""
    target_domain: str = ""
    licence: str = "unknown"
    work_size: int | None = None
    notes: Mapping[str, Any] | None = None


def export_model(
    checkpoint: Path,
    target: Path,
    generator: str = "",
    precision: str = "fp16",
    text: CardText | None = None,
    calibrated: bool = False,
    others: Sequence[Path] = (),
    share: float | None = None,
    overwrite: bool = False,
) -> ModelCard:
    """Write the averaged `generator` (the only one, if empty) of a checkpoint as a model file.

    With `others`, further checkpoints of the same run, it is the mean of the weights of all ("model soup",
    Wortsman et al. 2022): where a run was steered from one virtue to another, the mean has some of both.
    `share`, between 0 and 1, is how much the others count together; by default all count alike.
    The file is loaded back, its card and checksum checked and its result compared with the trained
    generator's on noise; only then does it appear at its name, where it replaces another one only with
    `overwrite`. Raises `ModelError`, `UsageError`, `OutputError`.
    """
    if target.suffix != ".safetensors":
        raise UsageError(f"{target}: a model file's name ends in .safetensors")
    text = text or CardText()
    state = load_checkpoint(checkpoint)
    config = config_from_checkpoint(state, str(checkpoint))
    if config.run.method == "gan":
        raise UsageError(
            f"{checkpoint}: is of a gan, which makes pictures from noise and converts none; "
            "see them with `cgconvert train sample`"
        )
    name = choose_generator(state, generator, checkpoint)
    plain = generator_card(config, name)
    weights = _mean_weights(state, name, checkpoint, others, share)
    if calibrated:
        weights = _calibrated(weights, config, plain, checkpoint.parent)
    arguments, weights = fold_batch_norms(plain.architecture, plain.arguments, weights)
    card = replace(
        plain,
        name=target.stem,
        arguments=arguments,
        title=text.title or target.stem,
        source_domain=text.source_domain or plain.source_domain,
        target_domain=text.target_domain or plain.target_domain,
        work_size=text.work_size,
        precision=precision,
        training=_training(state, config, name, calibrated, len(others), share) | dict(text.notes or {}),
        licence=text.licence,
    )
    rounded = {key: t.to(DTYPES[precision]) if t.is_floating_point() else t for key, t in weights.items()}
    with atomic_path(target, overwrite) as temporary:
        signed = write_model(temporary, card, rounded)
        _verify(temporary, weights)
    return signed


def _mean_weights(
    state: dict[str, Any], name: str, checkpoint: Path, others: Sequence[Path], share: float | None
) -> dict[str, torch.Tensor]:
    """The generator's weights, their mean over several checkpoints. Raises `UsageError`."""
    found = [state["method"]["ema"]["weights"][name]]
    for other in others:
        more = load_checkpoint(other)["method"]["ema"]["weights"].get(name, {})
        shapes = [{key: tensor.shape for key, tensor in weights.items()} for weights in (found[0], more)]
        if shapes[0] != shapes[1]:
            raise UsageError(
                f"{other}: has no {name} like that of {checkpoint}; only equal networks have a mean"
            )
        found.append(more)
    together = len(others) / len(found) if share is None else share
    counts = [1 - together, *(together / len(others) for _ in others)]
    return {
        key: torch.stack([count * w[key].double() for count, w in zip(counts, found, strict=True)])
        .sum(0)
        .to(tensor.dtype)
        for key, tensor in found[0].items()
    }


def _calibrated(weights: Mapping[str, Any], config: Config, card: ModelCard, base: Path) -> dict[str, Any]:
    """The weights with the colours of the run's target domain, from pictures it was trained on."""
    model = trained_model(card, weights)
    pictures = []
    for domain in (card.source_domain, card.target_domain):
        joined = config.run.method in PAIRED and config.data.pairs
        where = absolute(joined or getattr(config.data, domain), base)
        found = scan_domain(where, config.data.frames_per_video, warn=False).pictures
        step = max(1, len(found) // CALIBRATION)
        half = domain if joined else None
        pictures.append(load_pictures(found[::step], config.watch.sample_size, half, card.size_multiple))
    calibrate(model, pictures[0], pictures[1])
    return model.generator.state_dict()


def best_checkpoint(folder: RunFolder, generator: str) -> Path:
    """The checkpoint that was best for a generator (the only one, if empty). Raises `UsageError`."""
    if generator and folder.has(folder.best_of(generator)):
        return folder.best_of(generator)
    if not folder.has(folder.best):
        raise UsageError(
            f"{folder.path}: has no {folder.best.name}: nothing was measured yet (watch.metrics_every); "
            "leave `best` out"
        )
    state = load_checkpoint(folder.best)
    config = config_from_checkpoint(state, str(folder.best))
    main = METHODS[config.run.method].main_generator(config)
    if generator in state["method"]["ema"]["weights"] and generator != main:
        raise UsageError(
            f"{folder.best}: is the best for {main}, and there is no {folder.best_of(generator).name}; "
            "leave `best` out"
        )
    return folder.best


def trained_model(card: ModelCard, weights: Mapping[str, Any]) -> Model:
    """A generator with the weights of a checkpoint, float32 on the CPU."""
    return Model(card, generator_with_weights(card.architecture, card.arguments, weights))


def choose_generator(state: dict[str, Any], generator: str, checkpoint: Path) -> str:
    """The generator asked for, or the only one there is. Raises `UsageError`."""
    names = list(state["method"]["ema"]["weights"])
    if not generator and len(names) == 1:
        return names[0]
    if generator not in names:
        raise UsageError(f"{checkpoint}: has {', '.join(names)}; say which with `generator`")
    return generator


def _training(
    state: dict[str, Any], config: Config, name: str, calibrated: bool, others: int, share: float | None
) -> dict[str, Any]:
    """What the card says of how the model was made: no paths, since those are of the trainer's machine."""
    data, loss = config.data, config.loss
    facts: dict[str, Any] = {
        "method": config.run.method,
        "generator": name,
        "images_seen": int(state["method"]["images_seen"]),
        "steps": int(state["method"]["step"]),
        "hours": round(float(state["elapsed"]) / 3600, 2),
        "batch": config.run.batch,
        "crop_size": data.crop_size,
        "preprocess": data.preprocess,
        "data": [Path(where).name for where in (data.a, data.b, data.pairs) if where],
        "gan": loss.gan,
        "lr": config.optimizer.lr,
        "ema": config.network.ema,
        "torch": torch.__version__,
    }
    changed = calibrated or others > 0
    metrics = None if changed else state.get("watch", {}).get("last", {}).get(name)  # of other weights
    if others:
        facts["mean_of_checkpoints"] = 1 + others
        facts |= {"others_share": share} if share is not None else {}
    return facts | {"calibrated": calibrated} | ({"metrics": metrics} if metrics else {})


def _verify(path: Path, weights: Mapping[str, Any]) -> None:
    """Load the file as the converter would and compare its result with that of the trained weights."""
    model = load_model(path)
    trained = trained_model(model.card, weights).generator
    edge = max(64, model.card.size_minimum)
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1, model.card.network_channels, edge, edge, generator=generator) * 2 - 1
    with torch.inference_mode():
        ratio = psnr(model.generator(noise), trained(noise))
    if not ratio >= LEAST_PSNR:
        raise ModelError(
            f'{path}: exported weights give another result ({ratio:.1f} dB); export with `precision="fp32"`'
        )
