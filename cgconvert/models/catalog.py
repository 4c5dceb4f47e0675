"""Where models are: a path, the user's folder, or shipped with the package. Needs no torch."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from cgconvert.card import NAME_PATTERN, ModelCard, check_name
from cgconvert.errors import ModelError, UsageError
from cgconvert.host.files import output_error
from cgconvert.host.folders import data_folder
from cgconvert.models.fetching import fetched, is_url
from cgconvert.models.files import SUFFIX, expanded, is_regular_file, read_card

SHIPPED_FOLDER = Path(__file__).parent / "shipped"
RENAMED = {"photo2monet-tiny": "photo2monet-fast"}
"""Former names of shipped models, and the models that took their places."""
FOREIGN_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".pkl", ".onnx")


@dataclass(frozen=True)
class InstalledModel:
    """A model that can be named: its file, where it comes from, and its card or why that is unreadable.

    `origin` is "installed" (the user's folder) or "shipped" (the package's).
    """

    name: str
    path: Path
    origin: str
    card: ModelCard | None
    problem: str | None = None


def models_folder() -> Path:
    """The user's models folder (not created): `CGCONVERT_HOME`/models, or the platform's data folder."""
    try:
        return data_folder() / "models"
    except RuntimeError as error:
        raise ModelError(f"CGCONVERT_HOME={os.environ['CGCONVERT_HOME']}: no such home folder") from error


def list_models() -> list[InstalledModel]:
    """Every model that can be named, the user's first; a user's model hides a shipped one of its name."""
    found: dict[str, InstalledModel] = {}
    for folder, origin in ((models_folder(), "installed"), (SHIPPED_FOLDER, "shipped")):
        for name in _names_in(folder):
            if name not in found:
                found[name] = _look_at(name, folder / f"{name}{SUFFIX}", origin)
    return sorted(found.values(), key=lambda model: (model.origin, model.name))


def is_path(text: str) -> bool:
    """Whether this names a path, not a model: with a folder in it, "~" before it or ".safetensors" behind."""
    return (
        text.endswith(SUFFIX) or text.startswith("~") or len(Path(text).parts) > 1 or text in ("", ".", "..")
    )


def find_model(name_or_path: str | Path) -> Path:
    """The file of a model named by path (`is_path`; the suffix may be left out), by URL, or by a name.

    Of a URL such as s3://bucket/look.safetensors it is a copy, which `models.fetching` keeps.

    The user's models come before the shipped ones, and those before former names (`renamed_note`).
    Raises `ModelError` that lists what is known and the nearest name.
    """
    text = str(name_or_path)
    if is_url(text):
        return fetched(text)
    if is_path(text):
        return _model_at(expanded(text))
    for folder in (models_folder(), SHIPPED_FOLDER):
        candidate = folder / f"{text}{SUFFIX}"
        if is_regular_file(candidate):
            return candidate
    if os.path.exists(text) or is_regular_file(Path(f"{text}{SUFFIX}")):  # noqa: PTH110 - never raises
        return _model_at(Path(text))
    if text in RENAMED:
        return SHIPPED_FOLDER / f"{RENAMED[text]}{SUFFIX}"
    raise ModelError(f"no model named {text!r:.80}{_known_and_nearest(text)}")


def renamed_note(name_or_path: str | Path) -> list[str]:
    """What a user of a former name is told, as a list of one line, and none for other models."""
    text = str(name_or_path)
    if text not in RENAMED or find_model(text) != SHIPPED_FOLDER / f"{RENAMED[text]}{SUFFIX}":
        return []
    return [f"{text} is no longer shipped: {RENAMED[text]} takes its place"]


def installed_path(name: str) -> Path:
    """Where a model of this name is, or would be, in the user's folder."""
    return models_folder() / f"{check_name(name)}{SUFFIX}"


def shipped_path(name: str) -> Path | None:
    """The shipped file of this name, if there is one."""
    path = SHIPPED_FOLDER / f"{check_name(name)}{SUFFIX}"
    return path if is_regular_file(path) else None


def remove_model(name: str) -> Path:
    """Remove a model from the user's folder; shipped ones stay. Returns the path that is gone.

    Raises `ModelError` for an unknown name, `UsageError` for a shipped one, `OutputError` if the system
    refuses.
    """
    path = installed_path(name)
    if not is_regular_file(path):
        if shipped_path(name):
            raise UsageError(f"{name} is shipped with cgconvert and cannot be removed")
        raise ModelError(f"no model named {name!r} in {models_folder()}{_known_and_nearest(name)}")
    try:
        path.unlink()
    except OSError as error:
        raise output_error(path, error) from error
    return path


def _names_in(folder: Path) -> list[str]:
    """Names of the model files in a folder; what cannot be a name (a hidden, half-written file) is none."""
    names = (path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}"))
    return sorted(name for name in names if NAME_PATTERN.fullmatch(name))


def _look_at(name: str, path: Path, origin: str) -> InstalledModel:
    try:
        return InstalledModel(name, path, origin, read_card(path))
    except ModelError as error:
        return InstalledModel(name, path, origin, None, str(error))


def _model_at(path: Path) -> Path:
    """The model file that a path means; `ModelError` says what is there instead."""
    if is_regular_file(path) and path.suffix.lower() in FOREIGN_SUFFIXES:
        raise ModelError(
            f"{path} is no cgconvert model; if it is a CycleGAN or pix2pix generator, bring it in first: "
            f"cgconvert models import {path} --name NAME"
        )
    if is_regular_file(path):
        return path
    completed = path.with_name(f"{path.name}{SUFFIX}") if path.name else path
    if is_regular_file(completed):
        return completed
    if os.path.isdir(path):  # noqa: PTH112 - never raises
        names = _names_in(path)
        inside = f"; in it: {', '.join(names[:5])}" if names else ""
        raise ModelError(f"{path} is a folder: name one model file{inside}")
    raise ModelError(f"no such model file: {path!s:.200}{_known_and_nearest(path.name.removesuffix(SUFFIX))}")


def _known_and_nearest(text: str) -> str:
    """The end of a message about an unknown model: the nearest known name, and all of them."""
    known = sorted({name for folder in (models_folder(), SHIPPED_FOLDER) for name in _names_in(folder)})
    by_lower = {name.lower(): name for name in reversed(known)}
    nearest = difflib.get_close_matches(text.lower(), by_lower, n=1, cutoff=0.5)
    hint = f"; did you mean {by_lower[nearest[0]]}?" if nearest else ""
    if Path(text).suffix.lower() in FOREIGN_SUFFIXES:
        hint = "; bring a checkpoint in with: cgconvert models import FILE --name NAME"
    return f"{hint} (known: {', '.join(known) or 'none'})"
