"""Memory that is short while an engine is built, compared or run: less is tried, and no picture is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cgconvert.engines import batches, ready
from cgconvert.engines.batches import (
    OutOfMemoryError,
    bytes_per_pixel,
    choose_batch,
    is_out_of_memory,
    scaled_batch,
)
from cgconvert.engines.building import BuildError
from cgconvert.engines.choose import CLASSES, Candidate
from cgconvert.engines.compiled import CompileEngine
from cgconvert.engines.eager import EagerEngine
from cgconvert.engines.job import EngineJob
from cgconvert.engines.pixels import convert_pixels
from cgconvert.engines.ready import create_job, make_ready, prepare_new_size, verify_what_fits
from cgconvert.engines.verify import Verification
from cgconvert.errors import UnavailableError
from cgconvert.models.loading import Model
from cgconvert.options import EngineOptions
from cgconvert.progress import Silent
from tests.engines.built import SHORT, Built
from tests.engines.models import convert, make_model, make_pixels

CPU = torch.device("cpu")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> type[Built]:
    """The stand-in with nothing tried yet and nothing short; a test may make something short."""
    for name in ("buildable", "runnable", "largest", "flawed", "words", "any_size_error", "any_size_fails"):
        monkeypatch.setattr(Built, name, getattr(Built, name))
    for name in ("tried", "tried_any_size", "ran_any_size"):
        monkeypatch.setattr(Built, name, [])
    return Built


def made_ready(batch: int, monkeypatch: pytest.MonkeyPatch) -> tuple[EngineJob, Built]:
    """The stand-in, ready for pictures of 32x32."""
    monkeypatch.setattr(ready, "build", lambda model, candidate, calibration: Built(model, CPU, "fp32"))
    candidate = Candidate("compile", "fp32", CPU)
    job = make_ready(make_model(), candidate, (32, 32), batch, Silent(), lambda count: [])
    assert isinstance(job.engine, Built)
    return job, job.engine


def test_what_runs_short_goes_layer_by_layer_in_half_the_batch(
    card: type[Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a batch filled up to the whole one that it was built for would need as much memory as before, and
    in mid-run nothing is built."""
    monkeypatch.setattr(card, "runnable", 4)
    job, engine = made_ready(8, monkeypatch)
    pixels = make_pixels(9, 32, 32)
    got = convert_pixels(job, pixels)
    wanted = convert(EagerEngine(make_model(), CPU), pixels)
    assert np.abs(got.astype(int) - wanted).max() <= 1 and got.shape == wanted.shape
    assert card.tried == [(8, 32, 32)] and engine.runners == {}
    assert job.batch == 4
    assert job.notes == ["out of memory with 8 pictures of 32x32: 4 from then on"]


def test_what_is_built_for_other_sizes_stays(card: type[Built], monkeypatch: pytest.MonkeyPatch) -> None:
    _, engine = made_ready(8, monkeypatch)
    engine.prepare(16, 16, 8)
    engine.forget(32, 32, above=4)
    assert list(engine.runners) == [(8, 16, 16)]
    assert engine.built_for(16, 16) and not engine.built_for(32, 32)


def test_a_batch_that_cannot_be_built_is_halved(card: type[Built], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "buildable", 2)
    job, _ = made_ready(9, monkeypatch)
    assert card.tried == [(9, 32, 32), (4, 32, 32), (2, 32, 32)]
    assert job.batch == 2 and len(job.notes) == 2
    assert convert_pixels(job, make_pixels(3, 32, 32)).shape == (3, 32, 32, 3)
    monkeypatch.setattr(card, "buildable", 0)
    with pytest.raises(OutOfMemoryError, match="one picture of 32x32: use a smaller `work_size`"):
        made_ready(2, monkeypatch)


