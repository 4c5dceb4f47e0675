"""Models: their cards, where they are found, and how they are loaded safely.

Nothing here imports torch; `cgconvert.models.loading` and `cgconvert.models.importing` do.
"""

from cgconvert.card import ModelCard
from cgconvert.models.catalog import InstalledModel, find_model, list_models, models_folder

__all__ = ["InstalledModel", "ModelCard", "find_model", "list_models", "models_folder"]
