"""Engines are compared with the reference before they are used; what fails gives way or stops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cgconvert.engines import ready
from cgconvert.engines.batches import OutOfMemoryError, choose_batch
from cgconvert.engines.choose import Candidate, build, candidates, choose_device
from cgconvert.engines.eager import EagerEngine
from cgconvert.engines.job import EngineJob
from cgconvert.engines.pixels import convert_pixels
from cgconvert.engines.ready import create_job
from cgconvert.engines.verify import BOUNDS_DB, VerificationError, verify
from cgconvert.errors import ModelError, UnavailableError, UsageError
from cgconvert.models.loading import Model
from cgconvert.options import EngineOptions
from cgconvert.tensors.images import psnr
from tests.engines.models import convert, make_model, make_pixels

CPU = torch.device("cpu")


class Flawed(EagerEngine):
    """An engine whose images are off by a constant, or not numbers."""

    name = "flawed"

    def __init__(self, model: Model, error: float, precision: str = "fp32") -> None:
        super().__init__(model, CPU, precision)
        self.error = error
        self.is_reference = False

    def __call__(self, images: Tensor) -> Tensor:
        return super().__call__(images) + self.error


def test_psnr_is_of_images_between_minus_one_and_one() -> None:
    zeros = torch.zeros(1, 3, 8, 8)
    assert psnr(zeros, zeros) == math.inf
    assert psnr(zeros + 0.02, zeros) == pytest.approx(40.0, abs=1e-4)  # 20 log10(2 / 0.02)
    assert math.isnan(psnr(zeros + math.nan, zeros))


@pytest.mark.parametrize(
    ("precision", "error", "passes"),
    [
        ("fp32", 0.0015, True),
        ("fp32", 0.0025, False),
        ("bf16", 0.015, True),
        ("bf16", 0.03, False),
        ("fp32", math.nan, False),
        ("fp32", math.inf, False),
    ],
)
def test_the_bound_is_that_of_the_precision(precision: str, error: float, passes: bool) -> None:
    engine = Flawed(make_model(), error)
    engine.precision = precision
    result = verify(engine, make_pixels(2, 40, 44))
    assert result.passed is passes
    assert result.bound_db == BOUNDS_DB[precision]


def test_the_reference_is_equal_to_itself() -> None:
    result = verify(EagerEngine(make_model(), CPU), make_pixels(1, 32, 32))
    assert result.passed and math.isinf(result.psnr_db)
    assert result.to_dict()["psnr_db"] is None


def test_a_model_that_gives_nan_is_named() -> None:
    model = make_model()
    next(model.generator.parameters()).fill_(math.nan)
    with pytest.raises(ModelError, match="weights are broken"):
        create_job(model, EngineOptions(), make_pixels(1, 32, 32))


def with_flaw(monkeypatch: pytest.MonkeyPatch, error: float) -> None:
    """Let every engine but the float32 one be off by `error`."""
    true_build = ready.build

    def flawed(model: Model, candidate: Candidate, calibration: Any) -> EagerEngine:
        if candidate.precision == "fp32":
            engine = true_build(model, candidate, calibration)
            assert isinstance(engine, EagerEngine)
            return engine
        return Flawed(model, error, candidate.precision)

    monkeypatch.setattr(ready, "build", flawed)
    monkeypatch.setattr("cgconvert.engines.choose.has_bf16", lambda: True)
    monkeypatch.setattr("cgconvert.engines.choose.AUTO_ENGINES", {"cpu": ("eager",)})


@pytest.mark.parametrize("error", [0.2, math.nan])
def test_auto_steps_down_and_says_so(monkeypatch: pytest.MonkeyPatch, error: float) -> None:
    with_flaw(monkeypatch, error)
    told = create_job(make_model(), EngineOptions("cpu"), make_pixels(2, 32, 40)).describe()
    assert told["precision"] == "fp32"
    assert "eager bf16" in told["notes"][0] and "not used" in told["notes"][0]


def test_what_was_asked_for_by_name_stops_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with_flaw(monkeypatch, 0.2)
    with pytest.raises(
        VerificationError, match=r"below the bound of 40 dB; use `precision=.fp32.`"
    ) as caught:
        create_job(make_model(), EngineOptions("cpu", precision="bf16"), make_pixels(1, 32, 32))
    assert caught.value.exit_code == 3


def test_identity_runs_in_float32_and_is_exact() -> None:
    pixels = make_pixels(3, 33, 35)
    job = create_job(make_model("identity"), EngineOptions("cpu"), pixels)
    assert job.engine.precision == "fp32"
    assert np.array_equal(convert_pixels(job, pixels), pixels)


def test_names_are_checked() -> None:
    model, pixels = make_model(), make_pixels(1, 32, 32)
    with pytest.raises(UsageError, match="unknown engine"):
        create_job(model, EngineOptions("cpu", "warp"), pixels)
    with pytest.raises(UsageError, match="unknown precision"):
        create_job(model, EngineOptions("cpu", "eager", "fp8"), pixels)
    with pytest.raises(UnavailableError, match="fp16 is for GPUs"):
        create_job(model, EngineOptions("cpu", "eager", "fp16"), pixels)
    with pytest.raises(UnavailableError, match="int8"):
        create_job(model, EngineOptions("cpu", "eager", "int8"), pixels)


def test_int8_needs_pictures_to_learn_from() -> None:
    pytest.importorskip("nncf")
    with pytest.raises(UnavailableError, match="int8 needs pictures to calibrate the network on"):
        build(make_model(), Candidate("openvino", "int8", CPU))


class Small(EagerEngine):
    """An engine on a device where only so many pictures fit."""

    fits = 2
    message = "CUDA out of memory. Tried to allocate"

    def __call__(self, images: Tensor) -> Tensor:
        if len(images) > self.fits:
            raise torch.OutOfMemoryError(self.message)
        return super().__call__(images)


def test_out_of_memory_halves_the_batch_and_loses_nothing() -> None:
    pixels = make_pixels(7, 32, 32)
    wanted = convert(EagerEngine(make_model(), CPU), pixels)
    job = EngineJob(Small(make_model(), CPU), 7)
    got = convert_pixels(job, pixels)
    assert got.shape == wanted.shape
    assert np.abs(got.astype(int) - wanted).max() <= 1  # sums in another order round differently
    assert job.batch == 1
    assert job.describe()["notes"] == [
        "out of memory with 7 pictures of 32x32: 3 from then on",
        "out of memory with 3 pictures of 32x32: 1 from then on",
    ]


def test_one_picture_that_does_not_fit_is_an_error_with_a_remedy() -> None:
    engine = Small(make_model(), CPU)
    engine.fits = 0
    with pytest.raises(OutOfMemoryError, match="one picture of 32x32: use a smaller `work_size`"):
        convert(engine, make_pixels(1, 32, 32))


def test_other_errors_are_not_taken_for_memory() -> None:
    class Broken(EagerEngine):
        def __call__(self, images: Tensor) -> Tensor:
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        convert(Broken(make_model(), CPU), make_pixels(2, 32, 32))


def test_main_memory_is_looked_at_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without any left ends the program. What has gone through once goes through again."""
    job = EngineJob(EagerEngine(make_model(), CPU), 4, pixel_bytes=1000.0)
    monkeypatch.setattr("cgconvert.engines.batches.available_memory", lambda: 1000 * 2 * 32 * 32)
    convert_pixels(job, make_pixels(4, 32, 32))
    assert job.notes == ["out of memory with 4 pictures of 32x32: 2 from then on"]
    monkeypatch.setattr("cgconvert.engines.batches.available_memory", lambda: 0)
    convert_pixels(job, make_pixels(2, 32, 32))
    with pytest.raises(OutOfMemoryError, match=r"640x32 pixels need about 0\.0 GiB of memory, 0\.0 are free"):
        convert_pixels(job, make_pixels(1, 32, 640))


