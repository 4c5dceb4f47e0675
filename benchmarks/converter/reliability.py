"""Conversions killed and interrupted at random moments: what is left, and whether they continue.

    python benchmarks/converter/reliability.py [--kills N] [--interrupts N] [--minutes N] [--jobs N] [--add]

Each command runs in a process that is forked from this one after torch is loaded, so that a try costs tenths
of a second. `kills` are SIGKILLs of `video`; the same command is given again until it ends, and its result
must be packet for packet that of an undisturbed run. `interrupts` are SIGINTs of channels between threads, of
`video`, `dir`, `models import`, `compile` and a calibration for int8; every second one goes to the whole
process group, as from a terminal. Each must end within 3 s with exit code 130 and leave no file that is half
written, no temporary file and no process. Tries that had ended before the signal came are counted apart.
The figures are those of the tries that were made when the `--minutes` are over. `--add` adds a further run,
with other moments, to those of the file. The exit code is 1 if anything went wrong. `make reliability` puts
the figures into docs/reliability.md.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import av
import cv2
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common import RESULTS, option_parser, save
from cgconvert.card import ModelCard
from cgconvert.cli import cgconvert
from cgconvert.cli import main as command_line
from cgconvert.generators import build_generator
from cgconvert.host.channels import Channel, Workers
from cgconvert.host.files import TEMPORARY_PREFIX
from cgconvert.host.interrupts import listening
from cgconvert.host.parts import part_folder
from cgconvert.models.files import write_model
from cgconvert.video import pipeline, resume  # noqa: F401
from tests.video.clips import Clip, make_clip, picture

LIMIT = 3.0
"""Seconds in which an interrupted command has to end."""

GIVE_UP = 60.0
"""Seconds after which a command counts as hanging."""

SHARES = {"channels": 25, "video": 25, "dir": 25, "import": 23, "compile": 1, "int8": 1}
"""Interrupts of each kind in a hundred. A try of the last two starts a compiler or a calibration."""

PARTS = {"kills": 6, "channels": 1, "video": 2, "dir": 2, "import": 2}
"""Parts of the time that the kinds get where it is limited; the others get 1."""

SEGMENT_FRAMES = 4
FRAMES = 32
PR_SET_CHILD_SUBREAPER = 36

Work = Callable[[], object]


@dataclass
class Tally:
    """What happened in one kind of tries. `wrong` lists what must not happen.

    `tries` are signals that came in time, `ended_before` those that came too late. `went_on` are killed runs
    that kept the segments of the run before them.
    """

    tries: int = 0
    ended_before: int = 0
    went_on: int = 0
    slowest_seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def take(self, row: dict[str, Any]) -> None:
        """Add the figures of another tally, as `asdict` gives them."""
        self.tries += row["tries"]
        self.ended_before += row["ended_before"]
        self.went_on += row["went_on"]
        self.slowest_seconds = max(self.slowest_seconds, row["slowest_seconds"])
        self.wrong += row["wrong"]


def command(*arguments: object) -> Work:
    """A command of cgconvert, which hears interrupts from where it begins."""

    def work() -> None:
        begin = cgconvert.main

        def heard(*given: Any, **more: Any) -> Any:
            hear_interrupts()
            return begin(*given, **more)

        cgconvert.main = heard  # type: ignore[method-assign]
        command_line([str(argument) for argument in arguments])

    return work


def hear_interrupts(heard: bool = True) -> None:
    """Whether SIGINT arrives, or waits. Until a command has begun it would end Python itself."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK if heard else signal.SIG_BLOCK, [signal.SIGINT])


def started(work: Work, said: Path) -> int:
    """A forked process, in a group of its own, that does `work`; its number. What it prints is in `said`."""
    hear_interrupts(False)
    child = os.fork()
    if child:
        hear_interrupts()
        with suppress(OSError):  # both do it, whoever is first
            os.setpgid(child, child)
        return child
    code = 70
    try:
        os.setpgid(0, 0)
        log = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        work()
        code = 0
    except SystemExit as leave:
        code = int(leave.code or 0)
    except BaseException:  # a KeyboardInterrupt must be heard by the command itself
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def ended(child: int, limit: float = GIVE_UP) -> tuple[int | None, float]:
    """The exit code (negative: the signal) and the seconds that it took; None if it hung and was killed."""
    begun = time.monotonic()
    while time.monotonic() - begun < limit:
        number, status = os.waitpid(child, os.WNOHANG)
        if number:
            return os.waitstatus_to_exitcode(status), time.monotonic() - begun
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None, limit


def orphans(limit: float = LIMIT) -> bool:
    """Whether a process that a command has started outlives it by more than `limit` seconds."""
    begun = time.monotonic()
    while True:
        try:
            number, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if not number:
            if time.monotonic() - begun > limit:
                return True
            time.sleep(0.01)


