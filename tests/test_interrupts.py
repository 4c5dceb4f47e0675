"""Interrupts at random moments of everything that runs long: it ends soon, says so, and leaves nothing half.

Each try runs in this process: SIGINT comes from the system at a moment that is drawn, somewhere between the
beginning of the work and what the whole of it takes. `make test-all` makes hundreds of tries.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from cgconvert.card import ModelCard
from cgconvert.engines.choose import Candidate
from cgconvert.engines.ready import make_ready
from cgconvert.errors import Interrupted
from cgconvert.generators import build_generator, size_rule
from cgconvert.host.channels import Channel, Worker, Workers, in_worker
from cgconvert.host.files import TEMPORARY_PREFIX
from cgconvert.host.interrupts import Breakable, listening
from cgconvert.models.catalog import installed_path
from cgconvert.models.files import write_model
from cgconvert.models.importing import import_checkpoint
from cgconvert.options import EngineOptions, VideoOptions
from cgconvert.pictures.pipeline import convert_dir
from cgconvert.progress import Silent
from cgconvert.video.pipeline import convert_video
from tests.engines.models import make_model, make_pixels
from tests.pictures.pictures import noise, png
from tests.video.clips import Clip, make_clip

EXACT = EngineOptions("cpu", "eager", "fp32", 2)
LIMIT = 3.0
"""Processor seconds of this process from an interrupt to the end of the work. Not the wall's, which depend on
what else the machine does."""

few_and_many = pytest.mark.parametrize("tries", [3, pytest.param(300, marks=pytest.mark.slow)])


@contextmanager
def interrupting(delay: float, sent: list[float]) -> Iterator[None]:
    """SIGINT after so many seconds of this block; `sent` gets the processor time of that."""
    over = threading.Event()

    def interrupt() -> None:
        if not over.wait(delay):
            sent.append(time.process_time())
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def interrupt_often(work: Callable[[], object], tries: int, left: Callable[[], object]) -> None:
    """Interrupt `work` so often at random moments; `left` says what it leaves that must not be there."""
    work()  # the first time things are loaded
    started = time.perf_counter()
    work()
    whole = time.perf_counter() - started
    moments = random.Random(0)
    interrupted = 0
    for number in range(20 * tries):  # some come too late
        if interrupted == tries:
            return
        delay = whole * moments.uniform(0, 0.9)
        sent: list[float] = []
        try:
            with interrupting(delay, sent):
                work()
        except (Interrupted, KeyboardInterrupt):
            interrupted += 1
            assert time.process_time() - sent[0] < LIMIT, f"try {number} took too long"
        except BaseException as error:
            raise AssertionError(f"try {number}, interrupted after {delay:.4f} s") from error
        assert not [thread for thread in threading.enumerate() if isinstance(thread, Worker)], number
        assert not left(), f"try {number}, interrupted after {delay:.4f} s, has left {left()}"
    raise AssertionError(f"only {interrupted} interrupts came in time")


def temporary_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith((TEMPORARY_PREFIX, ".building-"))]


@pytest.fixture
def small(own_home: Path) -> str:
    arguments = {"half_channels": 4, "channels": 8, "blocks": 1}
    multiple, minimum = size_rule("h2", arguments)
    card = ModelCard("small", "h2", arguments, size_multiple=multiple, size_minimum=minimum)
    torch.manual_seed(0)
    write_model(installed_path("small"), card, build_generator("h2", arguments).state_dict())
    return "small"


@pytest.mark.parametrize("tries", [100, pytest.param(3000, marks=pytest.mark.slow)])
def test_channels(tries: int) -> None:
    """Threads that do hardly anything else than take and give back the locks of their channels."""

    class Thing:
        nbytes = 1

    def work() -> None:
        first: Channel[Thing] = Channel(3)
        second: Channel[Thing] = Channel(2)

        def produce() -> None:
            for _ in range(100):
                first.put(Thing())
            first.close()

        def compute() -> None:
            for thing in first:
                with Breakable():
                    sum(range(100))
                second.put(thing)
            second.close()

        with listening() as stop, Workers(first, second) as workers:
            workers.start("produce", produce)
            workers.start("compute", compute)
            workers.start("consume", lambda: print(sum(1 for _ in second)))
            workers.watch(stop)

    interrupt_often(work, tries, lambda: None)


@few_and_many
def test_video(tries: int, tmp_path: Path, small: str) -> None:
    source = make_clip(tmp_path / "in.mkv", Clip(frames=12, audio="aac"))
    output = tmp_path / "out.mkv"

    def work() -> None:
        options = VideoOptions(overwrite=True, resume=False)
        convert_video(source, output, small, options, EXACT)
        output.unlink()

    interrupt_often(work, tries, lambda: [p for p in tmp_path.iterdir() if p not in (source, output)])


@few_and_many
def test_folder(tries: int, tmp_path: Path, small: str) -> None:
    (tmp_path / "in").mkdir()
    for number in range(12):
        (tmp_path / f"in/{number}.png").write_bytes(png(noise(24, 32, seed=number), 2))
    count = [0]

    def work() -> None:
        count[0] += 1
        convert_dir(tmp_path / "in", tmp_path / f"out{count[0]}", small, engine_options=EXACT)

    interrupt_often(work, tries, lambda: temporary_files(tmp_path))


@few_and_many
def test_import(tries: int, tmp_path: Path, own_home: Path) -> None:
    torch.manual_seed(0)
    torch.save(build_generator("resnet", {"ngf": 8, "blocks": 6}).state_dict(), tmp_path / "net_G.pth")

    def work() -> None:
        in_worker(
            "import",
            lambda progress: import_checkpoint(tmp_path / "net_G.pth", "new", overwrite=True),
            Silent(),
        )

    interrupt_often(work, tries, lambda: temporary_files(own_home))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision"), [("openvino", "int8"), ("compile", "fp32")])
def test_building(
    name: str, precision: str, own_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ten tries with each of the engines that take long to build; the cache keeps nothing of them."""
    pytest.importorskip("nncf")
    pictures = [np.ascontiguousarray(picture) for picture in make_pixels(4, 48, 48)]
    model = make_model("h2")
    candidate = Candidate(name, precision, torch.device("cpu"))
    monkeypatch.setenv("CGCONVERT_NO_CACHE", "")
    seeds = iter(range(1000))

    def work() -> None:
        next(model.generator.parameters()).fill_(0.01 * next(seeds))  # another engine each time
        in_worker(
            "build",
            lambda progress: make_ready(
                model, candidate, (48, 48), 1, progress, lambda count: pictures[:count]
            ).close(),
            Silent(),
        )

    interrupt_often(work, 10, lambda: temporary_files(own_home))
