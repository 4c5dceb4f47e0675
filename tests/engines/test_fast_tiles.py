"""Tiles in one pass each, with norm statistics of the picture made smaller."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cgconvert.engines.eager import EagerEngine
from cgconvert.engines.job import EngineJob
from cgconvert.engines.openvino import OpenVINOEngine, is_installed
from cgconvert.engines.ready import create_job
from cgconvert.engines.tiles import fast, tiling
from cgconvert.engines.tiles.tiling import Tiling
from cgconvert.models.loading import Model
from cgconvert.options import EngineOptions
from cgconvert.progress import Silent
from cgconvert.tensors.images import pixels_to_images
from tests.engines.models import make_model, make_pixels

CPU = torch.device("cpu")
TOLERANCE = 1e-4


def fast_job(model: Model, edge: int | None, engine: str = "eager") -> EngineJob:
    made = EagerEngine(model, CPU) if engine == "eager" else OpenVINOEngine(model, CPU, "fp32")
    job = EngineJob(made)
    job.tiling = Tiling(made, edge, job.note, Silent(), fast=edge is not None)
    return job


@pytest.mark.parametrize("engine", ["eager", "openvino"])
@pytest.mark.parametrize("kind", ["resnet", "h2", "unet_instance"])
def test_with_the_statistics_of_the_whole_picture_it_is_exact(
    kind: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So all that is off is the statistics: each tile sees enough around it, and every norm gets its own."""
    if engine == "openvino" and not is_installed("openvino"):
        pytest.skip("openvino is not installed")
    for module in (fast, tiling):
        monkeypatch.setattr(module, "reducing_factor", lambda height, width, card: 1)
    model, pixels = make_model(kind), make_pixels(2, 83, 131)
    images, _ = pixels_to_images(pixels, model.card, CPU)
    job = fast_job(model, 32, engine)
    wanted, got = EngineJob(EagerEngine(model, CPU))(images), job(images)
    assert wanted.std() > 0.02
    assert (got - wanted).abs().max().item() < TOLERANCE
    (told,) = job.describe()["tiles"].values()
    assert told["edge"] == 32
    assert told["difference_from_exact"]["largest"] < 127.5 * TOLERANCE


def test_how_far_it_is_from_exact_tiles_is_measured_and_told() -> None:
    model = make_model("resnet")
    images, _ = pixels_to_images(make_pixels(1, 128, 160), model.card, CPU)
    job = fast_job(model, 64)
    wanted, got = EngineJob(EagerEngine(model, CPU))(images), job(images)
    apart = (got - wanted).abs() * 127.5
    told = job.describe()["tiles"]["160x128"]["difference_from_exact"]
    # The sample is all of this picture.
    assert told["size"] == (160, 128)
    assert told["mean"] == pytest.approx(apart.mean().item(), rel=0.02)
    assert told["largest"] == pytest.approx(apart.max().item(), rel=0.02)
    assert 0.1 < told["mean"] < 40
    assert job.notes == [
        "160x128 goes through the network in tiles of 64 pixels, each in one pass with the norm statistics "
        "of the picture at 1/2 of its size; on a part of 160x128 that differs from exact tiles by "
        f"{told['mean']:.2f} levels of 255 on average and {told['largest']:.0f} at most "
        f"({told['psnr_db']:.1f} dB)"
    ]
    job(images)
    assert len(job.notes) == 1, "measured once for a size"


def test_networks_without_instance_norms_stay_exact() -> None:
    model = make_model("resnet_plain")
    images, _ = pixels_to_images(make_pixels(1, 64, 96), model.card, CPU)
    job = fast_job(model, 32)
    assert (job(images) - EngineJob(EagerEngine(model, CPU))(images)).abs().max() < TOLERANCE
    assert job.describe()["tiles"] == {"96x64": 32}
    assert job.tiling is not None and job.tiling.choice_for(64, 96) == 32


def test_a_smaller_picture_keeps_its_mean_and_the_strength_of_its_noise() -> None:
    model = make_model("h2_noise")
    images, _ = pixels_to_images(make_pixels(1, 96, 128), model.card, CPU)
    job = fast_job(model, 32)
    assert job.tiling is not None
    source = fast.TensorSource(images)
    small = fast.reduced(source, 96, 128, 2, job.tiling.network, model.card.in_channels)
    assert small.shape == (1, images.shape[1], 48, 64)
    colours = model.card.in_channels
    assert torch.allclose(small[:, :colours].mean((2, 3)), images[:, :colours].mean((2, 3)), atol=1e-5)
    assert torch.equal(small[:, colours:], images[:, colours:, ::2, ::2])
    assert images.shape[1] > colours


@pytest.mark.parametrize(("times", "chosen"), [(2.9, None), (3.1, "exact tiles take 3.1 times as long")])
def test_auto_takes_it_where_exact_tiles_take_much_longer(
    times: float, chosen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the size that does not fit, and with what that was measured to take."""

    def seconds(network: tiling.Network, edge: int, channels: int, storage: object) -> float:
        return times if len(network.network.stages) > 1 else 1.0

    monkeypatch.setattr(tiling, "tile_seconds", seconds)
    job = fast_job(make_model("resnet"), None)
    assert job.tiling is not None
    assert job.tiling.take(2000, 2000, 1.0, 2**30)
    assert job.tiling.why_fast.get((2000, 2000)) == chosen
    assert job.tiling.choice_for(2000, 2000) == ("fast:512" if chosen else 512)


def test_auto_takes_it_where_values_between_layers_have_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("resnet")
    monkeypatch.setattr(tiling, "choose_storage", lambda *rest: None)
    job = fast_job(model, None)
    assert job.tiling is not None and job.tiling.take(128, 160, 1.0, 2**30)
    assert job.tiling.choice_for(128, 160) == "fast:128"
    images, _ = pixels_to_images(make_pixels(1, 128, 160), model.card, CPU)
    assert torch.isfinite(job(images)).all()
    assert "(values between layers have no room for exact tiles)" in job.notes[0]


def test_what_a_tile_takes_is_measured() -> None:
    job = fast_job(make_model("resnet"), 32)
    assert job.tiling is not None
    for network in (job.tiling._made_ready(), job.tiling._fast_network()):
        assert 0 < fast.tile_seconds(network, 32, 3) < 60


def test_a_job_that_is_to_be_fast_is_compared_exactly() -> None:
    """The engine is compared with the plain network as ever; the statistics' error is told by itself."""
    model, pixels = make_model("resnet"), make_pixels(1, 96, 128)
    job = create_job(model, EngineOptions("cpu", "eager", "fp32", tile="fast:64"), pixels)
    assert job.verifications[0].psnr_db > 80
    images, _ = pixels_to_images(pixels, model.card, CPU)
    assert np.isfinite(job(images).numpy()).all()
    assert next(iter(job.describe()["tiles"].values()))["edge"] == 64
