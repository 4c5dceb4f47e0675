"""Where models are: a path, the user's folder, or shipped with the package. Needs no torch."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from cgconvert.errors import ModelError, UsageError
from cgconvert.models.card import ModelCard, check_name
from cgconvert.models.files import SUFFIX, read_card

SHIPPED_FOLDER = Path(__file__).parent / "shipped"


@dataclass(frozen=True)
class InstalledModel:
    """A model that can be named: its file, where it comes from, and its card or why that is unreadable."""

    name: str
    path: Path
    origin: str
    card: ModelCard | None
    problem: str | None = None


def models_folder() -> Path:
    """The user's models folder (not created): `CGCONVERT_HOME`/models, or the platform's data folder."""
    home = os.environ.get("CGCONVERT_HOME")
    if home:
        return Path(home) / "models"
    from platformdirs import user_data_path

    return user_data_path("cgconvert", appauthor=False) / "models"


def list_models() -> list[InstalledModel]:
    """Every model that can be named, the user's first; a user's model hides a shipped one of its name."""
    found: dict[str, InstalledModel] = {}
    for folder, origin in ((models_folder(), "installed"), (SHIPPED_FOLDER, "shipped")):
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            name = path.name.removesuffix(SUFFIX)
            if name in found:
                continue
            try:
                found[name] = InstalledModel(name, path, origin, read_card(path))
            except ModelError as error:
                found[name] = InstalledModel(name, path, origin, None, str(error))
    return sorted(found.values(), key=lambda model: (model.origin, model.name))


def find_model(name_or_path: str | Path) -> Path:
    """The file of a model named by path, by an installed name or by a shipped name.

    Raises `ModelError` that lists what is known and the nearest name.
    """
    text = str(name_or_path)
    path = Path(name_or_path)
    if path.suffix == SUFFIX or isinstance(name_or_path, Path) or os.sep in text:
        if path.is_file():
            return path
        if path.suffix in (".pth", ".pt", ".ckpt", ".bin") or path.is_dir():
            raise ModelError(f"{path}: not a cgconvert model; is it a folder, or the wrong path?")
        raise ModelError(f"no such model file: {path}")
    for folder in (models_folder(), SHIPPED_FOLDER):
        candidate = folder / f"{text}{SUFFIX}"
        if candidate.is_file():
            return candidate
    known = sorted(model.name for model in list_models())
    nearest = difflib.get_close_matches(text, known, n=1, cutoff=0.4)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    if path.suffix in (".pth", ".pt"):
        hint = "; bring a checkpoint in first: cgconvert models import FILE --name NAME"
    raise ModelError(f"no model named {text!r}{hint} (known: {', '.join(known) or 'none'})")


def installed_path(name: str) -> Path:
    """Where a model of this name is, or would be, in the user's folder."""
    return models_folder() / f"{check_name(name)}{SUFFIX}"


def remove_model(name: str) -> Path:
    """Remove a model from the user's folder; shipped ones stay. Returns the path that is gone."""
    path = installed_path(name)
    if not path.is_file():
        if (SHIPPED_FOLDER / path.name).is_file():
            raise UsageError(f"{name} is shipped with cgconvert and cannot be removed")
        find_model(name)  # raises with the nearest name
    path.unlink()
    return path
