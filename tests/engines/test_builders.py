"""Engines that build: two processes at once, a builder that is killed in the middle, all equal to eager."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cgconvert.engines.cache import engines_folder, list_entries
from cgconvert.engines.choose import engine_class
from cgconvert.engines.compiled import CompileEngine
from cgconvert.engines.verify import BOUNDS_DB
from cgconvert.tensors.images import psnr
from tests.engines.models import make_model, make_pixels

ROOT = Path(__file__).resolve().parents[2]

PROCESS = """
import sys, time
from pathlib import Path
import numpy as np, torch
from cgconvert.engines.choose import Candidate, build, engine_class
from tests.engines.models import make_model, make_pixels
name, precision, device, log, result, seconds = sys.argv[1:]
kind = engine_class(name)
plain = kind._build
def slow(self, folder, *more):
    with open(log, "a") as file:
        print("begun", file=file, flush=True)
    plain(self, folder, *more)
    with open(log, "a") as file:
        print("written", file=file, flush=True)
    time.sleep(float(seconds))  # what is written is not an entry yet
kind._build = slow
candidate = Candidate(name, precision, torch.device(device))
engine = build(make_model("h2"), candidate, list(make_pixels(4, 48, 48, seed=9)))
engine.prepare(40, 48, 1)
images = torch.from_numpy(make_pixels(1, 40, 48)).permute(0, 3, 1, 2) / 127.5 - 1
np.save(result, engine(images.to(engine.device)).cpu().numpy())
engine.close()
"""

ON_CARD = [pytest.mark.slow, pytest.mark.needs_cuda]

builders = pytest.mark.parametrize(
    ("name", "precision", "device"),
    [
        ("openvino", "fp32", "cpu"),
        pytest.param("openvino", "int8", "cpu", marks=pytest.mark.slow),
        pytest.param("compile", "fp32", "cpu", marks=pytest.mark.slow),
        pytest.param("compile", "fp16", "cuda", marks=ON_CARD),
        pytest.param("tensorrt", "fp16", "cuda", marks=ON_CARD),
    ],
)


started: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    """No builder outlives its test, however that ends."""
    yield
    while started:
        started.pop().kill()


class Builder:
    """A process that makes an engine ready, `seconds` longer than it takes, and keeps what it translates."""

    def __init__(
        self, name: str, precision: str, device: str, folder: Path, label: str, seconds: float
    ) -> None:
        reason = engine_class(name).why_not(torch.device(device), precision)
        if reason:
            pytest.skip(reason)
        self.precision, self.log, self.result = precision, folder / "log", folder / f"{label}.npy"
        command = [sys.executable, "-c", PROCESS, name, precision, device, self.log, self.result, seconds]
        self.process = subprocess.Popen(
            [str(part) for part in command], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        started.append(self.process)

    def wait_for(self, word: str) -> None:
        """Until the build has come so far."""
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.log.exists() and word in self.log.read_text():
                return
            time.sleep(0.05)
        raise AssertionError(f"not {word}: {self.process.communicate()[1].decode()[-800:]}")

    def check(self) -> np.ndarray:
        """It has ended well, with the model's picture."""
        _, told = self.process.communicate(timeout=600)
        assert self.process.returncode == 0, told.decode()[-800:]
        got = np.load(self.result)
        images = torch.from_numpy(make_pixels(1, 40, 48)).permute(0, 3, 1, 2) / 127.5 - 1
        with torch.inference_mode():
            wanted = make_model("h2").generator(images)
        bound = 22.0 if self.precision == "int8" else BOUNDS_DB[self.precision]
        assert psnr(torch.from_numpy(got), wanted) >= bound
        return got


@builders
def test_two_at_once_build_one_engine(name: str, precision: str, device: str, tmp_path: Path) -> None:
    first = Builder(name, precision, device, tmp_path, "first", 2.0)
    second = Builder(name, precision, device, tmp_path, "second", 2.0)
    results = [first.check(), second.check()]
    assert first.log.read_text().count("begun") == 1
    if device == "cpu":
        assert np.array_equal(*results)
    else:  # sums of a card may come in another order each time
        assert psnr(torch.from_numpy(results[0]), torch.from_numpy(results[1])) >= 50
    (entry,) = list_entries()
    assert entry.problem is None and entry.parts["engine"] == name


@builders
@pytest.mark.parametrize("when", ["begun", "written"])
def test_a_killed_builder_is_followed_by_one_that_builds(
    name: str, precision: str, device: str, when: str, tmp_path: Path
) -> None:
    killed = Builder(name, precision, device, tmp_path, "killed", 600)
    killed.wait_for(when)
    os.kill(killed.process.pid, signal.SIGKILL)
    killed.process.communicate()
    assert not killed.result.exists() and list_entries() == []
    assert list(engines_folder().glob(".building-*")), "it was killed in the middle of building"
    following = Builder(name, precision, device, tmp_path, "following", 0)
    following.check()
    assert following.log.read_text().count("begun") == 2
    assert not list(engines_folder().glob(".building-*"))
    assert [entry.problem for entry in list_entries()] == [None]


def test_compile_leaves_writing_to_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own writer calls `abort` where the disk is full."""

    def package(program: object, package_path: object, inductor_configs: object) -> None:
        assert isinstance(package_path, io.BytesIO), f"{package_path} would be written by torch"
        package_path.write(b"compiled")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", package)
    engine = CompileEngine(make_model(), torch.device("cpu"), "fp32")
    engine.write(tmp_path, (1, 64, 64))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"compiled"]


@pytest.mark.slow
def test_compile_leaves_nothing_among_the_temporary_files(tmp_path: Path) -> None:
    """Torch made `torchinductor_USER` there when it loaded an engine, with a library that it had built."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = "compile --model identity --device cpu --engine compile --size 64x48 --quiet"
    own = {"TMPDIR": str(temporary), "CGCONVERT_HOME": str(tmp_path / "home")}
    subprocess.run(
        [sys.executable, "-m", "cgconvert", *command.split()], env={**os.environ, **own}, check=True
    )
    assert list((tmp_path / "home/engines").glob("*/network.pt2"))
    assert not list(temporary.iterdir())
