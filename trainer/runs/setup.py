"""Before a training: the folder of a run with a config that suits its method."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from cgconvert.errors import CgconvertError, OutputError, UsageError
from cgconvert.host.files import real_path, write_atomically
from cgconvert.models.catalog import SHIPPED_FOLDER, find_model, is_path, models_folder
from trainer.config import METHODS, Config, absolute, read_config
from trainer.runs.template import commented_toml
from trainer.storage.folder import RunFolder

SMALL = {"half_channels": 24, "channels": 64, "blocks": 6}
STUDENTS: dict[str, tuple[str, dict[str, int]]] = {
    "tiny": ("h2", {"half_channels": 16, "channels": 48, "blocks": 6}),
    "small": ("h2", SMALL),
    "fast": ("h2", SMALL),
    "base": ("h2", {"half_channels": 32, "channels": 96, "blocks": 9}),
    "mobile": ("mobile_resnet", {"ngf": 16, "blocks": 9}),
}
"""H2 generators of about 1, 2 and 6.4 GMAC at 256x256 ("fast" is another word for "small"), and the one that
OMGD and DCD publish, of 1 GMAC: fewer parameters, but more memory traffic, so slower."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "pix2pix": {
        "network.generator": "unet",
        "network.disc_norm": "batch",
        "loss.gan": "vanilla",
        "loss.pool": 0,
    },
    "cut": {"network.arguments": {"upsampling": "resize"}, "loss.pool": 0},
    "distill": {"optimizer.disc_lr": 1e-4},
    "gan": {
        "run.batch": 64,
        "run.decay_images": 0,
        "data.preprocess": "resize_and_crop",
        "data.load_size": 72,
        "data.crop_size": 64,
        "network.generator": "dcgan",
        "loss.gan": "vanilla",
        "loss.pool": 0,
    },
    "one_sided": {
        "run.images": 20_000,
        "run.decay_images": 8_000,
        "run.batch": 4,
        "data.preprocess": "scale_and_crop",
        "data.crop_size": 128,
        "data.scale_min": 0.6,
        "data.scale_max": 1.4,
        "network.generator": "h2",
        "network.arguments": SMALL | {"norm": "batch", "keep_black": True, "keep_detail": True},
        "network.noise": 2,
        "network.norm_frozen": 0.4,
        "network.init": "identity",
        "network.ndf": 32,
        "network.disc_layers": 2,
        "network.ema": 0.998,
        "loss.lambda_gan": 0.5,
        "loss.projected": 2.0,
        "loss.content": 0.5,
        "loss.colour": 2.5,
        "loss.tint": 1.0,
        "loss.temporal": 2.0,
        "loss.temporal_noise": 0.02,
        "loss.pool": 0,
        "loss.diffaugment": ["translation"],
        "optimizer.lr": 3e-4,
        "optimizer.disc_lr": 2e-4,
        "optimizer.beta1": 0.0,
        "optimizer.beta2": 0.99,
        "watch.learned": True,
        "watch.sample_every": 2_000,
        "watch.metrics_every": 4_000,
        "watch.checkpoint_every": 2_000,
    },
}
"""What each method's paper sets otherwise than CycleGAN's."""


def student_settings(name: str) -> dict[str, Any]:
    """The settings of a student by name. Raises `UsageError`."""
    if name not in STUDENTS:
        raise UsageError(f"unknown student {name!r}; known: {', '.join(STUDENTS)}")
    architecture, arguments = STUDENTS[name]
    return {"network.generator": architecture, "network.arguments": dict(arguments)}


