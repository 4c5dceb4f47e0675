"""Folders through the pipeline: batching, bad files, going on, too little memory."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgconvert.errors import Interrupted, OutputError
from cgconvert.host.channels import Budget
from cgconvert.host.files import TEMPORARY_PREFIX
from cgconvert.models.loading import load_model
from cgconvert.options import EngineOptions, ImageOptions
from cgconvert.pictures import finding, network, writing
from cgconvert.pictures.claims import Claims
from cgconvert.pictures.pipeline import convert_dir
from cgconvert.pictures.plan import plan_dir
from cgconvert.pictures.run import JOBS_AHEAD
from cgconvert.progress import Silent
from tests.pictures.pictures import encode, noise, png, read_rgb, smooth
from tests.pictures.runs import fill, names, run

SIZES = [(1, 1), (16, 16), (16, 16), (17, 30), (20, 29), (18, 31), (40, 16), (64, 64), (33, 64), (36, 62)]


def test_mixed_sizes_equal_the_network_picture_by_picture(tmp_path: Path, small: str) -> None:
    sources = {f"{i}.png": noise(*size, seed=i) for i, size in enumerate(SIZES)}
    sources["16bit.png"] = noise(17, 30, 3, np.uint16)
    (tmp_path / "in").mkdir()
    for name, pixels in sources.items():
        (tmp_path / "in" / name).write_bytes(png(pixels, 2, pixels.itemsize * 8))
    model = load_model(small)
    for batch, workers in ((1, 1), (4, 3), (16, 2)):
        out = tmp_path / f"out{batch}"
        result = run(tmp_path / "in", out, small, EngineOptions("cpu", "eager", "fp32", batch), workers)
        assert result.converted == len(sources) and not result.failures
        for name, pixels in sources.items():
            expected = model.convert(pixels).astype(int)
            step = 1 if pixels.dtype == np.uint8 else 257
            assert np.abs(read_rgb(out / name).astype(int) - expected).max() <= step, (batch, name)


def test_only_equal_padded_sizes_share_a_batch(
    tmp_path: Path, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[tuple[int, ...]]] = []
    translate = network.Network.translate

    def watching(self: Any, batch: Any) -> Any:
        seen.append([item.pixels.shape[:2] for item in batch])
        return translate(self, batch)

    monkeypatch.setattr(network.Network, "translate", watching)
    (tmp_path / "in").mkdir()
    for index, size in enumerate([(17, 30), (20, 29), (18, 31), (20, 32), (24, 32), (21, 31)] * 4):
        (tmp_path / "in" / f"{index:02}.png").write_bytes(png(noise(*size, seed=index), 2))
    run(tmp_path / "in", tmp_path / "out", small, EngineOptions("cpu", "eager", "fp32", 4))
    for batch in seen:
        assert len({(-(-h // 4), -(-w // 4)) for h, w in batch}) == 1
    assert sum(len(batch) for batch in seen) == 24
    assert any(len(set(batch)) > 1 for batch in seen), "different sizes of one padded size went together"
    assert sum(len(batch) == 4 for batch in seen) >= 4, "batches were filled"


def test_three_bad_of_ten(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    fill(tmp_path / "in", 7)
    whole = encode(".jpg", smooth(40, 40))
    (tmp_path / "in/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in/empty.png").write_bytes(b"")
    (tmp_path / "in/text.webp").write_text("no picture")
    result = run(tmp_path / "in", tmp_path / "out", same, exact)
    assert (result.converted, result.skipped, result.failed) == (7, 0, 3)
    assert [(failure.file.name, failure.reason) for failure in result.failures] == [
        ("cut.jpg", "damaged, cut short, or a kind of JPEG that is not supported"),
        ("empty.png", "the file is empty"),
        ("text.webp", "not a picture that can be read (JPEG, PNG, WebP, GIF, TIFF, AVIF, BMP)"),
    ]
    assert names(tmp_path / "out") == [f"{i:03}.png" for i in range(7)]
    for name in names(tmp_path / "out"):
        assert np.array_equal(read_rgb(tmp_path / "out" / name), read_rgb(tmp_path / "in" / name))


def test_a_folder_of_bad_files_loads_no_model(
    tmp_path: Path, same: str, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "load_model", lambda path: pytest.fail("the model was loaded"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(b"")
    assert run(tmp_path / "in", tmp_path / "out", same, exact).failed == 1


def test_a_finished_run_does_nothing_again(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    fill(tmp_path / "in/sub", 5)
    first = run(tmp_path / "in", tmp_path / "out", same, exact)
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in names(tmp_path / "out")}
    second = run(tmp_path / "in", tmp_path / "out", same, exact)
    assert (first.converted, second.converted, second.skipped, second.stale) == (5, 0, 5, 0)
    assert before == {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in names(tmp_path / "out")}
    assert second.engine == {}
    third = run(tmp_path / "in", tmp_path / "out", same, exact, overwrite=True)
    assert (third.converted, third.skipped) == (5, 0)


def test_results_older_than_their_source_are_told(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    fill(tmp_path / "in", 2)
    run(tmp_path / "in", tmp_path / "out", same, exact)
    os.utime(tmp_path / "out/001.png", (1, 1))
    result = run(tmp_path / "in", tmp_path / "out", same, exact)
    assert (result.skipped, result.stale) == (2, 1)


def test_another_model_does_not_pass_for_finished_work(
    tmp_path: Path, same: str, small: str, exact: EngineOptions
) -> None:
    fill(tmp_path / "in", 2)
    run(tmp_path / "in", tmp_path / "out", same, exact)
    with pytest.raises(OutputError, match="holds results of model same"):
        plan_dir(tmp_path / "in", tmp_path / "out", small, ImageOptions(), exact)
    run(tmp_path / "in", tmp_path / "out", small, exact, overwrite=True)
    assert not np.array_equal(read_rgb(tmp_path / "out/000.png"), read_rgb(tmp_path / "in/000.png"))
    with pytest.raises(OutputError, match="holds results of model small"):
        plan_dir(tmp_path / "in", tmp_path / "out", same, ImageOptions(), exact)


def test_odd_names(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    odd = [
        "Grüße 東京 🎨.png",
        "-o.png",
        "line\nend.png",
        os.fsdecode(b"\xff\xfe.png"),
        "a b'c\"d$.png",
        "e.f.g.png",
    ]
    (tmp_path / "in/Ünter\tordner").mkdir(parents=True)
    for index, name in enumerate(odd):
        (tmp_path / "in" / name).write_bytes(png(noise(8, 8, seed=index), 2))
        (tmp_path / "in/Ünter\tordner" / name).write_bytes(b"bad")
    result = run(tmp_path / "in", tmp_path / "out", same, exact)
    assert result.converted == len(odd) and result.failed == len(odd)
    assert sorted(names(tmp_path / "out")) == sorted(odd)
    from cgconvert.video.report import write_report

    write_report(tmp_path / "r.json", result.to_dict())
    assert "\\\\udcff\\\\udcfe.png" in (tmp_path / "r.json").read_text(encoding="utf-8")


def test_not_enough_memory_for_a_batch_halves_it(
    tmp_path: Path, same: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cgconvert.engines.eager import EagerEngine

    call, sizes = EagerEngine.__call__, []

    def short(self: Any, images: Any) -> Any:
        sizes.append(len(images))
        if len(images) > 1:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        if images.shape[2] == 40:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")
        return call(self, images)

    monkeypatch.setattr(EagerEngine, "__call__", short)
    fill(tmp_path / "in", 8)
    (tmp_path / "in/large.png").write_bytes(png(noise(40, 40), 2))
    result = run(tmp_path / "in", tmp_path / "out", same, EngineOptions("cpu", "eager", "fp32", 4))
    assert result.converted == 8 and max(sizes) == 4
    assert sizes.count(4) == 1, "what has proved too much is not asked for again"
    assert [(f.file.name, f.reason.split(";")[0]) for f in result.failures] == [
        ("large.png", "not enough memory on cpu for one picture of 40x40")
    ]
    for name in names(tmp_path / "out"):
        assert np.array_equal(read_rgb(tmp_path / "out" / name), read_rgb(tmp_path / "in" / name))


def test_a_picture_too_large_for_main_memory_fails_alone(
    tmp_path: Path, small: str, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cgconvert.engines.batches.available_memory", lambda: 1_000_000)
    fill(tmp_path / "in", 3)
    (tmp_path / "in/large.png").write_bytes(png(noise(400, 400), 2))
    result = run(tmp_path / "in", tmp_path / "out", small, replace(exact, tile="off"))
    assert result.converted == 3
    assert result.failures[0].reason == (
        '400x400 pixels need about 0.0 GiB of memory, 0.0 are free; try `tile="auto"`, another `device` or '
        "`precision`, or a smaller picture"
    )


@pytest.mark.usefixtures("exact_tiles")
@pytest.mark.parametrize("name", ["0.png", "large.png"])  # the first one and the last one
def test_a_picture_too_large_for_main_memory_goes_through_in_tiles(
    name: str, tmp_path: Path, small: str, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "in", 3)
    (tmp_path / "in" / name).write_bytes(png(noise(400, 400), 2))
    wanted = run(tmp_path / "in", tmp_path / "wanted", small, exact)
    monkeypatch.setattr("cgconvert.engines.batches.available_memory", lambda: 10_000_000)
    result = run(tmp_path / "in", tmp_path / "out", small, exact)
    assert (result.converted, result.failures) == (4, []) == (wanted.converted, wanted.failures)
    assert (wanted.engine["tiles"], list(result.engine["tiles"])) == ({}, ["400x400"])
    for picture in names(tmp_path / "out"):
        untiled, tiled = (read_rgb(tmp_path / place / picture).astype(int) for place in ("wanted", "out"))
        assert np.abs(tiled - untiled).max() <= 1


def test_a_bug_keeps_its_traceback(
    tmp_path: Path, same: str, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("ours")

    fill(tmp_path / "in", 3)
    monkeypatch.setattr(writing, "encode_picture", broken)
    with pytest.raises(ZeroDivisionError) as caught:
        run(tmp_path / "in", tmp_path / "out", same, exact)
    assert any(entry.name == "broken" for entry in caught.traceback)


def test_what_is_under_way_stays_bounded(tmp_path: Path, same: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding is far ahead of a slow network, but not farther than the memory goes."""
    fill(tmp_path / "in", 40, (64, 64))
    one = 64 * 64 * 24 + 20_000
    monkeypatch.setattr("cgconvert.pictures.run.PIXEL_MEMORY", 4 * one)
    budgets: list[Budget] = []
    most: list[int] = []

    class Watched(Budget):
        def __init__(self, limit: int) -> None:
            super().__init__(limit)
            budgets.append(self)

        def take(self, count: int) -> None:
            super().take(count)
            most.append(self.taken)

    monkeypatch.setattr("cgconvert.pictures.run.Budget", Watched)
    plan_options = EngineOptions("cpu", "eager", "fp32", 1)
    assert run(tmp_path / "in", tmp_path / "out", same, plan_options, 4).converted == 40
    assert len(most) == 40 and one < max(most) <= 4 * one
    assert [budget.taken for budget in budgets] == [0], "all is given back"


