"""Trainings that go wrong of themselves: noticed, taken back once, then stopped with a message."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.conftest import make_pairs, write_run
from trainer.compute.distributed import World
from trainer.methods import cyclegan
from trainer.reporting.watch import Watch
from trainer.runs.health import EARLY, WINDOW, Health
from trainer.runs.loop import CollapsedError, train
from trainer.runs.start import prepare
from trainer.runs.training import Training
from trainer.storage.checkpoint import load_checkpoint
from trainer.storage.folder import RunFolder


def training(folder: Path, domains: dict[str, str], **settings: Any) -> Training:
    run = write_run(folder, {**domains, **{key.replace("__", "."): value for key, value in settings.items()}})
    return prepare(RunFolder(run), {}, False, World())


def poison(training: Training, when: set[int]) -> list[int]:
    """Make the weights NaN before the steps of these numbers, roll-backs counted; returns the steps."""
    seen: list[int] = []
    inner = training.method.train_step

    def step(batch: Any) -> Any:
        seen.append(training.method.images_seen)
        if len(seen) in when:
            with torch.no_grad():
                next(iter(training.method.networks["gen_ab"].parameters())).fill_(math.nan)
        return inner(batch)

    training.method.train_step = step  # type: ignore[method-assign]
    return seen


def test_one_nan_is_taken_back_and_the_run_ends_well(tmp_path: Path, domains: dict[str, str]) -> None:
    run = training(tmp_path / "run", domains, watch__checkpoint_every=5)
    seen = poison(run, {8})
    train(run)
    assert run.method.images_seen == 20
    assert seen[7:9] == [7, 5], "went back to the checkpoint of 5 images"
    assert run.skipped == 3, "and on with other pictures"
    state = load_checkpoint(run.folder.checkpoint)
    assert state["health"]["rolled_back"]
    assert all(torch.isfinite(t).all() for t in state["method"]["networks"]["gen_ab"].values())
    events = [json.loads(line) for line in run.folder.log.read_text().splitlines()]
    assert [event["reached"] for event in events if event["kind"] == "roll-back"] == [8]
    report = run.folder.report.read_text()
    assert "went back to 5 images" in report
    assert "<p>finished, 20 images after" in report


def test_a_roll_back_does_not_forget_what_was_best(
    tmp_path: Path, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best checkpoint is on disk already: what comes after has to be better than that."""
    measured: list[int] = []

    def metrics(self: Watch, name: str) -> dict[str, float]:
        measured.append(self._method.images_seen)
        return {"swd": 1.0 if len(measured) <= 2 else 3.0}

    monkeypatch.setattr(Watch, "_metrics", metrics)
    every = {"watch__checkpoint_every": 100, "watch__metrics_every": 4}
    run = training(tmp_path / "run", domains, run__images=12, run__decay_images=0, **every)
    poison(run, {8})
    train(run)
    assert measured[::2] == [4, 4, 8, 12]
    best = load_checkpoint(run.folder.best)
    assert best["watch"]["best"] == {"gen_ab": 1.0, "gen_ba": 1.0}
    assert not best["health"]["rolled_back"], "the one from before"


def test_a_second_nan_stops_with_advice_and_the_checkpoint_stays(
    tmp_path: Path, domains: dict[str, str]
) -> None:
    run = training(tmp_path / "run", domains, watch__checkpoint_every=5)
    poison(run, {8, 12})
    with pytest.raises(
        CollapsedError, match=r"not a number.*checkpoint of 5 images is kept.*optimizer\.lr"
    ) as caught:
        train(run)
    assert caught.value.exit_code == 1
    status = re.search(
        r"<p>collapsed, (\d+) images after [\d.]+ hours: (.*)</p>", run.folder.report.read_text()
    )
    assert status
    assert status[1] == str(run.method.images_seen)
    assert "is not a number" in status[2]
    state = load_checkpoint(run.folder.checkpoint)
    assert state["method"]["images_seen"] == 5
    assert all(torch.isfinite(t).all() for t in state["method"]["networks"]["gen_ab"].values())


def test_a_winning_discriminator_is_noticed_only_after_long() -> None:
    health = Health("lsgan")
    for _ in range(WINDOW - 1):
        assert health.look_at_losses({"disc_a": 0.0001, "disc_b": 0.2}) is None
    assert not health.good, "no state to go back to any more"
    assert "right almost always" in (health.look_at_losses({"disc_a": 0.0001, "disc_b": 0.2}) or "")
    assert health.look_at_losses({"disc_a": 0.1, "disc_b": 0.2}) is None, "recovered"


