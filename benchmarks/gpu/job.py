"""Check and measure everything that needs an NVIDIA GPU, with one command and without a network.

    python benchmarks/gpu/job.py [--output FILE] [--minutes 8]
    python benchmarks/gpu/job.py --tasks 'contract/*' --again
    python benchmarks/gpu/job.py --tasks none --train RUN [--train-minutes 5] [--keep FOLDER]

The work is a list of tasks, the most telling first (`--list` prints them). Each runs in a process of its own,
so that a crash, a hang or a full card ends that task and no other. A task ends between two rows when its time
is over, and is killed some seconds later. FILE is written after every row.

The job ends before its minutes are over. The same command goes on with the tasks that are left; finished
ones do not run again, unless `--again` is given. A task that ran out of time gets one more call. FILE belongs
to one card and one version of torch, and the job refuses to add figures of another.

It needs this checkout, torch with CUDA, numpy, OpenCV, safetensors, click, rich, and PyAV for the videos.
Nothing has to be installed: a wheel that is missing, such as PyAV's, may lie in the checkout, in its folder
wheels/, or beside the checkout. torch-tensorrt is measured where it is installed.

`--train RUN` then begins or resumes the training in the folder RUN, stops it after `--train-minutes`, and
copies its checkpoint and report to FOLDER.

`--device cpu` rehearses the job with tiny networks and clips. Its figures mean nothing, and FILE says so.

Exit code: 0 if every task passed, 1 if one failed, 2 for a wrong call or without a GPU, 3 if tasks are left,
130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common import RESULTS, commit
from benchmarks.gpu.summary import summarise

ROOT = Path(__file__).resolve().parents[2]
TASK = ROOT / "benchmarks" / "gpu" / "task.py"
RECORD = "\x1e"
"""Begins a line of JSON that a task prints for the job (RFC 7464); other lines are shown as they are."""
LEAST_SECONDS = 15.0
"""No task begins with less time than this: loading torch alone takes some of it."""
GRACE = 10.0
"""Seconds after its time in which a task may still end by itself, before it is killed."""
MOST_CALLS = 2
"""Tries of a task that runs out of time."""
LAST_LINES = 20
OVER = ("passed", "failed", "unavailable")
"""States in which a task is not tried again; the others are "late" and "crashed"."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A piece of the job: what runs, and the seconds that it may take."""

    name: str
    seconds: float


def tasks(candidates: Iterable[str]) -> list[Task]:
    """Every task in the order in which they run; `candidates` are the engines here ("compile fp16")."""
    found = list(candidates)
    order = ("compile fp16", "tensorrt fp16", "eager fp16")
    half = sorted((name for name in found if name.endswith("fp16")), key=order.index)
    resnet, h2 = "speed/resnet9-ngf64", "speed/h2-24-64-6"
    first = [
        Task("machine", 60),
        *[Task(f"contract/{name}", 150) for name in half[:1]],
        *[Task(f"equality/{pixel_format}", 60) for pixel_format in ("yuv420p", "yuv420p10le")],
        *[Task(f"video/{way}", 90) for way in ("rgb", "planes", "in-one", "nvdec", "nvenc", "whole-frame")],
        *[Task(f"{resnet} 1080p {name}", 120) for name in ("eager fp32", *half) if name in found],
        *[
            Task(f"training/{case} {variant}", 120)
            for case in ("resnet9_ngf64_256", "h2_24_64_6_128")
            for variant in ("published", "ours bf16", "ours bf16 compile")
        ],
    ]
    then = [
        *[Task(f"contract/{name}", 150) for name in found],
        *[
            Task(name, 90)
            for name in (
                "memory",
                "graphs",
                "auto",
                "norms",
                "wide",
                "forms",
                "filters",
                "conversions",
                "steps",
                "hardware",
            )
        ],
        *[Task(f"{h2} {size} {name}", 120) for size in ("1080p", "720p", "256") for name in found],
        *[Task(f"{resnet} {size} {name}", 120) for size in ("1080p", "720p", "256") for name in found],
    ]
    return list({task.name: task for task in [*first, *then]}.values())