def test_few_small_pictures_are_under_way(
    tmp_path: Path, same: str, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each holds an open file. Of thumbnails there were ten thousands, more than a process may have."""
    fill(tmp_path / "in", 300, (8, 8))
    most = 0
    take = Claims.take

    def counting(self: Claims, output: Path) -> bool:
        nonlocal most
        held = take(self, output)
        most = max(most, len(self.held))
        return held

    translate = network.Network.translate
    monkeypatch.setattr(Claims, "take", counting)
    monkeypatch.setattr(
        network.Network, "translate", lambda self, batch: time.sleep(0.01) or translate(self, batch)
    )
    monkeypatch.setattr("cgconvert.pictures.decoding.PICTURES_AHEAD", 10)
    assert run(tmp_path / "in", tmp_path / "out", same, exact, 2).converted == 300
    assert most <= 10 + JOBS_AHEAD + 2 + 1  # under way, found, with the threads that read, just taken


def test_pictures_larger_than_the_memory_limit_go_one_by_one(
    tmp_path: Path, same: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "in", 9)
    monkeypatch.setattr("cgconvert.pictures.run.PIXEL_MEMORY", 10)
    result = run(tmp_path / "in", tmp_path / "out", same, EngineOptions("cpu", "eager", "fp32", 4), 3)
    assert result.converted == 9 and not result.failures


def test_threads_end_with_the_run(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    fill(tmp_path / "in", 3)
    before = threading.active_count()
    run(tmp_path / "in", tmp_path / "out", same, exact)
    with pytest.raises(OutputError):
        (tmp_path / "file").write_bytes(b"")
        run(tmp_path / "in", tmp_path / "file/out", same, exact)
    assert threading.active_count() == before


def test_an_interrupt_in_python(
    tmp_path: Path, same: str, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there is counted, what is not is done by the next run."""
    write = writing.write_atomically

    def slow(*arguments: Any) -> None:
        time.sleep(0.02)
        write(*arguments)

    class Impatient(Silent):
        def advance(self, done: int, busiest: str | None = None) -> None:
            if done == 5:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(writing, "write_atomically", slow)
    fill(tmp_path / "in", 30)
    started = time.monotonic()
    with pytest.raises(Interrupted) as caught:
        convert_dir(tmp_path / "in", tmp_path / "out", same, engine_options=exact, progress=Impatient())
    assert time.monotonic() - started < 10
    done = names(tmp_path / "out")
    assert 5 <= len(done) < 30 and not [name for name in done if TEMPORARY_PREFIX in name]
    assert str(caught.value) == (
        f"interrupted; {len(done)} pictures are finished, nothing half-written is left, "
        "the same command goes on from here"
    )
    rest = convert_dir(tmp_path / "in", tmp_path / "out", same, engine_options=exact)
    assert (rest.converted, rest.skipped) == (30 - len(done), len(done))


def test_an_interrupt_before_anything_is_found(
    tmp_path: Path, same: str, exact: EngineOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million finished pictures are looked through without a thing to wait at."""
    monkeypatch.setattr(finding, "is_finished", lambda *_: time.sleep(0.01) or True)
    fill(tmp_path / "in", 400, (1, 1))

    class Impatient(Silent):
        def advance(self, done: int, busiest: str | None = None) -> None:
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(Interrupted):
        convert_dir(tmp_path / "in", tmp_path / "out", same, engine_options=exact, progress=Impatient())
    assert time.monotonic() - started < 3
    assert not (tmp_path / "out").exists()


def test_the_report_is_plain_data(tmp_path: Path, same: str, exact: EngineOptions) -> None:
    fill(tmp_path / "in", 4)
    (tmp_path / "in/bad.png").write_bytes(b"bad")
    data = run(tmp_path / "in", tmp_path / "out", same, exact).to_dict()
    assert data["converted"] == 4 and data["failed"] == 1 and data["complete"] is True
    assert data["failures"] == [
        {
            "file": str(tmp_path / "in/bad.png"),
            "reason": "not a picture that can be read (JPEG, PNG, WebP, GIF, TIFF, AVIF, BMP)",
        }
    ]
    assert data["engine"]["engine"] == "eager" and data["engine"]["precision"] == "fp32"
    stages = {"load", "decode", "prepare", "build", "translate", "finish", "encode"}
    assert set(data["stage_seconds"]) == stages
    assert all(0 <= seconds <= 2 * data["seconds"] for seconds in data["stage_seconds"].values())
    assert data["seconds"] > 0 and data["images_per_second"] == pytest.approx(4 / data["seconds"], rel=0.2)
