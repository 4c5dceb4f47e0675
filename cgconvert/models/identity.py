"""The shipped model that changes nothing and so shows what the pipeline itself changes.

`python -m cgconvert.models.identity` writes its file anew, the same bytes each time.
"""

from __future__ import annotations

from cgconvert.card import ModelCard
from cgconvert.models.catalog import SHIPPED_FOLDER
from cgconvert.models.files import SUFFIX, write_model

IDENTITY_CARD = ModelCard(
    name="identity",
    architecture="identity",
    title="Changes nothing; shows what the pipeline itself loses",
    source_domain="picture",
    target_domain="the same picture",
    training={"made_by": "python -m cgconvert.models.identity"},
    licence="Apache-2.0",
)

if __name__ == "__main__":
    write_model(SHIPPED_FOLDER / f"{IDENTITY_CARD.name}{SUFFIX}", IDENTITY_CARD, {})
