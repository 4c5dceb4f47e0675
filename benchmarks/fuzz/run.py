"""Damaged and hostile files by the ten thousand: pictures, videos, model files and checkpoints.

    python benchmarks/fuzz/run.py [--seconds N] [--cases N] [--jobs N] [--kinds K,K] [--seed N] [--add]

Small valid files are changed in a way that knows their format (`benchmarks/fuzz/mutations.py`), and read by
what reads them in a conversion (`benchmarks/fuzz/cases.py`). Cases are carried out in processes forked from
this one, each many, so that a case costs milliseconds and a crash one fork; this process watches for hangs.
An outcome is fine if it is success or one of cgconvert's own errors in one line that names the file. All
else is a find: another exception, a signal, more than `CPU_LIMIT` seconds of the processor or
`MEMORY_LIMIT` bytes of memory, something left behind. Finds are made smaller, and kept in build/fuzz/.
Model files are also fuzzed with coverage as the guide where atheris is installed (`pip install -e
'.[fuzz]'`). A case is made by its number and the seed alone, so that every run can be repeated. `--add`
adds to the figures in the file. The exit code is 1 if there are finds.
"""

from __future__ import annotations

import faulthandler
import json
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common import RESULTS, option_parser, save
from benchmarks.fuzz import cases, guided
from benchmarks.fuzz.mutations import mutated

WEIGHTS = {
    "png": 13, "jpeg": 10, "webp": 9, "tiff": 13, "avif": 8, "bmp": 4,
    "gif": 3, "mp4": 4, "mkv": 3, "webm": 2, "ts": 2,
    "model": 9, "safetensors": 6, "checkpoint": 8, "old checkpoint": 6,
}  # fmt: skip
"""Cases of each kind in a hundred. Videos take ten times as long as pictures."""

CPU_LIMIT = 10
"""Seconds of the processor in a case after which it counts as hanging: these files take hundredths."""

WALL_LIMIT = 120
"""Seconds of waiting likewise, for a case that sleeps for ever."""

MEMORY_LIMIT = 512 * 2**20
"""Bytes by which a case may let its process grow."""

FORK_EVERY = 2000
"""Cases in one process."""

MINIMISING = 150
"""Tries at making a find smaller."""

FINDS = Path(__file__).parents[2] / "build/fuzz"


@dataclass(frozen=True)
class Find:
    """A case with a wrong outcome: `what` went wrong where, and all that was said of it."""

    kind: str
    number: int
    what: str
    details: str


class Counts:
    """Numbers that a process and its watcher share: the case it is at, and outcomes by kind."""

    OUTCOMES = ("converted", "refused", "wrong")

    def __init__(self) -> None:
        self.names = [(kind, outcome) for kind in WEIGHTS for outcome in self.OUTCOMES]
        self.memory = mmap.mmap(-1, 8 * (1 + len(self.names)))

    @property
    def current(self) -> int:
        """The number of the case that the process is at."""
        return int(struct.unpack_from("<q", self.memory, 0)[0])

    @current.setter
    def current(self, number: int) -> None:
        struct.pack_into("<q", self.memory, 0, number)

    def add(self, kind: str, outcome: str) -> None:
        at = 8 * (1 + self.names.index((kind, outcome)))
        struct.pack_into("<q", self.memory, at, struct.unpack_from("<q", self.memory, at)[0] + 1)

    def all(self) -> Counter[tuple[str, str]]:
        numbers = struct.unpack_from(f"<{len(self.names)}q", self.memory, 8)
        return Counter(dict(zip(self.names, numbers, strict=True)))


class Cases:
    """Every case by its number."""

    def __init__(self, seeds: Mapping[str, list[bytes]], kinds: list[str], seed: int) -> None:
        self.seeds, self.seed = seeds, seed
        self.kinds = [kind for kind in kinds for _ in range(WEIGHTS[kind])]

    def __getitem__(self, number: int) -> tuple[str, bytes, bool]:
        """The kind, the bytes, and whether the case takes the whole way of a conversion."""
        chance = random.Random(f"{self.seed} {number}")
        kind = chance.choice(self.kinds)
        return kind, mutated(kind, chance.choice(self.seeds[kind]), chance), chance.random() < cases.WHOLE_WAY


def carry_out(all_cases: Cases, numbers: range, counts: Counts, place: Path) -> None:
    """In a forked process: carry out cases one after the other. What is wrong is written to `place`."""
    _be_a_worker(place)
    folder = place / "case"
    for number in numbers:
        counts.current = number
        kind, data, whole = all_cases[number]
        _empty(folder)
        find = tried(kind, number, data, folder, whole)
        if isinstance(find, str):
            counts.add(kind, find)
            continue
        counts.add(kind, "wrong")
        with (place / "finds").open("a") as file:
            file.write(json.dumps(asdict(find)) + "\n")
        if find.what == "memory":
            os._exit(0)  # what it holds would count for every case after it
    counts.current = numbers.stop


