"""The queue and its runner: jobs outlive everything, and their results are those of the command line."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cgconvert.cli import cgconvert, run
from cgconvert.errors import UsageError
from cgconvert.host.folders import data_folder
from cgconvert.ui.queue import ATTEMPTS, Queue, QueuedJob
from cgconvert.ui.runner import Told, run_queue, start_runner
from cgconvert.video import resume
from tests.video.clips import Clip, make_clip


def add(queue: Queue, source: Path, name: str = "out.mp4", *more: str) -> QueuedJob:
    output = str(source.with_name(name))
    arguments = ["video", str(source), "-o", output, "--model", "small", "--log", "json", *more]
    return queue.add("video", source.name, source, output, arguments)


def until(true: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def typed(source: Path, result: Path) -> bytes:
    """What the command line makes of a video."""
    with pytest.raises(SystemExit) as left:
        run(cgconvert, "cgconvert", ["video", str(source), "-o", str(result), "--model", "small", "--quiet"])
    assert left.value.code == 0
    return result.read_bytes()


def test_a_job_gives_what_the_command_gives_although_one_before_fails(
    queue: Queue, media: Path, small_model: str
) -> None:
    (media / "bad.mp4").write_bytes(b"no video")
    bad, good = add(queue, media / "bad.mp4", "bad_out.mp4"), add(queue, media / "in.mp4")
    run_queue(queue)
    assert queue.get(bad.id).state == "failed"
    assert "bad.mp4" in queue.get(bad.id).text
    ended = queue.get(good.id)
    assert (ended.state, ended.total) == ("done", 20), ended.text
    assert ended.text.startswith("Converted 20 frames")
    assert Path(ended.report).stat().st_size > 100
    assert typed(media / "in.mp4", media / "typed.mp4") == (media / "out.mp4").read_bytes()


@pytest.mark.slow
def test_pause_resume_and_a_killed_runner_give_the_same_result(
    queue: Queue, media: Path, small_model: str
) -> None:
    """A job is paused and resumed, its runner is killed, and the next runner ends it."""
    clip = make_clip(media / "long.mp4", Clip(frames=2 * resume.SEGMENT_FRAMES + 100, width=320, height=240))
    job = add(queue, clip)
    start_runner(queue)
    until(lambda: queue.get(job.id).done > resume.SEGMENT_FRAMES)
    queue.pause(job.id)
    until(lambda: queue.get(job.id).state == "paused")
    until(lambda: not queue.has_runner())
    assert not Path(job.output).exists()
    assert queue.get(job.id).done % resume.SEGMENT_FRAMES == 0  # what is kept of it
    assert queue.get(job.id).done >= resume.SEGMENT_FRAMES
    queue.resume(job.id)
    runner = subprocess.Popen([sys.executable, "-m", "cgconvert.ui.runner", str(queue.folder)])
    until(lambda: queue.get(job.id).state == "running" and queue.get(job.id).done > 0)
    assert queue.get(job.id).done >= resume.SEGMENT_FRAMES  # it goes on behind what it has kept
    runner.kill()
    runner.wait()
    assert queue.get(job.id).state == "running"  # nobody was left who could have written anything else
    start_runner(queue)
    until(lambda: queue.get(job.id).is_over, 120)
    assert queue.get(job.id).state == "done", queue.get(job.id).text
    assert typed(clip, media / "typed.mp4") == Path(job.output).read_bytes()


@pytest.mark.slow
def test_cancelled_jobs_leave_nothing(queue: Queue, media: Path, small_model: str) -> None:
    clip = make_clip(media / "long.mp4", Clip(frames=3 * resume.SEGMENT_FRAMES, width=320, height=240))
    job = add(queue, clip)
    start_runner(queue)
    until(lambda: queue.get(job.id).done > 0)
    queue.cancel(job.id)
    until(lambda: queue.get(job.id).state == "cancelled")
    assert [path.name for path in media.glob("out*")] == ["out"]  # which was there before


def test_a_cancelled_job_whose_runner_has_died_leaves_nothing(queue: Queue, media: Path) -> None:
    job = queue.add("learn", "dabs", media, "", ["learn"])
    queue.change(job.id, state="running", wish="cancel")
    folder = data_folder() / "learn" / "dabs"
    folder.mkdir(parents=True)
    run_queue(queue)
    assert queue.get(job.id).state == "cancelled"
    assert not folder.exists()


def test_states_change_only_as_they_can(queue: Queue, media: Path) -> None:
    job = add(queue, media / "in.mp4")
    with pytest.raises(UsageError, match="is waiting: cancel it first"):
        queue.remove(job.id)
    queue.pause(job.id)
    assert queue.claim() is None
    with pytest.raises(UsageError, match="is paused and cannot be paused"):
        queue.pause(job.id)
    queue.resume(job.id)
    claimed = queue.claim()
    assert claimed is not None
    assert (claimed.state, claimed.attempts) == ("running", 1)
    queue.cancel(job.id)
    assert queue.get(job.id).wish == "cancel"
    queue.recover()  # its runner is gone
    assert queue.get(job.id).state == "cancelled"
    queue.remove(job.id)
    with pytest.raises(UsageError, match="there is no job"):
        queue.get(job.id)


def test_a_job_that_kills_its_process_again_and_again_is_given_up(queue: Queue, media: Path) -> None:
    job = add(queue, media / "in.mp4")
    for attempt in range(1, ATTEMPTS + 1):
        assert queue.claim() is not None
        queue.recover()
        assert queue.get(job.id).state == ("waiting" if attempt < ATTEMPTS else "failed")


def test_only_one_runner_at_a_time(queue: Queue, media: Path) -> None:
    from cgconvert.host.locks import locked

    add(queue, media / "in.mp4")
    with locked(queue.lock, wait=False):
        run_queue(queue)
        assert queue.has_runner()
        assert queue.jobs()[0].state == "waiting"
    assert not queue.has_runner()


def test_a_job_ends_when_its_runner_has_gone(tmp_path: Path) -> None:
    """Otherwise it would work on beside the next one. `--watch` waits for pictures for ever."""
    (tmp_path / "in").mkdir()
    command = [
        sys.executable,
        "-m",
        "cgconvert.cli.job",
        "dir",
        str(tmp_path / "in"),
        "--watch",
        "-m",
        "identity",
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    time.sleep(0.5)
    process.stdin.close()
    # 0 is what --watch ends with once it waits; before that the command is interrupted.
    assert process.wait(60) in (0, 130, -signal.SIGINT, -signal.SIGTERM)


def test_what_is_kept_of_a_video_counts_as_done() -> None:
    told = Told(1000)  # frames that its first run counted
    begun = told.hear('{"event": "begin", "task": "a", "total": 750, "unit": "frame"}\n')
    assert (begun["done"], begun["total"]) == (250, 1000)
    assert told.hear('{"event": "progress", "done": 5, "rate": 2.0}\n')["done"] == 255
    anew = Told(1000).hear('{"event": "begin", "task": "a", "total": 1000, "unit": "frame"}\n')
    assert (anew["done"], anew["total"]) == (0, 1000)


def test_a_full_disk_makes_the_last_word_wait(
    queue: Queue, media: Path, small_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is there, so the job must not be forgotten and begun again."""
    job = add(queue, media / "in.mp4")
    change = Queue.change
    refused: list[str] = []

    def full(self: Queue, number: int, **values: Any) -> None:
        what = "end" if "ended" in values else "progress" if "done" in values else ""
        if what == "progress" or (what == "end" and "end" not in refused):
            refused.append(what)
            raise sqlite3.OperationalError("database or disk is full")
        change(self, number, **values)

    monkeypatch.setattr(Queue, "change", full)
    run_queue(queue)
    assert set(refused) == {"progress", "end"}
    assert queue.get(job.id).state == "done"


def test_lines_that_are_no_json_are_kept_as_the_last_word() -> None:
    told = Told()
    assert told.hear('{"event": "begin", "task": "a", "total": 5, "unit": "frame"}\n')["total"] == 5
    assert told.hear("Traceback ...\n") == {}
    assert told.hear("[1, 2]\n") == {}
    told.hear("ValueError: what\n")
    assert told.last == "ValueError: what"
