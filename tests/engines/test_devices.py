"""Devices by name: what is not here is refused in one line, and what nobody has seen is compared."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cgconvert.cli import cgconvert
from cgconvert.engines import eager, verify
from cgconvert.engines.choose import CLASSES, candidates, choose_device
from cgconvert.engines.eager import EagerEngine
from cgconvert.errors import UnavailableError, UsageError
from cgconvert.media.picture.codec import Picture, encode_picture
from cgconvert.options import ENGINES, EngineOptions, check_engine_options
from cgconvert.tensors.transfers import PlainTransfers, transfers_for
from tests.engines.models import make_model, make_pixels
from tests.video.clips import Clip, make_clip


def test_every_engine_that_can_be_named_has_a_class() -> None:
    assert tuple(CLASSES) == ENGINES


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mps", "no device mps: it is on Apple silicon, with macOS and its build of torch"),
        ("xpu", "no device xpu: 0 XPU devices are visible"),
        ("xpu:3", "no device xpu:3: 0 XPU devices are visible"),
        ("rocm", "no device rocm: this torch is not built for ROCm"),
    ],
)
def test_devices_of_other_makers_are_refused_where_they_are_not(
    name: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(UnavailableError) as caught:
        choose_device(name)
    assert str(caught.value).startswith(words) and 'use `device="cpu"`' in str(caught.value)


def test_devices_of_other_makers_are_taken_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    monkeypatch.setattr(torch.xpu, "device_count", lambda: 2)
    assert choose_device("MPS") == torch.device("mps")
    assert choose_device("xpu") == torch.device("xpu", 0)
    assert choose_device("xpu:1") == torch.device("xpu", 1)
    monkeypatch.setattr(torch.version, "hip", "7.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert choose_device("rocm") == torch.device("cuda", 0)
    found = [str(candidate) for candidate in candidates(make_model(), "mps", "auto", "auto")]
    assert found == ["eager fp16 on mps", "eager fp32 on mps"]


@pytest.mark.parametrize("name", ["tpu", "mps:1", "cuda:", "cpu:2", "meta", "", "gpu:x"])
def test_unknown_devices_are_refused_before_torch_is_needed(name: str) -> None:
    with pytest.raises(UsageError, match=r"unknown device .*: use auto, cpu, cuda, cuda:N, rocm"):
        check_engine_options(EngineOptions(device=name))


@pytest.mark.parametrize("arguments", [["--engine", "warp"], ["--device", "tpu"]])
@pytest.mark.parametrize("command", ["video", "dir"])
def test_a_dry_run_refuses_unknown_names(command: str, arguments: list[str], tmp_path: Path) -> None:
    """A clip is not needed to know it: what is wrong with the options comes first or with the source."""
    (tmp_path / "in").mkdir()
    picture = encode_picture(Picture(np.zeros((16, 16, 3), np.uint8)), "png")[0]
    (tmp_path / "in" / "a.png").write_bytes(picture)
    source = tmp_path / "in"
    if command == "video":
        source = make_clip(tmp_path / "clip.mp4", Clip(frames=2))
    with pytest.raises(UsageError, match=f"unknown {arguments[0][2:]} {arguments[1]!r}"):
        cgconvert.main(
            [command, str(source), "--model", "identity", "--dry-run", *arguments], standalone_mode=False
        )


def test_float32_on_a_device_that_nobody_has_seen_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the CPU taken for such a device: its float32 is no reference by itself, and is measured."""
    monkeypatch.setattr(eager, "SEEN_DEVICES", ())
    engine = EagerEngine(make_model(), torch.device("cpu"))
    assert not engine.is_reference
    found = verify.verify(engine, make_pixels(1, 32, 32))
    assert found.passed and (math.isinf(found.psnr_db) or found.psnr_db > 100)


def test_copies_to_a_device_without_streams_are_plain() -> None:
    transfers = transfers_for(torch.device("mps"))
    assert isinstance(transfers, PlainTransfers)
    here = PlainTransfers(torch.device("meta"))
    (there,) = here.upload([torch.zeros(2, 3)])
    assert there.device.type == "meta"
    kept = here.download([there], stay=True)
    assert kept.is_here and kept.wait() == [there]
