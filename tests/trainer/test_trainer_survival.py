"""Trainings that go wrong: noticed, taken back once, stopped with a message; files stay whole."""

from __future__ import annotations

import errno
import json
import math
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from cgconvert.errors import Interrupted, ModelError, OutputError, UnavailableError, UsageError
from tests.trainer.conftest import make_pairs, write_run
from trainer.board import Board
from trainer.checkpoint import load_checkpoint
from trainer.cli import train as cli
from trainer.distributed import World
from trainer.health import EARLY, WINDOW, Health
from trainer.loop import CollapsedError, Training, train
from trainer.methods import cyclegan
from trainer.run import prepare, start
from trainer.runfolder import RunFolder
from trainer.watch import Watch


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

    def metrics(self: Watch, method: Any, name: str, *way: str) -> dict[str, float]:
        measured.append(method.images_seen)
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


def test_a_signal_while_the_last_metrics_are_measured_finds_the_run_finished(
    tmp_path: Path, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Watch.finish

    def told(self: Watch, run: Training) -> None:
        signal.raise_signal(signal.SIGINT)
        finish(self, run)

    monkeypatch.setattr(Watch, "finish", told)
    run = training(tmp_path / "run", domains, run__images=3, run__decay_images=0)
    train(run)
    assert not run.stopped
    assert "<p>finished, 3 images after" in run.folder.report.read_text()


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


def test_a_full_disk_leaves_the_checkpoint_before(
    tmp_path: Path, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = training(tmp_path / "run", domains, watch__checkpoint_every=5)
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.suffix == ".pt" and run.method.images_seen >= 10:
            write(self, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"disk full while writing .*checkpoint\.pt") as caught:
        train(run)
    assert caught.value.exit_code == 4
    assert load_checkpoint(run.folder.checkpoint)["method"]["images_seen"] == 5
    assert not list(run.folder.path.glob(".cgconvert-*")), "nothing half-written is left"


def test_a_log_on_a_full_disk_is_one_clear_line(tmp_path: Path, domains: dict[str, str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    run = training(tmp_path / "run", domains)
    run.folder.log.symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"disk full while writing .*metrics\.jsonl"):
        train(run)


def test_a_missing_permission_is_one_clear_line(
    tmp_path: Path, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = training(tmp_path / "run", domains)

    def denied(self: Path, data: bytes) -> int:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", denied)
    with pytest.raises(OutputError, match="no permission to write"):
        train(run)


def test_where_a_full_disk_stops_a_run_it_says_how_to_go_on(
    tmp_path: Path, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(write_run(tmp_path / "run", {**domains, "watch.sample_every": 7}))
    write, full = Path.write_bytes, [True]

    def limited(self: Path, data: bytes) -> int:
        if self.suffix == ".png" and full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", limited)
    with pytest.raises(OutputError) as caught:
        start(folder)
    assert str(caught.value) == (
        f"disk full while writing {folder.samples / 'gen_ab-000000007.png'}: free some space, or choose "
        f"another place; the last checkpoint is whole, go on with `cgconvert train resume {folder.path}`"
    )
    assert "<p>stopped, 7 images after" in folder.report.read_text()
    assert "gen_ab-000000007.png: free some space, or choose another place</p>" in folder.report.read_text()
    full[0] = False
    assert start(folder, resume=True).method.images_seen == 20


def test_too_little_memory_on_the_gpu_is_one_line_that_says_what_to_lower(
    tmp_path: Path, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, batch: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...\nmore")

    monkeypatch.setattr(cyclegan.CycleGan, "train_step", full)
    folder = RunFolder(write_run(tmp_path / "run", domains))
    with pytest.raises(UnavailableError) as caught:
        start(folder)
    assert str(caught.value) == (
        "the GPU's memory is too small for this: lower run.batch or data.crop_size; "
        f"the last checkpoint is whole, go on with `cgconvert train resume {folder.path}`"
    )
    assert re.search(
        r"<p>stopped, 0 images after .*: the GPU.*s memory is too small", folder.report.read_text()
    )


def test_memory_that_runs_out_while_a_run_is_continued_is_no_misfit_of_the_checkpoint(
    tmp_path: Path, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(write_run(tmp_path / "run", {**domains, "run.images": 1, "run.decay_images": 1}))
    start(folder)

    def full(self: Any, state: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")

    monkeypatch.setattr(cyclegan.CycleGan, "load_state_dict", full)
    with pytest.raises(
        UnavailableError, match=r"the GPU's memory is too small .* the last checkpoint is whole"
    ):
        start(folder, {"run.images": 2}, resume=True)


def test_a_folder_that_may_not_be_looked_into_is_one_line(
    tmp_path: Path, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(write_run(tmp_path / "run", domains))

    def denied(self: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_file", denied)
    with pytest.raises(UsageError, match=r"config\.toml: cannot be looked at \(Permission denied\); change"):
        folder.read_config()
    for words in (["run", str(folder.path), "--resume"], ["distill", str(folder.path)]):
        result = CliRunner().invoke(cli, words)
        assert isinstance(result.exception, UsageError)
        assert "checkpoint.pt: cannot be looked at (Permission denied)" in str(result.exception)


def test_a_board_on_a_full_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    record_writer = pytest.importorskip("tensorboard.summary.writer.record_writer")
    board = Board(tmp_path / "tensorboard")
    board.scalars("losses", {"gan": 1.0}, 1)

    def full(self: Any, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(record_writer.RecordWriter, "write", full)
    with pytest.raises(OutputError, match=r"disk full while writing .*/tensorboard: free some space"):
        board.scalars("losses", {"gan": 1.0}, 2)
    assert "Traceback" not in capfd.readouterr().err
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match=r"cannot write .*/file/tensorboard: Not a directory"):
        Board(tmp_path / "file" / "tensorboard")


def test_there_is_a_report_from_the_start_and_at_each_checkpoint(
    tmp_path: Path, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = training(tmp_path / "run", domains, watch__checkpoint_every=5)
    seen = []
    inner = run.method.train_step

    def step(batch: Any) -> Any:
        seen.append(re.search(r"<p>(\w+, \d+ images) after", run.folder.report.read_text())[1])  # type: ignore[index]
        assert "<h2>Samples</h2><p>None yet.</p>" in run.folder.report.read_text()
        return inner(batch)

    monkeypatch.setattr(run.method, "train_step", step)
    train(run)
    assert seen == [f"running, {images} images" for images in (0, 5, 10, 15) for _ in range(5)]
    assert "<p>finished, 20 images after" in run.folder.report.read_text()


def test_an_interrupted_run_has_a_report_that_says_so(tmp_path: Path, domains: dict[str, str]) -> None:
    run = training(tmp_path / "run", domains)
    inner = run.method.train_step

    def step(batch: Any) -> Any:
        if run.method.images_seen == 6:
            signal.raise_signal(signal.SIGTERM)
        return inner(batch)

    run.method.train_step = step  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="stopped after 7 images"):
        train(run)
    assert "<p>interrupted, 7 images after" in run.folder.report.read_text()


def test_a_second_training_is_kept_out_and_leftovers_are_cleared(
    tmp_path: Path, domains: dict[str, str]
) -> None:
    folder = RunFolder(write_run(tmp_path / "run", {**domains, "run.images": 2, "run.decay_images": 1}))
    left = folder.path / ".cgconvert-0123456789ab.pt"
    with folder.locked():
        left.write_bytes(b"half a checkpoint")
        with pytest.raises(UsageError, match="a training is running in this folder"):
            start(folder)
        assert left.exists(), "it may be that training's"
    start(folder)
    assert not left.exists()
    assert folder.checkpoint.exists()


def test_a_file_of_the_metrics_that_is_missing_is_noticed_before_the_first_step(
    tmp_path: Path, domains: dict[str, str]
) -> None:
    folder = RunFolder(write_run(tmp_path / "run", {**domains, "watch.inception": "gone.pt"}))
    with pytest.raises(ModelError, match=r"run/gone\.pt: cannot be read \(No such file"):
        start(folder)
    assert not folder.checkpoint.exists()


def test_a_damaged_checkpoint_is_said_to_be(tmp_path: Path, domains: dict[str, str]) -> None:
    run = write_run(tmp_path / "run", {**domains, "run.images": 2, "run.decay_images": 1})
    start(RunFolder(run))
    path = run / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ModelError, match=r"checkpoint\.pt: damaged"):
        start(RunFolder(run), resume=True)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path, domains: dict[str, str]) -> None:
    run = write_run(tmp_path / "run", {**domains, "run.images": 2, "run.decay_images": 1})
    start(RunFolder(run))
    with pytest.raises(UsageError, match=r"network\.arguments"):
        start(
            RunFolder(run),
            {"network.arguments": {"half_channels": 8, "channels": 16, "blocks": 1}},
            resume=True,
        )
    with pytest.raises(UsageError, match=r"loss\.ablation = 'full', the config says 'gan-alone'; put"):
        start(RunFolder(run), {"loss.ablation": "gan-alone"}, resume=True)
    with pytest.raises(UsageError, match="does not fit the config"):
        start(RunFolder(run), {"network.ndf": 16}, resume=True)
    with pytest.raises(UsageError, match="has a checkpoint already"):
        start(RunFolder(run))
