"""A video on several devices, for which engines on the processor stand: the same file as from one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgconvert.engines.kept import KeptEngine
from cgconvert.engines.translator import Translator
from cgconvert.errors import UnavailableError
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.progress import Silent
from cgconvert.video.pipeline import run_video
from cgconvert.video.plan import plan_video
from cgconvert.video.report import VideoReport
from cgconvert.video.route import choose_route
from tests.video.clips import Clip, Facts, make_clip, read_facts


def converted(source: Path, device: str, as_planes: bool = False) -> tuple[VideoReport, Facts]:
    """The report of a video that a network has converted in batches of two, and what it holds."""
    output = source.with_name(f"{device}.mkv")
    engine = EngineOptions(device, "eager", "fp32", 2)
    plan = plan_video(source, output, "photo2monet-fast", VideoOptions(codec="ffv1"), engine)
    assert (plan.route.device, plan.route.others) == ("cpu", ("cpu",) * device.count(","))
    plan = choose_route(plan, plan.route.device, as_planes, plan.route.others)
    report = run_video(plan, Silent())
    return report, read_facts(output)


def assert_same(got: Facts, wanted: Facts) -> None:
    """The same packets at the same times; the files themselves have numbers of their own."""
    assert (got.pts, got.packets) == (wanted.pts, wanted.packets)
    assert all(np.array_equal(*pair) for pair in zip(got.pictures, wanted.pictures, strict=True))


@pytest.mark.parametrize("as_planes", [False, True], ids=["rgb", "planes"])
def test_several_devices_make_the_same_video(tmp_path: Path, as_planes: bool) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(audio="aac"))
    alone, wanted = converted(source, "cpu", as_planes)
    together, got = converted(source, "cpu,cpu", as_planes)
    assert_same(got, wanted)
    assert together.frames_out == alone.frames_out == alone.frames_in > 4
    rows = together.engine["devices"]
    assert [row["failed"] for row in rows] == [False, False]
    assert sum(row["frames"] for row in rows) == together.frames_out
    assert "devices" not in alone.engine


def test_a_device_that_fails_in_mid_video_costs_no_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip())
    _, wanted = converted(source, "cpu")
    begin = Translator._begin
    lost = threading.Event()

    def begun(self: Translator[Any], frames: Sequence[Any]) -> Any:
        if not lost.is_set():
            lost.set()
            raise RuntimeError("CUDA error: unspecified launch failure")
        return begin(self, frames)

    monkeypatch.setattr(Translator, "_begin", begun)
    report, got = converted(source, "cpu,cpu")
    assert_same(got, wanted)
    assert sorted(row["failed"] for row in report.engine["devices"]) == [False, True]
    assert "cpu failed (CUDA error: unspecified launch failure)" in report.engine["notes"][0]


def test_a_device_that_failed_has_no_part_in_the_next_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip())
    options, engine = VideoOptions(codec="ffv1"), EngineOptions("cpu,cpu", "eager", "fp32", 2)
    begin = Translator._begin
    lost: list[object] = []

    def begun(self: Translator[Any], frames: Sequence[Any]) -> Any:
        if not lost or lost[0] is self:
            lost[:] = [self]
            raise RuntimeError("CUDA error: unspecified launch failure")
        return begin(self, frames)

    monkeypatch.setattr(Translator, "_begin", begun)
    reports: list[VideoReport] = []
    with KeptEngine() as engines:
        for name in ("one.mkv", "two.mkv"):
            plan = plan_video(source, tmp_path / name, "photo2monet-fast", options, engine)
            reports.append(run_video(plan, Silent(), engines))
        (number,) = engines.lost
    assert [row["failed"] for row in reports[0].engine["devices"]] == [number == 0, number == 1]
    assert "devices" not in reports[1].engine
    assert_same(read_facts(tmp_path / "two.mkv"), read_facts(tmp_path / "one.mkv"))


def test_frames_for_several_cards_come_from_host_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    source = make_clip(tmp_path / "in.mp4", Clip())
    plan = plan_video(source, tmp_path / "out.mp4", "identity", VideoOptions(), EngineOptions("cuda:0,1"))
    route = plan.route
    assert (route.device, route.others) == ("cuda:0", ("cuda:1",))
    assert route.target is not None and not route.target.on_card
    assert (route.decoding_card, route.encoding_card) == (None, None)
    assert route.notes == ("frames as YUV planes, converted on cuda:0, cuda:1",)
    assert any("device cuda:0, cuda:1, engine auto" in line for line in plan.describe())
    with pytest.raises(UnavailableError, match="is for one device"):
        plan_video(
            source, tmp_path / "out.mp4", "identity", VideoOptions(decoder="nvdec"), EngineOptions("all")
        )