def usual_seconds(work: Work, clear: Work, said: Path, repeat: int = 3) -> float:
    """Seconds that an undisturbed command takes, the median of a few runs."""
    seconds = []
    for _ in range(repeat):
        clear()
        code, took = ended(started(work, said), 600)
        assert code == 0, f"ends with {code} without being disturbed:\n{said.read_text()}"
        seconds.append(took)
    return statistics.median(seconds)


def packets(path: Path) -> str:
    """A digest of every packet of a video with its times."""
    digest = hashlib.sha256()
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.size:
                digest.update(f"{packet.stream.index} {packet.pts} {packet.dts} {packet.duration}".encode())
                digest.update(bytes(packet))
    return digest.hexdigest()


def left_over(folder: Path, allowed: Iterable[str]) -> list[str]:
    """Names in a folder that should not be there."""
    return sorted(path.name for path in folder.iterdir() if path.name not in set(allowed))


def remove(*paths: Path) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)


def kills(count: int, base: Path, model: Path, chance: random.Random, deadline: float) -> Tally:
    """Kill `video` at random moments, and continue until each conversion is complete."""
    tally = Tally()
    folder = base / "kills"
    folder.mkdir()
    said = base / "said"
    # A frame rate of 25 and sound, B-frames, and several segments.
    clip = Clip(frames=FRAMES, width=64, height=48, audio="aac", options={"bf": "2", "preset": "veryfast"})
    source, output = make_clip(folder / "in.mp4", clip), folder / "out.mp4"
    arguments = ["video", source, "-o", output, "-m", model, "--device", "cpu", "--quiet", "--batch", "1"]
    work = command(*arguments, "--engine", "eager", "--precision", "fp32", "--preset", "veryfast")
    usual = usual_seconds(work, lambda: remove(output), said)
    wanted = packets(output)
    remove(output)
    while tally.tries < count and time.monotonic() < deadline:
        kept_before = 0
        for _ in range(chance.randint(1, 4)):
            child = started(work, said)
            time.sleep(chance.uniform(0.05, 1.0) * usual)
            os.kill(child, signal.SIGKILL)
            code, _ = ended(child)
            if code == -signal.SIGKILL:
                tally.tries += 1
            else:
                tally.ended_before += 1
            if output.exists():
                if packets(output) != wanted:
                    tally.wrong.append(f"kill {tally.tries}: a result that is not the whole one")
                break
            kept = len(list(part_folder(output).glob("*.packets")))
            tally.went_on += 0 < kept_before <= kept
            if kept < kept_before:
                tally.wrong.append(f"kill {tally.tries}: {kept_before} kept segments became {kept}")
            kept_before = kept
        if not output.exists():
            code, _ = ended(started(work, said))
            if code != 0:
                tally.wrong.append(
                    f"kill {tally.tries}: the run that continues ended with {code}:\n{said.read_text()}"
                )
                remove(output, part_folder(output))
                continue
        if packets(output) != wanted:
            tally.wrong.append(f"kill {tally.tries}: the result differs")
        others = left_over(folder, {"in.mp4", "out.mp4"})
        if others:
            tally.wrong.append(f"kill {tally.tries}: left over: {others}")
        remove(output)
        show("kills", tally, count)
    return tally


@dataclass(frozen=True)
class Interruptible:
    """Something to interrupt: the work, what it makes, and whether that is whole.

    `folders` are looked at for what is left, `allowed` are the names that may be in them.
    """

    work: Work
    clear: Work
    is_whole: Callable[[], bool]
    folders: tuple[Path, ...]
    allowed: frozenset[str]
    repeat: int = 3


def interrupts(
    name: str, count: int, what: Interruptible, said: Path, chance: random.Random, deadline: float
) -> Tally:
    """Interrupt `what` at random moments."""
    tally = Tally()
    usual = usual_seconds(what.work, what.clear, said, what.repeat)
    while tally.tries < count and tally.ended_before < 20 * count and time.monotonic() < deadline:
        what.clear()
        child = started(what.work, said)
        delay = chance.uniform(0.0, 0.95) * usual
        time.sleep(delay)
        if tally.tries % 2:
            os.killpg(child, signal.SIGINT)
        else:
            os.kill(child, signal.SIGINT)
        code, took = ended(child)
        label = f"{name} {tally.tries + 1}, interrupted after {delay:.3f} s"
        if code == 0:
            tally.ended_before += 1
            usual = min(usual, delay + took)
        else:
            tally.tries += 1
            tally.slowest_seconds = max(tally.slowest_seconds, round(took, 3))
        if code not in (0, 130, -signal.SIGINT):
            tally.wrong.append(f"{label}: exit code {code}:\n{said.read_text()[-3000:]}")
        if took > LIMIT:
            tally.wrong.append(f"{label}: it took {took:.1f} s:\n{said.read_text()[-3000:]}")
        if orphans():
            tally.wrong.append(f"{label}: it has left a process")
        if not what.is_whole():
            tally.wrong.append(f"{label}: what it has left is not whole")
        left = [name for folder in what.folders for name in left_over(folder, what.allowed)]
        left += [str(path) for folder in what.folders for path in _temporary(folder)]
        if left:
            tally.wrong.append(f"{label}: left over: {left}")
            remove(*(folder / one for folder in what.folders for one in left))
        show(name, tally, count)
    what.clear()
    return tally