class Results:
    """The file of figures: read where it is there, written whole after every change."""

    def __init__(self, path: Path, device: str) -> None:
        """Raises `ValueError` where the file is something else, or of another kind of job."""
        self.path = path
        self.lock = threading.RLock()
        self.data: Record = {"benchmark": "gpu", "rehearsal": device == "cpu", "about": None, "tasks": {}}
        if path.exists():
            try:
                self.data = json.loads(path.read_text())
            except ValueError as error:
                raise ValueError(f"{path}: is not JSON ({error}); give another --output") from None
            if not isinstance(self.data, dict) or "tasks" not in self.data:
                raise ValueError(f"{path}: is not a file of this job; give another --output")
            if self.data["rehearsal"] != (device == "cpu"):
                raise ValueError(f"{path}: rehearsals and figures do not mix; give another --output")

    def write(self) -> None:
        """Put the file in its place."""
        with self.lock:
            self.data["date"] = datetime.now(UTC).date().isoformat()
            self.data["summary"] = summarise(self.data)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            beside.write_text(json.dumps(self.data, indent=2) + "\n")
            beside.replace(self.path)

    def task(self, name: str) -> Record:
        """What is known of a task."""
        return self.data["tasks"].get(name, {})

    def candidates(self) -> list[str]:
        """The engines that `machine` found."""
        rows = self.task("machine").get("rows", {})
        return rows.get("engines", {}).get("candidates", [])

    def is_over(self, name: str) -> bool:
        """Whether a task is not to be tried again."""
        known = self.task(name)
        return known.get("state") in OVER or known.get("calls", 0) >= MOST_CALLS

    def begin(self, name: str) -> Record:
        """An empty entry for a task that begins; rows of an earlier try go."""
        with self.lock:
            calls = self.task(name).get("calls", 0) + 1
            entry: Record = {"state": "late", "calls": calls, "commit": commit(), "rows": {}}
            self.data["tasks"][name] = entry
            return entry

    def of_another(self, about: Record) -> str | None:
        """Why the figures of this machine do not belong into the file, None if they do."""
        known = self.data["about"]
        if known is None:
            self.data["about"] = about
        elif known != about:
            here, there = (f"{one['card']}, torch {one['torch']}" for one in (about, known))
            return f"{self.path}: has the figures of {there}; this is {here}: give another --output"
        return None


class WrongFileError(Exception):
    """The file has the figures of another machine."""


class NoDeviceError(Exception):
    """There is no GPU."""


def run_task(
    task: Task, command: list[str], environment: dict[str, str], results: Results, limit: float
) -> str:
    """Run a task's process for at most `limit` seconds and keep its rows as they come; returns its state.

    Raises `NoDeviceError` and `WrongFileError`, and `KeyboardInterrupt`; the process is gone then too.
    """
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # so that the compilers that it starts end with it
    )
    entry: Record | None = None
    problem: Exception | None = None
    said: deque[str] = deque(maxlen=LAST_LINES)
    ended = threading.Event()

    def listen() -> None:
        nonlocal entry, problem
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith(RECORD):
                said.append(line.rstrip())
                print(f"    {line.rstrip()}", flush=True)
                continue
            record = json.loads(line[len(RECORD) :])
            if "about" in record:
                why = results.of_another(record["about"])
                if record["about"] is None or why:
                    problem = WrongFileError(why) if why else NoDeviceError()
                    return
                entry = results.begin(task.name)
            elif entry is not None and "row" in record:
                with results.lock:
                    entry["rows"][record["row"]] = record["figures"]
            elif entry is not None:  # the last record: how it ended
                with results.lock:
                    entry.update(record)
                ended.set()
            if entry is not None:
                results.write()
            if ended.is_set():
                return

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    late = False
    try:
        listener.join(limit + GRACE)
        late = listener.is_alive()
        if ended.is_set():
            process.wait(GRACE)  # a moment to close its files; what it found is kept already
    except subprocess.TimeoutExpired:
        pass
    finally:
        _kill(process)
        listener.join()
    if problem is not None:
        raise problem
    entry = entry if entry is not None else results.begin(task.name)
    with results.lock:
        if not ended.is_set():
            entry["state"] = "late" if late else "crashed"
            entry["exit_code"] = process.returncode
        if entry["state"] != "passed":
            entry["said"] = list(said)
        entry["seconds"] = round(time.monotonic() - started, 1)
        results.write()
    return entry["state"]


def _kill(process: subprocess.Popen[str]) -> None:
    """End a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def unpack_wheels(folders: Iterable[Path], target: Path) -> list[Path]:
    """Unpack wheels that fit this Python and whose package is missing; the folders that hold them then."""
    found = []
    for wheel in sorted({path for folder in folders for path in folder.glob("*.whl")}):
        name, _, python, abi, platform = _wheel_parts(wheel)
        if importlib.util.find_spec(name) is not None or not _fits(python, abi, platform):
            continue
        place = target / wheel.stem
        if not place.is_dir():
            place.parent.mkdir(parents=True, exist_ok=True)
            beside = Path(tempfile.mkdtemp(dir=place.parent))
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(beside)
            beside.rename(place)
        found.append(place)
    return found


def _wheel_parts(wheel: Path) -> tuple[str, str, str, str, str]:
    """Name, version, Python, ABI and platform of a wheel, from its file name."""
    parts = wheel.stem.split("-")
    return parts[0].lower(), parts[1], parts[-3], parts[-2], parts[-1]


def _fits(python: str, abi: str, platform: str) -> bool:
    """Whether a wheel's tags are those of this interpreter, or of any older one with a stable ABI."""
    major, minor = sys.version_info[:2]
    numbers = [int(n) for n in re.findall(rf"cp{major}(\d+)", python)]
    fits = "py3" in python or minor in numbers or ("abi3" in abi and min(numbers, default=minor + 1) <= minor)
    return fits and (platform == "any" or (platform.endswith(os.uname().machine) and "linux" in platform))


