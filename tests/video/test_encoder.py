"""The same frames give the same packets in every run, whatever lies in an encoder's memory."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from cgconvert.frames import Frame, StreamInfo
from cgconvert.media.video.codecs import find_codec
from cgconvert.media.video.encoder import Encoding, FrameEncoder, PacketEncoder, has_avx512

SIZES = ((96, 64), (178, 100), (320, 192))
FRAMES = 40


def packets_hash(codec_name: str) -> str:
    """The SHA-256 of the packets of noisy, moving frames in several sizes."""
    codec, told = find_codec(codec_name), hashlib.sha256()
    draw = np.random.default_rng(0)
    for width, height in SIZES:
        info = StreamInfo(width, height, Fraction(1, 25), Fraction(25), "yuv420p", 8)
        encoding = Encoding(codec, width, height, "yuv420p", codec.quality, codec.preset)
        encoder = PacketEncoder(FrameEncoder(info, encoding), "mp4")
        y, x = np.mgrid[:height, :width]
        for index in range(FRAMES + 1):
            waves = 50 * np.sin((x + 3 * index) / 9) + 50 * np.cos((y - 2 * index) / 7) + 128
            noisy = (waves[..., None] + draw.normal(0, 20, (height, width, 3))).clip(0, 255).astype(np.uint8)
            for packet in encoder.encode(Frame(noisy, index, 1) if index < FRAMES else None):
                told.update(bytes(packet.data))
    return told.hexdigest()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc fills memory by MALLOC_PERTURB_")
def test_h264_does_not_hang_on_what_lay_in_memory() -> None:
    """libx264 read memory that it had not written, with AVX-512: two runs gave different files."""
    root = str(Path(__file__).resolve().parents[2])
    told = set()
    for fill in ("0", "85", "170"):
        environment = {**os.environ, "MALLOC_PERTURB_": fill, "PYTHONPATH": root}
        script = "from tests.video.test_encoder import packets_hash; print(packets_hash('h264'))"
        command = [sys.executable, "-c", script]
        told.add(subprocess.check_output(command, cwd=root, env=environment, text=True))
    assert len(told) == 1


def test_avx512_is_found_as_linux_tells_it() -> None:
    flags = Path("/proc/cpuinfo")
    if not flags.exists():
        pytest.skip("only Linux lists the processor's features in a file")
    assert has_avx512() == ("avx512f" in flags.read_text())