def test_the_two_parts_of_a_discriminators_loss_count_with_their_mean() -> None:
    health = Health("vanilla")
    for _ in range(2 * WINDOW):
        assert health.look_at_losses({"gan": 3.0, "disc_real": 0.019, "disc_fake": 0.049}) is None
    assert health.disc_wins == 0
    for _ in range(WINDOW - 1):
        assert health.look_at_losses({"gan": 3.0, "disc_real": 0.019, "disc_fake": 0.011}) is None
    assert "(loss 0.0150)" in (health.look_at_losses({"disc_real": 0.019, "disc_fake": 0.011}) or "")


def test_where_an_l1_loss_carries_the_training_a_winning_discriminator_is_only_told_of() -> None:
    health = Health("vanilla")
    told = []
    for _ in range(3 * WINDOW):
        assert health.look_at_losses({"l1": 20.0, "gan": 9.0, "disc_real": 0.001, "disc_fake": 0.001}) is None
        told.append(health.warning())
    assert [line is not None for line in told] == [n == WINDOW for n in range(1, 3 * WINDOW + 1)]
    assert "right almost always for 20 log lines; the L1 loss carries" in (told[WINDOW - 1] or "")
    assert health.good, "its state is kept"
    assert health.look_at_losses({"gan": 9.0, "disc_real": 0.001, "disc_fake": 0.001}), (
        "without it, a collapse"
    )


def test_a_warning_is_logged_once_and_the_run_ends_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = {"data.pairs": str(make_pairs(tmp_path / "pairs")), "run.method": "pix2pix"}
    run = training(tmp_path / "run", pairs, run__images=2 * WINDOW, watch__collapse=True)
    inner = run.method.train_step
    run.method.train_step = lambda batch: {  # type: ignore[method-assign]
        name: value * 1e-6 if name.startswith("disc") else value for name, value in inner(batch).items()
    }
    caplog.set_level("INFO", "trainer")
    train(run)
    told = [message for message in caplog.messages if "right almost always" in message]
    assert told == [f"at {WINDOW} images: {run_warning()}"]
    assert run.method.images_seen == 2 * WINDOW
    assert not run.health.rolled_back


def run_warning() -> str:
    health = Health("lsgan", disc_wins=WINDOW, anchored=True)
    return health.warning() or ""


@pytest.mark.parametrize(("result", "word"), [((0.01, 0.1), "contrast"), ((0.2, 0.0001), "alike")])
def test_faded_results_are_noticed_at_the_second_look(result: tuple[float, float], word: str) -> None:
    health, sources = Health("lsgan"), (0.2, 0.1)
    assert health.look_at_results("gen_ab", result, sources, EARLY) is None
    assert word in (health.look_at_results("gen_ab", result, sources, EARLY) or "")
    assert health.look_at_results("gen_ba", sources, sources, EARLY) is None


def test_pale_beginnings_are_no_collapse_and_losing_contrast_is() -> None:
    health, sources, pale = Health("lsgan"), (0.2, 0.1), (0.01, 0.1)
    for images in range(100, EARLY, 100):
        assert health.look_at_results("gen_ab", pale, sources, images) is None
    assert health.good
    early = Health("lsgan")
    assert early.look_at_results("gen_ab", sources, sources, 100) is None
    assert early.look_at_results("gen_ab", pale, sources, 200) is None
    again = Health("lsgan")
    again.load_state_dict(early.state_dict())
    assert "contrast" in (again.look_at_results("gen_ab", pale, sources, 300) or "")


def test_a_generator_of_one_colour_stops_a_run(
    tmp_path: Path, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cyclegan, "gan_loss", lambda logits, *a, **k: logits.float().sum() * 0)
    run = training(tmp_path / "run", domains, watch__sample_every=2, optimizer__lr=0.0)
    for name in ("gen_ab", "gen_ba"):
        run.health.vivid.append(name)
        for module in (run.method.networks[name], run.method.ema.generators[name]):
            torch.nn.init.zeros_(module.tail.weight)
    with pytest.raises(CollapsedError, match="lost their contrast"):
        train(run)