def home_folder() -> Path:
    """Where engines and clips are kept from one call to the next: the user's own, not removed."""
    path = Path(tempfile.gettempdir()) / f"cgconvert-gpu-job-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise ValueError(f"{path}: belongs to another user; set TMPDIR to another folder")
    return path


def environment_for(home: Path, device: str) -> dict[str, str]:
    """What tasks run with: the user's own environment, our folders, and the wheels that lie about."""
    environment = {**os.environ, "CGCONVERT_HOME": str(home), "OMP_WAIT_POLICY": "passive"}
    wheels = unpack_wheels((ROOT, ROOT / "wheels", ROOT.parent), home / "wheels")
    paths = [str(ROOT), *map(str, wheels), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment


def chosen(plan: Iterable[Task], patterns: str) -> list[Task]:
    """The tasks whose names match one of some patterns, separated by commas."""
    wanted = [pattern.strip() for pattern in patterns.split(",")]
    return [task for task in plan if any(fnmatch(task.name, pattern) for pattern in wanted)]


def carry_out(arguments: argparse.Namespace, results: Results) -> int:
    """Run what is left, as far as the time goes; the exit code."""
    finish = time.monotonic() + 60 * arguments.minutes
    home = home_folder()
    environment = environment_for(home, arguments.device)
    base = [sys.executable, str(TASK)]
    done: set[str] = set()

    def run(task: Task, limit: float, *more: str) -> None:
        done.add(task.name)
        print(f"{task.name} ...", flush=True)
        limits = results.task("machine").get("rows", {}).get("limits")
        command = [*base, task.name, "--device", arguments.device, "--seconds", str(limit)]
        command += ["--limits", json.dumps(limits)] if limits else []
        state = run_task(task, [*command, *more], environment, results, limit)
        print(f"{task.name}: {state}, {results.task(task.name)['seconds']} s", flush=True)

    def waiting() -> list[Task]:
        plan = chosen(tasks(results.candidates()), arguments.tasks)
        again = arguments.again
        return [t for t in plan if t.name not in done and (again or not results.is_over(t.name))]

    if arguments.tasks != "none" and not results.candidates():
        run(Task("machine", 60), 60)  # it says which engines there are
    while plan := waiting():
        left = finish - time.monotonic() - GRACE
        if left < LEAST_SECONDS:
            break
        run(plan[0], min(plan[0].seconds, left))
    if arguments.train:
        keep = arguments.keep or arguments.output.with_suffix("")
        minutes = arguments.train_minutes
        words = ["--run", str(arguments.train.resolve()), "--keep", str(keep.resolve())]
        run(Task("train", 0), 60 * minutes + 90, "--minutes", str(minutes), *words)
    plan = chosen(tasks(results.candidates()), arguments.tasks)
    return tell(results, [task.name for task in plan if not results.is_over(task.name)], done)


def tell(results: Results, left: list[str], done: set[str]) -> int:
    """Print the outcome; the exit code."""
    for line in json.dumps(results.data.get("summary", {}), indent=2).splitlines()[1:-1]:
        print(line)
    known = results.data["tasks"]
    bad = [name for name, task in known.items() if task["state"] not in ("passed", "unavailable")]
    bad = [name for name in bad if name not in left]
    print(f"{len(done)} tasks run, {len(bad)} of {len(known)} failed, {len(left)} left; {results.path}")
    for name in bad:
        print(f"  {known[name]['state']}: {name} {known[name].get('error', '')}".rstrip())
    return 1 if bad else 3 if left else 0


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS / "gpu.json", metavar="FILE")
    parser.add_argument("--minutes", type=float, default=8.0, help="the job ends before they are over")
    parser.add_argument("--tasks", default="*", help="patterns of names, separated by commas; or none")
    parser.add_argument("--again", action="store_true", help="run finished tasks again too")
    parser.add_argument("--list", action="store_true", help="print the tasks and what is known of them")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--train", type=Path, metavar="RUN", help="the folder of a run: begin or resume it")
    parser.add_argument("--train-minutes", type=float, default=5.0)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for its files (default: beside FILE)")
    arguments = parser.parse_args(words)
    arguments.output = arguments.output.resolve()
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        results = Results(arguments.output, arguments.device)
        if arguments.list:
            for task in chosen(tasks(results.candidates()), arguments.tasks):
                print(f"{results.task(task.name).get('state', 'left'):12}{task.name}")
            return 0
        return carry_out(arguments, results)
    except NoDeviceError:
        print("no CUDA device: this job is for a machine that has one", file=sys.stderr)
        return 2
    except (ValueError, WrongFileError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        return 130


def _as_interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
