"""A Ray cluster of this machine against plain processes, and runs in which a worker is killed.

    python benchmarks/converter/cluster.py [--parts rate,kills] [--pictures N] [--pairs N] [--kills N]

`rate`: a folder of drawn pictures is converted by `cgconvert ray dir` with two workers and by two processes
of `cgconvert dir` with `--shard 1/2` and `2/2`, in turn. The cluster is up before, as on machines that have
one; starting workers and processes, loading torch and the model counts in both. Each has one thread.

`kills`: small folders of pictures and videos are converted in turn with two workers, one of which is
killed at a random moment. Every input must have its result, byte for byte that of one process, and one
line of results; no other file may be left.

Writes results/cluster.json; a part that is not asked for stays as it is in the file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])

from benchmarks.common import RESULTS, option_parser, save
from cgconvert.cluster.connection import Cluster, ClusterOptions
from cgconvert.cluster.images import run_images_on_cluster
from cgconvert.cluster.videos import run_videos_on_cluster
from cgconvert.options import EngineOptions, ImageOptions, VideoOptions
from cgconvert.pictures.pipeline import convert_dir
from cgconvert.pictures.plan import plan_dir
from cgconvert.pictures.result import Tally
from cgconvert.progress import Silent
from cgconvert.scale.results import ResultLines
from cgconvert.video.folder import plan_videos
from cgconvert.video.series import VideosTally, convert_videos
from tests.video.clips import Clip, make_clip

import ray  # isort: skip - after cgconvert, which switches its telemetry off

MODEL = "photo2monet-fast"
EDGE = 256
EXACT = EngineOptions("cpu", "eager", "fp32")
TWO = ClusterOptions(workers=2)
LATEST = 3.0
"""Seconds after the start of a worker in which it is killed."""


def draw_pictures(folder: Path, count: int, edge: int) -> None:
    """Noise, smoothed, as JPEG."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for index in range(count):
        small = draw.integers(0, 256, (edge // 8, edge // 8, 3), np.uint8)
        cv2.imwrite(str(folder / f"{index:05}.jpg"), cv2.resize(small, (edge, edge)))


def contents(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder but the marker."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".cgconvert.json")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def plain(source: Path, output: Path) -> float:
    """Two processes, each with half of the pictures. Returns wall seconds."""
    command = [sys.executable, "-m", "cgconvert", "dir", source, "-o", output, "-m", MODEL, "--quiet"]
    started = time.perf_counter()
    processes = [subprocess.Popen([*command, "--shard", f"{part}/2"]) for part in (1, 2)]
    if any(process.wait() for process in processes):
        raise SystemExit("a plain process failed")
    return time.perf_counter() - started


def on_cluster(source: Path, output: Path) -> float:
    """The command that connects to the cluster that is up. Returns wall seconds."""
    command = [sys.executable, "-m", "cgconvert", "ray", "dir", source, "-o", output, "-m", MODEL, "--quiet"]
    address = ray.get_runtime_context().gcs_address
    started = time.perf_counter()
    subprocess.run([*command, "--workers", "2", "--address", address], check=True)
    return time.perf_counter() - started


def measure_rate(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Pairs of a run on the cluster and one of plain processes."""
    draw_pictures(work / "in", arguments.pictures, EDGE)
    pairs = []
    for number in range(arguments.pairs):
        seconds = {}
        order = (("plain", plain), ("cluster", on_cluster))
        for name, run in order if number % 2 else reversed(order):
            seconds[name] = round(run(work / "in", work / name), 2)
            made = len(contents(work / name))
            assert made == arguments.pictures, made
            shutil.rmtree(work / name)
        pairs.append(seconds)
        print(seconds, flush=True)
    ratio = statistics.median(pair["plain"] / pair["cluster"] for pair in pairs)
    return {
        "model": MODEL,
        "pictures": arguments.pictures,
        "edge": EDGE,
        "pairs": pairs,
        "rate_over_plain": round(ratio, 3),
    }


class Killer:
    """Kills the n-th worker that starts, some time after it has been asked for."""

    def __init__(self, draw: random.Random) -> None:
        self.which, self.delay = draw.randrange(2), draw.uniform(0, LATEST)
        self.started, self.killed = 0, False
        self.over = threading.Event()
        self.start = Cluster.start

    def __enter__(self) -> Killer:
        killer = self

        def start(cluster: Cluster, *arguments: Any) -> Any:
            handle = killer.start(cluster, *arguments)
            if killer.started == killer.which:
                threading.Thread(target=killer._kill, args=(handle,), daemon=True).start()
            killer.started += 1
            return handle

        Cluster.start = start  # type: ignore[method-assign]
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        Cluster.start = self.start  # type: ignore[method-assign]

    def _kill(self, handle: Any) -> None:
        call = handle.__ray_call__.remote(lambda worker: os.getpid())
        if self.over.wait(self.delay):
            return
        with suppress(Exception):  # a worker that is not there yet is ended by Ray
            ready, _ = ray.wait([call], timeout=0)
            if ready:
                os.kill(ray.get(call), signal.SIGKILL)
            else:
                ray.kill(handle)
            self.killed = True


def kill_workers(work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs with a worker killed in each. `wrong` lists what must not happen."""
    draw_pictures(work / "pictures", 40, 32)
    clips = work / "videos"
    clips.mkdir()
    for index in range(4):
        make_clip(clips / f"{index}.mp4", Clip(frames=10 + index, audio="aac"))
    convert_dir(work / "pictures", work / "one-pictures", MODEL, engine_options=EXACT)
    convert_videos([clips], work / "one-videos", MODEL, engine_options=EXACT)
    expected = {kind: contents(work / f"one-{kind}") for kind in ("pictures", "videos")}
    found = {
        kind: {"runs": 0, "killed": 0, "complete": 0, "lost": 0, "twice": 0, "different": 0}
        for kind in expected
    }
    wrong: list[str] = []
    draw, started = random.Random(arguments.seed), time.monotonic()
    for number in range(arguments.kills):
        kind = ("pictures", "videos")[number % 2]
        output, lines = work / "out", work / "lines.jsonl"
        with Killer(draw) as killer:
            run_once(kind, work / kind, output, lines)
        made, told = contents(output), [json.loads(line) for line in lines.read_text().splitlines()]
        paths = [line["path"] for line in told if line["status"] == "converted"]
        row = found[kind]
        row["runs"] += 1
        row["killed"] += killer.killed
        row["lost"] += len(expected[kind].keys() - made.keys())
        row["twice"] += len(paths) - len(set(paths))
        row["different"] += sum(made.get(name) != one for name, one in expected[kind].items())
        row["complete"] += made == expected[kind] and len(paths) == len(expected[kind])
        if made != expected[kind] or len(paths) != len(expected[kind]):
            more = sorted(made.keys() - expected[kind].keys())
            wrong.append(f"{kind} {number}: {len(paths)} lines, {len(made)} files, more: {more}")
        shutil.rmtree(output)
        lines.unlink()
        if number % 10 == 9:
            print(number + 1, found, wrong, round(time.monotonic() - started), flush=True)
    return {"seed": arguments.seed, "seconds": round(time.monotonic() - started), **found, "wrong": wrong}


def run_once(kind: str, source: Path, output: Path, lines: Path) -> None:
    """Convert a folder on the cluster."""
    with ResultLines(lines) as results:
        if kind == "pictures":
            pictures = plan_dir(source, output, MODEL, ImageOptions(), EXACT)
            run_images_on_cluster(pictures, TWO, Silent(), Tally(pictures, results))
        else:
            videos = plan_videos([source], output, MODEL, VideoOptions(), EXACT)
            run_videos_on_cluster(videos, TWO, Silent(), VideosTally(videos, results))


def main() -> None:
    parser = option_parser(__doc__, "cluster")
    parser.add_argument("--parts", default="rate,kills")
    parser.add_argument("--pictures", type=int, default=1500)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    name = arguments.name or "cluster"
    before = RESULTS / f"{name}.json"
    figures = json.loads(before.read_text()) if before.exists() else {}
    figures = {part: figures[part] for part in ("rate", "kills") if part in figures}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
    for part, measure in (("rate", measure_rate), ("kills", kill_workers)):
        if part in arguments.parts.split(","):
            with tempfile.TemporaryDirectory() as work:
                figures[part] = measure(Path(work), arguments)
            print(save(name, figures))
    ray.shutdown()


if __name__ == "__main__":
    main()
