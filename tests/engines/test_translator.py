"""Frames through the network: in order, one batch in flight, nothing lost; copies here arrive late."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from cgconvert.engines.batches import OutOfMemoryError
from cgconvert.engines.eager import EagerEngine
from cgconvert.engines.job import EngineJob
from cgconvert.engines.pixels import PixelFrames
from cgconvert.engines.planes import PlaneFrames, PlaneTarget, _joined, blank_planes
from cgconvert.engines.translator import STAGES, Translator
from cgconvert.frames import Frame, PlaneFrame, YuvFormat
from cgconvert.host.channels import StageClock
from cgconvert.tensors.images import images_to_tensor
from cgconvert.tensors.transfers import HostTransfers, Transfers, taken_over, transfers_for
from tests.engines.cuda import NoUnsigned
from tests.engines.models import make_model, make_pixels

FORM = YuvFormat(8, 2, 2, 0.2126, 0.0722, False)


class SlowArrival:
    """Tensors that are not there before somebody waits."""

    is_here = False

    def __init__(self, parts: Sequence[Tensor], told: Callable[[str], None]) -> None:
        self.parts, self.told = list(parts), told

    def wait(self) -> list[Tensor]:
        self.told("landed")
        return self.parts


class SlowTransfers(HostTransfers):
    """Writes down what is asked of it; a batch has landed only once somebody has waited for it."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def upload(self, parts: Sequence[Tensor]) -> list[Tensor]:
        self.events.append(f"upload {len(parts[0])}")
        return super().upload(parts)

    def download(self, parts: Sequence[Tensor], stay: bool = False) -> Any:
        self.events.append("download")
        return SlowArrival(parts, self.events.append)


def frame(number: int, height: int = 16, width: int = 16) -> PlaneFrame:
    """A gray picture as bright as its number."""
    shapes = FORM.shapes(height, width)
    planes = [np.full(shape, 128 if index else 20 + number, np.uint8) for index, shape in enumerate(shapes)]
    return PlaneFrame(planes, FORM, width, height, number, 1)


class Counting(EagerEngine):
    """The identity, which writes down when it computes and has room for so many pictures at once."""

    room = 100
    events: list[str]

    def __call__(self, images: Tensor) -> Tensor:
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
        self.events.append(f"compute {len(images)}")
        return super().__call__(images)


def translator_of(job: EngineJob, target: PlaneTarget, transfers: Transfers) -> Translator[PlaneFrame]:
    kind = PlaneFrames(target, job.engine.model.card, transfers)
    return Translator(job, kind, StageClock(dict.fromkeys(STAGES, "translate")))


def setting(batch: int) -> tuple[EngineJob, Translator[PlaneFrame], SlowTransfers]:
    """A job with its engine, a translator and its transfers."""
    engine = Counting(make_model("identity"), torch.device("cpu"))
    transfers = SlowTransfers()
    engine.events = transfers.events
    job = EngineJob(engine, batch)
    return job, translator_of(job, PlaneTarget(FORM, (16, 16), (16, 16)), transfers), transfers


def brightness(results: Sequence[Any]) -> list[int]:
    """The number that each picture shows."""
    return [int(np.median(result.planes[0])) - 20 for result in results]


def test_one_batch_is_always_in_flight() -> None:
    """Each batch is uploaded and computing before anybody waits for the one before it."""
    _, translator, transfers = setting(2)
    results: list[Any] = []
    for start in (0, 2, 4):
        results += translator.translate([frame(start), frame(start + 1)])
        assert len(results) == start, "the batch that was just given is still out"
    results += translator.translate([frame(6)])
    results += translator.finish()
    begin = ["upload 2", "compute 2", "download"]
    assert transfers.events == [
        *begin,
        *begin,
        "landed",
        *begin,
        "landed",
        "upload 1",
        "compute 1",
        "download",
        "landed",
        "landed",
    ]
    assert [result.pts for result in results] == brightness(results) == list(range(7))
    assert list(translator.finish()) == []


def test_on_a_processor_no_batch_waits() -> None:
    """What is there already is handed on, so that the encoder has work while the next batch is computed."""
    job, _, _ = setting(2)
    assert isinstance(job.engine, Counting)
    translator = translator_of(job, PlaneTarget(FORM, (16, 16), (16, 16)), HostTransfers())
    assert brightness(list(translator.translate([frame(0), frame(1)]))) == [0, 1]
    assert list(translator.finish()) == []


