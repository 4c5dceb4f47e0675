"""Jobs whose pictures go through in tiles: which do, what they become, where values wait."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cgconvert.engines import batches
from cgconvert.engines.eager import EagerEngine
from cgconvert.engines.job import EngineJob
from cgconvert.engines.pixels import convert_pixels
from cgconvert.engines.ready import create_job
from cgconvert.engines.tiles import tiling
from cgconvert.engines.tiles.exact import ExactTiling, Stages, Storage, TensorSink, TensorSource
from cgconvert.engines.tiles.tiling import Tiling, choose_storage
from cgconvert.errors import ModelError, OutputError, UsageError
from cgconvert.host.rectangles import scratch_folder
from cgconvert.models.loading import Model
from cgconvert.options import EngineOptions, check_engine_options
from cgconvert.progress import Silent
from cgconvert.tensors.images import pixels_to_images
from tests.engines.built import Built
from tests.engines.models import make_model, make_pixels

CPU = torch.device("cpu")
GIB = 2**30
TOLERANCE = 1e-4
"""What was promised; sums in another order differ by some 5e-6 here."""

pytestmark = pytest.mark.usefixtures("exact_tiles")


def options(tile: str | int) -> EngineOptions:
    return EngineOptions("cpu", "eager", "fp32", tile=tile)


def tiled_job(model: Model, tile: int | None) -> EngineJob:
    """A job that tiles as asked, or with None what does not fit."""
    job = EngineJob(EagerEngine(model, CPU))
    job.tiling = Tiling(job.engine, tile, job.note, Silent())
    return job


@pytest.mark.parametrize(
    "kind", ["resnet", "h2", "unet_instance", "resnet_batch", "resnet_plain", "h2_noise"]
)
def test_a_job_in_tiles_has_the_untiled_result(kind: str) -> None:
    """Of an odd size that is padded; fixed noise is a part of what is cut into tiles."""
    model, pixels = make_model(kind), make_pixels(2, 83, 131)
    plain = create_job(model, options("off"), pixels)
    job = create_job(model, options(32), pixels)
    images, _ = pixels_to_images(pixels, model.card, CPU)
    wanted, got = plain(images), job(images)
    assert wanted.std() > 0.02
    assert (got - wanted).abs().max().item() < TOLERANCE
    height, width = images.shape[2:]
    assert job.describe()["tiles"] == {f"{width}x{height}": 32}
    assert job.verifications[0].psnr_db > 80, "what tiles make is compared as well"
    assert plain.describe()["tiles"] == {}
    assert np.abs(convert_pixels(job, pixels).astype(int) - convert_pixels(plain, pixels)).max() <= 1


def test_the_report_says_how_pictures_were_tiled() -> None:
    for kind, told in (
        ("resnet", "layer by layer in float32, values between layers in memory"),
        ("resnet_plain", "each in one pass"),
    ):
        job = tiled_job(make_model(kind), 32)
        convert_pixels(job, make_pixels(2, 64, 64))
        assert job.notes == [f"64x64 goes through the network in tiles of 32 pixels, {told}"]


def test_only_larger_pictures_are_tiled() -> None:
    job = tiled_job(make_model("resnet"), 64)
    assert [job.tile_edge(*size) for size in ((64, 64), (64, 68), (68, 64), (32, 32))] == [None, 64, 64, None]
    unet = tiled_job(make_model("unet"), 40)
    assert unet.tile_edge(64, 64) is None and unet.tile_edge(64, 96) == 64, "tiles have sizes that it accepts"


def test_what_does_not_fit_goes_through_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Free memory for a tile but not for the picture; smaller pictures go on untiled."""
    model, small, large = make_model("resnet"), make_pixels(2, 64, 64), make_pixels(1, 256, 320)
    plain = EngineJob(EagerEngine(model, CPU))
    wanted = convert_pixels(plain, large)
    per_pixel = batches.bytes_per_pixel(plain)
    reach = max(stage.reach for stage in tiled_job(model, None).tiling.network.stages)  # type: ignore[union-attr]
    free = int(per_pixel * 4 * (64 + 2 * reach) ** 2) + 1
    assert per_pixel * 64 * 64 < free < per_pixel * 256 * 320
    monkeypatch.setattr(batches, "available_memory", lambda: free)
    job = create_job(model, options("auto"), small)
    apart = convert_pixels(job, small).astype(int) - convert_pixels(plain, small)
    assert np.abs(apart).max() <= 1, "rounding: they go in batches of different sizes"
    assert job.describe()["tiles"] == {}
    assert np.abs(convert_pixels(job, large).astype(int) - wanted).max() <= 1
    assert job.describe()["tiles"] == {"320x256": 64}
    assert job.proven_pixels <= 2 * 64 * 64, "what went through in tiles says nothing about whole pictures"
    first = create_job(model, options("auto"), large)
    assert first.tile_edge(256, 320) == 64 and first.verifications[0].passed
    with pytest.raises(batches.OutOfMemoryError, match="320x256 pixels need about"):
        create_job(model, options("off"), large)