def test_the_batch_follows_size_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    job = EngineJob(EagerEngine(make_model(), CPU))
    job.engine.streams = 1
    small, large = choose_batch(job, 64, 64), choose_batch(job, 1080, 1920)
    assert small > large == 1
    monkeypatch.setattr("cgconvert.engines.batches.free_memory", lambda device: 0)
    assert choose_batch(job, 64, 64) == 1


def test_an_intel_gpu_is_asked_for_or_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What OpenVINO says there is decides; the engine itself runs on its CPU plugin here."""
    pytest.importorskip("openvino")
    model = make_model()

    def described(device: str, precision: str = "auto", engine: str = "auto") -> list[str]:
        return [str(candidate) for candidate in candidates(model, device, engine, precision)]

    monkeypatch.setattr("cgconvert.engines.openvino.available_gpus", list)
    assert not any("gpu" in one for one in described("auto"))
    with pytest.raises(UnavailableError, match=r"no Intel GPU.*`device=.cpu.`"):
        described("gpu")
    monkeypatch.setattr("cgconvert.engines.openvino.available_gpus", lambda: ["GPU.1", "GPU.2"])
    assert described("gpu") == described("GPU", "fp16") == ["openvino fp16 on gpu.1"]
    assert described("gpu", "fp32") == ["openvino fp32 on gpu.1"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert described("auto")[0] == "openvino fp16 on gpu.1" and len(described("auto")) > 2
    assert not any("gpu" in one for one in described("auto", "bf16") + described("cpu"))
    with pytest.raises(UsageError, match="not int8"):
        described("gpu", "int8")
    with pytest.raises(UsageError, match="only openvino"):
        described("gpu", "auto", "eager")
    engine = build(model, next(candidates(model, "gpu", "auto", "auto")))
    assert engine.describe()["device"] == "gpu.1" and engine.precision == "fp16"
    engine.close()


def test_a_gpu_that_does_not_work_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO here has no such device: `auto` goes on, and what was asked for by name stops."""
    pytest.importorskip("openvino")
    monkeypatch.setattr("cgconvert.engines.openvino.available_gpus", lambda: ["GPU.7"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    job = create_job(make_model(), EngineOptions(), make_pixels(1, 32, 32))
    assert job.describe()["device"] == "cpu"
    assert "openvino fp16 on gpu.7 not used" in job.describe()["notes"][0]
    job.close()
    with pytest.raises(UnavailableError, match=r"gpu\.7"):
        create_job(make_model(), EngineOptions("gpu"), make_pixels(1, 32, 32))


def test_a_card_has_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT takes a device without one for none."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 1)
    assert [str(choose_device(text)) for text in ("auto", "cuda", "cuda:0")] == ["cuda:1", "cuda:1", "cuda:0"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert str(choose_device("auto")) == "cpu"
