"""Many pictures: cost and memory from a thousand to a hundred thousand, buckets, and a cluster's efficiency.

    python benchmarks/converter/scale.py [--parts pictures,objects,dispatch,simulation] [--counts 1000,100000]

`pictures`: folders of small pictures are listed, planned and converted with a model that changes nothing, in
a process for each count. `plan` is the cost of listing and planning, `convert` that of converting, `again`
that of a second run, which finds every result: seconds a picture, less those of a run with one picture.
`memory` is the peak by the operating system's count, in MiB.

`objects`: the same pictures from a folder to a folder, and from a bucket to a bucket of a server on this
machine (moto, which is written in Python and has this machine's cores to share): seconds a picture.

`dispatch`: blocks of pictures dealt to two workers that do nothing: the driver's seconds a block. `start` is
how long a worker takes from being asked for to its first result, which is the model's loading too.

`simulation`: 10 million pictures and 10,000 videos on 1 to 256 workers, event by event, from what was
measured and from the `assumptions` that the file lists. Efficiency is the time that the work itself takes
over the time that all workers are held.

Writes results/scale.json; a part that is not asked for stays as it is in the file.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])

from benchmarks.common import RESULTS, option_parser, save
from cgconvert.cluster.connection import Cluster, ClusterOptions
from cgconvert.cluster.images import BLOCK, BLOCKS_AHEAD, BlockResult, ImageWorker, Settled
from cgconvert.cluster.models import ModelFile
from cgconvert.cluster.pool import Aside, Pool
from cgconvert.host.interrupts import Stop
from cgconvert.models.catalog import find_model
from cgconvert.options import EngineOptions, ImageOptions
from cgconvert.pictures.files import ImageJob
from cgconvert.pictures.pipeline import run_images
from cgconvert.pictures.plan import plan_dir, plan_images
from cgconvert.pictures.result import Tally
from cgconvert.progress import Silent
from cgconvert.scale.results import ResultLines

PARTS = ("pictures", "objects", "dispatch", "simulation")
EXACT = EngineOptions("cpu", "eager", "fp32")
EDGE, IN_FOLDER = 32, 500
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def draw(folder: Path, count: int) -> None:
    """So many pictures of noise as PNG, the same bytes for each, five hundred in a folder."""
    pixels = np.random.default_rng(0).integers(0, 256, (EDGE, EDGE, 3), np.uint8)
    first = folder / "0000.png"
    folder.mkdir()
    Image.fromarray(pixels).save(first)
    data = first.read_bytes()
    first.unlink()
    for index in range(count):
        below = folder / f"{index // IN_FOLDER:04}"
        if index % IN_FOLDER == 0:
            below.mkdir()
        (below / f"{index:06}.png").write_bytes(data)


class Count(ResultLines):
    """Counts the results, instead of writing lines."""

    def __init__(self) -> None:
        self.count = 0

    def write(self, *arguments: Any, **facts: Any) -> None:
        self.count += 1


def convert_once(source: str, output: str) -> dict[str, float]:
    """For a process of its own: plan and convert a folder, then once more. Seconds of the whole."""
    figures = {}
    for name in ("convert", "again"):
        started = time.perf_counter()
        plan = plan_dir(Path(source), Path(output), "identity", ImageOptions(), EXACT)
        planned = time.perf_counter()
        results = Count()
        result = run_images(plan, Silent(), Tally(plan, results))
        assert result.converted + result.skipped == results.count == plan.total
        figures[name] = time.perf_counter() - planned
        figures["plan"] = planned - started
    figures["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures


def measure_pictures(arguments: argparse.Namespace) -> dict[str, Any]:
    """Cost and memory by count; the cost of a run with one picture is that of starting."""
    found: list[dict[str, Any]] = []
    starting: dict[str, float] = {}
    for count in [1, *(int(count) for count in arguments.counts.split(","))]:
        rounds = []
        for _ in range(3 if count <= 10_000 else 1):
            with tempfile.TemporaryDirectory() as work:
                draw(Path(work) / "in", count)
                call = (
                    "import json, sys; from benchmarks.converter.scale import convert_once; "
                    "print(json.dumps(convert_once(*sys.argv[1:])))"
                )
                command = [sys.executable, "-c", call, f"{work}/in", f"{work}/out"]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                rounds.append(json.loads(done.stdout.splitlines()[-1]))
        row = {name: sorted(one[name] for one in rounds)[len(rounds) // 2] for name in rounds[0]}
        if not starting:
            starting = row
            continue
        memory = round(row.pop("memory"), 1)
        each = {name: round((row[name] - starting[name]) / (count - 1), 7) for name in row}
        found.append({"pictures": count, **each, "memory": memory})
        print(found[-1], flush=True)
    few, many = found[0], found[-1]
    return {
        "starting_seconds": round(starting["convert"], 3),
        "rows": found,
        "cost_over_first": round(many["convert"] / few["convert"], 3),
        "memory_over_first": round(many["memory"] / few["memory"], 3),
    }


def measure_objects(arguments: argparse.Namespace) -> dict[str, Any]:
    """A folder and a bucket, in turn."""
    import boto3

    from cgconvert.host.objects import ObjectPath
    from tests.scale.s3 import s3_server

    seconds: dict[str, list[float]] = {"folder": [], "bucket": []}
    with tempfile.TemporaryDirectory() as work, s3_server() as port:
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "user",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }
        client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1")
        client.create_bucket(Bucket="pictures")
        bucket = ObjectPath("s3://pictures", "")
        draw(Path(work) / "in", arguments.objects)
        for path in (Path(work) / "in").rglob("*.png"):
            (bucket / "in" / path.relative_to(Path(work) / "in")).write(path.read_bytes(), False)
        for number in range(3):
            for name, place in (("folder", Path(work)), ("bucket", bucket)):
                target = place / f"out{number}"
                plan = plan_dir(place / "in", target, "identity", ImageOptions(), EXACT)
                started = time.perf_counter()
                assert run_images(plan, Silent(), Tally(plan, Count())).converted == arguments.objects
                seconds[name].append(round((time.perf_counter() - started) / arguments.objects, 6))
    middle = {name: sorted(values)[1] for name, values in seconds.items()}
    return {
        "pictures": arguments.objects,
        "seconds": seconds,
        "overhead_seconds": round(middle["bucket"] - middle["folder"], 6),
    }


class Idle:
    """A worker that does nothing."""

    def ready(self) -> bool:
        return True

    def convert(self, jobs: list[ImageJob], again: bool) -> BlockResult:
        facts = {"seconds": 0.1, "width": 256, "height": 256, "source_bytes": 1, "output_bytes": 1}
        return BlockResult([(job, Settled("converted", None, facts)) for job in jobs], {}, [], {})


def measure_dispatch(arguments: argparse.Namespace) -> dict[str, Any]:
    """The driver's cost of a block, and what the start of a worker takes."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
    cluster = Cluster(ClusterOptions(workers=2))

    def run(blocks: Iterator[list[ImageJob]], kind: type, *given: Any) -> tuple[float, float, int]:
        pool: Pool[list[ImageJob]] = Pool(
            cluster, lambda: cluster.start(kind, 3, *given), BLOCKS_AHEAD, lambda block: [block], print
        )
        started, first, count = time.perf_counter(), 0.0, 0
        for outcome in pool.run(blocks, Stop()):
            assert not isinstance(outcome, Aside)
            first = first or time.perf_counter()
            count += 1
        return first - started, time.perf_counter() - first, count

    jobs = [ImageJob(Path(f"/in/{n:08}.png"), Path(f"/out/{n:08}.png"), "PNG") for n in range(BLOCK)]
    processor = time.process_time()
    _, seconds, count = run((jobs for _ in range(arguments.blocks)), Idle)
    processor = time.process_time() - processor
    starts = []
    with tempfile.TemporaryDirectory() as work:
        draw(Path(work) / "in", 2)
        for number in range(3):
            sources = sorted((Path(work) / "in").rglob("*.png"))
            plan = plan_images(sources, Path(work) / f"out{number}", "photo2monet", ImageOptions(), EXACT)
            blocks = iter([[job] for job in plan.files])
            model = ray.put(ModelFile.of(find_model("photo2monet")))
            starts.append(round(run(blocks, ImageWorker, plan, model)[0], 2))
    ray.shutdown()
    return {
        "blocks": count,
        "pictures_a_block": BLOCK,
        "seconds_a_block": round(seconds / (count - 1), 6),
        "driver_processor_seconds_a_block": round(processor / count, 6),
        "start_seconds": starts,
    }


