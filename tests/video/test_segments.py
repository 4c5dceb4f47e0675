"""Segments: what is kept of a conversion, going on from it, and joining it into the result."""

from __future__ import annotations

import gc
import json
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from click.testing import CliRunner

from cgconvert.cli import cgconvert as cli
from cgconvert.errors import InputError, Interrupted, OutputError, UsageError
from cgconvert.frames import Frame
from cgconvert.host import parts
from cgconvert.host.parts import part_folder, source_identity
from cgconvert.media.video.codecs import container_of, find_codec, pixel_format_for
from cgconvert.media.video.encoder import Encoding, FrameEncoder, PacketEncoder
from cgconvert.media.video.packets import (
    EncodedPacket,
    PacketWriter,
    decoding_times,
    encoder_delay,
    read_packets,
)
from cgconvert.media.video.probe import VideoProbe, probe
from cgconvert.media.video.sink import VideoSink
from cgconvert.media.video.source import Damage, VideoSource
from cgconvert.media.video.streams import plan_streams
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.progress import Silent
from cgconvert.video import resume
from cgconvert.video.jobs import list_jobs
from cgconvert.video.pipeline import convert_video, run_video
from cgconvert.video.plan import VideoPlan, plan_video
from cgconvert.video.resume import ResumableRun, Segment, resumable_run
from cgconvert.video.route import choose_route
from cgconvert.video.segments import SegmentEncoder, join_segments
from tests.video.clips import Clip, make_clip, read_facts

PACKETS = [
    EncodedPacket(b"key", 1001, -1001, 1001, True),
    EncodedPacket(b"\0" * 70000, 3003, 0, 0, False),
    EncodedPacket(b"", 2002, None, 7, False),
]


def write(path: Path, packets: list[EncodedPacket]) -> Path:
    with PacketWriter(path) as writer:
        for packet in packets:
            writer.write(packet)
    return path


def test_packets_come_back_as_they_were(tmp_path: Path) -> None:
    assert list(read_packets(write(tmp_path / "a", PACKETS))) == PACKETS


@pytest.mark.parametrize("place", [25, 40, 60, 70100, -1])
def test_a_changed_byte_is_noticed(tmp_path: Path, place: int) -> None:
    path = write(tmp_path / "a", PACKETS)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a: (a packet is damaged|ends within a packet)"):
        list(read_packets(path))


def test_a_file_that_ends_within_a_packet_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "a", PACKETS)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match="ends within a packet"):
        list(read_packets(path))


def test_decoding_times_are_those_of_one_encoder() -> None:
    """x264 with two reordered frames and variable rate: dts i is pts i - 2."""
    assert list(decoding_times([0, 10, 30, 35, 50], 2)) == [-30, -20, 0, 10, 30]
    assert list(decoding_times([5, 6, 7], 0)) == [5, 6, 7]
    assert list(decoding_times([5], 2)) == [4]
    assert list(decoding_times([5, 8], 2)) == [1, 4]
    assert list(decoding_times([], 2)) == []


def test_the_delay_of_an_encoder_is_read_off_its_packets() -> None:
    def packet(pts: int, dts: int) -> EncodedPacket:
        return EncodedPacket(b"", pts, dts, 0, False)

    assert encoder_delay([packet(0, -2), packet(3, -1), packet(1, 0), packet(2, 1)]) == 2
    assert encoder_delay([packet(4, 4), packet(5, 5)]) == 0
    assert encoder_delay([]) == 0


IDENTITY: dict[str, Any] = {"model": "abc", "encoding": {"crf": 18, "codec": "h264"}}


def add(run: ResumableRun, frames: int = 250) -> None:
    import hashlib

    path = write(run.new_path(), PACKETS)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    first = run.frames
    run.add(Segment(frames, first, first + frames - 1, 2, path.stat().st_size, digest, {"corrupt_frames": 1}))


