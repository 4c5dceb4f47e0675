"""Single frames by number: the very pixels of a conversion, found without decoding what lies before."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from cgconvert.errors import InputError
from cgconvert.media.video import random_access
from cgconvert.media.video.probe import probe
from cgconvert.media.video.random_access import VideoFrames
from cgconvert.media.video.source import VideoSource
from tests.video.clips import Clip, make_clip

FULL_709 = {"colorspace": 1, "color_range": 2, "color_primaries": 1, "color_trc": 1}
GROUPS = {"crf": "12", "g": "10", "keyint_min": "10", "sc_threshold": "0", "bf": "2"}
"""Options of x264: a keyframe every ten frames, B-frames between."""

CLIPS = {
    "rotated.mp4": Clip(rotation=90, tags=FULL_709),
    "untagged-hd.mkv": Clip(frames=3, width=64, height=720),
    "ten-bit.mkv": Clip(codec="libx265", pix_fmt="yuv420p10le", options={"x265-params": "log-level=0"}),
    "uneven.mp4": Clip(frames=9, pts=[0, 500, 600, 1500, 1600, 2600, 2700, 4000, 9000]),
    "groups.mkv": Clip(frames=35, options=GROUPS),
    "groups.mp4": Clip(frames=35, options=GROUPS),
    "groups.ts": Clip(frames=25, options=GROUPS),
    "old.avi": Clip(codec="mpeg4", options={"bf": "2"}),
}


def converted_pixels(path: Path) -> list[np.ndarray]:
    """What the network is shown of every frame in a conversion."""
    info = probe(path)
    with VideoSource(path, info, (info.width, info.height)) as source:
        return [frame.pixels.copy() for frame in source]


@pytest.mark.parametrize("name", CLIPS)
def test_every_frame_has_the_pixels_of_a_conversion(name: str, tmp_path: Path) -> None:
    path = make_clip(tmp_path / name, CLIPS[name])
    wanted = converted_pixels(path)
    frames = VideoFrames(path)
    assert len(frames) == len(wanted) == CLIPS[name].frames
    found = list(frames.read(range(len(frames))))
    assert [number for number, _ in found] == list(range(len(wanted)))
    for number, pixels in found:
        assert pixels.dtype == wanted[number].dtype
        assert np.array_equal(pixels, wanted[number])
    some = [len(wanted) - 1, 1, len(wanted) // 2]
    for number in some:
        ((same, pixels),) = frames.read([number])
        assert same == number
        assert np.array_equal(pixels, wanted[number]), "alone as in a row"
    assert [number for number, _ in frames.read(some)] == sorted(set(some)), "each once"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pts of every frame that was decoded since the list was last cleared."""
    seen: list[int] = []
    inner = random_access._decoded_from

    def watched(*arguments: Any) -> Iterator[av.VideoFrame]:
        for frame in inner(*arguments):
            seen.append(frame.pts)
            yield frame

    monkeypatch.setattr(random_access, "_decoded_from", watched)
    return seen


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_only_the_way_from_the_keyframe_is_decoded(suffix: str, tmp_path: Path, decoded: list[int]) -> None:
    frames = VideoFrames(make_clip(tmp_path / f"long{suffix}", Clip(frames=60, options=GROUPS)))
    assert not decoded, "packets are counted, not decoded"
    list(frames.read([57]))
    assert len(decoded) == 8, "50 to 57"
    decoded.clear()
    list(frames.read([3, 5, 41]))
    assert len(decoded) == 6 + 2, "0 to 5, then 40 and 41"


def test_frames_are_held_one_at_a_time(tmp_path: Path, decoded: list[int]) -> None:
    frames = VideoFrames(make_clip(tmp_path / "clip.mp4", Clip(frames=40, options=GROUPS)))
    given: list[weakref.ref[np.ndarray]] = []
    for number, pixels in frames.read(range(40)):
        assert len(decoded) == number + 1, "decoded when asked for"
        given.append(weakref.ref(pixels))
        assert sum(array() is not None for array in given) <= 2, "this one and at most the one before"


def test_a_frame_that_cannot_be_decoded_is_left_out(tmp_path: Path) -> None:
    # PNG inside QuickTime: each frame is whole in its packet, so that damage to one is damage to it alone.
    clip = Clip(frames=5, codec="png", pix_fmt="rgb24", options={})
    path = make_clip(tmp_path / "clip.mov", clip)
    with av.open(str(path)) as container:
        third = [bytes(packet) for packet in container.demux(video=0) if packet.size][2]
    data = path.read_bytes()
    at = data.index(third)
    path.write_bytes(data[:at] + bytes(len(third)) + data[at + len(third) :])
    assert [number for number, _ in VideoFrames(path).read(range(5))] == [0, 1, 3, 4]


def test_what_is_no_video_is_said_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "no.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(InputError, match=r"no\.mp4: not a video that can be read \("):
        VideoFrames(path)