def _temporary(folder: Path) -> list[Path]:
    """Half-written files below a folder. Locks that nobody holds are empty and stay."""
    prefixes = (TEMPORARY_PREFIX, ".building-")
    return [p for p in folder.rglob("*") if p.name.startswith(prefixes) and p.suffix != ".lock"]


def channel_work() -> None:
    """Threads that do hardly anything else than take and give back the locks of their channels."""

    class Thing:
        nbytes = 1

    first: Channel[Thing] = Channel(3)
    second: Channel[Thing] = Channel(2)

    def produce() -> None:
        for _ in range(3000):
            first.put(Thing())
        first.close()

    def pass_on() -> None:
        for thing in first:
            second.put(thing)
        second.close()

    try:
        hear_interrupts()
        with listening() as stop, Workers(first, second) as workers:
            workers.start("produce", produce)
            workers.start("pass on", pass_on)
            workers.start("consume", lambda: sum(1 for _ in second))
            workers.watch(stop)
    except KeyboardInterrupt:
        sys.exit(130)


def interruptibles(base: Path, model: Path) -> dict[str, Interruptible]:
    """Everything that is interrupted, by the names in `SHARES`."""
    engine = ["-m", model, "--device", "cpu", "--quiet"]
    home, temporary = base / "home", base / "tmp"
    places = {name: base / name for name in ("video", "dir", "channels")}
    for place in places.values():
        place.mkdir()
    installed = home / "models/own.safetensors"
    installed.parent.mkdir(parents=True)

    clip = make_clip(places["video"] / "in.mp4", Clip(frames=FRAMES, audio="aac"))
    video = places["video"] / "out.mp4"
    pictures = places["dir"] / "in"
    pictures.mkdir()
    for number in range(40):
        cv2.imwrite(str(pictures / f"{number}.png"), picture(number, 96, 64))
    results = places["dir"] / "out"
    checkpoint = base / "net_G.pth"
    torch.save(build_generator("resnet", {"ngf": 16, "blocks": 6}).state_dict(), checkpoint)
    engines = home / "engines"

    def pictures_whole() -> bool:
        return all(cv2.imread(str(path)) is not None for path in results.glob("*.png"))

    return {
        "channels": Interruptible(
            channel_work, lambda: None, lambda: True, (places["channels"],), frozenset()
        ),
        "video": Interruptible(
            command("video", clip, "-o", video, *engine, "--engine", "eager"),
            lambda: remove(video, part_folder(video)),
            lambda: not video.exists() or _frames(video) == FRAMES,
            (places["video"], temporary),
            frozenset({clip.name, video.name, part_folder(video).name}),
        ),
        "dir": Interruptible(
            command("dir", pictures, "-o", results, *engine, "--engine", "eager"),
            lambda: remove(results),
            pictures_whole,
            (places["dir"], temporary),
            frozenset({"in", "out"}),
        ),
        "import": Interruptible(
            command("models", "import", checkpoint, "--name", "own"),
            lambda: remove(installed),
            lambda: not installed.exists() or installed.stat().st_size > 0,
            (installed.parent, temporary),
            frozenset({installed.name}),
        ),
        "compile": Interruptible(
            command("compile", *engine, "--engine", "compile", "--size", "64x48"),
            lambda: remove(engines),
            lambda: True,
            (home, temporary),
            frozenset({"models", "engines", "jobs"}),  # jobs: of the videos before
            1,
        ),
        "int8": Interruptible(
            command("dir", pictures, "-o", results, *engine, "--engine", "openvino", "--precision", "int8"),
            lambda: remove(engines, results),
            pictures_whole,
            (home, places["dir"], temporary),
            frozenset({"models", "engines", "jobs", "in", "out"}),
            1,
        ),
    }


def show(what: str, tally: Tally, count: int) -> None:
    if tally.tries % 25 == 0:
        print(f"{what}: {tally.tries} of {count}, {len(tally.wrong)} wrong", flush=True)


def _frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(bool(packet.size) for packet in container.demux(video=0))


