"""What every engine keeps: any size, any batch, two sizes in turn, close and reopen, the model's pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cgconvert.engines.base import Engine
from cgconvert.engines.choose import CLASSES, Candidate, build, engine_class
from cgconvert.engines.ready import create_job
from cgconvert.engines.verify import BOUNDS_DB, verify
from cgconvert.models.loading import Model
from cgconvert.options import EngineOptions
from cgconvert.tensors.images import padded_size, psnr
from cgconvert.tensors.noise import with_noise
from tests.engines.models import KINDS, convert, make_learned, make_model, make_pixels

CUDA = pytest.mark.needs_cuda
POSSIBLE = {
    "eager": {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16")},
    "compile": {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16")},
    "tensorrt": {"cuda": ("fp32", "fp16")},
    "openvino": {"cpu": ("fp32", "bf16", "int8")},
}


BUILT_IN_A_PROCESS = {("compile", "fp32"), ("compile", "bf16"), ("openvino", "int8")}
"""What takes a compiler, or the calibration, ten seconds and more each time."""


def cases(quick: tuple[tuple[str, str], ...] = ()) -> pytest.MarkDecorator:
    """Every engine, precision and device that there can be.

    Those that are built in a process of their own take part in `test-all` only, but for the `quick` ones.
    """
    parameters = []
    for name in CLASSES:
        for device, precisions in POSSIBLE[name].items():
            for precision in precisions:
                marks = [CUDA] if device == "cuda" else []
                if (name, precision) in BUILT_IN_A_PROCESS.difference(quick):
                    marks.append(pytest.mark.slow)
                parameters.append(pytest.param(name, precision, device, marks=marks))
    return pytest.mark.parametrize(("name", "precision", "device"), parameters)


every_case = cases()

RANDOM_BOUNDS_DB = {**BOUNDS_DB, "int8": 22.0}
"""Random weights use no more of a range than others do, but every layer's error shows; int8 suffers most."""


def make_engine(name: str, precision: str, device: str, model: Model) -> Engine:
    """The engine, or a skip with the reason why this machine has none."""
    where = torch.device(device)
    reason = engine_class(name).why_not(where, precision)
    if reason:
        pytest.skip(reason)
    return build(model, Candidate(name, precision, where), list(make_pixels(4, 48, 48, seed=9)))


def compare(engine: Engine, count: int, height: int, width: int) -> float:
    """PSNR of the engine's images to the plain network's on `count` padded pictures."""
    card = engine.model.card
    height, width = padded_size(height, width, card)
    images = torch.from_numpy(make_pixels(count, height, width, seed=height + count)).float()
    images = images.permute(0, 3, 1, 2)[:, : card.in_channels] / 127.5 - 1
    images = with_noise(images, card.noise_channels, card.noise_seed)
    with torch.inference_mode():
        wanted = engine.model.generator(images.clone())
        got = engine(images.clone().to(engine.device)).cpu()
    assert got.shape == wanted.shape and got.dtype == torch.float32
    return psnr(got, wanted)


@every_case
def test_any_size_and_batch(name: str, precision: str, device: str) -> None:
    engine = make_engine(name, precision, device, make_model("resnet"))
    bound = RANDOM_BOUNDS_DB[precision]
    engine.prepare(48, 64, 3)
    for count, height, width in [(3, 48, 64), (1, 48, 64), (2, 48, 64), (2, 64, 48), (3, 48, 64)]:
        assert compare(engine, count, height, width) >= bound, (count, height, width)
    engine.close()
    engine.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@every_case
def test_every_architecture(name: str, precision: str, device: str, kind: str) -> None:
    if kind == "identity" and precision == "int8":
        pytest.skip("there is nothing to calibrate in a network without layers")
    engine = make_engine(name, precision, device, make_model(kind))
    assert compare(engine, 2, 64, 64) >= RANDOM_BOUNDS_DB[precision]
    assert compare(engine, 1, 96, 64) >= RANDOM_BOUNDS_DB[precision]
    engine.close()


@every_case
def test_what_training_exports_keeps_the_bounds(name: str, precision: str, device: str) -> None:
    """A generator without norms, whose strokes hang on noise; int8 has the bound of real models."""
    model = make_learned()
    engine = make_engine(name, precision, device, model)
    for count, height, width in [(2, 64, 96), (1, 48, 48)]:
        assert compare(engine, count, height, width) >= BOUNDS_DB[precision], (count, height, width)
    engine.close()


def test_what_training_exports_depends_on_its_noise() -> None:
    """So that the bound above could not be kept without it."""
    model = make_learned()
    images = torch.from_numpy(make_pixels(1, 64, 64)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        result, other = (model.generator(with_noise(images, 2, seed)) for seed in (3, 4))
        assert psnr(result, other) < BOUNDS_DB["int8"]
        assert psnr(result, images) > 10


@every_case
def test_pixels_keep_size_and_order(name: str, precision: str, device: str) -> None:
    """Odd sizes are padded and cropped; the last, partial batch comes back whole; 16 bits stay 16."""
    model = make_model("h2")
    engine = make_engine(name, precision, device, model)
    pixels = make_pixels(5, 37, 45)
    together = convert(engine, pixels, batch=2)
    assert together.shape == pixels.shape and together.dtype == np.uint8
    alone = np.concatenate([convert(engine, picture[None]) for picture in pixels])
    assert np.abs(together.astype(int) - alone).max() <= {"fp32": 1, "int8": 12}.get(precision, 3)
    deep = convert(engine, pixels[:1].astype(np.uint16) * 257)
    assert deep.dtype == np.uint16
    assert np.abs(deep[0] / 257 - together[0]).max() <= {"fp32": 1.0, "int8": 12.0}.get(precision, 3.0)
    engine.close()


@cases(quick=(("compile", "fp32"), ("openvino", "int8")))
def test_close_and_reopen(name: str, precision: str, device: str) -> None:
    """The second engine, which may come from the cache, gives what the first gave."""
    model = make_model("tiny")
    pixels = make_pixels(2, 32, 32)
    results = []
    for _ in range(2):
        engine = make_engine(name, precision, device, model)
        engine.prepare(32, 32, 2)
        results.append(convert(engine, pixels))
        engine.close()
    assert np.array_equal(*results)


@every_case
def test_what_it_says_of_itself(name: str, precision: str, device: str) -> None:
    model = make_model("resnet")
    make_engine(name, precision, device, model).close()
    options = EngineOptions(device, name, precision, batch=2)
    job = create_job(model, options, make_pixels(3, 40, 52))
    told = job.describe()
    assert (told["engine"], told["precision"], told["batch"]) == (name, precision, 2)
    assert [(row["bound_db"], row["size"]) for row in told["verified"]] == [(BOUNDS_DB[precision], [52, 40])]
    assert told["notes"] == []
    assert [result.passed for result in job.verifications] == [True]
    again = verify(job.engine, make_pixels(1, 52, 40, seed=3))
    assert again.psnr_db >= BOUNDS_DB[precision] or math.isinf(again.psnr_db)
    job.close()


@pytest.mark.parametrize("name", ["eager", "openvino", pytest.param("compile", marks=pytest.mark.slow)])
def test_the_weights_may_change_between_two_models(name: str) -> None:
    """Two models of one architecture never share what was built for one of them."""
    results = []
    for seed in (0, 1):
        engine = make_engine(name, "fp32", "cpu", make_model("resnet", seed))
        assert compare(engine, 1, 32, 32) >= BOUNDS_DB["fp32"]
        results.append(convert(engine, make_pixels(1, 32, 32)))
        engine.close()
    assert not np.array_equal(*results)
