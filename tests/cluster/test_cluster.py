"""Pictures and videos on a cluster: the results of one process, whatever becomes of the workers."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from cgconvert.cli import main
from cgconvert.cluster import connection, images, videos
from cgconvert.cluster.connection import Cluster, ClusterOptions
from cgconvert.cluster.images import run_images_on_cluster
from cgconvert.cluster.models import ModelFile
from cgconvert.cluster.pool import Pool, Task, _Worker
from cgconvert.cluster.videos import run_videos_on_cluster
from cgconvert.errors import UnavailableError, UsageError
from cgconvert.models.catalog import find_model
from cgconvert.options import EngineOptions, ImageOptions, VideoOptions
from cgconvert.pictures.pipeline import convert_dir
from cgconvert.pictures.plan import plan_dir
from cgconvert.pictures.result import ImagesResult
from cgconvert.progress import Silent
from cgconvert.video import resume
from cgconvert.video.chunks import Chunk, chunks_of
from cgconvert.video.folder import plan_videos
from cgconvert.video.pipeline import convert_video
from cgconvert.video.plan import plan_video
from cgconvert.video.series import VideosResult, convert_videos
from tests.cluster.actors import DyingImageWorker, DyingVideoWorker, NeverReadyWorker, ShortVideoWorker
from tests.pictures.runs import fill, names
from tests.scale.s3 import s3_server
from tests.video.clips import Clip, make_clip, read_facts

TWO = ClusterOptions(workers=2)
OPTIONS = ["--model", "identity", "--engine", "eager", "--precision", "fp32", "--device", "cpu"]

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture
def exact() -> EngineOptions:
    return EngineOptions("cpu", "eager", "fp32")


@pytest.fixture
def pictures(tmp_path: Path, exact: EngineOptions) -> Path:
    """Seventy pictures, one of them damaged, and in `one` what one process makes of them."""
    fill(tmp_path / "in" / "sub", 70)
    (tmp_path / "in" / "bad.png").write_bytes(b"words")
    convert_dir(tmp_path / "in", tmp_path / "one", "identity", engine_options=exact)
    return tmp_path / "in"


@pytest.fixture
def clips(tmp_path: Path, exact: EngineOptions) -> Path:
    """Four videos, one of them none, and in `one` what one process makes of them."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for index, name in enumerate(("a.mp4", "sub/b.mov", "sub/c.mp4")):
        make_clip(folder / name, Clip(frames=6 + index, audio="aac"))
    (folder / "bad.mp4").write_text("words")
    convert_videos([folder], tmp_path / "one", "identity", engine_options=exact)
    return folder


def run(folder: Path, output: Path, exact: EngineOptions) -> ImagesResult:
    return run_images_on_cluster(plan_dir(folder, output, "identity", ImageOptions(), exact), TWO, Silent())


def run_videos(folder: Path, output: Path, exact: EngineOptions) -> VideosResult:
    plan = plan_videos([folder], output, "identity", VideoOptions(), exact)
    return run_videos_on_cluster(plan, TWO, Silent())


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names(folder)}