def test_a_run_goes_on_with_its_segments(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    with pytest.raises(KeyboardInterrupt), resumable_run(output, IDENTITY, {}) as run:
        run.choose({"engine": "eager", "batch": 4})
        add(run)
        add(run, 10)
        raise KeyboardInterrupt
    assert sorted(path.name for path in part_folder(output).iterdir()) == [
        "000000.packets",
        "000001.packets",
        "lock",
        "state.json",
    ]
    with resumable_run(output, IDENTITY, {}) as run:
        assert (run.frames, run.last_pts, run.notes) == (260, 259, [])
        assert run.segments[1].damage == {"corrupt_frames": 1}
        run.choose({"engine": "eager", "batch": 4})
    assert not part_folder(output).exists()


def test_nothing_is_left_of_a_run_that_finished_no_segment(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), resumable_run(tmp_path / "out.mp4", IDENTITY, {}):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_state_of_another_request_is_refused_with_the_reason(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    with pytest.raises(KeyboardInterrupt), resumable_run(output, IDENTITY, {}) as run:
        run.choose({"batch": 4})
        add(run)
        raise KeyboardInterrupt
    other = {**IDENTITY, "encoding": {"crf": 23, "codec": "h264"}}
    with pytest.raises(UsageError) as caught, resumable_run(output, other, {}):
        pass
    assert str(caught.value) == (
        f"{part_folder(output)} was begun with encoding crf 18, and this run has 23: use `restart` to "
        "begin again, or another `output`"
    )
    with (
        resumable_run(output, IDENTITY, {}) as run,
        pytest.raises(UsageError, match=r"with batch 4, and .* 2"),
    ):
        run.choose({"batch": 2})


def test_restart_drops_what_is_there(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    with pytest.raises(KeyboardInterrupt), resumable_run(output, IDENTITY, {}) as run:
        add(run)
        raise KeyboardInterrupt
    with resumable_run(output, {"model": "other"}, {}, restart=True) as run:
        assert run.frames == 0
        assert sorted(path.name for path in run.folder.iterdir()) == ["lock", "state.json"]


def test_a_damaged_segment_is_made_again_with_all_after_it(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    with pytest.raises(KeyboardInterrupt), resumable_run(output, IDENTITY, {}) as run:
        for _ in range(3):
            add(run)
        raise KeyboardInterrupt
    run.path_of(1).write_bytes(b"short")
    with resumable_run(output, IDENTITY, {}) as run:
        assert run.frames == 250
        assert run.notes == [
            f"segment 1 in {part_folder(output)} is damaged: the video is converted again from frame 250"
        ]


def test_two_processes_do_not_convert_into_one_result(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    with (
        resumable_run(output, IDENTITY, {}),
        pytest.raises(OutputError, match="is being converted by another process"),
        resumable_run(output, IDENTITY, {}),
    ):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"format": resume.FORMAT, "identity": {}})])
def test_a_state_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    folder = part_folder(tmp_path / "out.mp4")
    folder.mkdir()
    (folder / "state.json").write_text(text)
    with (
        pytest.raises(UsageError, match="cannot be read: use `restart` to begin again"),
        resumable_run(tmp_path / "out.mp4", IDENTITY, {}),
    ):
        pass


def test_a_source_is_known_by_size_time_and_both_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "EDGE_BYTES", 4)
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    before = source_identity(path)
    assert before["bytes"] == 10
    path.write_bytes(b"0123456780")
    assert source_identity(path)["sha256_of_ends"] != before["sha256_of_ends"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("after", [0, 7, 23, 28])
def test_frames_follow_as_they_would_without_a_break(tmp_path: Path, suffix: str, after: int) -> None:
    path = make_clip(tmp_path / f"in{suffix}", Clip(frames=30, options={"bf": "2", "g": "12"}))
    info = probe(path)
    size = (info.width, info.height)
    with VideoSource(path, info, size) as source:
        whole = list(source)
    earlier = Damage(corrupt_frames=2, messages=["seen before"])
    with VideoSource(path, info, size, after=whole[after].pts, earlier=earlier) as source:
        rest = list(source)
        assert source.damage == earlier
    assert [frame.pts for frame in rest] == [frame.pts for frame in whole[after + 1 :]]
    for one, other in zip(rest, whole[after + 1 :], strict=True):
        assert (one.pixels == other.pixels).all()


def test_a_frame_that_is_gone_is_named(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "in.mp4", Clip(frames=5))
    info = probe(path)
    with (
        VideoSource(path, info, (info.width, info.height), after=10**9) as source,
        pytest.raises(InputError, match=r"in\.mp4: the frame after which to go on is no longer in it"),
    ):
        list(source)


class Work:
    """A clip encoded in segments of 8 frames, broken off after any number of frames."""

    def __init__(self, tmp_path: Path, clip: Clip, suffix: str = ".mp4", codec: str = "h264") -> None:
        self.source = make_clip(tmp_path / f"in{suffix}", clip)
        with VideoProbe(self.source) as video:
            self.info, streams = video.info, video.streams
        self.output = tmp_path / f"out{suffix}"
        muxer = container_of(self.output)[0]
        plain = find_codec(codec)
        size = (self.info.width, self.info.height)
        pixel_format = pixel_format_for(plain, self.info, None, size)
        self.encoding = Encoding(plain, *size, pixel_format, plain.quality, plain.preset)
        self.muxer, self.plans = muxer, plan_streams(streams, muxer)
        self.copied = frozenset(plan.index for plan in self.plans if plan.action == "copied")

    def convert(self, frames: int | None = None, encoders: int = 1) -> None:
        """Go on with what is there; stop as Ctrl-C would after so many frames of this call."""
        size = (self.info.width, self.info.height)
        with resumable_run(self.output, IDENTITY, {}) as run:
            with VideoSource(self.source, self.info, size, after=run.last_pts) as source:
                encoder = SegmentEncoder(
                    run,
                    self.muxer,
                    lambda: FrameEncoder(self.info, self.encoding),
                    source.damage,
                    encoders,
                )
                for number, frame in enumerate(source):
                    if number == frames:
                        encoder.abort()
                        raise KeyboardInterrupt
                    assert isinstance(frame, Frame)
                    encoder.write(frame)
                encoder.finish()
            with VideoSource(self.source, self.info, size, self.copied) as source:
                sink = VideoSink(
                    self.output,
                    self.output,
                    self.muxer,
                    source.container,
                    self.info,
                    self.encoding,
                    self.plans,
                )
                join_segments(run, source, sink)


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "SEGMENT_FRAMES", 8)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        (".mp4", "h264"),
        (".mkv", "h265"),
        (".webm", "vp9"),
        (".mkv", "ffv1"),
        (".mov", "prores"),
        (".mp4", "av1"),
    ],
)
@pytest.mark.usefixtures("short_segments")
def test_a_conversion_that_was_broken_off_gives_the_same_file(
    tmp_path: Path, suffix: str, codec: str
) -> None:
    pts = [0, 512, 1100, 1500, 2500, 2600, 3000] + [3600 + 512 * i for i in range(22)]
    audio = None if suffix == ".webm" else "aac"
    clip = Clip(frames=29, pts=pts, audio=audio, codec="libvpx-vp9" if suffix == ".webm" else "libx264")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole, broken = Work(tmp_path / "a", clip, suffix, codec), Work(tmp_path / "b", clip, suffix, codec)
    whole.convert()
    for frames in (3, 9, 20):
        with pytest.raises(KeyboardInterrupt):
            broken.convert(frames)
    broken.convert()
    assert not part_folder(broken.output).exists()
    one, other = read_facts(whole.output), read_facts(broken.output)
    assert one.packets == other.packets
    assert one.pts == other.pts == read_facts(whole.source).pts
    assert len(one.pts) == 29
    if audio:
        assert one.packets[1] == read_facts(whole.source).packets[1]


