"""`cgconvert doctor` tries what it lists."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from av.codec.hwaccel import hwdevices_available

from cgconvert.media.picture import codec
from cgconvert.media.picture.trial import try_pictures
from cgconvert.media.video import trial


def test_every_decoder_built_in_is_tried(capfd: pytest.CaptureFixture[str]) -> None:
    found = dict(trial.try_hardware_decoders())
    assert list(found) == list(hwdevices_available())
    for reason in found.values():
        assert reason is None or (reason and "\n" not in reason and len(reason) < 200)
    assert capfd.readouterr().err == ""


def test_what_decodes_works_and_what_loses_frames_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Access:
        name: str
        allow_software_fallback: bool

    def decode(data: bytes, hwaccel: Access) -> int:
        assert data and not hwaccel.allow_software_fallback
        return trial.FRAMES - 1 if hwaccel.name == "vaapi" else trial.FRAMES

    monkeypatch.setattr(trial, "hwdevices_available", lambda: ["cuda", "vaapi"])
    monkeypatch.setattr(trial, "HWAccel", Access)
    monkeypatch.setattr(trial, "_decode", decode)
    assert dict(trial.try_hardware_decoders()) == {"cuda": None, "vaapi": "2 of 3 frames came back"}


def test_every_picture_format_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    suffixes = [".jpg", ".png", ".webp", ".tif", ".avif", ".bmp", ".gif"]
    assert dict(try_pictures()) == dict.fromkeys(suffixes)
    monkeypatch.setattr(codec.cv2, "imencode", lambda *arguments: (False, None))
    reasons = dict(try_pictures())
    assert reasons[".png"] == "this build of OpenCV does not have it (cannot be encoded as PNG)"
