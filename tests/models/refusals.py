"""What every refused import has in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cgconvert.errors import ModelError
from cgconvert.models.catalog import models_folder
from cgconvert.models.importing import import_checkpoint


def saved(tmp_path: Path, content: Any, **options: Any) -> Path:
    """A checkpoint file with this content."""
    path = tmp_path / "net.pth"
    torch.save(content, path, **options)
    return path


def refusal(path: Path) -> str:
    """The message with which an import is refused: one line that names the file, and nothing is left."""
    with pytest.raises(ModelError) as caught:
        import_checkpoint(path, "made")
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert len(message) < 600
    assert "weights_only" not in message  # nobody is told to read the file in an unsafe way
    assert not models_folder().exists() or not list(models_folder().iterdir())
    return message