@pytest.mark.usefixtures("short_segments")
def test_joined_segments_decode_in_order_and_interleave(tmp_path: Path) -> None:
    """Decoding times grow, none is later than its frame's time, and sound lies beside its pictures."""
    work = Work(tmp_path, Clip(frames=40, audio="aac", options={"bf": "2"}))
    work.convert()
    with av.open(str(work.output)) as container:
        packets = [
            (packet.stream.type, packet.dts, packet.pts, packet.dts * packet.time_base, packet.is_keyframe)
            for packet in container.demux()
            if packet.size
        ]
    video = [packet[1:] for packet in packets if packet[0] == "video"]
    assert all(later[0] > earlier[0] for earlier, later in pairwise(video))
    assert all(dts <= pts for dts, pts, _, _ in video)
    assert sum(keyframe for _, _, _, keyframe in video) == 5
    last: dict[str, Fraction] = {}
    for kind, _, _, seconds, _ in packets:
        last[kind] = seconds
        if len(last) == 2:
            assert abs(last["video"] - last["audio"]) < 1


@pytest.mark.usefixtures("short_segments")
def test_a_full_disk_keeps_the_finished_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(tmp_path, Clip(frames=20))
    real = PacketWriter.write
    written = []

    def write(self: PacketWriter, packet: EncodedPacket) -> None:
        written.append(packet)
        if len(written) == 12:
            raise OSError(28, "No space left on device")
        real(self, packet)

    with monkeypatch.context() as patch:
        patch.setattr(PacketWriter, "write", write)
        with pytest.raises(OutputError, match="disk full while writing"):
            work.convert()
    state = json.loads((part_folder(work.output) / "state.json").read_text())
    assert [segment["frames"] for segment in state["segments"]] == [8]
    work.convert()
    assert len(read_facts(work.output).pts) == 20


