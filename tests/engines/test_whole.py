"""Frames from planes to planes in one: equal to the steps, given up where it must be, and nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cgconvert.engines import whole as whole_module
from cgconvert.engines.compiled import CompileEngine
from cgconvert.engines.eager import EagerEngine
from cgconvert.engines.flat import FlatFrames, contrast
from cgconvert.engines.graphs import record_graph
from cgconvert.engines.job import EngineJob
from cgconvert.engines.planes import PlaneFrames, PlaneTarget
from cgconvert.engines.shaped import HalfInside
from cgconvert.engines.through import Passage, Through, graph_of
from cgconvert.engines.translator import STAGES, Translator
from cgconvert.engines.whole import WORTH_BUILDING, WholePass, whole_pass, why_in_steps
from cgconvert.errors import UnavailableError
from cgconvert.finish import Finish
from cgconvert.frames import PlaneFrame, YuvFormat
from cgconvert.host.channels import StageClock
from cgconvert.models.files import write_model
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.progress import Silent
from cgconvert.tensors.transfers import HostTransfers
from tests.engines.cuda import Cuda, cuda
from tests.engines.models import make_model, make_pixels
from tests.video.clips import Clip, make_clip
from tests.video.test_planes import convert, differences

__all__ = ["cuda"]
CPU = torch.device("cpu")
FORM = YuvFormat(8, 2, 2, 0.2126, 0.0722, False, (0.0, 0.5))
NV12 = replace(FORM, interleaved=True)
TARGET = PlaneTarget(FORM, (48, 32), (24, 16))


def frame(
    number: int, form: YuvFormat = FORM, height: int = 32, width: int = 48, flat: bool = False
) -> PlaneFrame:
    """A picture of many levels, or one of a single level."""
    random = np.random.default_rng(number)
    planes = [random.integers(16, 235, shape).astype(np.uint8) for shape in form.shapes(height, width)]
    planes = [np.full_like(plane, 90) for plane in planes] if flat else planes
    return PlaneFrame(planes, form, width, height, number, 1)


@pytest.mark.parametrize("kind", ["h2", "h2_noise", "resnet_gray"])
@pytest.mark.parametrize(
    "passage",
    [
        Passage(FORM, (32, 48), TARGET),
        Passage(NV12, (32, 48), PlaneTarget(replace(FORM, full_range=True, sub_y=1), (32, 48), (32, 46), 90)),
        Passage(NV12, (32, 48), replace(TARGET, finish=Finish(0.7, True))),
        Passage(FORM, (32, 48), replace(TARGET, finish=Finish(1.0, False))),
    ],
)
def test_all_in_one_is_what_the_steps_are(kind: str, passage: Passage) -> None:
    """The very operations, also in the graph that torch makes of them for the compilers."""
    model = make_model(kind)
    kept = Passage.from_dict(json.loads(json.dumps(passage.to_dict())))
    assert kept == passage
    through = Through(HalfInside(model.generator, torch.float32), model.card, kept)
    frames = [frame(number, passage.source) for number in range(2)]
    steps = PlaneFrames(passage.target, model.card, HostTransfers())
    with torch.inference_mode():
        sources = steps.upload(frames)
        images, crop = steps.to_images(sources, frames)
        wanted = steps.to_stored(model.generator(images), crop, frames, sources)
    got = graph_of(through, kept.examples(2, CPU)).module()(*(one.clone() for one in sources))
    *planes, contrasts = got
    assert [plane.dtype for plane in planes] == [torch.uint8] * 3
    for one, other in zip(planes, wanted, strict=True):
        assert (one.int() - other.int()).abs().max() <= 1, "a sum in another order may be rounded otherwise"
    assert torch.allclose(contrasts, contrast(images), atol=1e-5)


class Stand(CompileEngine):
    """Runs layer by layer in the place of what is built; `short` runs out of memory in one."""

    short = False
    fails: Exception | None = None
    error = 0
    asked: list[tuple[int, int]]

    def prepare(self, height: int, width: int, batch: int, progress: object = None) -> None:
        self.runners[1, height, width] = self.layer_by_layer

    def together(self, batch: int) -> int:
        return batch

    def _in_parts(self, images: Tensor, size: int) -> Tensor:
        return self.layer_by_layer(images)

    def through_planes(self, passage: Passage, batch: int, progress: object) -> Any:
        if self.fails is not None:
            raise self.fails
        assert self.network is not None
        through = Through(self.network, self.model.card, passage)

        def run(*planes: Tensor) -> Sequence[Tensor]:
            self.asked.append((batch, len(planes[0])))
            if self.short:
                raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
            *stored, contrasts = through(*planes)
            return [*(plane + self.error for plane in stored), contrasts]

        self.planes = run
        return run


def setting(kind: str = "h2", batch: int = 2, target: PlaneTarget = TARGET) -> tuple[EngineJob, PlaneFrames]:
    engine = Stand(make_model(kind), CPU, "fp32")
    engine.asked = []
    engine.prepare(16, 24, batch)
    return EngineJob(engine, batch), PlaneFrames(target, engine.model.card, HostTransfers())


def translator_of(
    job: EngineJob, kind: PlaneFrames, whole: WholePass | None, flat: FlatFrames | None = None
) -> Translator[PlaneFrame]:
    return Translator(job, kind, StageClock(dict.fromkeys(STAGES, "translate")), flat, whole)


def results_of(translator: Translator[PlaneFrame], frames: Sequence[PlaneFrame]) -> list[PlaneFrame]:
    return [*translator.translate(frames), *translator.finish()]


def gap(first: Sequence[PlaneFrame], second: Sequence[PlaneFrame]) -> int:
    assert [one.pts for one in first] == [one.pts for one in second]
    pairs = [
        pair
        for one, other in zip(first, second, strict=True)
        for pair in zip(one.planes, other.planes, strict=True)
    ]
    return max(int(np.abs(one.astype(int) - other).max()) for one, other in pairs)


def test_batches_are_filled_up_and_frames_keep_their_order() -> None:
    job, kind = setting()
    frames = [frame(number) for number in range(5)]
    wanted = results_of(translator_of(job, kind, None), frames)
    whole = whole_pass(job, kind, frames[:1], WORTH_BUILDING, Silent())
    assert whole is not None and job.notes == ["frames go from planes to planes in one"]
    job.engine.asked.clear()  # type: ignore[attr-defined]
    assert gap(results_of(translator_of(job, kind, whole), frames), wanted) <= 1
    assert job.engine.asked == [(2, 2)] * 3  # type: ignore[attr-defined]
    job.batch = 8  # a batch that has grown since goes through in parts
    assert gap(results_of(translator_of(job, kind, whole), frames), wanted) <= 1


def test_frames_of_another_kind_go_in_steps() -> None:
    job, kind = setting()
    whole = whole_pass(job, kind, [frame(0)], WORTH_BUILDING, Silent())
    others = [frame(number, NV12) for number in range(2)]
    job.engine.asked.clear()  # type: ignore[attr-defined]
    results = results_of(translator_of(job, kind, whole), others)
    assert len(results) == 2 and job.engine.asked == []  # type: ignore[attr-defined]


def test_flat_frames_go_in_steps_and_keep_their_help() -> None:
    job, kind = setting()
    samples = list(make_pixels(8, 16, 24))
    flats = [FlatFrames(job.engine, lambda count: samples, job.note) for _ in range(2)]
    frames = [frame(0), frame(1), frame(2, flat=True), frame(3)]
    wanted = results_of(translator_of(job, kind, None, flats[0]), frames)
    whole = whole_pass(job, kind, frames[:1], WORTH_BUILDING, Silent())
    got = results_of(translator_of(job, kind, whole, flats[1]), frames)
    assert gap(got, wanted) <= 1
    assert gap(got[2:], wanted[2:]) == 0, "the batch with the flat one has gone in steps"
    assert any("flat frames" in note for note in job.notes)


def test_memory_that_runs_short_in_one_leads_back_to_steps() -> None:
    job, kind = setting()
    frames = [frame(number) for number in range(4)]
    wanted = results_of(translator_of(job, kind, None), frames)
    whole = whole_pass(job, kind, frames[:1], WORTH_BUILDING, Silent())
    job.engine.short = True  # type: ignore[attr-defined]
    translator = translator_of(job, kind, whole)
    assert gap(results_of(translator, frames), wanted) == 0
    assert translator.whole is None and job.engine.planes is None, "its memory is given back"  # type: ignore[attr-defined]
    assert job.notes[1:] == ["out of memory from planes to planes in one: in steps from then on"]
    assert job.batch == 2, "the batch by itself is not too much"


@pytest.mark.parametrize("fails", [UnavailableError("no compiler"), torch.OutOfMemoryError("no memory")])
def test_what_cannot_be_built_goes_in_steps(fails: Exception) -> None:
    job, kind = setting()
    job.engine.fails = fails  # type: ignore[attr-defined]
    assert whole_pass(job, kind, [frame(0)], WORTH_BUILDING, Silent()) is None
    assert job.notes == [f"frames go from planes to planes in steps: {fails}"]


def test_what_is_not_equal_goes_in_steps() -> None:
    job, kind = setting()
    job.engine.error = 5  # type: ignore[attr-defined]
    assert whole_pass(job, kind, [frame(0)], WORTH_BUILDING, Silent()) is None
    (note,) = job.notes
    assert note == "frames go from planes to planes in steps: in one they are at 34.2 dB"


def test_why_frames_go_in_steps() -> None:
    job, kind = setting()
    assert why_in_steps(job, kind, frame(0), WORTH_BUILDING) is None
    assert why_in_steps(job, kind, frame(0), WORTH_BUILDING - 1) == "the video is too short for it"
    deep = replace(frame(0), format=replace(FORM, depth=10))
    assert why_in_steps(job, kind, deep, WORTH_BUILDING) == "they have more than 8 bits"
    tone: Any = object()
    _, bright = setting(target=replace(TARGET, to_hdr=tone))
    assert why_in_steps(job, bright, frame(0), WORTH_BUILDING) == "they are of high dynamic range"
    _, larger = setting(target=replace(TARGET, work_size=(48, 32)))
    assert why_in_steps(job, larger, frame(0), WORTH_BUILDING) == "nothing is built for their size"
    eager = EngineJob(EagerEngine(make_model("h2"), CPU), 2)
    assert why_in_steps(eager, kind, frame(0), WORTH_BUILDING) == "eager takes images"


def test_several_inputs_and_results_are_recorded_as_one(cuda: Cuda) -> None:
    planes = [torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2, 2, 2, 2, dtype=torch.uint8)]
    recorded = record_graph(lambda luma, chroma: (luma + 1, chroma + 2), *planes)
    results = recorded(planes[0] + 7, planes[1] + 9)
    assert [int(fixed.unique()) for fixed in recorded.fixed_inputs] == [7, 9] and cuda.replays == 1
    assert [one.shape for one in results] == [one.shape for one in planes]
    assert all(one is not fixed for one, fixed in zip(results, recorded.fixed_output, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("traced", [False, True])
def test_a_video_through_the_real_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traced: bool
) -> None:
    """Ahead of time, and as without NVIDIA's toolkit; a processor's frames go as planes if forced."""
    if traced:
        made = CompileEngine.__init__

        def init(self: CompileEngine, *given: Any) -> None:
            made(self, *given)
            self.why_traced = "there is no CUDA toolkit (CUDA_HOME)"

        monkeypatch.setattr(CompileEngine, "__init__", init)
        monkeypatch.setattr(
            "cgconvert.engines.shaped.build_apart",
            lambda engine, folder, **order: engine.write(folder, **order),
        )
    model = make_model("h2")
    path = tmp_path / "h2.safetensors"
    write_model(path, model.card, model.generator.state_dict())
    source = make_clip(tmp_path / "in.mkv", Clip())
    found = []
    for enough in (1 << 60, 0):
        monkeypatch.setattr(whole_module, "WORTH_BUILDING", enough)
        options = VideoOptions(codec="ffv1", work_size="0.5x")
        engine = EngineOptions("cpu", "compile", "fp32", 3)
        found.append(convert(source, tmp_path / f"{enough}.mkv", str(path), options, engine, True))
    (steps, before), (in_one, after) = found
    note = "frames go from planes to planes in one"
    assert note in in_one.engine["notes"] and note not in steps.engine["notes"]
    assert after.pts == before.pts and differences(after, before)[0] <= 1