def outcome(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as leave:
        main([str(argument) for argument in arguments])
    told = capsys.readouterr()
    assert isinstance(leave.value.code, int)
    return leave.value.code, told.out, told.err


class Noting(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


class Killer:
    """Notes the processes of workers as they start, to kill one of them at a random moment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
        self.random, self.handles = random.Random(seed), list[Any]()
        self.killed = threading.Event()
        start = Cluster.start

        def noting(cluster: Cluster, *arguments: Any) -> Any:
            handle = start(cluster, *arguments)
            if not self.handles:
                threading.Thread(target=self._kill, args=(cluster.ray, handle), daemon=True).start()
            self.handles.append(handle)
            return handle

        monkeypatch.setattr(Cluster, "start", noting)

    def _kill(self, ray: Any, handle: Any) -> None:
        process = ray.get(handle.__ray_call__.remote(lambda worker: os.getpid()))
        threading.Event().wait(self.random.uniform(0, 0.3))
        os.kill(process, signal.SIGKILL)
        self.killed.set()


def test_a_folder_as_one_process_converts_it(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, report, results = tmp_path / "out", tmp_path / "report.json", tmp_path / "results.jsonl"
    more = ["--workers", 2, "--report", report, "--results", results]
    code, out, err = outcome(capsys, "ray", "dir", pictures, "-o", output, *OPTIONS, *more)
    assert code == 1
    assert out.startswith("Converted 70 pictures (1 failed) in ")
    assert f"Failed: {pictures}/bad.png: not a picture" in err
    assert "2 workers on a cluster of 2 cores\n" in err
    assert contents(output) == contents(tmp_path / "one")
    data = json.loads(report.read_text())
    counts = ("converted", "frames", "skipped", "failed", "complete")
    assert [data[key] for key in counts] == [70, 70, 0, 1, True]
    assert sum(row["pictures"] for row in data["engine"]["devices"]) == 71
    assert data["engine"]["engine"] == "eager"
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert sorted(line["status"] for line in lines) == ["converted"] * 70 + ["failed"]
    assert all(len(line["sha256"]) == 64 for line in lines if line["status"] == "converted")


def test_the_second_run_does_nothing(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts no worker either."""
    (pictures / "bad.png").unlink()
    monkeypatch.setattr(Cluster, "start", lambda *_: pytest.fail("a worker was started"))
    code, out, _ = outcome(capsys, "ray", "dir", pictures, "-o", tmp_path / "one", *OPTIONS)
    assert (code, out) == (
        0,
        f"Nothing to do: all 70 pictures are converted already -> {tmp_path}/one\n",
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_a_worker_is_killed_over_pictures(
    pictures: Path, tmp_path: Path, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    killer = Killer(monkeypatch, seed)
    result = run(pictures, tmp_path / "out", exact)
    assert killer.killed.wait(5)
    assert (result.converted, result.skipped, result.failed) == (70, 0, 1)
    assert contents(tmp_path / "out") == contents(tmp_path / "one")


def test_a_picture_that_kills_workers_is_set_aside(
    pictures: Path, tmp_path: Path, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes three workers with it; one that kills once is converted, and so are those beside both."""
    monkeypatch.setattr(images, "ImageWorker", DyingImageWorker)
    (pictures / "sub" / "003.png").rename(pictures / "sub" / "poison.png")
    (pictures / "sub" / "005.png").rename(pictures / "sub" / "once.png")
    result = run(pictures, tmp_path / "out", exact)
    assert (result.converted, result.failed) == (69, 2)
    reasons = {Path(str(failure.file)).name: failure.reason for failure in result.failures}
    assert set(reasons) == {"bad.png", "poison.png"}
    assert reasons["poison.png"].startswith("3 workers died over it, the last with: ")
    assert (tmp_path / "out" / "sub" / "once.png").read_bytes() == (
        tmp_path / "one" / "sub" / "005.png"
    ).read_bytes()


def test_videos_as_one_process_converts_them(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, results = tmp_path / "out", tmp_path / "results.jsonl"
    more = ["--workers", 2, "--results", results]
    code, out, err = outcome(capsys, "ray", "video", clips, "-o", output, *OPTIONS, *more)
    assert code == 1
    assert out.startswith("Converted 3 videos (1 failed) with 21 frames in ")
    assert f"Failed: {clips}/bad.mp4: not a video that can be read" in err
    assert contents(output) == contents(tmp_path / "one")
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert sorted(line["status"] for line in lines) == ["converted"] * 3 + ["failed"]
    (clips / "bad.mp4").unlink()
    code, out, _ = outcome(capsys, "ray", "video", clips, "-o", output, *OPTIONS, "--workers", 2)
    assert (code, out) == (0, f"Nothing to do: all 3 videos are converted already -> {output}\n")


def test_workers_are_lost_over_videos(
    clips: Path, tmp_path: Path, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(videos, "VideoWorker", DyingVideoWorker)
    (clips / "a.mp4").rename(clips / "once.mp4")
    (clips / "sub" / "c.mp4").rename(clips / "sub" / "poison.mp4")
    result = run_videos(clips, tmp_path / "out", exact)
    assert (result.converted, result.failed) == (2, 2)
    reasons = {Path(str(failure.file)).name: failure.reason for failure in result.failures}
    assert reasons["poison.mp4"].startswith("3 workers died over it, the last with: ")
    assert (tmp_path / "out" / "once.mp4").read_bytes() == (tmp_path / "one" / "a.mp4").read_bytes()


def test_a_long_video_goes_to_several_workers(
    tmp_path: Path, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three chunks of four segments, and a worker dies over one: the bytes are those of one process."""
    monkeypatch.setattr(resume, "SEGMENT_FRAMES", 5)
    monkeypatch.setattr(videos, "VideoWorker", ShortVideoWorker)
    (tmp_path / "in").mkdir()
    source = make_clip(tmp_path / "in" / "long.mp4", Clip(frames=53, audio="aac", width=192, height=128))
    model, options = "photo2monet-fast", VideoOptions(steady="off")
    whole = convert_video(source, tmp_path / "one.mp4", model, options, exact)
    plan = plan_videos([source.parent], tmp_path / "out", model, options, exact)
    told = Noting()
    result = run_videos_on_cluster(plan, TWO, told)
    assert (result.converted, result.failed, result.frames) == (1, 0, 53)
    assert f"{source}: 3 chunks" in told.lines
    assert any(line.endswith("is gone, and another takes over its work") for line in told.lines)
    assert result.videos[0].resumed_frames == 53  # they were laid together, and none was made again
    assert (tmp_path / "out" / "long.mp4").read_bytes() == Path(whole.output).read_bytes()
    assert names(tmp_path / "out") == ["long.mp4"]


def test_the_largest_videos_are_dealt_first(tmp_path: Path, exact: EngineOptions) -> None:
    """A video that is gone meanwhile comes last, and its worker will say so."""
    folder = tmp_path / "in"
    for name, size in (("a.mp4", 200), ("b.mp4", 0), ("c/d.mp4", 4000), ("e.mp4", 200), ("f.mp4", 300)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * size)
    plan = plan_videos([folder], tmp_path / "out", "identity", VideoOptions(), exact)
    (folder / "b.mp4").unlink()
    dealt = [Path(str(job.source)).name for job in videos.largest_first(list(plan.jobs))]
    assert dealt == ["d.mp4", "f.mp4", "a.mp4", "e.mp4", "b.mp4"]


def test_which_videos_are_parted(
    tmp_path: Path, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "SEGMENT_FRAMES", 5)
    source = make_clip(tmp_path / "long.mp4", Clip(frames=53))
    times = read_facts(source).pts

    def parts(**options: Any) -> list[Chunk]:
        return chunks_of(plan_video(source, None, "identity", VideoOptions(**options), exact))

    chunks = parts(steady="off")
    base = plan_video(source, None, "identity", VideoOptions(), exact).info.time_base
    assert [(chunk.number, chunk.frames) for chunk in chunks] == [(0, 20), (1, 20), (2, 13)]
    assert [chunk.after and chunk.after * base for chunk in chunks] == [None, times[19], times[39]]
    assert [end * base for end in chunks[2].ends] == [times[44], times[49], times[52]]
    for other in ({"steady": 0.5}, {"steady": "off", "resume": False}, {"steady": "off", "start": 0.1}):
        assert parts(**other) == []
    monkeypatch.setattr(resume, "SEGMENT_FRAMES", 14)
    assert parts(steady="off") == []


class DealingPool(Pool[str]):
    """Notes what is given to whom, without a cluster."""

    def __init__(self) -> None:
        self.in_flight, self.again = 2, deque()
        self.workers = [_Worker(0, None, True), _Worker(1, None, True)]
        self.given: list[tuple[int, str]] = []

    def _give(self, worker: _Worker[str], task: Task[str]) -> None:
        self.given.append((worker.number, task.work))
        worker.tasks.append(task)


def test_what_must_be_alone_with_a_worker_does_not_wait_for_the_end() -> None:
    """It waited until nothing new was left to be given out."""
    pool, fresh = DealingPool(), iter([Task(f"new {number}") for number in range(9)])
    upcoming = pool._deal(next(fresh), fresh)
    assert pool.given == [(0, "new 0"), (0, "new 1"), (1, "new 2"), (1, "new 3")]
    pool.again.append(Task("again", 1))
    del pool.workers[1].tasks[0]
    upcoming = pool._deal(upcoming, fresh)
    assert len(pool.given) == 4  # worker 1 will be free first, and worker 0 has all that it takes
    del pool.workers[0].tasks[0]
    del pool.workers[1].tasks[0]
    upcoming = pool._deal(upcoming, fresh)
    assert pool.given[4:] == [(1, "again"), (0, "new 4")]
    assert upcoming is not None and upcoming.work == "new 5"


def test_workers_that_never_are_ready(
    pictures: Path, tmp_path: Path, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "ImageWorker", NeverReadyWorker)
    with pytest.raises(UnavailableError, match="Ray's workers end before they are ready: "):
        run(pictures, tmp_path / "out", exact)


def test_a_model_that_is_elsewhere_goes_with_the_work(
    pictures: Path, tmp_path: Path, exact: EngineOptions, own_home: Path
) -> None:
    """A worker that does not find the driver's file, or finds another there, keeps a copy of its bytes."""
    path = tmp_path / "mine.safetensors"
    path.write_bytes(find_model("identity").read_bytes())
    sent = ModelFile.of(path)
    assert sent.here() == path
    path.write_bytes(b"another")
    copy = sent.here()
    assert copy.is_relative_to(own_home) and copy.name == path.name
    assert copy.read_bytes() == find_model("identity").read_bytes()
    assert sent.here() == copy


def test_without_ray(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection.importlib.util, "find_spec", lambda name: None)
    code, _, err = outcome(capsys, "ray", "dir", pictures, "-o", tmp_path / "out", *OPTIONS)
    assert code == 2
    assert err.splitlines()[-1] == (
        "Error: this needs Ray, which is not installed: pip install 'cgconvert[ray]'"
    )


def test_termination_is_heard_as_an_interrupt(pictures: Path, tmp_path: Path) -> None:
    """Of a cluster of its own: Ray took the signal, and the run ended without a word."""
    command = [sys.executable, "-m", "cgconvert", "ray", "dir", str(pictures), "-o", str(tmp_path / "out")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    running = subprocess.Popen(
        [*command, *OPTIONS, "--workers", "1"], stderr=subprocess.PIPE, text=True, env=environment
    )
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith("1 worker on a cluster"):
            running.send_signal(signal.SIGTERM)
            break
    rest = running.stderr.read()
    assert running.wait(30) == 130
    assert rest.splitlines()[-1].endswith("nothing half-written is left, the same command goes on from here")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "at least one is needed"),
        ({"cpus": -1.0}, "less than no"),
        ({"cpus": 0.0}, "needs a core"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ClusterOptions(**options)


def test_from_bucket_to_bucket(pictures: Path, tmp_path: Path) -> None:
    """As docs/scale.md has it: workers find the credentials in the environment that Ray was started in."""
    pytest.importorskip("obstore")
    pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    with s3_server() as port:
        endpoint = f"http://127.0.0.1:{port}"
        keys = {"aws_access_key_id": "user", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=endpoint, **keys)
        client.create_bucket(Bucket="films")
        client.put_object(Bucket="films", Key="look.safetensors", Body=find_model("identity").read_bytes())
        for name in names(pictures):
            client.put_object(Bucket="films", Key=f"in/{name}", Body=(pictures / name).read_bytes())
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= {name.upper(): value for name, value in keys.items() if name != "region_name"}
        environment |= {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true"}
        command = [sys.executable, "-m", "cgconvert", "ray", "dir", "s3://films/in", "-o", "s3://films/out"]
        options = ["--model", "s3://films/look.safetensors", *OPTIONS[2:], "--workers", "2"]
        done = subprocess.run(
            [*command, *options], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 1, done.stderr
        assert done.stdout.startswith("Converted 70 pictures (1 failed) in ")
        made = client.list_objects_v2(Bucket="films", Prefix="out/sub/")["Contents"]
        assert len(made) == 70
        one = client.get_object(Bucket="films", Key="out/sub/007.png")["Body"].read()
        assert one == (tmp_path / "one" / "sub" / "007.png").read_bytes()
