"""The engine of `auto`: what is measured, when, what is kept of it, and what it changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cgconvert.engines import fastest
from cgconvert.engines.cache import OFF, get_or_build, list_entries
from cgconvert.engines.choose import Candidate, candidates
from cgconvert.engines.fastest import WORTH_MEASURING, contenders, in_order
from cgconvert.engines.kept import KeptEngine
from cgconvert.engines.keys import engine_parts
from cgconvert.engines.ready import create_job
from cgconvert.models.files import write_model
from cgconvert.models.loading import Model
from cgconvert.options import EngineOptions
from cgconvert.progress import Silent
from tests.engines.models import make_model, make_pixels

CPU = torch.device("cpu")


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> dict[str, float | None]:
    """What measuring finds, by engine; `asked` of the function are the engines and sizes that it measured."""
    found: dict[str, float | None] = {"openvino": 10.0, "eager": 10.0}

    def measure(model: Model, rival: Candidate, size: tuple[int, int], *more: object) -> float | None:
        measure.asked.append((rival.engine, size))  # type: ignore[attr-defined]
        return found[rival.engine]

    measure.asked = []  # type: ignore[attr-defined]
    monkeypatch.setattr(fastest, "pictures_per_second", measure)
    monkeypatch.setattr("cgconvert.engines.openvino.OpenVINOEngine.why_not", lambda device, precision: None)
    return found


def asked() -> list[Any]:
    return fastest.pictures_per_second.asked  # type: ignore[attr-defined]


def order_of(
    model: Model, pixels: int, size: tuple[int, int] = (300, 40), batch: int | None = None
) -> tuple[list[str], Mapping[str, Any]]:
    order = list(candidates(model, "cpu", "auto", "fp32"))
    found, measured = in_order(model, order, size, batch, pixels, Silent())
    return [one.engine for one in found], measured


def test_a_long_job_measures_once_and_all_others_find_it(rates: dict[str, float | None]) -> None:
    model = make_model("tiny")
    rates["eager"] = 12.0
    assert order_of(model, WORTH_MEASURING - 1) == (["openvino", "eager"], {}), "a short one does not measure"
    assert asked() == []
    wanted = ["eager", "openvino"], {"openvino": 10.0, "eager": 12.0}
    assert order_of(model, WORTH_MEASURING) == wanted
    assert asked() == [("openvino", (256, 40)), ("eager", (256, 40))], "no more than a part of the picture"
    assert order_of(model, WORTH_MEASURING) == wanted
    assert order_of(model, 0, (2000, 40)) == wanted, "what is measured is the same part of it"
    assert len(asked()) == 2
    (entry,) = list_entries()
    assert entry.about == "tiny, fp32, 40x256: how fast each engine is" and entry.problem is None
    assert order_of(make_model("tiny", seed=1), 0) == (["openvino", "eager"], {}), "another model"
    assert order_of(model, 0, batch=1) == (["openvino", "eager"], {}), "one picture has all cores"


@pytest.mark.parametrize(
    ("openvino", "eager", "first"),
    [(10.0, 10.9, "openvino"), (10.0, 11.0, "eager"), (None, 1.0, "eager"), (None, None, "openvino")],
)
def test_another_than_the_usual_engine_is_taken_if_it_is_clearly_faster(
    rates: dict[str, float | None], openvino: float | None, eager: float | None, first: str
) -> None:
    rates.update(openvino=openvino, eager=eager)
    names, measured = order_of(make_model("tiny"), WORTH_MEASURING)
    assert names[0] == first and sorted(names) == ["eager", "openvino"]
    assert measured == {name: rate for name, rate in rates.items() if rate is not None}


def test_without_a_cache_nothing_is_measured(
    rates: dict[str, float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be measured in every run again, and two runs might choose differently."""
    monkeypatch.setenv(OFF, "1")
    rates["eager"] = 100.0
    assert order_of(make_model("tiny"), WORTH_MEASURING) == (["openvino", "eager"], {})
    assert asked() == []


def test_what_is_asked_for_by_name_is_not_measured(rates: dict[str, float | None]) -> None:
    options = EngineOptions("cpu", "eager", "fp32")
    job = create_job(make_model("tiny"), options, make_pixels(1, 32, 32), pixels=WORTH_MEASURING)
    job.close()
    assert asked() == [] and "measured_pictures_per_second" not in job.describe()


