"""Batches dealt to several devices: the same results in the same order as from one, also where one fails."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cgconvert.engines.choose import choose_devices
from cgconvert.engines.eager import EagerEngine
from cgconvert.engines.job import EngineJob
from cgconvert.engines.pixels import PixelFrames
from cgconvert.engines.spread import AHEAD, Spread
from cgconvert.engines.translator import STAGES, Translator
from cgconvert.errors import UnavailableError, UsageError
from cgconvert.frames import Frame
from cgconvert.host.channels import StageClock
from cgconvert.tensors.transfers import HostTransfers
from tests.engines.models import make_model, make_pixels
from tests.engines.test_translator import SlowArrival

MODEL = make_model("h2")
PIXELS = make_pixels(23, 16, 24)
FRAMES = [Frame(pixels, 3 * number, 2) for number, pixels in enumerate(PIXELS)]


class Card(EagerEngine):
    """An engine that stands for one on a card: it fails from its `last` call on."""

    def __init__(self, number: int, last: int = 1 << 30) -> None:
        super().__init__(MODEL, torch.device("cpu"))
        self.number, self.last = number, last
        self.sizes: list[int] = []
        self.threads: set[int] = set()
        self.may_run = threading.Event()
        self.may_run.set()

    def __call__(self, images: Tensor) -> Tensor:
        self.may_run.wait(30)
        self.sizes.append(len(images))
        self.threads.add(threading.get_ident())
        if len(self.sizes) >= self.last:
            raise RuntimeError(f"CUDA error: the launch failed on card {self.number}")
        return super().__call__(images)


class LateTransfers(HostTransfers):
    """Results are there only once somebody waits for them, as on a card."""

    def download(self, parts: Sequence[Tensor], stay: bool = False) -> Any:
        return SlowArrival(parts, lambda event: None)


def spread(cards: Sequence[Card], batch: int = 4, late: bool = True) -> Spread[Frame]:
    """These cards as the devices of a job; cards after the first get the batch that the first has chosen."""
    left = list(cards)
    given: list[int | None] = []

    def make(number: int, count: int | None) -> Translator[Frame]:
        given.append(count)
        job = EngineJob(left[number], count or batch)
        kind = PixelFrames(MODEL.card, LateTransfers() if late else HostTransfers())
        return Translator(job, kind, StageClock(dict.fromkeys(STAGES, "translate")))

    made = Spread([torch.device("cuda", number) for number in range(len(cards))], make)
    assert given == [None] + [batch] * (len(cards) - 1)
    return made


def converted(devices: Spread[Frame]) -> list[Frame]:
    """All frames through the devices, in batches as a video makes them."""
    results: list[Frame] = []
    start = 0
    while start < len(FRAMES):
        batch = FRAMES[start : start + devices.batch]
        results += devices.translate(batch)
        start += len(batch)
    return results + list(devices.finish())


@pytest.fixture(scope="module")
def wanted() -> np.ndarray:
    """What a single device makes of the frames."""
    alone = spread([Card(0)])
    results = converted(alone)
    alone.close()
    assert [result.pts for result in results] == [frame.pts for frame in FRAMES]
    return np.stack([result.pixels for result in results])


@pytest.mark.parametrize("late", [True, False], ids=["late", "at once"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_several_devices_give_the_same_as_one(count: int, late: bool, wanted: np.ndarray) -> None:
    cards = [Card(number) for number in range(count)]
    devices = spread(cards, late=late)
    results = converted(devices)
    told = devices.describe()
    devices.close()
    assert [(result.pts, result.duration) for result in results] == [(f.pts, f.duration) for f in FRAMES]
    assert np.array_equal(np.stack([result.pixels for result in results]), wanted)
    assert sum(sum(card.sizes) for card in cards) == len(FRAMES)
    assert all(len(card.threads) <= 1 for card in cards)
    used = {thread for card in cards for thread in card.threads}
    assert (threading.get_ident() in used) == (count == 1), "a single device is used by the calling thread"
    assert told["batch"] == 4 and told["notes"] == []
    if count > 1:
        assert [row["device"] for row in told["devices"]] == [f"cuda:{number}" for number in range(count)]
        assert sum(row["frames"] for row in told["devices"]) == len(FRAMES)


def test_batches_go_in_turn_to_devices_that_are_equally_busy() -> None:
    cards = [Card(0), Card(1)]
    devices = spread(cards)
    for card in cards:
        card.may_run.clear()
    for start in range(0, 8 * AHEAD, 4):
        assert list(devices.translate(FRAMES[start : start + 4])) == []
    with devices.changed:
        out = [[share.frames[0].pts // 12 for share in (*p.given, *p.waiting)] for p in devices.places]
    assert out == [list(range(0, 2 * AHEAD, 2)), list(range(1, 2 * AHEAD, 2))]
    for card in cards:
        card.may_run.set()
    assert [result.pts for result in devices.finish()] == [frame.pts for frame in FRAMES[: 8 * AHEAD]]
    devices.close()


@pytest.mark.parametrize("last", [1, 2, 3])
@pytest.mark.parametrize("broken", [0, 1])
def test_what_a_device_that_fails_had_goes_to_the_others(broken: int, last: int, wanted: np.ndarray) -> None:
    cards = [Card(number, last if number == broken else 1 << 30) for number in range(2)]
    devices = spread(cards)
    results = converted(devices)
    told = devices.describe()
    devices.close()
    assert [result.pts for result in results] == [frame.pts for frame in FRAMES]
    assert np.array_equal(np.stack([result.pixels for result in results]), wanted)
    rows = told["devices"]
    if len(cards[broken].sizes) == last:  # else the other was so fast that this one had too little to do
        assert [row["failed"] for row in rows] == [number == broken for number in range(2)]
        (note,) = told["notes"]
        assert note.startswith(
            f"cuda:{broken} failed (CUDA error: the launch failed on card {broken}): "
        ) and note.endswith(" frames that it had went to the others")
    assert sum(row["frames"] for row in rows) == len(FRAMES)
    assert not any(thread.is_alive() for thread in devices.threads)


def test_the_error_of_the_last_device_ends_the_job() -> None:
    cards = [Card(0, 1), Card(1, 2)]
    devices = spread(cards)
    with pytest.raises(RuntimeError, match=r"launch failed on card [01]"):
        converted(devices)
    with pytest.raises(RuntimeError, match="launch failed"):
        list(devices.translate(FRAMES[:1]))
    assert devices.batch == 4, "asked between two batches, before anybody is told of the error"
    devices.close()
    assert not any(thread.is_alive() for thread in devices.threads)


def test_a_device_that_cannot_be_made_ready_is_an_error_from_the_start() -> None:
    """It was asked for by its name."""
    card = Card(0)

    def make(number: int, count: int | None) -> Translator[Frame]:
        if number == 1:
            raise UnavailableError("no room on this one")
        job, kind = EngineJob(card), PixelFrames(MODEL.card, HostTransfers())
        return Translator(job, kind, StageClock(dict.fromkeys(STAGES, "translate")))

    with pytest.raises(UnavailableError, match="no room on this one"):
        Spread([torch.device("cuda", number) for number in range(2)], make)
    assert not [thread for thread in threading.enumerate() if thread.name == "cgconvert-cuda:0"]


def test_several_devices_are_named_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for text, names in (
        ("cuda:0,1", ["cuda:0", "cuda:1"]),
        ("cuda:2, cuda:0", ["cuda:2", "cuda:0"]),
        ("all", ["cuda:0", "cuda:1", "cuda:2"]),
        ("cpu,cpu", ["cpu", "cpu"]),
        ("cuda:1", ["cuda:1"]),
    ):
        assert [str(device) for device in choose_devices(text)] == names
    for text, problem in (
        ("cuda:0,0", "names a card twice"),
        ("cpu,cuda:0", "devices of two kinds do not give the same pictures"),
        ("auto,cuda:0", "name several devices by their numbers"),
        ("gpu,gpu", "name several devices by their numbers"),
    ):
        with pytest.raises(UsageError, match=problem):
            choose_devices(text)
    with pytest.raises(UnavailableError, match="no device cuda:3: 3 CUDA devices are visible"):
        choose_devices("cuda:0,3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UnavailableError, match="no CUDA device is visible"):
        choose_devices("all")
