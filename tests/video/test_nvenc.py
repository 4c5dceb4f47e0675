"""Which encoder a video gets whose frames are on a card: NVENC where nothing speaks against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cgconvert.errors import UnavailableError
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.video import route
from cgconvert.video.plan import VideoPlan, encoding_as_dict, plan_video
from cgconvert.video.route import VideoRoute, choose_route
from tests.video.clips import Clip, make_clip

CHOSEN = "encoding on the card (NVENC), frames stay in its memory"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A card that decodes nothing and encodes everything; the encoders that it was asked for."""
    tried: list[str] = []

    def encode(plan: Any, encoding: Any, device: Any, index: int) -> None:
        tried.append(encoding.codec.encoder)

    monkeypatch.setattr("cgconvert.tensors.transfers.own_device", lambda device: None)
    monkeypatch.setattr(route, "_decoding", lambda plan, index: (None, "decoding on the processor"))
    monkeypatch.setattr(route, "_try_encoding", encode)
    monkeypatch.setattr("cgconvert.engines.choose.choose_device", str)
    return tried


def planned(tmp_path: Path, suffix: str = ".mp4", pixels: str = "yuv420p", **options: Any) -> VideoPlan:
    source = make_clip(tmp_path / "in.mkv", Clip(pix_fmt=pixels))
    output = tmp_path / f"out{suffix}"
    return plan_video(source, output, "identity", VideoOptions(**options), EngineOptions(device="cuda:0"))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_video_on_a_card_is_encoded_there(tmp_path: Path, asked: list[str], suffix: str) -> None:
    plan = planned(tmp_path, suffix)
    assert asked == ["h264_nvenc"]
    assert (plan.encoding.codec.encoder, plan.encoding.pixel_format) == ("h264_nvenc", "nv12")
    assert encoding_as_dict(plan)["encoder"] == "h264_nvenc"
    assert plan.encoding.options()["cq"] == "19" and "crf" not in plan.encoding.options()
    route = plan.route
    assert (route.device, route.encoding_card, route.decoding_card) == ("cuda:0", 0, None)
    assert route.target is not None and route.target.on_card
    assert route.notes[-1] == CHOSEN
    said = plan.describe()
    assert f"route      {CHOSEN}" in said
    assert any("device cuda:0" in line for line in said)
    assert any("nv12, rc=vbr b=0 cq=19 preset=p5" in line for line in said)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ({"codec": "h264"}, "`codec='h264'`"),
        ({"crf": 20.0}, "`crf=20`"),
        ({"preset": "fast"}, "`preset='fast'`"),
        ({"pix_fmt": "yuv420p"}, "`pix_fmt='yuv420p'`"),
        ({"pixels": "yuv420p10le"}, "NVENC would not keep yuv420p10le"),
        ({"pixels": "yuv444p"}, "NVENC would not keep yuv444p"),
        ({"suffix": ".webm"}, ".webm is written as vp9"),
    ],
)
def test_what_only_the_processor_keeps_stays_there(
    tmp_path: Path, asked: list[str], case: dict[str, Any], reason: str
) -> None:
    options = dict(case)
    suffix, pixels = options.pop("suffix", ".mp4"), options.pop("pixels", "yuv420p")
    plan = planned(tmp_path, suffix, pixels, **options)
    assert not asked and plan.route.encoding_card is None
    assert not plan.encoding.codec.encoder.endswith("_nvenc")
    assert plan.route.notes[-1] == f"encoding on the processor: {reason}"


def test_a_card_that_refuses_leaves_the_video_to_the_processor(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "_try_encoding", lambda *given: "no encoder on this card")
    plan = planned(tmp_path)
    assert (plan.encoding.codec.encoder, plan.route.encoding_card) == ("libx264", None)
    assert plan.route.target is not None and not plan.route.target.on_card
    assert plan.route.notes[-1] == "encoding on the processor: no encoder on this card"


def test_off_the_card_nothing_is_asked_or_said(tmp_path: Path, asked: list[str]) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip())
    plan = plan_video(source, tmp_path / "out.mp4", "identity", VideoOptions(), EngineOptions("cpu"))
    assert plan.route == VideoRoute("cpu")
    plan = choose_route(plan, "cpu", as_planes=True)
    assert not asked and plan.encoding.codec.encoder == "libx264"
    assert plan.route.notes == ("frames as YUV planes, converted on cpu",)


@pytest.mark.parametrize(("device", "cards"), [("cpu", 4), ("auto", 0), ("gpu", 4)])
def test_a_plan_without_a_card_asks_neither_a_card_nor_torch(
    tmp_path: Path, device: str, cards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_here(text: str) -> None:
        raise AssertionError(f"{text} needs no torch to be told")

    monkeypatch.setattr(route, "count_cuda_devices", lambda: cards)
    monkeypatch.setattr("cgconvert.engines.choose.choose_device", not_here)
    source = make_clip(tmp_path / "in.mkv", Clip())
    plan = plan_video(source, tmp_path / "out.mp4", "identity", VideoOptions(), EngineOptions(device))
    assert plan.route == VideoRoute("cpu")


def test_a_device_that_is_not_there_is_refused_by_the_plan(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip())
    with pytest.raises(UnavailableError, match=r"no device cuda:7: \d CUDA devices are visible"):
        plan_video(source, tmp_path / "out.mp4", "identity", VideoOptions(), EngineOptions("cuda:7"))
