"""A folder on several devices, for which engines on the processor stand."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cgconvert.engines.translator import Translator
from cgconvert.errors import UsageError
from cgconvert.host.interrupts import Aborted
from cgconvert.options import EngineOptions
from cgconvert.pictures.handover import Handover
from tests.pictures.runs import fill, names, run

TWO = EngineOptions("cpu,cpu", "eager", "fp32", 2)


def failing(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """Let the first `threads` devices fail with what they are given first."""
    begin, failed = Translator._begin, set[int]()

    def begun(self: Translator[Any], frames: Sequence[Any]) -> Any:
        if len(failed) < threads:
            failed.add(threading.get_ident())
            raise RuntimeError("CUDA error: unspecified launch failure")
        return begin(self, frames)

    monkeypatch.setattr(Translator, "_begin", begun)


def test_several_devices_share_a_folder(tmp_path: Path) -> None:
    fill(tmp_path / "in", 9)
    fill(tmp_path / "in" / "wide", 4, (24, 40))
    alone = run(tmp_path / "in", tmp_path / "one", "identity", EngineOptions("cpu", "eager", "fp32", 2))
    result = run(tmp_path / "in", tmp_path / "two", "identity", TWO)
    assert (result.converted, result.failures) == (alone.converted, []) == (13, [])
    assert names(tmp_path / "two") == names(tmp_path / "one")
    for name in names(tmp_path / "one"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    rows = result.engine.get("devices", [{"pictures": 13, "failed": False}])  # else one did all by itself
    assert sum(row["pictures"] for row in rows) == 13
    assert not any(row["failed"] for row in rows)


def test_pictures_of_a_device_that_fails_go_to_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "in", 9)
    failing(monkeypatch, 1)
    result = run(tmp_path / "in", tmp_path / "out", "identity", TWO)
    assert (result.converted, result.failures) == (9, [])
    assert sorted(row["failed"] for row in result.engine["devices"]) == [False, True]
    assert sum(row["pictures"] for row in result.engine["devices"]) == 9
    (note,) = result.engine["notes"]
    assert note.startswith("cpu: failed (CUDA error: unspecified launch failure): ")


def test_the_last_device_that_fails_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "in", 5)
    failing(monkeypatch, 2)
    with pytest.raises(RuntimeError, match="unspecified launch failure"):
        run(tmp_path / "in", tmp_path / "out", "identity", TWO)
    assert names(tmp_path / "out") == []


def test_devices_that_are_no_devices_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "in", 2)
    with pytest.raises(UsageError, match="name several devices by their numbers"):
        run(tmp_path / "in", tmp_path / "out", "identity", EngineOptions("auto,cpu"))


def test_a_device_waits_for_what_others_may_leave() -> None:
    handover: Handover[str] = Handover(3)
    assert handover.take() is None
    got: list[str | None] = []

    def work() -> None:
        while (item := handover.wait()) is not None:
            got.append(item)
        got.append(None)

    first = threading.Thread(target=work)
    first.start()
    assert handover.leave(["a", "b"])
    second = threading.Thread(target=work)
    second.start()
    for thread in (first, second):
        thread.join(30)
        assert not thread.is_alive()
    assert sorted(map(str, got)) == ["None", "None", "a", "b"]
    alone: Handover[str] = Handover(1)
    assert not alone.leave(["a"]) and alone.take() is None


def test_nobody_waits_in_a_run_that_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def over() -> None:
        raise Aborted

    monkeypatch.setattr("cgconvert.pictures.handover.check_worker", over)
    with pytest.raises(Aborted):
        Handover[str](2).wait()
