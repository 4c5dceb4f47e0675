"""Copied streams that a muxer would refuse as they are: repaired or left out, counted, named."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest

from cgconvert.errors import InputError
from cgconvert.media.video.probe import probe
from cgconvert.media.video.source import CopiedPacket, Damage, VideoSource
from cgconvert.media.video.times import PacketTimes
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.video.pipeline import convert_video
from tests.video.clips import Clip, make_clip, read_facts

TS = Clip(frames=40, time_base=Fraction(1, 90000), step=3600, audio="aac", options={"crf": "20", "g": "10"})
TS_PACKET = 188
FRAME = Fraction(1, 25)


def audio_packets(path: Path) -> list[bytes]:
    """The packets of the sound of a file."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.size]


def decoded_samples(path: Path) -> int:
    """Samples of sound that a decoder gets out of a file."""
    with av.open(str(path)) as container:
        return sum(frame.samples for frame in container.decode(container.streams.audio[0]))


def without_some_sound(source: Path, target: Path) -> Path:
    """A transport stream in which the second to last packet of every fifth PES packet of sound is lost."""
    data = source.read_bytes()
    packets = [data[start : start + TS_PACKET] for start in range(0, len(data), TS_PACKET)]
    sound = [n for n, p in enumerate(packets) if ((p[1] & 0x1F) << 8 | p[2]) == 0x101]
    begins = [at for at, n in enumerate(sound) if packets[n][1] & 0x40]
    lost = {sound[at - 2] for at in begins[5::5]}
    target.write_bytes(b"".join(packet for n, packet in enumerate(packets) if n not in lost))
    return target


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_joined_transport_streams(suffix: str, tmp_path: Path, exact: EngineOptions) -> None:
    """Times begin anew at the join: pictures go on there at the same pace, and the sound with them."""
    one = make_clip(tmp_path / "one.ts", TS)
    source, result = tmp_path / "joined.ts", tmp_path / f"out{suffix}"
    source.write_bytes(one.read_bytes() * 2)
    report = convert_video(source, result, "identity", engine_options=exact)
    assert report.frames_in == report.frames_out == 2 * TS.frames
    assert report.damage["time_jumps"] == 1
    assert (
        "times that jump as where recordings were joined: what follows goes on from there" in report.warnings
    )
    facts = read_facts(result, pictures=False)
    rounding = 0 if suffix != ".mkv" else Fraction(1, 1000)
    assert all(abs(after - before - FRAME) <= rounding for before, after in pairwise(facts.pts))
    assert len(facts.packets[1]) == 2 * len(audio_packets(one))
    assert decoded_samples(result) == 2 * decoded_samples(one)
    # The sound of the second half keeps its place beside the pictures: begins with it, to within a frame.
    begins = facts.packets[1][len(facts.packets[1]) // 2][0]
    assert abs(begins - facts.pts[TS.frames]) < FRAME


def test_packets_that_are_copied_by_themselves_have_the_same_times(tmp_path: Path) -> None:
    """A conversion that goes on copies the sound without the pictures, in which the clock jumps first."""
    one, source = make_clip(tmp_path / "one.ts", TS), tmp_path / "joined.ts"
    source.write_bytes(one.read_bytes() * 2)
    info = probe(source)
    found: list[list[tuple[int | None, bytes]]] = []
    for read in (VideoSource.__iter__, VideoSource.packets_to_copy):
        with VideoSource(source, info, (info.width, info.height), frozenset({1})) as video:
            items = [item for item in read(video) if isinstance(item, CopiedPacket)]
            found.append([(item.packet.dts, bytes(item.packet)) for item in items])
    assert found[0] == found[1]
    assert len(found[0]) == 2 * len(audio_packets(one))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_lost_transport_packets(suffix: str, tmp_path: Path, exact: EngineOptions) -> None:
    """Sound whose ADTS headers are broken is what MP4 and Matroska refuse: only those packets are lost."""
    whole = make_clip(tmp_path / "whole.ts", TS)
    source, result = without_some_sound(whole, tmp_path / "lost.ts"), tmp_path / f"out{suffix}"
    report = convert_video(source, result, "identity", engine_options=exact)
    assert report.frames_out == TS.frames
    refused = report.damage["refused_packets"]
    assert 0 < refused < 10
    muxer = {".mp4": "mp4", ".mkv": "matroska"}[suffix]
    assert f"stream #1 (audio): damaged packets that {muxer} refuses, left out" in report.warnings
    kept = audio_packets(result)
    assert len(kept) == len(audio_packets(source)) - refused
    assert all(packet[:2] != b"\xff\xf1" for packet in kept)  # no ADTS header is left in any of them


def test_strict_stops_at_a_refused_packet(tmp_path: Path, exact: EngineOptions) -> None:
    source = without_some_sound(make_clip(tmp_path / "whole.ts", TS), tmp_path / "lost.ts")
    with pytest.raises(InputError, match=r"lost\.ts: .*damaged packets that mp4 refuses.*`strict`"):
        convert_video(source, tmp_path / "out.mp4", "identity", VideoOptions(strict=True), exact)
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sound_whose_times_go_back(suffix: str, tmp_path: Path, exact: EngineOptions) -> None:
    source, result = make_clip(tmp_path / "in.mkv", Clip(frames=25, audio="aac")), tmp_path / f"out{suffix}"
    packets = audio_packets(source)
    data = bytearray(source.read_bytes())
    at = data.index(packets[20]) - 4  # a SimpleBlock begins with track number, time (16 bits, ms) and flags
    assert data[at] == 0x82
    before = int.from_bytes(data[at + 1 : at + 3], "big")
    data[at + 1 : at + 3] = (before - 200).to_bytes(2, "big")
    source.write_bytes(data)
    report = convert_video(source, result, "identity", engine_options=exact)
    assert report.frames_out == 25
    assert report.damage["repaired_packets"] == 1
    assert "stream #1 (audio): time stamps that go back, moved after the packet before" in report.warnings
    assert audio_packets(result) == packets
    times = [time for time, _ in read_facts(result, pictures=False).packets[1]]
    assert times == sorted(times)
    assert [round(float(time), 2) for time in times[21:]] == [
        round(float(time), 2) for time, _ in read_facts(source, pictures=False).packets[1][21:]
    ]


def packet_of(kind: str, dts: int | None, pts: int | None = None, duration: int = 40) -> Any:
    """What `PacketTimes` looks at in a packet; times in milliseconds."""
    stream = SimpleNamespace(type=kind, index={"video": 0, "audio": 1, "subtitle": 2}[kind])
    base = Fraction(1, 1000)
    return SimpleNamespace(stream=stream, dts=dts, pts=pts, duration=duration, time_base=base, size=1)


def moved(times: PacketTimes, packets: list[Any]) -> list[int | None]:
    """The dts of packets after they went through."""
    for packet in packets:
        times(packet)
    return [packet.dts for packet in packets]


def test_packets_without_times_are_placed_or_counted() -> None:
    damage = Damage()
    times = PacketTimes(False, damage)
    early, first, second, third = (packet_of("audio", dts) for dts in (None, 100, None, None))
    placed = []
    for packet in (early, first, second, third):
        times(packet)
        placed.append(times.place(packet))
    assert placed == [False, True, True, True]
    assert [first.dts, second.dts, third.dts] == [100, 140, 180]
    assert [first.pts, second.pts, third.pts] == [100, 140, 180]
    assert (damage.dropped_packets, damage.untimed_packets) == (1, 2)


def test_a_jump_keeps_streams_together_whatever_their_order() -> None:
    """Sound from before the join comes behind it, and a subtitle goes with the pictures."""
    damage = Damage()
    packets = [packet_of("video", dts, duration=400) for dts in (0, 400, 800, 1200)]
    packets += [packet_of("audio", dts, duration=400) for dts in (0, 400)]
    packets += [packet_of("video", 0, duration=400), packet_of("audio", 800), packet_of("subtitle", 100)]
    packets += [packet_of("audio", 4), packet_of("video", 400), packet_of("audio", 44)]
    expected = [0, 400, 800, 1200, 0, 400, 1600, 800, 1700, 1604, 2000, 1644]
    assert moved(PacketTimes(True, damage), packets) == expected
    assert damage.time_jumps == 1


def test_one_wrong_time_moves_nothing_else() -> None:
    damage = Damage()
    packets = [packet_of("video", dts) for dts in (0, 40, 95_000_000, 120, 160)]
    assert moved(PacketTimes(True, damage), packets) == [0, 40, 80, 120, 160]
    assert damage.time_jumps == 1


def test_a_pause_that_all_streams_make_is_kept() -> None:
    """Pictures that stand for a minute while the sound goes on are no jump."""
    damage = Damage()
    packets = [packet_of("video", 0), *(packet_of("audio", 1000 * n, duration=1000) for n in range(60))]
    packets.append(packet_of("video", 60_000))
    assert moved(PacketTimes(True, damage), packets)[-1] == 60_000
    assert not damage
