"""Files that cgconvert once answered wrongly are answered rightly, and mutations reach what they aim at."""

from __future__ import annotations

import random
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.fuzz import cases
from benchmarks.fuzz.mutations import change_png
from cgconvert.media.video import open as opening

FINDS = sorted((Path(__file__).parents[1] / "data/fuzz").iterdir())


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("find", FINDS, ids=lambda path: path.name)
def test_finds_are_converted_or_refused(
    find: Path, whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CGCONVERT_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(opening.OPEN_OPTIONS, "max_pixels", str(cases.PIXEL_LIMIT))
    folder = tmp_path / "case"
    folder.mkdir()
    kind = find.name.partition("-")[0].replace("_", " ")
    assert cases.attempt(kind, find.read_bytes(), folder, whole) in ("converted", "refused")


def test_changed_png_files_keep_checksums_that_fit() -> None:
    """So that a change reaches the decoder behind them, with pixels that can be decompressed."""
    pixels = np.random.default_rng(0).integers(0, 256, (17, 24, 3), np.uint8)
    data = cv2.imencode(".png", pixels)[1].tobytes()
    chance = random.Random(0)
    rows = set()
    for _ in range(100):
        changed, at = change_png(data, chance), 8
        while at < len(changed):
            length, kind = struct.unpack_from(">I4s", changed, at)
            payload = changed[at + 8 : at + 8 + length]
            assert struct.unpack_from(">I", changed, at + 8 + length)[0] == zlib.crc32(kind + payload)
            if kind == b"IDAT":
                with suppress(zlib.error):
                    rows.add(zlib.decompress(payload))
            at += length + 12
    assert len(rows) > 10
