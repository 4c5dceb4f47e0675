"""Folders of pictures for tests, and runs over them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cgconvert.options import EngineOptions, ImageOptions
from cgconvert.pictures.pipeline import ImagesResult, run_images
from cgconvert.pictures.plan import plan_dir
from cgconvert.progress import Silent
from tests.pictures.pictures import noise, png


def fill(folder: Path, count: int, size: tuple[int, int] = (24, 32)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        (folder / f"{index:03}.png").write_bytes(png(noise(*size, seed=index), 2))


def names(folder: Path) -> list[str]:
    """Every file below a folder but the marker."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".cgconvert.json")
    return sorted(os.fspath(path.relative_to(folder)) for path in found)


def run(
    folder: Path, output: Path, model: str, engine: EngineOptions, workers: int | None = None, **options: Any
) -> ImagesResult:
    plan = plan_dir(folder, output, model, ImageOptions(**options), engine)
    return run_images(plan, Silent(), workers_count=workers)