def tried(kind: str, number: int, data: bytes, folder: Path, whole: bool) -> str | Find:
    """The outcome of a case in this process, or what is wrong with it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        outcome = cases.attempt(kind, data, folder, whole)
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if "/cgconvert/" in frame.filename] or frames
        where = f"{Path(own[-1].filename).name}:{own[-1].name}"
        return Find(kind, number, f"{type(error).__name__} in {where}", traceback.format_exc()[-4000:])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if grown > MEMORY_LIMIT:
        return Find(kind, number, "memory", f"grew by {grown} bytes")
    return outcome


def _be_a_worker(place: Path) -> None:
    """What every process that carries out cases sets up."""
    place.mkdir(exist_ok=True)
    (place / "case").mkdir(exist_ok=True)
    log = os.open(place / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable()
    cases.prepare(place / "home")
    # No case may take the machine's memory: an allocation beyond this fails.
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    bound = pages * resource.getpagesize() + 8 * MEMORY_LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def forked(work: object, *arguments: object) -> int:
    child = os.fork()
    if not child:
        code = 71
        try:
            work(*arguments)  # type: ignore[operator]
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


class Watched:
    """A process that carries out cases, watched for hangs; `over` once all its cases are done."""

    def __init__(self, all_cases: Cases, counts: Counts, place: Path) -> None:
        self.cases, self.counts, self.place = all_cases, counts, place
        self.finds: list[Find] = []
        self.child = 0

    def begin(self, numbers: range) -> None:
        self.numbers = numbers
        self.counts.current = numbers.start
        self.child = forked(carry_out, self.cases, numbers, self.counts, self.place)
        self._mark()

    def _mark(self) -> None:
        self.seen, self.seen_at, self.seen_cpu = self.counts.current, time.monotonic(), cpu_of(self.child)

    def look(self) -> range | None:
        """The numbers that are left when the process has ended; None while it runs."""
        number, status = os.waitpid(self.child, os.WNOHANG)
        at = self.counts.current
        if number:
            code = os.waitstatus_to_exitcode(status)
            said = (self.place / "said").read_text(errors="replace")[-4000:] if code else ""
            if code < 0:
                self._wrong(at, signal.Signals(-code).name, said)
            elif code:
                self._wrong(at, f"exit code {code}", said)
            return range(min(at + (at < self.numbers.stop), self.numbers.stop), self.numbers.stop)
        if at != self.seen:
            self._mark()
        elif cpu_of(self.child) - self.seen_cpu > CPU_LIMIT or time.monotonic() - self.seen_at > WALL_LIMIT:
            os.kill(self.child, signal.SIGABRT)  # which lets it say where it was
            time.sleep(0.5)
            os.kill(self.child, signal.SIGKILL)
            os.waitpid(self.child, 0)
            self._wrong(at, "hang", (self.place / "said").read_text(errors="replace")[-4000:])
            return range(at + 1, self.numbers.stop)
        return None

    def _wrong(self, number: int, what: str, details: str) -> None:
        kind = self.cases[number][0]
        self.counts.add(kind, "wrong")
        self.finds.append(Find(kind, number, what, details))


def cpu_of(process: int) -> float:
    """Seconds of the processor that a process has taken."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fuzz(all_cases: Cases, count: int | None, seconds: float, jobs: int, base: Path) -> tuple[Counter, list]:
    """Carry out `count` cases, or as many as go into `seconds`; outcomes by kind, and the finds."""
    begun = time.monotonic()
    watched = [Watched(all_cases, Counts(), base / str(job)) for job in range(jobs)]
    next_number, told = 0, begun

    def hand_out(one: Watched, left: range) -> None:
        nonlocal next_number
        if not left and (time.monotonic() - begun < seconds if count is None else next_number < count):
            stop = next_number + FORK_EVERY
            left = range(next_number, stop if count is None else min(stop, count))
            next_number = stop
        one.child = 0
        if left and (count is not None or time.monotonic() - begun < seconds):
            one.begin(left)

    for one in watched:
        hand_out(one, range(0))
    while any(one.child for one in watched):
        time.sleep(0.05)
        for one in watched:
            if one.child and (left := one.look()) is not None:
                hand_out(one, left)
            elif one.child and count is None and time.monotonic() - begun >= seconds:
                os.kill(one.child, signal.SIGKILL)
                os.waitpid(one.child, 0)
                one.child = 0
        if time.monotonic() - told > 20:
            told = time.monotonic()
            totals = sum((one.counts.all() for one in watched), Counter())
            wrong = sum(number for (_, outcome), number in totals.items() if outcome == "wrong")
            print(f"{totals.total()} cases in {told - begun:.0f} s, {wrong} wrong", flush=True)
    finds = [find for one in watched for find in one.finds]
    for one in watched:
        if (one.place / "finds").exists():
            lines = (one.place / "finds").read_text().splitlines()
            finds += [Find(**json.loads(line)) for line in lines]
    return sum((one.counts.all() for one in watched), Counter()), finds


# ---- finds ------------------------------------------------------------------------------------------


