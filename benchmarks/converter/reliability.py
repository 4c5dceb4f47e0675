"""Conversions killed and interrupted at random moments: what is left, and whether they go on.

    python benchmarks/converter/reliability.py [--kills N] [--interrupts N] [--seed N] [--name NAME]

Each conversion runs in a process that is forked from this one after torch is loaded, so that a try costs
tenths of a second. `kills` are SIGKILLs of `video`; the same call is made again until it ends, and its result
must be packet for packet that of an undisturbed run. `interrupts` are SIGINTs of the commands `video`, `dir`
and `models import`: each must end within 3 s with exit code 130, or 0 where it was done already, and leave no
file that is half written. The exit code is 1 if anything went wrong. A thousand of each take about half an
hour.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import av
import cv2
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common import option_parser, save
from cgconvert.card import ModelCard
from cgconvert.cli import main as command_line
from cgconvert.generators import build_generator
from cgconvert.host.files import TEMPORARY_PREFIX
from cgconvert.models.files import write_model
from cgconvert.video import pipeline, resume  # noqa: F401
from tests.video.clips import Clip, make_clip, picture

LIMIT = 3.0
"""Seconds in which an interrupted command has to end."""

GIVE_UP = 60.0
"""Seconds after which a command counts as hanging."""


@dataclass
class Tally:
    """What happened in one kind of tries. `wrong` lists what must not happen."""

    tries: int = 0
    ended_before: int = 0
    went_on: int = 0
    slowest_seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


def started(arguments: list[str]) -> int:
    """A forked process that runs the command line; its number."""
    child = os.fork()
    if child:
        return child
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 70
    try:
        command_line(arguments)
    except SystemExit as leave:
        code = int(leave.code or 0)
    except KeyboardInterrupt:
        code = 71  # it must be heard by the command itself
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


def packets(path: Path) -> str:
    """A digest of every packet of a video with its times."""
    digest = hashlib.sha256()
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.size:
                digest.update(f"{packet.stream.index} {packet.pts} {packet.dts} {packet.duration}".encode())
                digest.update(bytes(packet))
    return digest.hexdigest()


def left_over(folder: Path, allowed: set[str]) -> list[str]:
    """Names in a folder that should not be there."""
    return sorted(path.name for path in folder.iterdir() if path.name not in allowed)


def undisturbed(arguments: list[str], repeat: int, clear: Callable[[], None]) -> float:
    """Seconds that a command takes, the median of a few runs."""
    seconds = []
    for _ in range(repeat):
        clear()
        code, took = ended(started(arguments))
        assert code == 0, f"{arguments} ends with {code} without being disturbed"
        seconds.append(took)
    return statistics.median(seconds)


def kills(count: int, folder: Path, model: Path, chance: random.Random) -> Tally:
    """Kill `video` at random moments, and go on until each conversion is complete."""
    tally = Tally()
    source = make_clip(folder / "in.mp4", Clip(frames=80, audio="aac", options={"bf": "2"}))
    output = folder / "out.mp4"
    arguments = ["video", str(source), "-o", str(output), "-m", str(model), "--device", "cpu", "--quiet"]
    arguments += ["--engine", "eager", "--precision", "fp32", "--batch", "1"]
    usual = undisturbed(arguments, 3, lambda: output.unlink(missing_ok=True))
    wanted = packets(output)
    output.unlink()
    while tally.tries < count:
        kept_before = 0
        for _ in range(chance.randint(1, 4)):
            child = started(arguments)
            time.sleep(chance.uniform(0.05, 1.1) * usual)
            os.kill(child, signal.SIGKILL)
            code, _ = ended(child)
            tally.tries += 1
            if code == 0:
                tally.ended_before += 1
            if output.exists():
                if packets(output) != wanted:
                    tally.wrong.append(f"try {tally.tries}: a result that is not the whole one")
                break
            kept = len(list(output.with_name("out.mp4.part").glob("*.packets")))
            tally.went_on += kept_before > 0 and kept >= kept_before
            if kept < kept_before:
                tally.wrong.append(f"try {tally.tries}: {kept_before} kept segments became {kept}")
            kept_before = kept
        if not output.exists():
            code, _ = ended(started(arguments))
            if code != 0:
                tally.wrong.append(f"try {tally.tries}: the run that goes on ended with {code}")
                continue
        if packets(output) != wanted:
            tally.wrong.append(f"try {tally.tries}: the result differs")
        others = left_over(folder, {"in.mp4", "out.mp4"})
        if others:
            tally.wrong.append(f"try {tally.tries}: left over: {others}")
        output.unlink()
        _show("kills", tally, count)
    return tally


def interrupts(
    what: str,
    count: int,
    folder: Path,
    arguments: list[str],
    output: Path,
    chance: random.Random,
    whole: Callable[[Path], bool],
) -> Tally:
    """Interrupt a command at random moments; `whole` says whether its result is complete."""
    tally = Tally()
    kept = {path.name for path in folder.iterdir()}

    def clear() -> None:
        for path in [output, output.with_name(output.name + ".part")]:
            if path.is_dir():
                for one in sorted(path.rglob("*"), reverse=True):
                    one.rmdir() if one.is_dir() else one.unlink()
                path.rmdir()
            path.unlink(missing_ok=True)

    usual = undisturbed(arguments, 3, clear)
    while tally.tries < count:
        clear()
        child = started(arguments)
        time.sleep(chance.uniform(0.03, 1.0) * usual)
        os.kill(child, signal.SIGINT)
        code, took = ended(child)
        tally.tries += 1
        tally.slowest_seconds = max(tally.slowest_seconds, round(took, 3))
        if code == 0:
            tally.ended_before += 1
        elif code not in (130, -signal.SIGINT):
            tally.wrong.append(f"try {tally.tries}: exit code {code}")
        if took > LIMIT:
            tally.wrong.append(f"try {tally.tries}: it took {took:.1f} s")
        if output.exists() and not whole(output):
            tally.wrong.append(f"try {tally.tries}: what is at {output.name} is not whole")
        rest = left_over(folder, {*kept, output.name, output.name + ".part"})
        rest += [str(path) for path in folder.rglob(f"{TEMPORARY_PREFIX}*") if path.suffix != ".lock"]
        if rest:
            tally.wrong.append(f"try {tally.tries}: left over: {rest}")
            break
        _show(what, tally, count)
    clear()
    return tally


def _show(what: str, tally: Tally, count: int) -> None:
    if tally.tries % 50 < 4 or tally.wrong:
        print(f"{what}: {tally.tries} of {count}, wrong: {tally.wrong[-1:] or 'nothing'}", flush=True)


def main() -> None:
    parser = option_parser(__doc__, "reliability")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--interrupts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    chance = random.Random(options.seed)
    resume.SEGMENT_FRAMES = 8
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        os.environ["CGCONVERT_HOME"] = str(base / "home")
        arguments = {"half_channels": 4, "channels": 8, "blocks": 1}
        torch.manual_seed(0)
        card = ModelCard("small", "h2", arguments=arguments, size_multiple=4, size_minimum=16)
        model = base / "small.safetensors"
        write_model(model, card, build_generator("h2", arguments).state_dict())
        places = {name: base / name for name in ("kills", "video", "dir", "import")}
        for place in places.values():
            place.mkdir()
        results = {"kills of video": kills(options.kills, places["kills"], model, chance)}
        third = -(-options.interrupts // 3)
        engine = ["-m", str(model), "--device", "cpu", "--engine", "eager", "--quiet"]

        clip = make_clip(places["video"] / "in.mp4", Clip(frames=80, audio="aac"))
        output = places["video"] / "out.mp4"
        results["interrupts of video"] = interrupts(
            "video",
            third,
            places["video"],
            ["video", str(clip), "-o", str(output), *engine],
            output,
            chance,
            lambda path: _frames(path) == 80,
        )
        pictures = places["dir"] / "in"
        pictures.mkdir()
        for number in range(40):
            cv2.imwrite(str(pictures / f"{number}.png"), picture(number, 96, 64))
        output = places["dir"] / "out"
        results["interrupts of dir"] = interrupts(
            "dir",
            third,
            places["dir"],
            ["dir", str(pictures), "-o", str(output), *engine],
            output,
            chance,
            lambda folder: all(cv2.imread(str(path)) is not None for path in folder.glob("*.png")),
        )
        checkpoint = places["import"] / "net_G.pth"
        torch.save(build_generator("resnet", {"ngf": 16, "blocks": 6}).state_dict(), checkpoint)
        output = base / "home" / "models" / "own.safetensors"
        output.parent.mkdir(parents=True)
        results["interrupts of models import"] = interrupts(
            "import",
            third,
            output.parent,
            ["models", "import", str(checkpoint), "--name", "own"],
            output,
            chance,
            lambda path: path.stat().st_size > 0,
        )
    wrong = [line for tally in results.values() for line in tally.wrong]
    for name, tally in results.items():
        print(
            f"{name:30} {tally.tries:5} tries, {tally.ended_before} had ended, "
            f"slowest {tally.slowest_seconds} s, {len(tally.wrong)} wrong"
        )
    rows = {name: asdict(tally) for name, tally in results.items()}
    print(save(options.name or "reliability", {"seed": options.seed, "tries": rows}))
    print("\n".join(wrong[:20]))
    sys.exit(bool(wrong))


def _frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(bool(packet.size) for packet in container.demux(video=0))


if __name__ == "__main__":
    main()
