"""Sound that WebM cannot hold becomes Opus: every sample at its time, all channels, to the end."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from cgconvert import convert_video
from cgconvert.errors import InputError
from cgconvert.media.video.sound import EncodedSound
from cgconvert.media.video.source import Damage
from cgconvert.media.video.streams import SourceStream, plan_streams
from cgconvert.options import EngineOptions, VideoOptions
from tests.video.clips import Clip, make_clip, picture, read_facts

SECONDS = 1.2
MILLISECOND = 48
"""Samples in the unit in which WebM counts time."""


def noise(channels: int, rate: int, seconds: float = SECONDS) -> np.ndarray:
    """Soft noise of another kind in each channel, float32 (channels, samples), below 4 kHz."""
    rng = np.random.default_rng(5)
    raw = rng.standard_normal((channels, int(seconds * rate)))
    spectrum = np.fft.rfft(raw)
    spectrum[:, int(4000 * seconds) :] = 0
    soft = np.fft.irfft(spectrum, raw.shape[1])
    return (soft / np.abs(soft).max() * 0.6).astype(np.float32)


def clip_with_sound(
    path: Path, codec: str = "aac", layout: str = "stereo", rate: int = 48000, gap: float = 0.0
) -> Path:
    """A clip of 25 frames/s with noise, which misses `gap` seconds from 0.5 s on."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        audio = container.add_stream(codec, rate=rate, layout=layout, options={"b": "384k"})
        audio.metadata["language"] = "deu"
        frames = int(SECONDS * 25)
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(index, 96, 64), "rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = noise(audio.codec_context.channels, rate)
        block = audio.codec_context.frame_size or 1024
        form = audio.codec_context.format.name
        for start in range(0, samples.shape[1], block):
            if gap and 0.5 <= start / rate < 0.5 + gap:
                continue
            piece = np.ascontiguousarray(samples[:, start : start + block])
            if "s16" in form:
                piece = (piece * 32767).astype(np.int16)
            if not form.endswith("p"):
                piece = np.ascontiguousarray(piece.T.reshape(1, -1))
            sound = av.AudioFrame.from_ndarray(piece, form, layout)
            sound.sample_rate, sound.time_base, sound.pts = rate, Fraction(1, rate), start
            container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    return path


def heard(path: Path, seconds: float = SECONDS) -> np.ndarray:
    """What is heard at each 1/48000 s from zero on, float32 (channels, samples); silence where nothing is."""
    line = np.zeros((0, 0), np.float32)
    after: int | None = None
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            layout, rate = frame.layout.name, frame.sample_rate
            (part,) = av.AudioResampler("fltp", layout, rate).resample(frame)
            samples = part.to_ndarray()
            if not line.size:
                line = np.zeros((len(samples), int((seconds + 0.2) * rate)), np.float32)
            assert frame.pts is not None and frame.time_base is not None
            time = round(frame.pts * frame.time_base * rate)
            # Frames follow without a seam, although Matroska rounds their times to milliseconds.
            at = after if after is not None and abs(time - after) <= rate // 500 else time
            after = at + samples.shape[1]
            samples = samples[:, max(0, -at) :][:, : line.shape[1] - max(at, 0)]
            line[:, max(at, 0) : max(at, 0) + samples.shape[1]] = samples
    whole = av.AudioFrame.from_ndarray(line, "fltp", layout)
    whole.sample_rate = rate
    resampler = av.AudioResampler("fltp", layout, 48000)
    parts = [part.to_ndarray() for part in (*resampler.resample(whole), *resampler.resample(None))]
    return np.concatenate(parts, axis=1)


