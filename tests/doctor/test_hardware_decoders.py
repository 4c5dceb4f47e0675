"""`cgconvert doctor` tries hardware decoders instead of listing them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from av.codec.hwaccel import hwdevices_available

from cgconvert.doctor import codecs


def test_every_decoder_built_in_is_tried(capfd: pytest.CaptureFixture[str]) -> None:
    found = dict(codecs.try_hardware_decoders())
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
        return codecs.FRAMES - 1 if hwaccel.name == "vaapi" else codecs.FRAMES

    monkeypatch.setattr(codecs, "hwdevices_available", lambda: ["cuda", "vaapi"])
    monkeypatch.setattr(codecs, "HWAccel", Access)
    monkeypatch.setattr(codecs, "_decode", decode)
    assert dict(codecs.try_hardware_decoders()) == {"cuda": None, "vaapi": "2 of 3 frames came back"}