def simulate(
    services: list[float], workers: int, start: float, dispatch: float, failures: float, draw: random.Random
) -> dict[str, float]:
    """Deal work of these seconds to workers, event by event. Returns efficiency and makespan.

    A worker takes `start` seconds to begin and after each failure; it fails `failures` times a second, and
    loses what it is at. The driver deals one piece after the other, `dispatch` seconds each, and does so one
    piece ahead, so that a worker waits only if the driver is behind.
    """
    driver, held = 0.0, 0.0
    free = [(start, number) for number in range(workers)]
    fails = [draw.expovariate(failures) for _ in range(workers)]
    heapq.heapify(free)
    queue = list(reversed(services))
    end = 0.0
    while queue:
        now, number = heapq.heappop(free)
        driver = max(driver, now - dispatch) + dispatch
        done = max(now, driver) + queue[-1]
        if fails[number] < done:  # what it was at is dealt again
            back = max(now, fails[number]) + start
            fails[number] = back + draw.expovariate(failures)
            heapq.heappush(free, (back, number))
            continue
        queue.pop()
        end = max(end, done)
        heapq.heappush(free, (done, number))
    held = workers * end
    return {"efficiency": round(sum(services) / held, 4), "hours": round(end / 3600, 3)}


def measure_simulation(dispatch: dict[str, Any]) -> dict[str, Any]:
    """Both kinds of work on clusters of each size."""
    start = max(dispatch["start_seconds"])
    block = dispatch["seconds_a_block"]
    assumptions = {
        "start of a worker in seconds, with its model (measured, the slowest of three)": start,
        "driver's seconds a block of 32 pictures, or a video (measured)": block,
        "pictures": 10_000_000,
        "seconds a picture on a worker (a GPU at 20 pictures/s)": 0.05,
        "spread of a block's seconds (standard deviation over mean)": 0.2,
        "videos": 10_000,
        "seconds a video on a worker (median; log-normal with sigma 1)": 120.0,
        "spread of seconds a byte, by which the largest are dealt first (log-normal, sigma)": 0.5,
        "failures of a worker in a day": 2.0,
        "not in it": "how fast storage and networks are; machines that come late",
    }
    draw = random.Random(1)
    blocks = [max(0.1, draw.gauss(0.05 * BLOCK, 0.2 * 0.05 * BLOCK)) for _ in range(10_000_000 // BLOCK)]
    videos = [120.0 * draw.lognormvariate(0, 1) for _ in range(10_000)]
    videos.sort(key=lambda seconds: -seconds * draw.lognormvariate(0, 0.5))
    failures = 2.0 / 86400
    rows = []
    for workers in WORKERS:
        row: dict[str, Any] = {"workers": workers}
        for name, services in (("pictures", blocks), ("videos", videos)):
            row[name] = simulate(services, workers, start, block, failures, draw)
        rows.append(row)
        print(row, flush=True)
    return {"assumptions": assumptions, "rows": rows}


def main() -> None:
    parser = option_parser(__doc__, "scale")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--counts", default="1000,10000,100000")
    parser.add_argument("--objects", type=int, default=500)
    parser.add_argument("--blocks", type=int, default=2000)
    arguments = parser.parse_args()
    name = arguments.name or "scale"
    before = RESULTS / f"{name}.json"
    figures = json.loads(before.read_text()) if before.exists() else {}
    figures = {part: figures[part] for part in PARTS if part in figures}
    wanted = arguments.parts.split(",")
    for part in PARTS:
        if part not in wanted:
            continue
        if part == "simulation":
            figures[part] = measure_simulation(figures["dispatch"])
        else:
            measure = {
                "pictures": measure_pictures,
                "objects": measure_objects,
                "dispatch": measure_dispatch,
            }
            figures[part] = measure[part](arguments)
            print(part, figures[part], flush=True)
        print(save(name, figures))


if __name__ == "__main__":
    main()