def shift_and_likeness(before: np.ndarray, after: np.ndarray) -> tuple[int, float]:
    """By how many samples one sound comes after another, and how alike they then are, up to 1."""
    size = 1 << 17
    product = np.fft.rfft(after, size) * np.conj(np.fft.rfft(before, size))
    correlation = np.fft.irfft(product, size) / (np.linalg.norm(before) * np.linalg.norm(after))
    at = int(correlation.argmax())
    return (at if at < size // 2 else at - size), float(correlation.max())


def convert(source: Path, exact: EngineOptions, **options: Any) -> tuple[Path, Any]:
    output = source.with_name("out.webm")
    report = convert_video(source, output, "identity", VideoOptions(overwrite=True, **options), exact)
    return output, report


@pytest.mark.parametrize(
    ("codec", "suffix", "layout", "rate", "resume"),
    [
        ("aac", "mp4", "stereo", 48000, True),
        ("aac", "mp4", "mono", 44100, False),
        ("aac", "mkv", "5.1", 48000, True),
        ("mp2", "ts", "stereo", 44100, False),
        ("pcm_s16le", "mov", "stereo", 32000, True),
    ],
)
def test_sound_becomes_opus_at_its_time(
    tmp_path: Path, exact: EngineOptions, codec: str, suffix: str, layout: str, rate: int, resume: bool
) -> None:
    source = clip_with_sound(tmp_path / f"in.{suffix}", codec, layout, rate)
    output, report = convert(source, exact, resume=resume)
    with av.open(str(output)) as container:
        (sound,) = container.streams.audio
        assert sound.codec_context.name in ("opus", "libopus")
        assert sound.codec_context.layout.name == layout
        language = sound.metadata.get("language")
    with av.open(str(source)) as container:
        assert language == container.streams.audio[0].metadata.get("language")
    name = "mp2" if codec == "mp2" else codec
    told = f"stream #1 audio ({name}): encoded, as Opus, since webm cannot hold it"
    assert told in report.warnings
    before, after = heard(source), heard(output)
    start = read_facts(source).pts[0] - read_facts(output).pts[0]  # a transport stream begins later
    for channel, (one, other) in enumerate(zip(before, after, strict=True)):
        if layout == "5.1" and channel == 3:  # deep sounds only
            continue
        shift, likeness = shift_and_likeness(one, other)
        assert abs(shift + round(start * 48000)) <= MILLISECOND, channel
        assert likeness > 0.97, channel
    assert read_facts(output).pts[:3] == [read_facts(source).pts[i] - start for i in range(3)]
    end = np.flatnonzero(np.abs(after[0]) > 0.01)[-1] / 48000 + float(start)
    assert end == pytest.approx(np.flatnonzero(np.abs(before[0]) > 0.01)[-1] / 48000, abs=0.03)


def test_a_cut_and_a_gap(tmp_path: Path, exact: EngineOptions) -> None:
    source = clip_with_sound(tmp_path / "in.mp4", gap=0.2)
    output, _ = convert(source, exact)
    before, after = heard(source), heard(output)
    late = slice(int(0.8 * 48000), int(1.15 * 48000))  # behind the gap
    shift, likeness = shift_and_likeness(before[0][late], after[0][late])
    assert abs(shift) <= MILLISECOND and likeness > 0.95
    output, _ = convert(source, exact, start=0.2, end=1.0)
    cut = heard(output, 0.8)[0]
    shift, likeness = shift_and_likeness(
        before[0][int(0.8 * 48000) : int(0.99 * 48000)], cut[int(0.6 * 48000) :]
    )
    assert abs(shift) <= MILLISECOND and likeness > 0.9
    assert np.abs(cut[int(0.85 * 48000) :]).max() < 0.01, "nothing is heard behind the end"


def test_sound_before_zero_is_left_out(tmp_path: Path) -> None:
    """Otherwise the muxer would move everything, the video too."""
    samples = noise(2, 44100, 0.5)

    class Decoded:
        """A packet of 1000 samples that is decoded already."""

        def __init__(self, at: int) -> None:
            self.at = at

        def decode(self) -> list[av.AudioFrame]:
            piece = np.ascontiguousarray(samples[:, self.at : self.at + 1000])
            frame = av.AudioFrame.from_ndarray(piece, "fltp", "stereo")
            frame.sample_rate, frame.time_base, frame.pts = 44100, Fraction(1, 44100), self.at - 2500
            return [frame]

    path = tmp_path / "a.webm"
    with av.open(str(clip_with_sound(tmp_path / "in.mp4"))) as source, av.open(str(path), "w") as container:
        sound = EncodedSound(container, source.streams.audio[0], Damage())
        for at in range(0, samples.shape[1] - 1000, 1000):
            sound.write(Decoded(at))  # type: ignore[arg-type]
        sound.finish()
    whole = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, 2500:]), "fltp", "stereo")
    whole.sample_rate = 44100
    expected = av.AudioResampler("fltp", "stereo", 48000).resample(whole)[0].to_ndarray()
    shift, likeness = shift_and_likeness(expected[0], heard(path, 0.5)[0])
    assert abs(shift) <= MILLISECOND and likeness > 0.97


def test_damaged_sound_is_left_out_and_named(tmp_path: Path, exact: EngineOptions) -> None:
    source = clip_with_sound(tmp_path / "in.mkv")
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        packets = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    for packet in packets[10:14]:
        at = data.index(packet)
        data[at : at + len(packet)] = b"\xff" * len(packet)
    source.write_bytes(data)
    output, report = convert(source, exact)
    assert any("damaged sound" in line for line in report.warnings)
    assert read_facts(output).pts == read_facts(source).pts
    late = slice(int(0.8 * 48000), int(1.15 * 48000))
    shift, _ = shift_and_likeness(noise(2, 48000)[0][late], heard(output)[0][late])
    assert abs(shift) <= MILLISECOND


def test_strict_refuses_it(tmp_path: Path, exact: EngineOptions) -> None:
    source = clip_with_sound(tmp_path / "in.mp4")
    with pytest.raises(
        InputError, match=r"not every stream can be kept \(`strict`\): #1 audio \(aac\): encoded"
    ):
        convert(source, exact, strict=True)


def test_a_container_that_holds_it_is_preferred(tmp_path: Path, exact: EngineOptions) -> None:
    """Without an asked name nothing is encoded that another container holds."""
    source = make_clip(tmp_path / "in.mkv", Clip(frames=3, audio="aac"))
    source = source.rename(tmp_path / "in.webm")
    report = convert_video(source, None, "identity", VideoOptions(), exact)
    assert Path(report.output).suffix != ".webm"
    assert {stream["action"] for stream in report.streams} == {"converted", "copied"}


def test_sound_of_unknown_codecs_is_dropped() -> None:
    streams = [SourceStream(0, "audio", "unknown"), SourceStream(1, "audio", "vorbis")]
    assert [plan.action for plan in plan_streams(streams, "webm")] == ["dropped", "copied"]
    assert plan_streams(streams, "mp4")[0].action == "dropped"
