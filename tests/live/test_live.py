"""Live conversion: the newest picture, from files in real time and from RTSP on loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest

from cgconvert.errors import OutputError, UnavailableError, UsageError
from cgconvert.host.interrupts import Aborted
from cgconvert.host.latest import Latest
from cgconvert.live import run
from cgconvert.live.report import KEPT, Latencies
from cgconvert.live.run import run_live
from cgconvert.live.size import choose_size, possible_sizes
from cgconvert.media.live.places import sink_place, source_place
from cgconvert.media.live.sink import StreamSink
from cgconvert.media.live.source import LiveSource
from cgconvert.media.video.probe import probe
from cgconvert.options import EngineOptions, LiveOptions
from cgconvert.progress import Silent
from tests.video.clips import Clip, make_clip, picture

PLAIN = EngineOptions("cpu", "eager", "fp32")


def test_a_new_item_takes_the_place_of_one_that_nobody_took() -> None:
    latest: Latest[int] = Latest()
    for number in range(3):
        latest.put(number)
    assert latest.take() == 2 and latest.dropped == 2
    assert latest.take(timeout=0.01) is None
    latest.put(7)
    latest.close()
    assert latest.take() == 7 and latest.take() is None
    latest.abort()
    with pytest.raises(Aborted):
        latest.put(1)


def test_latencies_keep_to_their_memory() -> None:
    latencies = Latencies()
    for number in range(KEPT + 100):
        latencies.add(number / 1000)
    assert latencies.count == KEPT + 100 and len(latencies.values) == KEPT
    assert latencies.describe()["max"] == KEPT + 99


@pytest.mark.parametrize(
    ("text", "system", "url", "format"),
    [
        ("camera", "linux", "/dev/video0", "v4l2"),
        ("/dev/video3", "linux", "/dev/video3", "v4l2"),
        ("camera:1", "darwin", "1:none", "avfoundation"),
        ("camera:Integrated Camera", "win32", "video=Integrated Camera", "dshow"),
        ("screen", "darwin", "Capture screen 0:none", "avfoundation"),
        ("screen", "win32", "desktop", "gdigrab"),
        ("screen:1", "linux", ":1", "x11grab"),
        ("rtsp://host/a", "linux", "rtsp://host/a", "rtsp"),
        ("C:\\clips\\a.mp4", "win32", "C:\\clips\\a.mp4", None),
    ],
)
def test_sources_on_each_system(text: str, system: str, url: str, format: str | None) -> None:
    place = source_place(text, system=system)
    assert (place.url, place.format) == (url, format)


@pytest.mark.parametrize(
    ("text", "format"),
    [
        ("/dev/video9", "v4l2"),
        ("rtmp://host/app/key", "flv"),
        ("srt://host:9000", "mpegts"),
        ("rtsp://host/a", "rtsp"),
        ("whip:https://host/whip", "whip"),
        ("a.mkv", None),
    ],
)
def test_sinks(text: str, format: str | None) -> None:
    assert sink_place(text).format == format


def test_places_that_make_no_sense_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    for call, words in (
        (lambda: source_place("gopher://a"), "gopher://a: streams are rtsp"),
        (lambda: source_place("camera:1", system="win32"), "name the camera as Windows does"),
        (lambda: source_place("camera:front", system="linux"), "name the camera by its number"),
        (lambda: source_place("a.mp4", listen=True), "`listen` waits for a stream"),
        (lambda: source_place("screen", system="linux"), "no screen to read: DISPLAY is not set"),
        (lambda: sink_place("https://host/whip"), "for WHIP write whip:https://host/whip"),
        (lambda: sink_place("a.gif"), "'a.gif' is no sink: use window"),
    ):
        with pytest.raises(UsageError) as caught:
            call()
        assert str(caught.value).startswith(words) or words in str(caught.value)


def test_a_stream_may_lead_to_no_file() -> None:
    allowed = source_place("https://host/list.m3u8").options["protocol_whitelist"].split(",")
    assert "file" not in allowed and "https" in allowed


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("live") / "clip.mp4", Clip(frames=10, width=96, height=64))


def test_a_file_in_real_time(clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    started = time.monotonic()
    report = run_live(str(clip), str(target), "identity", LiveOptions(), PLAIN, Silent())
    assert time.monotonic() - started > 9 / 25  # nine pictures after the first are waited for
    assert report.pictures_in == 10
    assert report.pictures_out + report.dropped == 10 and report.pictures_out >= 1
    assert report.latency_ms["max"] > 0 and report.source_rate == 25
    with av.open(str(target)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == report.pictures_out
    assert (frames[0].width, frames[0].height) == (96, 64)
    times = [round(frame.time * 25) for frame in frames if frame.time is not None]
    assert times == sorted(set(times)) and set(times) <= set(range(10))
    shown = frames[0].to_ndarray(format="rgb24").astype(int)
    assert np.abs(shown - picture(times[0], 96, 64)).mean() < 6
    with pytest.raises(OutputError, match=r"out\.mp4"):
        run_live(str(clip), str(target), "identity", LiveOptions(), PLAIN, Silent())


def test_a_slow_network_gets_fewer_pictures_and_no_older_ones(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = run.convert_pixels

    def slow(job: object, pixels: np.ndarray) -> np.ndarray:
        time.sleep(0.15)
        return convert(job, pixels)  # type: ignore[arg-type]

    monkeypatch.setattr(run, "convert_pixels", slow)
    report = run_live(str(clip), str(tmp_path / "o.mkv"), "identity", LiveOptions(), PLAIN, Silent())
    assert report.dropped >= 4 and report.pictures_out + report.dropped == report.pictures_in


def test_it_ends_after_its_time(clip: Path, tmp_path: Path) -> None:
    options = LiveOptions(loop=True, seconds=1.0, work_size="48x32", strength=0.5)
    report = run_live(str(clip), str(tmp_path / "o.ts"), "identity", options, PLAIN, Silent())
    assert 1.0 <= report.seconds < 5 and report.pictures_in > 10  # it has begun again
    assert report.work_sizes == [(48, 32)]


def test_rtsp_on_loopback(clip: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"rtsp://127.0.0.1:{free.getsockname()[1]}/a"
    ending, got, notes = threading.Event(), [], []
    source = LiveSource(source_place(address, listen=True), ending, notes.append)

    def receive() -> None:
        info = source.open()
        got.append((info.width, info.height))
        for arrival in source.arrivals():
            got.append(arrival.frame)
            if len(got) >= 4:
                return

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    sink = StreamSink(sink_place(address), probe(clip), notes.append)
    for _ in range(100):
        try:
            sink.open()
            break
        except OutputError:  # nobody listens yet
            time.sleep(0.05)
    for number in range(200):
        sink.put(picture(number, 96, 64), number / 25)
        if not thread.is_alive():
            break
        time.sleep(0.01)
    thread.join(10)
    assert not thread.is_alive()
    assert got[0] == (96, 64) and len(got) == 4
    shown = got[-1].to_ndarray(format="rgb24").astype(int)
    assert min(np.abs(shown - picture(n, 96, 64)).mean() for n in range(60)) < 8
    sink.close()
    source.close()


def test_a_stream_that_breaks_off_is_connected_again(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr("cgconvert.media.live.source.PAUSES", (0.01,))
    ending = threading.Event()
    source = LiveSource(source_place("tcp://127.0.0.1:9/x"), ending, notes.append)
    opened: list[int] = []

    def connect() -> None:
        opened.append(1)
        if len(opened) == 2:
            raise OSError("nobody there")
        source.container = av.open(str(clip))

    monkeypatch.setattr(source, "_connect", connect)
    for count, _ in enumerate(source.arrivals(), 1):
        if count == 15:  # five more than one connection gives
            ending.set()
    assert len(opened) == 3 and source.reconnections == 2
    assert notes == ["tcp://127.0.0.1:9/x broke off (it has ended): trying again"]


def test_sizes_keep_the_shape_and_the_largest_that_is_fast_enough_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = possible_sizes(640, 360)
    assert sizes[0] == (640, 360) and sizes[3] == (320, 180) and sizes[-1] == (120, 68)
    monkeypatch.setattr("cgconvert.live.size.measured", lambda job, pixels: pixels.size * 1e-7)
    monkeypatch.setattr("cgconvert.live.size.share_of", lambda job: 0.6)

    class Job:
        class engine:  # noqa: N801 - stands for an attribute
            class device:  # noqa: N801
                type = "cpu"

    pixels = np.zeros((360, 640, 3), np.uint8)
    number, seconds = choose_size(Job, pixels, sizes, 1 / 25)  # type: ignore[arg-type]
    assert sizes[number] == (320, 180) and seconds <= 0.6 / 25


def test_a_window_without_a_desktop_is_refused(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tkinter")
    if sys.platform in ("win32", "darwin"):
        pytest.skip("there is a desktop")
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(UnavailableError, match=r"no window can be opened here .*name another sink"):
        run_live(str(clip), "window", "identity", LiveOptions(), PLAIN, Silent())


def test_the_command(clip: Path, tmp_path: Path) -> None:
    """An interrupt ends it at once, with the recording whole and exit code 0."""
    target, report = tmp_path / "o.mkv", tmp_path / "r.json"
    arguments = ["live", str(clip), "-o", str(target), "--loop", "--model", "identity", "--engine", "eager"]
    process = subprocess.Popen(
        [sys.executable, "-m", "cgconvert", *arguments, "--device", "cpu", "--report", str(report)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    import signal

    until = time.monotonic() + 60
    while not any(path.stat().st_size > 0 for path in tmp_path.iterdir()) and time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert out.startswith("Showed ") and out.rstrip().endswith(f"-> {target}")
    told = json.loads(report.read_text())
    with av.open(str(target)) as container:
        assert sum(1 for _ in container.decode(video=0)) == told["pictures_out"] > 0