def outcome_of(kind: str, data: bytes, whole: bool, base: Path) -> str:
    """What one file leads to, in a process of its own: an outcome, or what is wrong."""
    place = base / "alone"
    shutil.rmtree(place, ignore_errors=True)

    def one_case() -> None:
        _be_a_worker(place)
        found = tried(kind, 0, data, place / "case", whole)
        (place / "outcome").write_text(found if isinstance(found, str) else found.what)

    child = forked(one_case)
    begun = time.monotonic()
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        time.sleep(0.005)
        if cpu_of(child) > CPU_LIMIT or time.monotonic() - begun > WALL_LIMIT:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hang"
    code = os.waitstatus_to_exitcode(ended[1])
    if code < 0:
        return signal.Signals(-code).name
    return (place / "outcome").read_text() if code == 0 else f"exit code {code}"


def smaller(kind: str, data: bytes, whole: bool, what: str, base: Path) -> bytes:
    """The file with as much left out as still leads to the same."""
    tries, length = 0, len(data) // 2
    while length and tries < MINIMISING:
        at = 0
        while at < len(data) and tries < MINIMISING:
            shorter = data[:at] + data[at + length :]
            tries += 1
            if outcome_of(kind, shorter, whole, base) == what:
                data = shorter
            else:
                at += length
        length //= 2
    return data


def keep(finds: list[Find], all_cases: Cases, base: Path) -> list[dict[str, object]]:
    """Write each sort of finds to `FINDS`, made smaller; a row for each."""
    rows = []
    sorts: dict[tuple[str, str], list[Find]] = {}
    for find in finds:
        sorts.setdefault((find.kind, find.what), []).append(find)
    for (kind, what), some in sorts.items():
        _, data, whole = all_cases[some[0].number]
        alone = outcome_of(kind, data, whole, base)
        if alone == what and what != "hang":
            data = smaller(kind, data, whole, what, base)
        FINDS.mkdir(parents=True, exist_ok=True)
        name = f"{kind.replace(' ', '_')}-{some[0].number}"
        (FINDS / name).write_bytes(data)
        (FINDS / f"{name}.txt").write_text(f"{what}; alone: {alone}\n{some[0].details}")
        rows.append({"kind": kind, "what": what, "times": len(some), "file": name, "alone": alone})
        print(f"{kind}: {what}, {len(some)} times, {len(data)} bytes in {FINDS / name}; alone: {alone}")
    return rows


def main() -> None:
    parser = option_parser(__doc__, "fuzz")
    parser.add_argument("--seconds", type=float, default=600, help="how long to go on (default: %(default)s)")
    parser.add_argument("--cases", type=int, help="so many cases instead, however long they take")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--kinds", default=",".join(WEIGHTS), help="default: %(default)s")
    parser.add_argument("--seed", type=int, help="default: another one each time")
    parser.add_argument("--add", action="store_true", help="add to the figures in the file")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else int(time.time())
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        (base / "seeds").mkdir()
        all_cases = Cases(cases.seeds(base / "seeds"), options.kinds.split(","), seed)
        guides = guided.AVAILABLE and any(kind in guided.KINDS for kind in all_cases.kinds)
        part = guided.SHARE if guides else 0.0
        count = None if options.cases is None else round(options.cases * (1 - part))
        totals, finds = fuzz(all_cases, count, options.seconds * (1 - part), options.jobs, base)
        rows = keep(finds, all_cases, base)
        kinds = {
            kind: {outcome: totals[kind, outcome] for outcome in Counts.OUTCOMES}
            for kind in WEIGHTS
            if kind in all_cases.kinds
        }
        if guides:
            runs = None if options.cases is None else options.cases - (count or 0)
            more, guided_rows = guided.fuzz(all_cases.seeds, runs, options.seconds * part, seed, base, FINDS)
            kinds["by coverage"] = more
            rows += guided_rows
    for kind, row in kinds.items():
        print(f"{kind:16} " + ", ".join(f"{number} {outcome}" for outcome, number in row.items()))
    name = options.name or "fuzz"
    file = RESULTS / f"{name}.json"
    before = json.loads(file.read_text()) if options.add and file.exists() else {}
    made = sum(sum(row.values()) for row in kinds.values())
    print(f"{made} cases with seed {seed}, {len(rows)} sorts of finds")
    for kind, row in before.get("kinds", {}).items():
        now = kinds.get(kind, {})
        kinds[kind] = {outcome: row[outcome] + now.get(outcome, 0) for outcome in Counts.OUTCOMES}
    figures = {
        "seeds": [*before.get("seeds", []), seed],
        "cases": before.get("cases", 0) + made,
        "took_seconds": before.get("took_seconds", 0) + round(time.monotonic() - begun),
        "limits": {"processor_seconds": CPU_LIMIT, "memory_bytes": MEMORY_LIMIT},
        "kinds": kinds,
        "finds": [*before.get("finds", []), *rows],
    }
    print(save(name, figures))
    sys.exit(bool(rows))


if __name__ == "__main__":
    main()