def test_the_report_of_a_job_says_what_was_measured(rates: dict[str, float | None], tmp_path: Path) -> None:
    rates["eager"] = 30.0
    model = make_model("tiny")
    path = tmp_path / "tiny.safetensors"
    write_model(path, model.card, model.generator.state_dict())
    with KeptEngine() as keeper:
        told = []
        for size in ((32, 32), (32, 48)):
            options = EngineOptions("cpu", precision="fp32")
            more = (Silent(), lambda count: [], 0, WORTH_MEASURING)
            told.append(keeper.ready(path, options, make_pixels(1, *size), *more).describe())
    assert [one["engine"] for one in told] == ["eager", "eager"]
    assert [one["measured_pictures_per_second"] for one in told] == 2 * [{"openvino": 10.0, "eager": 30.0}]
    assert len(asked()) == 2, "the engine of the first video is kept for the second"


def test_the_engines_themselves_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is called once before its time counts; of the others the best does, here of a clock of our own."""
    seconds = iter([0.0, 10.0, 10.0, 14.0, 15.0, 17.0, 22.0])
    monkeypatch.setattr(fastest.time, "perf_counter", lambda: next(seconds))
    calls: list[tuple[int, ...]] = []

    def run(images: torch.Tensor) -> torch.Tensor:
        calls.append(tuple(images.shape))
        return images

    card = SimpleNamespace(network_channels=5)
    engine = SimpleNamespace(device=CPU, streams=3, model=SimpleNamespace(card=card))
    job: Any = SimpleNamespace(
        batch=8, engine=type("Engine", (), {**vars(engine), "__call__": lambda s, x: run(x)})()
    )
    assert fastest._rate(job, (16, 24)) == 1.5, "three pictures in the two seconds of the last run"
    assert calls == 3 * [(3, 5, 16, 24)]


def test_this_machine_is_measured() -> None:
    model = make_model("tiny")
    order = list(candidates(model, "cpu", "auto", "fp32"))
    if not contenders(model, order, (32, 32)):
        pytest.skip("there is no openvino here")
    found, measured = in_order(model, order, (32, 32), None, WORTH_MEASURING, Silent())
    assert set(measured) == {"openvino", "eager"} and all(rate > 0 for rate in measured.values())
    again = in_order(model, order, (32, 32), None, 0, Silent())
    assert again == (found, measured)
    job = create_job(model, EngineOptions("cpu", precision="fp32"), make_pixels(1, 32, 32))
    assert job.engine.name == found[0].engine
    job.close()


def test_on_a_card_only_what_has_been_built_is_measured(
    rates: dict[str, float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To build takes minutes, which no measurement is worth."""
    model, card = make_model("tiny"), torch.device("cuda", 0)
    for place in ("keys", "fastest"):
        monkeypatch.setattr(f"cgconvert.engines.{place}.device_name", lambda device: "a card")
    monkeypatch.setattr("cgconvert.engines.keys.driver_versions", lambda device: {})
    for name in ("compiled.CompileEngine", "tensorrt.TensorRTEngine"):
        monkeypatch.setattr(f"cgconvert.engines.{name}.why_not", lambda device, precision: None)
    order = [Candidate(name, "fp16", card) for name in ("compile", "eager")]

    def built(engine: str, height: int, precision: str = "fp16") -> None:
        parts = engine_parts(model, engine, card, precision, shape=[4, height, 64])
        get_or_build(parts, lambda folder: (folder / "x").touch(), lambda folder: None)

    def chosen() -> tuple[list[str], Mapping[str, Any]]:
        found, measured = in_order(model, order, (31, 61), None, WORTH_MEASURING, Silent())
        return [one.engine for one in found], measured

    built("tensorrt", 64)
    built("tensorrt", 32, "fp32")
    assert chosen() == (["compile", "eager"], {}), "for another size, and in another precision"
    built("tensorrt", 32)
    assert chosen() == (["tensorrt", "compile", "eager"], {}), "one that is there needs no rival"
    built("compile", 32)
    rates.update(compile=50.0, tensorrt=80.0)
    assert chosen() == (["tensorrt", "compile", "eager"], {"compile": 50.0, "tensorrt": 80.0})
    assert asked() == [("compile", (32, 64)), ("tensorrt", (32, 64))]
    assert [entry.parts["engine"] for entry in list_entries()].count("auto") == 1
