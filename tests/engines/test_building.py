"""Building in another process: what it is given, how its failures arrive, and that nothing of it is left."""

from __future__ import annotations

import ast
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cgconvert.engines import building
from cgconvert.engines.building import BuildError, build_apart
from cgconvert.errors import UnavailableError
from cgconvert.host.channels import Workers
from cgconvert.host.interrupts import Stop
from tests.engines.apart import Written
from tests.engines.models import make_model, make_pixels

CPU = torch.device("cpu")


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it is not only waiting to be told of."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_the_process_has_the_model_and_leaves_what_it_wrote(tmp_path: Path) -> None:
    model, pictures = make_model("h2"), list(make_pixels(2, 20, 30))
    engine = Written(model, CPU, "bf16", pictures)
    build_apart(engine, tmp_path, [*pictures, pictures[0][:8]], how="well")
    assert [path.name for path in tmp_path.iterdir()] == ["written"]
    total, threads, shapes, precision, temporary = ast.literal_eval((tmp_path / "written").read_text())
    assert total == sum(float(weight.double().sum()) for weight in model.generator.parameters())
    assert (threads, precision) == (torch.get_num_threads(), "bf16")
    assert shapes == [(20, 30, 3), (20, 30, 3), (8, 30, 3)]
    assert Path(temporary) == tmp_path / "order", "what libraries leave for themselves goes with the rest"


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("short", torch.OutOfMemoryError, "[enforce fail at alloc_cpu.cpp] can't allocate memory"),
        ("refused", UnavailableError, "not with this network"),
        ("broken", BuildError, "no such operator"),
    ],
)
def test_what_goes_wrong_arrives(
    how: str, kind: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a process of its own, which takes seconds to start: what it writes down is what counts."""

    @contextmanager
    def running_here(place: Path) -> Iterator[Any]:
        building.fulfil(place)
        yield SimpleNamespace(poll=lambda: 0, returncode=0)

    monkeypatch.setattr(building, "_running", running_here)
    with pytest.raises(kind) as caught:
        build_apart(Written(make_model(), CPU, "fp32"), tmp_path, how=how)
    assert str(caught.value) == message
    assert list(tmp_path.iterdir()) == []
    if how == "broken":
        assert "in write" in caught.value.__notes__[0], "its traceback is not lost"


def test_a_library_that_ends_the_process_has_only_failed_to_build(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="ended by SIGABRT: a library says something"):
        build_apart(Written(make_model(), CPU, "fp32"), tmp_path, how="abort")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ended_by", ["interrupt", "death"])
def test_it_ends_with_the_run_and_takes_its_compilers_along(ended_by: str, tmp_path: Path) -> None:
    stop = Stop()
    pids: list[int] = []
    engine = Written(make_model(), CPU, "fp32")

    def end_it() -> None:
        while not (tmp_path / "pids").exists() or not (tmp_path / "pids").read_text().count(" "):
            time.sleep(0.01)
        pids.extend(map(int, (tmp_path / "pids").read_text().split()))
        if ended_by == "interrupt":
            stop.requested = True
        else:
            os.kill(pids[0], 9)

    with pytest.raises((KeyboardInterrupt, BuildError)), Workers() as workers:
        workers.start("build", lambda: build_apart(engine, tmp_path, how="long"))
        threading.Thread(target=end_it, daemon=True).start()
        workers.watch(stop)
    assert not workers.left
    deadline = time.monotonic() + 10
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_running, pids))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pids"]
