"""The compile engine on cards: ahead of time with NVIDIA's toolkit, traced at each start without it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cgconvert.engines import toolkit
from cgconvert.engines.building import COMPILERS_FOLDERS
from cgconvert.engines.compiled import CompileEngine
from tests.engines.models import make_model

CARD = torch.device("cuda", 0)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Linux with compilers and a complete toolkit in this folder, of which tests take parts away."""
    home = tmp_path / "cuda"
    for name in ("include/cuda_runtime.h", "lib64/libcudart_static.a", "lib64/stubs/libcuda.so"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    for name in ("CXX", "CC", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_HOME", str(home))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}" if name in ("gcc", "g++") else None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    silent = subprocess.CompletedProcess([], 0, "libcuda.so\n", "")  # as g++ answers that finds no such file
    monkeypatch.setattr(subprocess, "run", lambda *given, **more: silent)
    toolkit.why_not_ahead.cache_clear()
    yield home
    toolkit.why_not_ahead.cache_clear()


def test_a_complete_toolkit_is_used(machine: Path) -> None:
    assert toolkit.cuda_home() == machine and toolkit.why_not_ahead() is None
    assert CompileEngine.why_not(CARD, "fp16") is None


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("include/cuda_runtime.h", "the CUDA toolkit in {home} has no headers"),
        ("lib64/stubs/libcuda.so", "the CUDA toolkit in {home} has no libcuda.so to link with"),
        ("lib64/libcudart_static.a", "the CUDA toolkit in {home} has no libcuda.so to link with"),
    ],
)
def test_what_a_toolkit_lacks_is_said(machine: Path, missing: str, reason: str) -> None:
    (machine / missing).unlink()
    assert toolkit.why_not_ahead() == reason.format(home=machine)
    assert CompileEngine.why_not(CARD, "fp16") is None, "torch.compile needs no toolkit"


def test_the_library_of_a_driver_will_do(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "lib64/stubs/libcuda.so").unlink()
    found = subprocess.CompletedProcess([], 0, f"{machine}/include/cuda_runtime.h\n", "")
    monkeypatch.setattr(subprocess, "run", lambda *given, **more: found)
    assert toolkit.why_not_ahead() is None


def test_what_a_machine_lacks_is_said_and_remembered(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_HOME", "/nowhere")
    assert toolkit.why_not_ahead() == "there is no CUDA toolkit (CUDA_HOME)"
    monkeypatch.setenv("CUDA_HOME", str(machine))
    assert toolkit.why_not_ahead() == "there is no CUDA toolkit (CUDA_HOME)"
    monkeypatch.setattr("shutil.which", lambda name: None)
    toolkit.why_not_ahead.cache_clear()
    assert toolkit.why_not_ahead() == "there is no C++ compiler"
    assert CompileEngine.why_not(CARD, "fp16") == (
        'compile needs a C compiler: install gcc, or use `engine="eager"`'
    )
    monkeypatch.setattr(sys, "platform", "win32")
    toolkit.why_not_ahead.cache_clear()
    assert toolkit.why_not_ahead() == "it is tried on Linux only, not on win32"
    assert CompileEngine.why_not(CARD, "fp16") is None, "triton brings a compiler there"


def test_without_a_toolkit_torch_keeps_what_it_compiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of calls: a run fills torch's caches, which are kept; a start reads them, then runs once."""
    said: list[Any] = []

    def compiled(network: torch.nn.Module, **options: Any) -> Any:
        said.append(("compile", options))

        def run(images: torch.Tensor) -> torch.Tensor:
            said.append(("run", tuple(images.shape), torch.is_inference_mode_enabled()))
            said.append(os.environ.get("TRITON_CACHE_DIR"))
            return network(images)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(torch.compiler, "save_cache_artifacts", lambda: (b"kernels", None))
    monkeypatch.setattr(torch.compiler, "load_cache_artifacts", lambda kept: said.append(kept))
    before = {name: str(tmp_path / name) for name in COMPILERS_FOLDERS}
    for name, place in before.items():
        monkeypatch.setenv(name, place)
    engine = CompileEngine(make_model("tiny"), torch.device("cpu"), "fp32")
    engine.why_traced = "there is no CUDA toolkit (CUDA_HOME)"
    options, ran = ("compile", {"dynamic": False, "fullgraph": True}), ("run", (2, 3, 16, 24), True)
    engine.write(tmp_path, (2, 16, 24))
    assert said == [options, ran, before["TRITON_CACHE_DIR"]]
    assert (tmp_path / "compiled.bin").read_bytes() == b"kernels"
    said.clear()
    run = engine._load(tmp_path)
    own = Path(said.pop())
    assert said == [b"kernels", options, ran]
    assert own.name.startswith("cgconvert-engine-") and not own.exists(), "nothing is left behind"
    assert {name: os.environ[name] for name in before} == before
    assert engine.describe()["traced_at_each_start"] == "there is no CUDA toolkit (CUDA_HOME)"
    images = torch.rand(2, 3, 16, 24)
    assert engine.network is not None and torch.equal(run(images), engine.network(images))


def test_what_is_kept_depends_on_how_it_is_compiled() -> None:
    engine = CompileEngine(make_model("tiny"), torch.device("cpu"), "fp32")
    engine.device = CARD
    assert engine._parts() == {"ahead": True}
    engine.why_traced = "for some reason"
    assert engine._parts() == {"ahead": False}