def test_pixels_of_one_padded_size_go_together() -> None:
    """Each picture comes back in its own size, with its times and its source."""
    job = EngineJob(EagerEngine(make_model("h2"), torch.device("cpu")), 3)
    kind = PixelFrames(job.engine.model.card, HostTransfers())
    clock = StageClock(dict.fromkeys(STAGES, "translate"))
    translator = Translator(job, kind, clock)
    pictures = [make_pixels(1, *size, seed)[0] for seed, size in enumerate([(17, 30), (20, 32), (18, 31)])]
    frames = [Frame(picture, 7 * number, 2, picture) for number, picture in enumerate(pictures)]
    together = list(translator.translate(frames))
    alone = [result for one in frames for result in translator.translate([one])]
    for number, (mine, own) in enumerate(zip(together, alone, strict=True)):
        assert mine.pixels.shape == pictures[number].shape
        assert np.abs(mine.pixels.astype(int) - own.pixels).max() <= 1
        assert (mine.pts, mine.duration) == (7 * number, 2) and mine.source is pictures[number]
    assert all(seconds > 0 for seconds in clock.seconds.values())
    with pytest.raises(ValueError, match="one kind"):
        list(translator.translate([frames[0], Frame(make_pixels(1, 40, 40)[0], 0)]))


@pytest.mark.parametrize("room", [1, 2, 3, 5])
def test_short_memory_halves_the_batch_and_loses_no_frame(room: int) -> None:
    job, translator, _ = setting(6)
    assert isinstance(job.engine, Counting)
    job.engine.room = room
    results: list[Any] = []
    for start in (0, 6, 12):
        results += translator.translate([frame(start + n) for n in range(6 if start < 12 else 2)])
    results += translator.finish()
    assert [result.pts for result in results] == brightness(results) == list(range(14))
    assert job.batch <= room
    assert job.notes[0] == "out of memory with 6 pictures of 16x16: 3 from then on"


def test_memory_for_not_even_one_frame_is_an_error_and_others_stay_errors() -> None:
    job, translator, _ = setting(4)
    assert isinstance(job.engine, Counting)
    job.engine.room = 0
    with pytest.raises(OutOfMemoryError, match="one picture of 16x16"):
        list(translator.translate([frame(n) for n in range(4)]))

    class Broken(Counting):
        def __call__(self, images: Tensor) -> Tensor:
            raise RuntimeError("a kernel failed")

    job.engine = Broken(make_model("identity"), torch.device("cpu"))
    with pytest.raises(RuntimeError, match="kernel failed"):
        list(translator.translate([frame(0)]))


def test_a_batch_in_flight_gives_way_before_a_single_frame_is_refused() -> None:
    """Memory for one frame, which the frame before still takes: it lands, and the same frame goes again."""
    job, translator, transfers = setting(1)

    class Crowded(Counting):
        def __call__(self, images: Tensor) -> Tensor:
            if transfers.events.count("download") > transfers.events.count("landed"):
                raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
            return super().__call__(images)

    job.engine = crowded = Crowded(make_model("identity"), torch.device("cpu"))
    crowded.events = transfers.events
    results = [done for n in range(4) for done in translator.translate([frame(n)])]
    results += translator.finish()
    assert brightness(results) == list(range(4))
    assert job.notes == []


def test_a_frame_that_does_not_fit_does_not_take_others_with_it() -> None:
    """Everything before it is out when the error comes, and the translator goes on with what follows."""
    job, translator, _ = setting(1)

    class Picky(Counting):
        def __call__(self, images: Tensor) -> Tensor:
            if images.max() > 0.9:
                raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
            return super().__call__(images)

    bright = replace(frame(2), planes=[np.full_like(plane, 235) for plane in frame(2).planes])
    events = job.engine.events  # type: ignore[attr-defined]
    job.engine = Picky(make_model("identity"), torch.device("cpu"))
    job.engine.events = events
    results: list[Any] = []
    with pytest.raises(OutOfMemoryError):
        for result in translator.translate([frame(0), frame(1), bright, frame(3)]):
            results.append(result)
    assert brightness(results) == [0, 1] and translator.flight is None
    results += [*translator.translate([frame(3)]), *translator.finish()]
    assert brightness(results) == [0, 1, 3]


def test_frames_of_two_kinds_are_no_batch() -> None:
    _, translator, _ = setting(2)
    with pytest.raises(ValueError, match="one kind"):
        list(translator.translate([frame(0), frame(1, 8, 8)]))


def test_gray_networks_get_luma_and_give_gray() -> None:
    job = EngineJob(EagerEngine(make_model("resnet_gray"), torch.device("cpu")))
    translator = translator_of(job, PlaneTarget(FORM, (37, 21), (37, 21)), HostTransfers())
    results: list[Any] = list(translator.translate([frame(3, 21, 37)]))
    assert results[0].planes[0].shape == (21, 37)
    assert set(np.unique(results[0].planes[1])) <= {127, 128, 129}


