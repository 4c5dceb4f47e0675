"""Which models a preview can show. No torch."""

from __future__ import annotations

from pathlib import Path

from cgconvert.card import ModelCard
from cgconvert.errors import ModelError
from cgconvert.models.catalog import find_model, list_models
from cgconvert.models.files import read_card


def takes_pictures(card: ModelCard) -> bool:
    """Whether a model makes a picture of a picture, and another one than it was given."""
    return card.in_channels in (1, 3) and card.out_channels in (1, 3) and card.architecture != "identity"


def chosen_models(asked: str) -> list[Path]:
    """Return the models of a list such as "photo2monet,photo2vangogh"; "all" is every one that is installed.

    Raises `ModelError` for one that is unknown or makes no pictures of pictures.
    """
    if asked == "all":
        found = [model for model in list_models() if model.card is not None and takes_pictures(model.card)]
        if not found:
            raise ModelError("no model is installed")
        return [model.path for model in found]
    paths = []
    for name in dict.fromkeys(part.strip() for part in asked.split(",")):
        path = find_model(name)
        card = read_card(path)
        if card.in_channels not in (1, 3) or card.out_channels not in (1, 3):
            raise ModelError(
                f"{card.name} has {card.in_channels} -> {card.out_channels} channels: a preview needs 1 or 3"
            )
        paths.append(path)
    return paths
