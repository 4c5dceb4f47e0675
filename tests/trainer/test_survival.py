"""Trainings that are disturbed from outside: disks, permissions, memory, signals; files stay whole."""

from __future__ import annotations

import errno
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from cgconvert.errors import Interrupted, ModelError, OutputError, UnavailableError, UsageError
from tests.trainer.conftest import write_run
from tests.trainer.test_health import training
from trainer.cli import train as cli
from trainer.methods import cyclegan
from trainer.reporting.board import Board
from trainer.reporting.watch import Watch
from trainer.runs.loop import train
from trainer.runs.start import start
from trainer.storage.checkpoint import load_checkpoint
from trainer.storage.folder import RunFolder


def test_a_signal_while_the_last_metrics_are_measured_finds_the_run_finished(
    tmp_path: Path, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Watch.finish

    def told(self: Watch, seconds: float) -> list[str]:
        signal.raise_signal(signal.SIGINT)
        return finish(self, seconds)

    monkeypatch.setattr(Watch, "finish", told)
    run = training(tmp_path / "run", domains, run__images=3, run__decay_images=0)
    train(run)
    assert not run.stopped
    assert "<p>finished, 3 images after" in run.folder.report.read_text()


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