def interrupted(plan: VideoPlan, after: int, as_planes: bool | None = None) -> Interrupted:
    """Carry out a plan and press Ctrl-C once so many frames are encoded."""

    class Pressing(Silent):
        def advance(self, done: int, busiest: str | None = None) -> None:
            if done >= after:
                signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        # A few frames are on their way, so the network is not at the end before so many are encoded.
        patch.setattr("cgconvert.video.run.CHANNEL_BYTES", 3 * 96 * 64)
        with pytest.raises(Interrupted) as caught:
            run_video(choose_route(plan, "cpu", as_planes), Pressing())
    return caught.value


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize("as_planes", [False, True])
def test_a_video_that_was_interrupted_goes_on(
    tmp_path: Path, small_model: str, exact: EngineOptions, as_planes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result of three runs is packet for packet that of one, sound and all."""
    monkeypatch.setattr(
        "cgconvert.video.run.CHANNEL_BYTES", 3 * 96 * 64
    )  # so that a few frames are on their way
    source = make_clip(tmp_path / "in.mp4", Clip(frames=60, audio="aac", options={"bf": "2", "g": "24"}))
    one, other = tmp_path / "one.mp4", tmp_path / "other.mp4"
    engine = replace(exact, batch=3)
    plan = plan_video(source, one, small_model, VideoOptions(), engine)
    whole = run_video(choose_route(plan, "cpu", as_planes), Silent())
    error = interrupted(plan_video(source, other, small_model, VideoOptions(), engine), 12, as_planes)
    assert re.fullmatch(
        r"interrupted after \d+ of about 60 frames; the same command goes on after frame \d+; "
        rf"nothing is yet at {other}",
        str(error),
    )
    assert [job.output for job in list_jobs()] == [other]
    (job,) = list_jobs()
    kept = job.frames
    assert kept in range(8, 60, 8) and not job.running and job.total == 60 and job.source == source
    notes: list[str] = []

    class Noting(Silent):
        def note(self, line: str) -> None:
            notes.append(line)

    again = plan_video(source, other, small_model, VideoOptions(), engine)
    report = run_video(choose_route(again, "cpu", as_planes), Noting())
    assert f"going on after frame {kept}, which was reached before" in notes
    assert (report.frames_in, report.frames_out, report.resumed_frames) == (60, 60, kept)
    assert whole.resumed_frames == 0
    assert list_jobs() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "one.mp4", "other.mp4"]
    first, second = read_facts(one), read_facts(other)
    assert first.packets == second.packets
    assert first.pts == read_facts(source).pts
    assert first.packets[1] == read_facts(source).packets[1]


@pytest.mark.usefixtures("short_segments")
def test_another_request_does_not_go_on(tmp_path: Path, small_model: str, exact: EngineOptions) -> None:
    source, output = make_clip(tmp_path / "in.mp4", Clip(frames=60)), tmp_path / "out.mp4"
    interrupted(plan_video(source, output, small_model, VideoOptions(), exact), 12)
    with pytest.raises(UsageError) as caught:
        convert_video(source, output, small_model, VideoOptions(crf=30), exact)
    assert "out.mp4.part was begun with encoding options crf 18, and this run has 30: use `restart`" in str(
        caught.value
    )
    report = convert_video(source, output, small_model, VideoOptions(crf=30, restart=True), exact)
    assert (report.frames_out, report.resumed_frames) == (60, 0)


@pytest.mark.usefixtures("short_segments")
def test_without_resume_nothing_is_kept(tmp_path: Path, small_model: str, exact: EngineOptions) -> None:
    source, output = make_clip(tmp_path / "in.mp4", Clip(frames=60)), tmp_path / "out.mp4"
    error = interrupted(plan_video(source, output, small_model, VideoOptions(resume=False), exact), 12)
    assert str(error).endswith(f"frames; nothing is left at {output}")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
    assert list_jobs() == []


@pytest.mark.usefixtures("short_segments")
def test_a_killed_run_goes_on(tmp_path: Path, small_model: str) -> None:
    """The state is whole at every moment, so that even SIGKILL costs no more than a segment."""
    source = make_clip(tmp_path / "in.mp4", Clip(frames=80, audio="aac"))
    code = (
        "import sys; from cgconvert.video import resume; resume.SEGMENT_FRAMES = 8\n"
        "from cgconvert.cli import main; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "video", str(source), "-m", small_model, "--engine", "eager"]
    command += ["--device", "cpu", "--precision", "fp32", "--batch", "1"]
    killed, whole = tmp_path / "killed.mp4", tmp_path / "whole.mp4"
    running = subprocess.Popen(
        [*command, "-o", str(killed)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    while not (part_folder(killed) / "000001.packets").exists():
        assert running.poll() is None
        time.sleep(0.002)
    running.kill()
    running.wait()
    listed = subprocess.run(
        [sys.executable, "-m", "cgconvert", "jobs", "list"], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(
        rf"{re.escape(str(killed))} \(broken off, \d+ of 80 frames, .* MiB kept; from .*in\.mp4\)\n",
        listed.stdout,
    )
    resumed = [sys.executable, "-c", code, "jobs", "resume", "killed.mp4"]
    done = subprocess.run(resumed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Converted 80 frames" in done.stdout
    subprocess.run([*command, "-o", str(whole)], check=True, capture_output=True)
    assert read_facts(killed).packets == read_facts(whole).packets
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]


@pytest.mark.usefixtures("short_segments")
def test_what_is_kept_can_be_removed(tmp_path: Path, small_model: str, exact: EngineOptions) -> None:
    source, output = make_clip(tmp_path / "in.mp4", Clip(frames=60)), tmp_path / "out.mp4"
    interrupted(plan_video(source, output, small_model, VideoOptions(), exact), 12)
    runner = CliRunner()
    result = runner.invoke(cli, ["jobs", "clean", "nothing.mp4"])
    assert str(result.exception) == f"nothing.mp4 is no unfinished job; there are:\n  {output}"
    result = runner.invoke(cli, ["jobs", "clean", "--yes"])
    assert result.output == f"Removed what was kept of {output}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
    assert runner.invoke(cli, ["jobs", "list"]).output == "No unfinished videos.\n"


@pytest.mark.parametrize("restart", [False, True])
def test_the_state_is_removed_before_the_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restart: bool
) -> None:
    """A kill in between left a state with some of its segments, and the next run gave another result."""
    output = tmp_path / "out.mkv"
    with pytest.raises(Interrupted), resumable_run(output, {}, {}) as run:
        add(run)
        raise Interrupted
    state, unlink = part_folder(output) / "state.json", Path.unlink
    seen = []

    def watched(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".packets":
            seen.append(state.exists())
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", watched)
    monkeypatch.setattr(resume.shutil, "rmtree", lambda folder, **_: seen.append(state.exists()))
    with resumable_run(output, {}, {}, restart=restart) as run:
        assert len(run.segments) == (0 if restart else 1)
    assert seen == ([False, False] if restart else [False])


def test_encoders_of_finished_segments_are_given_back_at_once(
    tmp_path: Path, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoder in a container was part of a circle, which Python looked for after minutes: a long video
    took hundreds of MiB more."""
    monkeypatch.setattr(resume, "SEGMENT_FRAMES", 2)
    clip = make_clip(tmp_path / "in.mkv", Clip(frames=12))

    def encoders() -> int:
        return sum(type(one) is av.VideoCodecContext and one.is_encoder for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = encoders()
        convert_video(clip, tmp_path / "out.mkv", "identity", engine_options=exact)
        assert encoders() - before <= 1  # that of the joined file, which has encoded nothing
    finally:
        gc.enable()


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize("encoders", [2, 3, 9])
def test_segments_that_are_encoded_at_once_are_the_same(tmp_path: Path, encoders: int) -> None:
    """Also those of a run that goes on: what was not recorded is encoded anew."""
    clip = Clip(frames=53, audio="aac")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, several = Work(tmp_path / "a", clip), Work(tmp_path / "b", clip)
    one.convert()
    with pytest.raises(KeyboardInterrupt):
        several.convert(29, encoders)
    several.convert(encoders=encoders)
    assert one.output.read_bytes() == several.output.read_bytes()
    assert not part_folder(several.output).exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "cgconvert-encode-segment"]


@pytest.mark.usefixtures("short_segments")
def test_a_video_with_several_encoders(tmp_path: Path, exact: EngineOptions) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(frames=30))
    one = convert_video(source, tmp_path / "one.mp4", "identity", engine_options=exact)
    options = VideoOptions(encoders=3)
    several = convert_video(source, tmp_path / "several.mp4", "identity", options, exact)
    assert (one.encoding["encoders"], several.encoding["encoders"]) == (1, 3)
    assert Path(one.output).read_bytes() == Path(several.output).read_bytes()