def recipes() -> dict[str, Path]:
    """The recipes that come with the trainer, by name."""
    folder = Path(str(files("trainer") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def _base(recipe: str | None, method: str) -> Config:
    if recipe is None:
        return Config().with_changes({"run.method": method, **DEFAULTS.get(method, {})})
    known = recipes()
    path = known.get(recipe, Path(recipe))
    if not path.is_file():
        raise UsageError(f"no recipe {recipe!r}: known are {', '.join(known) or 'none'}, or name a TOML file")
    return read_config(path)


def completed(config: Config) -> Config:
    """The config with what its paper chooses by the size: a ResNet has 6 blocks up to 128 pixels, 9 above."""
    net, blocks = config.network, 6 if config.data.crop_size <= 128 else 9
    changes: dict[str, Any] = {}
    if net.generator == "resnet" and "blocks" not in net.arguments:
        changes["network.arguments"] = {**net.arguments, "blocks": blocks}
    if net.reverse_generator == "resnet" and "blocks" not in net.reverse_arguments:
        changes["network.reverse_arguments"] = {**net.reverse_arguments, "blocks": blocks}
    return config.with_changes(changes)


def teacher_places(changes: Mapping[str, Any]) -> dict[str, str]:
    """Where a teacher is, given as seen from here: a run may go on from another folder."""
    places = {}
    if teacher := str(changes.get("distill.teacher", "")):
        path = find_model(teacher)
        named = path.stem == teacher and path.parent in (models_folder(), SHIPPED_FOLDER)
        places["distill.teacher"] = teacher if named else str(real_path(path))
    if checkpoint := str(changes.get("distill.checkpoint", "")):
        places["distill.checkpoint"] = str(real_path(Path(checkpoint).expanduser()))
    return places


def located(config: Config, base: Path) -> Config:
    """The config with its teacher's place made absolute: like those of the data it is relative to `base`."""
    changes = {}
    if config.distill.teacher and is_path(config.distill.teacher):
        changes["distill.teacher"] = absolute(config.distill.teacher, base)
    if config.distill.checkpoint:
        changes["distill.checkpoint"] = absolute(config.distill.checkpoint, base)
    return config.with_changes(changes)


def refuse_others(folder: RunFolder, asked: Mapping[str, Any]) -> None:
    """Raises `UsageError` where a folder's config has other settings than those that are asked for."""
    config = located(folder.read_config(), folder.path)
    data = {f"data.{name}": absolute(getattr(config.data, name), folder.path) for name in ("a", "b")}
    config = config.with_changes(data)
    wanted = config.with_changes({**asked, **teacher_places(asked)})
    for dotted, (was, now) in wanted.changes_since(config).items():
        raise UsageError(
            f"{folder.config}: has {dotted} = {was!r}, asked for is {now!r}; leave that out, or take "
            "another folder"
        )


def label_names(folder: str) -> list[str]:
    """The folders in a folder of labelled pictures, sorted. Raises `UsageError`."""
    if not Path(folder).is_dir():
        raise UsageError("labels are the names of the folders in domain B: name its folder as `data.b`")
    names = sorted(path.name for path in Path(folder).iterdir() if path.is_dir() and path.name[0] != ".")
    if len(names) < 2:
        raise UsageError(f"{folder}: has fewer than two folders, so there are no labels")
    return names


def init_run(run: Path, changes: Mapping[str, Any], recipe: str | None, overwrite: bool) -> list[str]:
    """Write a commented config into a run's folder; returns lines that say what was found.

    The pictures are checked first. Raises `UsageError` for data or settings, `OutputError` for the folder.
    """
    from trainer.data.domains import open_data
    from trainer.runs.rate import how_long

    folder = RunFolder(run)
    if folder.has(folder.config) and not overwrite:
        raise OutputError(f"{folder.config} exists already: use `overwrite` to replace it")
    method = str(changes.get("run.method", "cyclegan"))
    if recipe is None and method not in METHODS:
        raise UsageError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    config = completed(_base(recipe, method).with_changes({**changes, **teacher_places(changes)}))
    if config.run.method == "distill" and not (config.distill.teacher or config.distill.checkpoint):
        raise UsageError(
            "distillation needs a teacher: a model (`teacher`, the setting distill.teacher) or its training "
            "run (`teacher_run`, the setting distill.checkpoint)"
        )
    found = open_data(config, run).describe()
    write_atomically(folder.config, commented_toml(config).encode())
    with suppress(CgconvertError):  # what is wrong is said where the training begins
        found += how_long(located(config, run)) if config.run.method != "distill" else []
    return [*found, f"{folder.config} written; look it through, then: cgconvert train run {run}"]
