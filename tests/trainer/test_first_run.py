"""What somebody sees of a first training: how long it will take, that it runs, and what to do afterwards."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.conftest import SMALL, write_run
from trainer.config import Config
from trainer.runs import loop, rate
from trainer.runs.setup import init_run
from trainer.runs.start import start
from trainer.storage.checkpoint import load_checkpoint
from trainer.storage.folder import RunFolder


def test_init_says_how_long_the_run_takes_here(
    tmp_path: Path, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate, "measure_rate", lambda config, quick: 0.5)
    lines = init_run(tmp_path / "long", {**SMALL, **domains, "run.images": 200_000}, None, False)
    assert "a step takes about 2 s here: 200000 images take 5 days" in lines
    assert lines[-2].startswith("what fits into 8 hours: run.images = 14400; smaller crops")
    assert lines[-2].endswith("run.method = 'one_sided' learns a look in minutes")
    lines = init_run(tmp_path / "short", {**SMALL, **domains, "run.images": 600}, None, False)
    assert lines[-2] == "a step takes about 2 s here: 600 images take 20 minutes"
    by_clock = {**SMALL, **domains, "run.hours": 2.0}
    assert "a step takes about 2 s here: 3600 images in 2 hours" in init_run(
        tmp_path / "clock", by_clock, None, False
    )


@pytest.mark.parametrize(
    ("changes", "edge"),
    [
        ({"data.crop_size": 256, "data.load_size": 286}, 64),
        ({"data.crop_size": 32}, 32),
        ({"run.method": "pix2pix", "network.generator": "unet", "network.arguments": {"ngf": 4}}, 256),
        ({"data.crop_size": 256, "network.disc_layers": 5}, 96),
    ],
)
def test_a_quick_measurement_is_of_small_crops_that_suit(changes: dict[str, Any], edge: int) -> None:
    config = Config().with_changes({**SMALL, "data.crop_size": 256, **changes})
    assert min(config.data.crop_size, rate._smallest(config)) == edge


def test_a_rate_is_measured_without_leaving_a_trace(domains: dict[str, str]) -> None:
    config = Config().with_changes({**SMALL, **domains, "run.batch": 2})
    assert rate.measure_rate(config, quick=True) > 0


def test_words_for_durations() -> None:
    assert [rate.in_words(hours) for hours in (0.001, 0.2, 1.0, 30.04, 48, 360)] == [
        "1 minutes",
        "12 minutes",
        "1 hours",
        "30 hours",
        "2 days",
        "15 days",
    ]


def test_a_line_comes_before_the_first_log_line_and_a_checkpoint_soon(
    tmp_path: Path,
    domains: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "trainer")
    monkeypatch.setattr(loop, "FIRST_LINE", 0.0)
    monkeypatch.setattr(loop, "FIRST_CHECKPOINT", 0.0)
    changes = {"run.images": 4, "run.decay_images": 2, "watch.log_every": 100, "watch.checkpoint_every": 100}
    folder = RunFolder(write_run(tmp_path / "run", {**domains, **changes}))
    saved: list[int] = []

    def note(training: Any) -> None:
        saved.append(training.method.images_seen)
        save(training)

    save = loop.Training.save
    monkeypatch.setattr(loop.Training, "save", note)
    start(folder)
    assert [line for line in caplog.messages if line.startswith("1 images, ")], "at once, and only once"
    assert not [line for line in caplog.messages if line.startswith("2 images, ")]
    assert saved[:3] == [0, 1, 4], "the second by the clock; the others are far off"
    assert caplog.messages[-2:] == [
        f"finished; results: {folder.report}",
        f"a model of it: cgconvert train export {folder.path} NAME.safetensors --generator gen_ba",
    ]


def test_a_report_refreshes_itself_as_long_as_the_run_goes_on(
    tmp_path: Path, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"run.images": 2, "run.decay_images": 1}
    folder = RunFolder(write_run(tmp_path / "run", {**domains, **changes}))
    seen: list[str] = []

    def note(training: Any, state: str, why: str = "") -> None:
        report(training, state, why)
        seen.append(folder.report.read_text())

    report = loop.Training.report
    monkeypatch.setattr(loop.Training, "report", note)
    start(folder)
    assert "<meta http-equiv='refresh' content='20'>" in seen[0]
    assert "http-equiv" not in folder.report.read_text(), "nothing changes any more"


def test_a_report_has_the_settings_of_the_weights_that_are_kept(
    tmp_path: Path, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(write_run(tmp_path / "run", {**domains, "run.images": 2, "run.decay_images": 1}))
    start(folder)
    changed = {"run.images": 4, "loss.lambda_identity": 0.123}
    told: list[bool] = []

    def note(training: Any, state: str, why: str = "") -> None:
        report(training, state, why)
        told.append("<td>0.123</td>" in folder.report.read_text().replace(" ", ""))

    report = loop.Training.report
    monkeypatch.setattr(loop.Training, "report", note)
    start(folder, changed, resume=True)
    assert told[0] is False, "no weights have been trained with it yet"
    assert told[-1] is True
    assert load_checkpoint(folder.checkpoint)["config"]["loss"]["lambda_identity"] == 0.123