@pytest.mark.usefixtures("short_segments")
def test_an_encoder_that_fails_beside_others_ends_the_run(
    tmp_path: Path, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many frames wait for it: there is memory for two."""
    encode, seen = PacketEncoder.encode, list[int]()

    def failing(self: PacketEncoder, frame: Any) -> list[EncodedPacket]:
        seen.append(0)
        if len(seen) > 12:
            raise OSError(28, "No space left on device")
        return encode(self, frame)

    monkeypatch.setattr(PacketEncoder, "encode", failing)
    monkeypatch.setattr("cgconvert.video.segments.WAITING_BYTES", 2 * 96 * 64 * 3)
    source = make_clip(tmp_path / "in.mp4", Clip(frames=60))
    with pytest.raises(OutputError, match="disk full"):
        convert_video(source, tmp_path / "out.mp4", "identity", VideoOptions(encoders=3), exact)
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoders": 0}, "`encoders=0` is not from 1 to 16"),
        ({"encoders": 2, "resume": False}, "`encoders=2` encodes several segments at once: use `resume` too"),
    ],
)
def test_numbers_of_encoders_that_make_no_sense(
    tmp_path: Path, exact: EngineOptions, options: dict[str, Any], message: str
) -> None:
    source = make_clip(tmp_path / "in.mp4", Clip(frames=2))
    with pytest.raises(UsageError, match=re.escape(message)):
        plan_video(source, tmp_path / "out.mp4", "identity", VideoOptions(**options), exact)


def test_encoders_by_default(tmp_path: Path, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several only where a GPU converts and the processor, which has the cores for it, encodes."""
    plan = plan_video(make_clip(tmp_path / "in.mp4", Clip(frames=2)), None, "identity", VideoOptions(), exact)
    monkeypatch.setattr("os.cpu_count", lambda: 24)
    assert plan.encoders == 1
    on_card = replace(plan, route=replace(plan.route, device="cuda:0"))
    assert on_card.encoders == 3
    assert replace(on_card, route=replace(on_card.route, encoding_card=0)).encoders == 1
    assert replace(on_card, options=VideoOptions(resume=False)).encoders == 1
    assert replace(on_card, options=VideoOptions(encoders=7)).encoders == 7
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert on_card.encoders == 1
