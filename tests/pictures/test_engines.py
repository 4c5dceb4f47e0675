"""Folders through engines that are built for a size: what is built and compared, and what a batch is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cgconvert.engines import batches, ready
from cgconvert.engines.batches import choose_batch
from cgconvert.engines.choose import CLASSES
from cgconvert.engines.eager import EagerEngine
from cgconvert.engines.job import EngineJob
from cgconvert.host.channels import StageClock
from cgconvert.models.loading import load_model
from cgconvert.options import EngineOptions
from cgconvert.pictures import network
from cgconvert.pictures.network import Network
from cgconvert.progress import Silent
from cgconvert.tensors.transfers import HostTransfers
from tests.engines.built import Built
from tests.engines.models import make_model
from tests.pictures.pictures import noise, png, read_rgb
from tests.pictures.runs import run

COMPILED = EngineOptions("cpu", "compile", "fp32", 2)


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """`--engine compile` is the stand-in; the heights and widths that are compared with float32."""
    for name in ("largest", "flawed"):
        monkeypatch.setattr(Built, name, getattr(Built, name))
    monkeypatch.setattr(Built, "tried", [])
    monkeypatch.setitem(CLASSES, "compile", "tests.engines.built:Built")
    verify, seen = ready.verify, []

    def watching(engine: Any, pixels: np.ndarray, *more: Any) -> Any:
        seen.append(pixels.shape[1:3])
        return verify(engine, pixels, *more)

    monkeypatch.setattr(ready, "verify", watching)
    return seen


def convert(folder: Path, model: str, *sizes: tuple[int, int], tile: str = "auto") -> Any:
    """Pictures of these sizes, in this order, converted two at a time by one worker; and compared."""
    (folder / "in").mkdir()
    for index, size in enumerate(sizes):
        (folder / "in" / f"{index}.png").write_bytes(png(noise(*size, seed=index), 2))
    result = run(folder / "in", folder / "out", model, replace(COMPILED, tile=tile), 1)
    failed = {failure.file.name for failure in result.failures}
    for index, size in enumerate(sizes):
        if f"{index}.png" not in failed:
            expected = load_model(model).convert(noise(*size, seed=index)).astype(int)
            got = read_rgb(folder / "out" / f"{index}.png").astype(int)
            assert np.abs(got - expected).max() <= 1, index
    return result


def test_the_sizes_of_the_pictures_are_built_and_compared(
    tmp_path: Path, small: str, compared: list[tuple[int, ...]]
) -> None:
    """The first picture is wider than what of one is compared otherwise: no engine is built for a part."""
    sizes = [(20, 1100), (20, 1100), (32, 40), (32, 40), (20, 1100)]
    result = convert(tmp_path, small, *sizes)
    assert result.converted == 5
    assert Built.tried == [(2, 20, 1100), (2, 32, 40)]
    assert compared == [(20, 1100), (32, 40)]
    assert result.engine["built_for"] == ["2x1100x20", "2x40x32"]


def test_a_size_whose_pictures_are_wrong_runs_layer_by_layer(
    tmp_path: Path, small: str, compared: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Built, "flawed", ((32, 40),))
    result = convert(tmp_path, small, (24, 32), (24, 32), (32, 40), (32, 40))
    assert result.converted == 4 and compared == [(24, 32), (32, 40)]
    (note,) = result.engine["notes"]
    assert note.startswith("compile for 40x32 has ") and note.endswith("that size runs layer by layer")
    assert result.engine["built_for"] == ["2x32x24"]


def test_a_first_picture_that_does_not_fit_fails_alone(
    tmp_path: Path, small: str, compared: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Built, "largest", 20 * 1024)
    result = convert(tmp_path, small, (20, 1100), (32, 40), tile="off")
    assert result.converted == 1
    assert [(one.file.name, one.reason.split(";")[0]) for one in result.failures] == [
        ("0.png", "not enough memory on cpu for one picture of 1100x20")
    ]


def test_folders_and_videos_take_the_same_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another batch would be another engine in the cache than the one that was built ahead."""
    model = make_model()
    engine = EagerEngine(model, torch.device("cpu"))
    engine.streams = 1
    job = EngineJob(engine, pixel_bytes=100.0)
    monkeypatch.setattr(batches, "free_memory", lambda device: 80 * 10**9)
    monkeypatch.setattr(network, "load_model", lambda path: model)
    monkeypatch.setattr(network, "transfers_for", lambda device: HostTransfers())
    given = []

    def create(model: Any, asked: Any, frames: np.ndarray, *more: Any, pixels: float) -> EngineJob:
        given.append((frames.shape, more[-1], pixels))
        engine.device = torch.device("cuda")
        job.batch = choose_batch(job, *frames.shape[1:3])
        return job

    monkeypatch.setattr(network, "create_job", create)
    plan: Any = SimpleNamespace(
        engine=EngineOptions("cpu"),
        card=model.card,
        total=9,
        model=Path(),
        options=SimpleNamespace(watch=False),
    )
    clock = StageClock({"prepare": "", "build": ""})
    own: Network[Any] = Network(plan, np.zeros((1080, 1920, 3), np.uint8), Silent(), clock, "cpu")
    assert given == [((1, 1080, 1920, 3), 1024, 9 * 1080 * 1920)]
    for size in ((1080, 1920), (720, 1280), (256, 256), (2160, 3840)):
        assert own.batch_for(*size) == choose_batch(job, *size)
    assert own.batch_for(1080, 1920) == job.batch == 5
