"""Which encoder a video gets whose frames are on a card: NVENC where nothing speaks against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.video import route
from cgconvert.video.plan import plan_as_dict, plan_video
from cgconvert.video.route import VideoRoute, choose_route
from tests.video.clips import Clip, make_clip

CARD = torch.device("cuda", 0)
CHOSEN = "encoding on the card (NVENC), frames stay in its memory"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A card that decodes nothing and encodes everything; the encoders that it was asked for."""
    tried: list[str] = []

    def encode(plan: Any, encoding: Any, device: torch.device, index: int) -> None:
        tried.append(encoding.codec.encoder)

    monkeypatch.setattr(route, "own_device", lambda device: None)
    monkeypatch.setattr(route, "_decoding", lambda plan, index: (None, "decoding on the processor"))
    monkeypatch.setattr(route, "_try_encoding", encode)
    return tried


def path_of(tmp_path: Path, suffix: str = ".mp4", pixels: str = "yuv420p", **options: Any) -> VideoRoute:
    source = make_clip(tmp_path / "in.mkv", Clip(pix_fmt=pixels))
    output = tmp_path / f"out{suffix}"
    plan = plan_video(source, output, "identity", VideoOptions(**options), EngineOptions())
    path = choose_route(plan, CARD)
    assert plan_as_dict(plan, path.encoding)["encoder"] == path.encoding.codec.encoder
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_video_on_a_card_is_encoded_there(tmp_path: Path, asked: list[str], suffix: str) -> None:
    path = path_of(tmp_path, suffix)
    assert asked == ["h264_nvenc"]
    assert (path.encoding.codec.encoder, path.encoding.pixel_format) == ("h264_nvenc", "nv12")
    assert path.encoding.options()["cq"] == "19" and "crf" not in path.encoding.options()
    assert path.encoding_card == 0 and path.target is not None and path.target.on_card
    assert path.notes[-1] == CHOSEN


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
    path = path_of(tmp_path, suffix, pixels, **options)
    assert not asked and path.encoding_card is None
    assert not path.encoding.codec.encoder.endswith("_nvenc")
    assert path.notes[-1] == f"encoding on the processor: {reason}"


def test_a_card_that_refuses_leaves_the_video_to_the_processor(
    tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "_try_encoding", lambda *given: "no encoder on this card")
    path = path_of(tmp_path)
    assert (path.encoding.codec.encoder, path.encoding_card) == ("libx264", None)
    assert path.target is not None and not path.target.on_card
    assert path.notes[-1] == "encoding on the processor: no encoder on this card"


def test_off_the_card_nothing_is_asked_or_said(tmp_path: Path, asked: list[str]) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip())
    plan = plan_video(source, tmp_path / "out.mp4", "identity", VideoOptions(), EngineOptions())
    path = choose_route(plan, torch.device("cpu"), as_planes=True)
    assert not asked and path.encoding.codec.encoder == "libx264"
    assert not any("encoding" in note for note in path.notes)