def test_auto_gives_way_where_not_even_one_picture_can_be_built(
    card: type[Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "buildable", 0)
    monkeypatch.setitem(CLASSES, "compile", "tests.engines.built:Built")
    monkeypatch.setattr("cgconvert.engines.choose.AUTO_ENGINES", {"cpu": ("compile", "eager")})
    options = EngineOptions("cpu", precision="fp32")
    job = create_job(make_model(), options, make_pixels(1, 32, 32))
    assert job.engine.name == "eager"
    assert job.notes[0].startswith("compile fp32 on cpu not used: not enough memory on cpu")
    with pytest.raises(OutOfMemoryError):
        create_job(make_model(), EngineOptions("cpu", "compile", "fp32"), make_pixels(1, 32, 32))


def test_weights_that_do_not_fit_are_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(model: Model, candidate: Candidate, calibration: object) -> None:
        raise torch.OutOfMemoryError(SHORT)

    monkeypatch.setattr(ready, "build", build)
    with pytest.raises(OutOfMemoryError, match=r"weights of 'resnet': use `device=.cpu.`"):
        create_job(make_model(), EngineOptions("cpu", "eager", "fp32"), make_pixels(1, 32, 32))


def with_room_to_compare(monkeypatch: pytest.MonkeyPatch, edge: int) -> list[tuple[int, ...]]:
    """Let float32 fit up to pictures of this edge; what is compared."""
    true_verify, seen = ready.verify, []

    def verify(engine: Any, pixels: np.ndarray, run: Any) -> Verification:
        seen.append(pixels.shape[:3])
        if max(pixels.shape[1:3]) > edge:
            raise torch.OutOfMemoryError(SHORT)
        return true_verify(engine, pixels, run)

    monkeypatch.setattr(ready, "verify", verify)
    return seen


def test_a_corner_is_compared_where_float32_does_not_fit(
    card: type[Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = with_room_to_compare(monkeypatch, 160)
    engine = Built(make_model(), CPU, "fp32")
    job = EngineJob(engine)
    engine.prepare(512, 600, 1)
    assert verify_what_fits(job, make_pixels(2, 512, 600)).passed
    assert seen == [(1, 512, 600), (1, 256, 300), (1, 128, 150)]
    assert job.notes == ["compared on 150x128 of 600x512: memory is short for more in float32"]
    assert list(engine.runners) == [(1, 512, 600)], "what was built for the corner gives its place back"
    with_room_to_compare(monkeypatch, 100)
    with pytest.raises(OutOfMemoryError, match="compare compile with the plain network"):
        verify_what_fits(job, make_pixels(1, 512, 600))


def test_each_size_that_is_built_is_compared(card: type[Built], monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose pictures are not those of the model is not used; its pictures go layer by layer."""
    monkeypatch.setattr(card, "flawed", ((40, 48),))
    job, engine = made_ready(2, monkeypatch)
    seen = with_room_to_compare(monkeypatch, 1000)
    for size in ((40, 48), (48, 40)):
        prepare_new_size(job, make_pixels(1, *size), Silent())
    assert seen == [(1, 40, 48), (1, 48, 40)]
    assert list(engine.runners) == [(2, 32, 32), (2, 48, 40)]
    assert [row["size"] for row in job.describe()["verified"]] == [[40, 48]], "what is not used is not told"
    assert len(job.notes) == 1 and "compile for 48x40 has 20.0 dB" in job.notes[0]
    pixels = make_pixels(2, 40, 48)
    wanted = convert(EagerEngine(make_model(), CPU), pixels)
    assert np.abs(convert(engine, pixels, 2).astype(int) - wanted).max() <= 1
    assert card.tried.count((2, 40, 48)) == 1, "it is not built again"


def with_two_sizes(monkeypatch: pytest.MonkeyPatch) -> tuple[EngineJob, Built, list[tuple[int, ...]]]:
    """The stand-in with all that is built one by one; what is compared from now on."""
    job, engine = made_ready(2, monkeypatch)
    prepare_new_size(job, make_pixels(1, 48, 40), Silent())
    assert engine.full and not engine.takes_any_size
    return job, engine, with_room_to_compare(monkeypatch, 1000)


def test_all_further_sizes_go_through_one_thing_that_is_compared_once(
    card: type[Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, engine, seen = with_two_sizes(monkeypatch)
    for size in ((64, 64), (80, 64), (96, 40)):
        prepare_new_size(job, make_pixels(1, *size), Silent())
        pixels = make_pixels(3, *size)
        wanted = convert(EagerEngine(make_model(), CPU), pixels)
        assert np.abs(convert_pixels(job, pixels).astype(int) - wanted).max() <= 1
    assert card.tried == [(2, 32, 32), (2, 48, 40)]
    assert card.tried_any_size == [(2, 64, 68)], "equal sides would be taken for one number"
    assert seen == [(1, 64, 64)]
    assert card.ran_any_size == [
        (1, 64, 64),
        *[(n, *s) for s in ((64, 64), (80, 64), (96, 40)) for n in (2, 1)],
    ]
    assert job.notes == [] and engine.describe()["built_for"] == ["2x32x32", "2x40x48", "any size"]
    assert not engine.built_for(64, 64), "that is for what is built for a size alone"


def test_what_is_wrong_for_any_size_is_given_up(card: type[Built], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "any_size_error", 0.2)
    job, _, seen = with_two_sizes(monkeypatch)
    for size in ((64, 64), (80, 64)):
        prepare_new_size(job, make_pixels(1, *size), Silent())
    assert len(seen) == 1 and len(card.tried_any_size) == 1
    assert job.notes[0] == (
        "compile for any size has 20.0 dB to the plain float32 network, below the bound of 60 dB on 64x64; "
        "further sizes run layer by layer"
    )
    assert job.notes[1:] == ["no more sizes are built for: the others run layer by layer, without compile"]
    pixels = make_pixels(2, 64, 64)
    wanted = convert(EagerEngine(make_model(), CPU), pixels)
    assert np.abs(convert_pixels(job, pixels).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("error", [UnavailableError("no such operator"), torch.OutOfMemoryError(SHORT)])
def test_what_cannot_be_built_for_any_size_ends_no_run(
    card: type[Built], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(card, "any_size_fails", error)
    job, engine, seen = with_two_sizes(monkeypatch)
    for size in ((64, 64), (80, 64)):
        prepare_new_size(job, make_pixels(1, *size), Silent())
    assert len(card.tried_any_size) == 1 and seen == []
    assert engine.describe()["not_for_any_size"] == str(error)
    assert job.notes == ["no more sizes are built for: the others run layer by layer, without compile"]
    assert convert_pixels(job, make_pixels(1, 64, 64)).shape == (1, 64, 64, 3)


def test_any_size_in_half_the_batch_stays_what_it_is(
    card: type[Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _, _ = with_two_sizes(monkeypatch)
    prepare_new_size(job, make_pixels(1, 64, 64), Silent())
    card.ran_any_size.clear()
    monkeypatch.setattr(card, "runnable", 1)
    assert convert_pixels(job, make_pixels(2, 64, 64)).shape == (2, 64, 64, 3)
    assert card.ran_any_size == [(1, 64, 64), (1, 64, 64)] and job.batch == 1
    assert job.notes == ["out of memory with 2 pictures of 64x64: 1 from then on"]


def test_a_size_that_cannot_be_built_does_not_end_the_run(
    card: type[Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, engine = made_ready(2, monkeypatch)

    def fail(self: Built, shape: object, progress: object) -> None:
        raise UnavailableError("no compiler any more")

    monkeypatch.setattr(Built, "_runner", fail)
    prepare_new_size(job, make_pixels(1, 40, 48), Silent())
    told = "compile for 48x40 is given up: no compiler any more; that size runs layer by layer"
    assert job.notes == [told] and job.engine.built_for(32, 32)
    assert convert(engine, make_pixels(1, 40, 48)).shape == (1, 40, 48, 3)


def test_only_a_built_size_is_compared_on_the_whole_picture(
    card: type[Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CLASSES, "compile", "tests.engines.built:Built")
    seen = with_room_to_compare(monkeypatch, 1000)
    for name, compared in (("compile", (1, 40, 48)), ("eager", (1, 32, 32))):
        options = EngineOptions("cpu", name, "fp32", 2)
        create_job(make_model(), options, make_pixels(1, 40, 48), compared_edge=32).close()
        assert seen[-1] == compared
    assert card.tried == [(2, 40, 48)]


def test_a_compiler_that_is_short_of_memory_is_not_taken_for_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(error: Exception) -> None:
        def build(*arguments: object, **more: object) -> None:
            raise error

        monkeypatch.setattr("cgconvert.engines.shaped.build_apart", build)

    fail(torch.OutOfMemoryError(SHORT))
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        CompileEngine(make_model(), CPU, "fp32").prepare(32, 32, 1)
    fail(BuildError("no such operator"))
    with pytest.raises(UnavailableError, match=r"no such operator.*`engine=.eager.`"):
        CompileEngine(make_model(), CPU, "fp32").prepare(32, 32, 1)


def test_an_error_that_follows_from_a_shortage_is_one() -> None:
    """A graph's recording fails once more as it ends, with an error that does not name the reason."""
    with pytest.raises(RuntimeError, match="capture") as caught:
        try:
            raise torch.OutOfMemoryError(SHORT)
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("operation failed due to a previous error during capture"))


def test_nothing_is_built_to_measure_memory(card: type[Built], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a card the network runs layer by layer for it: 256x256 is no size of the job."""
    zeros, runs = torch.zeros, []
    monkeypatch.setattr(torch, "zeros", lambda *shape, device=None: zeros(*shape))

    def peak(work: Any, device: torch.device) -> int:
        runs.append(work().shape)
        return 256 * 256 * 100

    monkeypatch.setattr(batches, "_peak", peak)
    engine = Built(make_model(), CPU, "fp32")
    engine.device = torch.device("cuda")
    job = EngineJob(engine)
    assert bytes_per_pixel(job) == bytes_per_pixel(job) == 100.0
    assert runs == [(1, 3, 256, 256)], "measured once"
    assert card.tried == [] and engine.runners == {}


@pytest.mark.parametrize(("kind", "expected"), [("identity", 60 + 4 * 12), ("resnet", 60 + 4 * 32)])
def test_on_a_processor_layers_are_weighed(kind: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ResNet with 8 channels has 32 bytes a pixel in its largest layer; padding does not count."""
    job = EngineJob(EagerEngine(make_model(kind), CPU))
    assert bytes_per_pixel(job) == expected
    monkeypatch.setattr(batches, "has_bf16", lambda: False)
    assert bytes_per_pixel(EngineJob(EagerEngine(make_model(kind), CPU, "bf16"))) == 2 * expected
    monkeypatch.setattr(batches, "has_bf16", lambda: True)
    assert bytes_per_pixel(EngineJob(EagerEngine(make_model(kind), CPU, "bf16"))) == expected


@pytest.mark.parametrize(
    ("size", "enough", "most", "expected"),
    [
        ((256, 256), 65536, 65536, 1),
        ((256, 257), 65536, 65536, 1),
        ((128, 128), 65536, 65536, 4),
        ((100, 128), 65536, 65536, 5),  # what fits counts, not what would be enough
        ((8, 8), 65536, 65536, 64),
        ((256, 256), 8_000_000, 8_000_000, 64),
        ((1080, 1920), 8_000_000, 20_000_000, 4),
        ((1080, 1920), 8_000_000, 1_000_000, 1),
    ],
)
def test_scaled_batch(size: tuple[int, int], enough: int, most: int, expected: int) -> None:
    assert scaled_batch(*size, enough, most) == expected


def test_a_card_gets_a_batch_that_keeps_it_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = EagerEngine(make_model(), CPU)
    engine.device, engine.streams = torch.device("cuda"), 1
    job = EngineJob(engine, pixel_bytes=100.0)
    monkeypatch.setattr(batches, "free_memory", lambda device: 80 * 10**9)
    assert [choose_batch(job, *size) for size in ((1080, 1920), (360, 640), (64, 64))] == [5, 37, 64]
    monkeypatch.setattr(batches, "free_memory", lambda device: 10**9)
    assert choose_batch(job, 1080, 1920) == 3


class Memory:
    """A card's memory as torch tells of it; sizes in MiB."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: int, total: int = 1000, ooms: int = 0) -> None:
        self.free, self.total, self.ooms = free, total, ooms
        self.segments: list[dict[str, Any]] = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (self.free << 20, self.total << 20))
        monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: {"num_ooms": self.ooms})
        monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: self.segments)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)

    def keep(self, total: int, active: int, device: int = 0, pool: tuple[int, int] = (0, 0)) -> None:
        """A segment that torch has allocated; tensors take `active` of it."""
        self.segments.append(
            {
                "device": device,
                "segment_pool_id": pool,
                "total_size": total << 20,
                "active_size": active << 20,
            }
        )


VAGUE = (
    "GET was unable to find an engine to execute this computation",
    "run_func_(container_handle_, inputs) API call failed at model_container_runner.cpp, line 145",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
)


@pytest.mark.parametrize("text", VAGUE)
def test_libraries_say_in_other_words_that_memory_is_short(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same words come where something else is wrong; torch's own count of failed allocations tells."""
    error = RuntimeError(text)
    assert not is_out_of_memory(error), "nothing has run on a card"
    memory = Memory(monkeypatch, free=500)
    assert not is_out_of_memory(error), "half of the card is free, and every allocation went well"
    memory.ooms = 1
    assert is_out_of_memory(error)
    memory.ooms, memory.free = 0, 10
    assert is_out_of_memory(error)
    assert not is_out_of_memory(RuntimeError("a kernel failed"))
    memory.free = 500
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))


def test_a_library_that_is_short_halves_the_batch(card: type[Built], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "runnable", 4)
    job, _ = made_ready(8, monkeypatch)
    monkeypatch.setattr(card, "words", (RuntimeError, VAGUE[1]))
    Memory(monkeypatch, free=500, ooms=2)
    assert convert_pixels(job, make_pixels(9, 32, 32)).shape == (9, 32, 32, 3)
    assert job.batch == 4 and job.notes == ["out of memory with 8 pictures of 32x32: 4 from then on"]


def test_one_picture_that_does_not_fit_a_built_engine_goes_layer_by_layer(
    card: type[Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(card, "runnable", 0)
    job, engine = made_ready(1, monkeypatch)
    pixels = make_pixels(2, 32, 32)
    got = convert_pixels(job, pixels)
    wanted = convert(EagerEngine(make_model(), CPU), pixels)
    assert np.abs(got.astype(int) - wanted).max() <= 1
    assert job.notes == ["out of memory with compile for 32x32: layer by layer from then on"]
    assert engine.runners == {} and card.tried == [(1, 32, 32)] and job.batch == 1


def test_memory_of_graphs_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(monkeypatch, free=100)
    memory.keep(40, 30)
    memory.keep(64, 0, pool=(0, 1))
    memory.keep(500, 0, device=1)
    assert batches.free_memory(torch.device("cuda", 0)) == 110 << 20


def test_frames_that_are_large_outside_of_the_network_go_in_smaller_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """37 frames of 640x360 keep a card busy; of a 4K video they would be 440 MiB on each side, and much more
    while they are converted."""
    engine = EagerEngine(make_model(), CPU)
    engine.device, engine.streams = torch.device("cuda"), 1
    job = EngineJob(engine, pixel_bytes=100.0)
    monkeypatch.setattr(batches, "free_memory", lambda device: 80 * 10**9)
    full_hd, ultra_hd = 1920 * 1080 * 3 // 2, 3840 * 2160 * 3 // 2
    assert choose_batch(job, 360, 640, full_hd) == 37
    assert [choose_batch(job, 360, 640, n * ultra_hd) for n in (1, 2, 1000)] == [10, 5, 1]
    monkeypatch.setattr(batches, "free_memory", lambda device: 10**9)
    wanted = int(0.7 * 10**9 / (100 * 360 * 640 + 32 * ultra_hd))
    assert choose_batch(job, 360, 640, ultra_hd) == wanted == 1
    engine.device, engine.streams = CPU, 2
    assert choose_batch(job, 360, 640, 1 << 40) == 2, "a processor has one memory for all"