def test_a_device_that_runs_short_gets_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a card nothing is known before it fails: nothing is lost then, and built engines give way."""

    class Short(Built):
        runnable = 0

        def layer_by_layer(self, images: Tensor) -> Tensor:
            if images.shape[2] * images.shape[3] > 100 * 100:
                raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
            return super().layer_by_layer(images)

    model, pixels = make_model("resnet"), make_pixels(2, 128, 160)
    wanted = convert_pixels(EngineJob(EagerEngine(model, CPU)), pixels)
    job = EngineJob(Short(model, CPU, "fp32"))
    job.tiling = Tiling(job.engine, None, job.note, Silent())
    got = convert_pixels(job, pixels)
    assert np.abs(got.astype(int) - wanted).max() <= 1
    assert job.tile_edge(128, 160) == 128, "the largest that is smaller than the picture"


def test_tiles_that_are_too_large_become_smaller_until_there_are_none() -> None:
    job = tiled_job(make_model("resnet"), None)
    assert job.tiling is not None
    edges = []
    while job.tiling.take(2000, 2000, 1.0, GIB):
        edges.append(job.tile_edge(2000, 2000))
    assert edges == [512, 256, 128, 64]
    assert not job.tiling.take(64, 64, 1.0, GIB), "a tile is smaller than the picture"
    assert not job.tiling.take(3000, 2000, 1.0, 64 * 64), "a tile with its surroundings has to fit"


class Unknowable(torch.nn.Module):
    """A network that looks at its values, which no tracing follows."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.InstanceNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) if x.mean() > 0 else x


def test_a_network_that_cannot_be_cut() -> None:
    """Asked for, that is an error before the work; otherwise the picture is refused as without tiles."""
    model = Model(make_model("identity").card, Unknowable().eval())
    with pytest.raises(ModelError, match="this network cannot be cut into stages"):
        tiled_job(model, 32)
    job = tiled_job(model, None)
    assert job.tiling is not None and not job.tiling.take(2000, 2000, 1.0, GIB)
    assert job.notes[0].startswith("this network cannot be cut into stages")


def test_values_wait_where_there_is_room_and_are_rounded_last(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = scratch_folder()
    in_float32 = GIB  # bytes that the values take; half of the memory and 80% of the disk may be taken
    for memory, disk, wanted in [
        (2 * GIB, 0, Storage()),
        (GIB, 2 * GIB, Storage(folder=folder, nameless=True)),
        (GIB, GIB, Storage(torch.bfloat16)),
        (GIB // 2, GIB, Storage(torch.bfloat16, folder=folder, nameless=True)),
        (GIB // 2, GIB // 2, None),
    ]:
        monkeypatch.setattr(tiling, "available_memory", lambda memory=memory: memory)
        usage = type("Usage", (), {"free": disk})
        monkeypatch.setattr("shutil.disk_usage", lambda place, usage=usage: usage)
        assert choose_storage(CPU, in_float32 / 4, torch.float32) == wanted


def test_no_room_at_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    job = tiled_job(make_model("resnet"), 32)
    monkeypatch.setattr(tiling, "choose_storage", lambda *_: None)
    with pytest.raises(OutputError, match=r"64x64 pixels in tiles need 0\.0 GiB .* set TMPDIR to a folder"):
        convert_pixels(job, make_pixels(1, 64, 64))


def test_values_in_files_without_names(tmp_path: Path) -> None:
    """Nothing is seen of them while they are in use, so nothing is left however the process ends."""
    model = make_model("resnet")
    job = tiled_job(model, 32)
    assert job.tiling is not None
    network = job.tiling.network
    images, _ = pixels_to_images(make_pixels(1, 64, 96), model.card, CPU)
    seen: list[list[Path]] = []

    def advance(share: float) -> None:
        seen.append(list(tmp_path.iterdir()))

    sink = TensorSink(torch.empty_like(images))
    ready = Stages(network, CPU, torch.float32)
    with torch.inference_mode():
        storage = Storage(folder=tmp_path, nameless=True)
        ExactTiling(ready, 64, 96, 32, storage, advance).run(TensorSource(images), sink)
        assert torch.equal(sink.whole, job(images))
    assert len(seen) == 6 * len(network.stages) and not any(seen)


class Told(Silent):
    """Progress that keeps the stages."""

    def __init__(self) -> None:
        self.stages: list[str | None] = []

    def stage(self, what: str | None) -> None:
        self.stages.append(what)


def test_a_picture_that_takes_long_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "SECONDS_BETWEEN_TELLING", -1.0)
    model, progress = make_model("resnet_plain"), Told()
    job = EngineJob(EagerEngine(model, CPU))
    job.tiling = Tiling(job.engine, 32, job.note, progress)
    convert_pixels(job, make_pixels(1, 32, 96))
    shares = [f"96x32 in tiles, {share}% done" for share in (33, 67, 100)]
    assert progress.stages == [*shares, None]


@pytest.mark.parametrize("tile", ["large", 31, 0, -512, "31"])
def test_tiles_that_make_no_sense(tile: str | int) -> None:
    with pytest.raises(UsageError, match="is unknown: use auto, off, or a number of pixels of at least 32"):
        check_engine_options(options(tile))
