"""What a person sees while it works."""

from __future__ import annotations

import io
import time

import pytest

from cgconvert.cli import status
from cgconvert.progress import shown_stage


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (75, "1:15"), (59.6, "1:00"), (4000, "1:06:40"), (86400, "24:00:00")]
)
def test_seconds_as_on_a_clock(seconds: float, text: str) -> None:
    assert status.seconds_as_clock(seconds) == text


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(status, "time", clock)
    return clock


def test_plain_lines(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """One line at the start, then one every ten seconds, with rate, time left and busiest stage."""
    progress = status.LineProgress()
    progress.begin("video.mp4", 100, "frame")
    for second, done in ((1, 4), (10, 40), (12, 48), (20, 80)):
        clock.now = 100.0 + second
        progress.advance(done, "translate")
    progress.finish()
    assert capsys.readouterr().err.splitlines() == [
        "video.mp4: 100 frames",
        "40 of 100 frames, 4.0 frames/s, 0:15 left, busiest: translate",
        "80 of 100 frames, 4.0 frames/s, 0:05 left, busiest: translate",
    ]


def test_what_comes_before_the_first_frame_does_not_count_as_its_time(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """An engine of 30 s, then 4 frames/s: the time left is that of the frames, from the first figure on."""
    progress = status.LineProgress()
    progress.begin("video.mp4", 100, "frame")
    for second, done in ((29, 0), (30, 4), (31, 8), (40, 44)):
        clock.now = 100.0 + second
        progress.advance(done, "translate")
    assert capsys.readouterr().err.splitlines() == [
        "video.mp4: 100 frames",
        "4 of 100 frames, busiest: translate",
        "44 of 100 frames, 4.0 frames/s, 0:14 left, busiest: translate",
    ]


def test_nothing_is_said_of_a_task_that_has_not_begun(capsys: pytest.CaptureFixture[str]) -> None:
    status.LineProgress().advance(0, "decode")
    status.LineProgress().advance(3, "decode")
    status.LiveProgress().advance(3, "decode")
    assert capsys.readouterr() == ("", "")


def test_one_is_not_plural(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    progress = status.LineProgress()
    progress.begin("Converting", 1, "image")
    assert capsys.readouterr().err == "Converting: 1 image\n"


def test_the_live_line_fits_into_80_columns(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich import console

    screen = io.StringIO()
    plain = console.Console

    def narrow(**_: object) -> console.Console:
        return plain(file=screen, width=80, force_terminal=True, color_system=None)

    monkeypatch.setattr(console, "Console", narrow)
    progress = status.LiveProgress()
    progress.begin("a video with a very long name indeed.mp4", 12345, "frame")
    progress.advance(0, "translate")
    clock.now += 1
    progress.advance(12, "translate")
    clock.now += 99
    progress.advance(1200, "translate")
    progress.finish()
    line = next(line for line in reversed(screen.getvalue().splitlines()) if "1200" in line)
    for part in ("a video with a very", "1200/12345 frames", "12.0/s", "15:29 left", "busiest: translate"):
        assert part in line, line


def test_what_suits_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    from cgconvert.progress import Silent

    assert isinstance(status.create_progress(quiet=True), Silent)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert isinstance(status.create_progress(quiet=False), status.LineProgress)


def test_a_stage_is_told_with_its_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line when it takes longer, one every interval, one at its end; none if it is over at once."""
    monkeypatch.setattr(status, "SETTLED", 0.05)
    monkeypatch.setattr(status, "LINE_INTERVAL", 0.1)
    progress = status.LineProgress()
    with shown_stage(progress, "building"):
        pass
    with pytest.raises(ValueError), shown_stage(progress, "compiling"):
        time.sleep(0.4)
        raise ValueError
    lines: list[str] = []
    deadline = time.monotonic() + 10
    while not any("took" in line for line in lines) and time.monotonic() < deadline:
        time.sleep(0.02)
        lines += capsys.readouterr().err.splitlines()
    assert lines[0] == "compiling" and lines[-1] == "compiling: took 0:00"
    assert lines[1:-1] and set(lines[1:-1]) == {"compiling: 0:00 so far"}


@pytest.mark.parametrize("within", [True, False])
def test_a_stage_on_the_live_line_counts_seconds(monkeypatch: pytest.MonkeyPatch, within: bool) -> None:
    from rich import console

    screen = io.StringIO()
    plain = console.Console

    def narrow(**_: object) -> console.Console:
        return plain(file=screen, width=80, force_terminal=True, color_system=None)

    monkeypatch.setattr(console, "Console", narrow)
    progress = status.LiveProgress()
    if within:
        progress.begin("video.mp4", 10, "frame")
    with shown_stage(progress, "preparing openvino bf16 on cpu for 1920x1080"):
        time.sleep(1.3)
    assert (progress.rich is not None) == within
    progress.finish()
    shown = screen.getvalue()
    for second in ("0:00", "0:01"):
        line = next(line for line in shown.splitlines() if second in line)
        assert "preparing openvino bf16 on cpu for 1920x1080" in line
    assert ("starting" in shown) == within