def share(base: Path, seed: int, counts: dict[str, int], seconds: float) -> dict[str, Tally]:
    """One process's part of all tries, as many as go into `seconds`: each kind gets its part of them."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)  # what a command leaves running becomes our child
    resume.SEGMENT_FRAMES = SEGMENT_FRAMES
    chance = random.Random(seed)
    temporary = base / "tmp"
    temporary.mkdir(parents=True)
    tempfile.tempdir = None
    os.environ |= {"CGCONVERT_HOME": str(base / "home"), "TMPDIR": str(temporary)}
    arguments = {"half_channels": 4, "channels": 8, "blocks": 1}
    torch.manual_seed(0)
    card = ModelCard("small", "h2", arguments=arguments, size_multiple=4, size_minimum=16)
    model = base / "small.safetensors"
    write_model(model, card, build_generator("h2", arguments).state_dict())
    results = {}
    said, begun = base / "said", time.monotonic()
    parts = {name: PARTS.get(name, 1) for name, count in counts.items() if count}

    def deadline(name: str) -> float:
        """The rest of the time, divided among this kind and those that come after it."""
        left, part = max(0.0, begun + seconds - time.monotonic()), parts[name]
        whole = sum(parts.values())
        del parts[name]
        return time.monotonic() + left * part / whole

    if counts["kills"]:
        results["kills of video"] = kills(counts["kills"], base, model, chance, deadline("kills"))
    for name, what in interruptibles(base, model).items():
        if counts[name]:
            until = deadline(name)
            results[f"interrupts of {name}"] = interrupts(name, counts[name], what, said, chance, until)
    return results


def shared_out(base: Path, jobs: int, seed: int, counts: dict[str, int], seconds: float) -> dict[str, Tally]:
    """All tries, by several processes at once: most of a try is waiting."""
    children = {}
    for job in range(jobs):
        own = {name: count // jobs + (job < count % jobs) for name, count in counts.items()}
        child = os.fork()
        if not child:
            code = 1
            try:
                found = share(base / str(job), seed + 1000 * job, own, seconds)
                rows = {name: asdict(tally) for name, tally in found.items()}
                (base / f"{job}.json").write_text(json.dumps(rows))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children[job] = child
    results: dict[str, Tally] = {}
    for child in children.values():
        os.waitpid(child, 0)
    for job in children:
        if not (base / f"{job}.json").exists():
            raise SystemExit(f"the tries of process {job} could not be made")
        for name, row in json.loads((base / f"{job}.json").read_text()).items():
            results.setdefault(name, Tally()).take(row)
    return results


def main() -> None:
    parser = option_parser(__doc__, "reliability")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--interrupts", type=int, default=1000)
    parser.add_argument(
        "--kinds", default=",".join(SHARES), help="what is interrupted (default: %(default)s)"
    )
    parser.add_argument(
        "--jobs", type=int, default=3, help="processes that try at once (default: %(default)s)"
    )
    parser.add_argument("--minutes", type=float, default=240, help="how long to go on (default: %(default)s)")
    parser.add_argument("--add", action="store_true", help="add to the figures in the file")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    kinds = options.kinds.split(",")
    whole = sum(SHARES[kind] for kind in kinds)
    counts = dict.fromkeys(SHARES, 0) | {
        kind: -(-options.interrupts * SHARES[kind] // whole) for kind in kinds
    }
    begun = time.monotonic()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it would be ignored
    name = options.name or "reliability"
    file = RESULTS / f"{name}.json"
    before = json.loads(file.read_text()) if options.add and file.exists() else {}
    if options.seed in before.get("seeds", []):
        parser.error(f"{file} has the tries of --seed {options.seed} already; give another one")
    with tempfile.TemporaryDirectory() as temporary:
        results = shared_out(
            Path(temporary),
            options.jobs,
            options.seed,
            counts | {"kills": options.kills},
            60 * options.minutes,
        )
    for kind, tally in results.items():
        if kind in before.get("tries", {}):
            tally.take(before["tries"][kind])
    rows = before.get("tries", {}) | {kind: asdict(tally) for kind, tally in results.items()}
    for kind, row in rows.items():
        print(
            f"{kind:30} {row['tries']:5} tries, {row['ended_before']} more had ended, "
            f"slowest {row['slowest_seconds']} s, {len(row['wrong'])} wrong"
        )
    figures = {
        "seeds": [*before.get("seeds", []), options.seed],
        "limit_seconds": LIMIT,
        "took_seconds": before.get("took_seconds", 0) + round(time.monotonic() - begun),
        "tries": rows,
        "notes": before.get("notes", []),
    }
    print(save(name, figures))
    wrong = [line for row in rows.values() for line in row["wrong"]]
    print("\n\n".join(wrong[:20]))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
