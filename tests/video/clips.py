"""Clips that tests make for themselves, and what can be read back from any video."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from cgconvert.media.video.encoder import repeatable

NTSC = Fraction(30000, 1001)


@dataclass(frozen=True)
class Clip:
    """What a test clip is made of; `pts` in units of `time_base`, and `light`, 0 for black, one a frame.

    0 of `saturation` is grey.
    """

    frames: int = 12
    width: int = 96
    height: int = 64
    time_base: Fraction = Fraction(1, 12800)
    step: int = 512
    pts: Sequence[int] | None = None
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    options: dict[str, str] = field(default_factory=lambda: {"crf": "12"})
    audio: str | None = None
    audio_offset: float = 0.0
    chapters: bool = False
    rotation: int = 0
    tags: dict[str, int] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    attachment: bytes | None = None
    light: Sequence[float] | None = None
    saturation: float = 1.0

    def times(self) -> list[int]:
        """The pts of every frame."""
        return list(self.pts) if self.pts is not None else [self.step * index for index in range(self.frames)]


def picture(index: int, width: int, height: int, saturation: float = 1.0) -> np.ndarray:
    """A smooth coloured picture that moves with `index`, uint8 RGB; smooth so that chroma survives 4:2:0."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    red = 128 + 80 * np.sin((x + 3 * index) / 17)
    green = 128 + 80 * np.cos((y - 2 * index) / 13)
    blue = 128 + 80 * np.sin((x + y + index) / 23)
    colours = np.stack([red, green, blue], -1)
    grey = colours.mean(-1, keepdims=True)
    return (grey + saturation * (colours - grey)).round().astype(np.uint8)


def make_clip(path: Path, clip: Clip) -> Path:
    """Write the clip with PyAV, interleaved as a camera would."""
    with av.open(str(path), "w") as container:
        container.metadata.update(clip.metadata)
        video = container.add_stream(clip.codec, rate=25, options=repeatable(clip.codec, clip.options))
        video.width, video.height, video.pix_fmt = clip.width, clip.height, clip.pix_fmt
        video.codec_context.time_base = video.time_base = clip.time_base
        for key, value in clip.tags.items():
            setattr(video.codec_context, key, value)
        if clip.rotation:
            video.set_display_rotation(clip.rotation)
        audio = container.add_stream(clip.audio, rate=48000, layout="stereo") if clip.audio else None
        if clip.attachment is not None:
            container.add_attachment("note.txt", "text/plain", clip.attachment)
        if clip.chapters:
            half = clip.times()[len(clip.times()) // 2]
            ends = [(0, half), (half, clip.times()[-1] + clip.step)]
            container.set_chapters(
                [
                    {
                        "id": n,
                        "start": a,
                        "end": b,
                        "time_base": clip.time_base,
                        "metadata": {"title": f"part {n}"},
                    }
                    for n, (a, b) in enumerate(ends)
                ]
            )
        _write(container, video, audio, clip)
    return path


def _write(container: Any, video: Any, audio: Any, clip: Clip) -> None:
    seconds = float((clip.times()[-1] + clip.step) * clip.time_base)
    for index, pts in enumerate(clip.times()):
        pixels = picture(index, clip.width, clip.height, clip.saturation)
        if clip.light is not None:
            pixels = np.rint(pixels * clip.light[index]).astype(np.uint8)
        frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
        frame = frame.reformat(format=clip.pix_fmt)
        frame.pts, frame.time_base = pts, clip.time_base
        container.mux(video.encode(frame))
    container.mux(video.encode(None))
    if audio is None:
        return
    samples = np.sin(np.arange(int(seconds * 48000)) * 0.05).astype(np.float32) * 0.3
    block = audio.codec_context.frame_size or 1024
    audio_format = audio.codec_context.format.name
    for start in range(0, len(samples), block):
        piece = np.stack([samples[start : start + block]] * 2)
        if not audio_format.endswith("p"):
            piece = np.ascontiguousarray(piece.T.reshape(1, -1))
        if "s16" in audio_format:
            piece = (piece * 32767).astype(np.int16)
        sound = av.AudioFrame.from_ndarray(piece, audio_format, "stereo")
        sound.sample_rate, sound.time_base = 48000, Fraction(1, 48000)
        sound.pts = start + round(clip.audio_offset * 48000)
        container.mux(audio.encode(sound))
    container.mux(audio.encode(None))


@dataclass
class Facts:
    """What a video holds, read with nothing of ours: times as exact fractions of a second."""

    pts: list[Fraction]
    durations: list[Fraction]
    packets: dict[int, list[tuple[Fraction, str]]]
    kinds: list[str]
    pictures: list[np.ndarray]
    frame_format: str
    chapters: list[tuple[Fraction, Fraction, str]]
    metadata: dict[str, str]
    colours: tuple[int, int, int, int]
    size: tuple[int, int]


def samples(frame: av.VideoFrame) -> np.ndarray:
    """The stored samples; packed RGB with padding, which numpy has no shape for, without the padding, and
    subsampled planes of odd sizes, for which it has none either, one after the other."""
    if "420p" in frame.format.name and (frame.width % 2 or frame.height % 2):
        dtype = np.uint8 if frame.format.components[0].bits == 8 else np.uint16
        rows = [np.frombuffer(memoryview(p), dtype).reshape(p.height, -1)[:, : p.width] for p in frame.planes]
        return np.concatenate([plane.ravel() for plane in rows])
    return frame.to_ndarray(format="rgb24") if frame.format.name == "bgr0" else frame.to_ndarray()


def read_facts(path: Path, stream: int | None = None, pictures: bool = True) -> Facts:
    """Read everything that must survive; `stream` is the video stream to decode (None: the first)."""
    packets: dict[int, list[tuple[Fraction, str]]] = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.size:
                digest = hashlib.sha256(bytes(packet)).hexdigest()
                packets.setdefault(packet.stream.index, []).append((packet.pts * packet.time_base, digest))
    with av.open(str(path)) as container:
        video = container.streams[stream] if stream is not None else container.streams.video[0]
        frames = list(container.decode(video))
        first = frames[0]
        return Facts(
            pts=[frame.pts * video.time_base for frame in frames],
            durations=[(frame.duration or 0) * video.time_base for frame in frames],
            packets=packets,
            kinds=[s.type for s in container.streams],
            pictures=[samples(frame) for frame in frames] if pictures else [],
            frame_format=first.format.name,
            chapters=[
                (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"].get("title", ""))
                for c in container.chapters()
            ],
            metadata=dict(container.metadata),
            colours=(first.colorspace, first.color_range, first.color_primaries, first.color_trc),
            size=(first.width, first.height),
        )