def test_planes_for_the_encoder_on_the_card_lie_as_it_reads_them() -> None:
    """Luma and chroma in one memory, chroma below luma, rows of both at the same multiple of 256 bytes."""
    for dtype, unit in ((torch.uint8, 1), (torch.uint16, 2)):
        luma = torch.arange(2 * 6 * 300).reshape(2, 6, 300).remainder(251).to(dtype)
        chroma = torch.arange(2 * 3 * 150 * 2).reshape(2, 3, 150, 2).remainder(241).to(dtype)
        rows, pairs = _joined([luma, chroma])
        assert torch.equal(rows, luma)
        assert torch.equal(pairs, chroma)
        pitch = rows.stride(1)
        assert pitch * unit % 256 == 0
        assert (pairs.stride(1), pairs.stride(2), pairs.stride(3)) == (pitch, 2, 1)
        assert pairs[1].data_ptr() - rows[1].data_ptr() == 6 * pitch * unit
        name = "nv12" if unit == 1 else "p010le"
        picture = av.VideoFrame.from_dlpack((rows[1], pairs[1]), name, 300, 6)
        assert picture.planes[0].line_size == pitch * unit
        stored = np.frombuffer(memoryview(picture.planes[1]), np.uint8 if unit == 1 else np.uint16)
        assert stored.reshape(3, pitch)[:, :300].tolist() == chroma[1].reshape(3, 300).tolist()


def test_planes_come_from_the_decoder_by_dlpack_as_they_are() -> None:
    """The way that frames of NVDEC take, with frames in host memory; what the decoder does with its memory
    afterwards is not seen."""
    for name, dtype in (("nv12", np.uint8), ("p010le", np.uint16)):
        picture = av.VideoFrame(64, 32, name)
        wanted = []
        for number, plane in enumerate(picture.planes):
            view = np.frombuffer(memoryview(plane), dtype)
            view[:] = np.arange(len(view)) * 199 % (250 if dtype == np.uint8 else 65000) + number
            wanted.append(view.reshape(plane.height, -1)[:, :64].copy())
        form = replace(FORM, interleaved=True, depth=8 if dtype == np.uint8 else 10)
        taken = [taken_over(plane) for plane in picture.planes]
        for plane in picture.planes:
            np.frombuffer(memoryview(plane), dtype)[:] = 0
        given = PlaneFrame(taken, form, 64, 32, 0, 0, on_card=True)
        target = PlaneTarget(form, (64, 32), (64, 32))
        kind = PlaneFrames(target, make_model("identity").card, HostTransfers())
        luma, chroma = kind.upload([given, given])
        assert chroma.shape == (2, 16, 32, 2)
        np.testing.assert_array_equal(luma[1].numpy(), wanted[0])
        np.testing.assert_array_equal(chroma[1].numpy().reshape(16, 64), wanted[1])


@pytest.mark.needs_cuda
def test_a_card_gives_the_same_planes_as_the_processor() -> None:
    """Many batches, so that copies and computing overlap; the same float32, so the same to one level."""
    device = torch.device("cuda", 0)
    random = np.random.default_rng(0)
    shapes = FORM.shapes(270, 480)
    frames = [
        PlaneFrame([random.integers(16, 235, shape, np.uint8) for shape in shapes], FORM, 480, 270, n)
        for n in range(50)
    ]
    ways = {}
    for where in (torch.device("cpu"), device):
        job = EngineJob(EagerEngine(make_model("identity"), where), 4)
        target = PlaneTarget(FORM, (480, 270), (320, 180))
        translator = translator_of(job, target, transfers_for(where))
        results: list[Any] = []
        for start in range(0, 50, 4):
            results += translator.translate(frames[start : start + 4])
        results += translator.finish()
        assert [result.pts for result in results] == list(range(50))
        ways[where.type] = results
    for mine, theirs in zip(ways["cuda"], ways["cpu"], strict=True):
        for new, old in zip(mine.planes, theirs.planes, strict=True):
            assert np.abs(new.astype(int) - old.astype(int)).max() <= 1


def test_no_device_has_to_know_more_of_16_unsigned_bits_than_to_copy_them() -> None:
    """CUDA neither indexes nor joins nor fills them: `index_cuda` and others are not made for UInt16."""
    card = make_model("h2").card
    deep = replace(FORM, depth=10, interleaved=True, high_bits=True)
    picture = torch.from_numpy(make_pixels(1, 21, 37)[0].astype(np.uint16) * 257)
    shapes = deep.shapes(20, 36)
    planes = [torch.from_numpy(np.full(shape, 512 << 6, np.uint16)) for shape in shapes]
    cpu = torch.device("cpu")

    def results() -> list[Tensor]:
        kind = PlaneFrames(PlaneTarget(deep, (36, 20), (37, 21), on_card=True), card, HostTransfers())
        frames = [PlaneFrame(planes, deep, 36, 20, number, on_card=True) for number in range(2)]
        images, crop = kind.to_images(kind.upload(frames), frames)
        pixels = PixelFrames(card, HostTransfers(), 10)
        again, whole = pixels.to_images([picture[None]], [])
        return [
            *kind.to_stored(images, crop, frames, []),
            images_to_tensor(again, whole, torch.uint16, 10),
            *blank_planes(deep, 20, 36, cpu),
        ]

    wanted = results()
    with NoUnsigned():
        got = results()
        with pytest.raises(NotImplementedError, match="index"):
            picture[torch.tensor([1, 0])]
    for mine, theirs in zip(got, wanted, strict=True):
        assert mine.dtype == torch.uint16 and torch.equal(mine, theirs)
    assert abs(int(wanted[2].int().sum()) - int(picture.int().sum())) < 21 * 37 * 3 * 40
