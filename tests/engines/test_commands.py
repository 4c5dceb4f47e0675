"""The commands around engines: compile, engines, doctor, bench."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cgconvert.cli import main
from cgconvert.doctor import engines, measure
from cgconvert.doctor.engines import tiny_model
from cgconvert.doctor.limits import Limits, count_bytes, count_macs
from cgconvert.engines.base import Samples
from cgconvert.engines.batches import OutOfMemoryError
from cgconvert.engines.choose import Candidate
from cgconvert.engines.job import EngineJob
from cgconvert.engines.pixels import convert_pixels
from cgconvert.errors import UnavailableError
from cgconvert.generators import build_generator
from cgconvert.models.catalog import models_folder
from cgconvert.models.files import write_model
from cgconvert.models.loading import Model
from cgconvert.progress import Silent


@pytest.fixture
def model(own_home: Path) -> str:
    """A tiny installed model."""
    tiny = tiny_model()
    models_folder().mkdir(parents=True)
    write_model(models_folder() / "tiny.safetensors", tiny.card, tiny.generator.state_dict())
    return "tiny"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as leave:
        main(list(arguments))
    told = capsys.readouterr()
    return int(leave.value.code or 0), told.out, told.err


def test_an_engine_built_ahead_is_listed_and_cleared(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino")
    code, out, _ = run(
        capsys, "compile", "-m", model, "--size", "64x48", "--engine", "openvino", "--precision", "fp32"
    )
    assert code == 0 and "openvino fp32" in out and "64x48" in out
    code, out, _ = run(capsys, "engines", "list", "--json")
    (entry,) = json.loads(out)
    assert entry["about"].startswith("tiny") and entry["problem"] is None
    assert entry["parts"]["versions"]["code_sha256"]
    code, out, _ = run(capsys, "engines", "list")
    assert "openvino" in out and "1 engine, " in out
    code, out, _ = run(capsys, "engines", "clear")
    assert code == 0 and "removed 1 engine, " in out
    assert json.loads(run(capsys, "engines", "list", "--json")[1]) == []


def test_what_a_video_would_use_is_built(own_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The size that the card advises for large frames, unless another is asked for."""
    tiny = tiny_model()
    models_folder().mkdir(parents=True)
    card = replace(tiny.card, work_size=32)
    write_model(models_folder() / "tiny.safetensors", card, tiny.generator.state_dict())

    def told(*arguments: str) -> str:
        code, out, _ = run(
            capsys, "compile", "-m", "tiny", *arguments, "--engine", "eager", "--precision", "fp32"
        )
        assert code == 0
        return out

    large = told("--size", "96x64")
    assert large.startswith("tiny, 48x32, batch ")
    assert "what the network sees of 96x64, as tiny advises; use --work-size 1x" in large
    assert told("--size", "40x24").startswith("tiny, 40x24, batch ")
    whole = told("--size", "96x64", "--work-size", "1x")
    assert whole.startswith("tiny, 96x64, batch ") and "sees" not in whole
    half = told("--size", "96x64", "--work-size", "0.25x")
    assert half.startswith("tiny, 24x16, batch ") and "what the network sees of 96x64, as asked" in half


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["compile", "-m", "tiny", "--size", "64"], 2, "WIDTHxHEIGHT"),
        (["compile", "-m", "tiny", "--size", "0x64"], 2, "WIDTHxHEIGHT"),
        (["compile", "-m", "tiny", "--size", "64x64", "--precision", "int8"], 2, "calibrated"),
        (
            ["compile", "-m", "tiny", "--size", "64x64", "--work-size", "big"],
            2,
            "--work-size big is not a size",
        ),
        (["compile", "-m", "tiny", "--size", "64x64", "--engine", "warp"], 2, "unknown engine"),
        (
            ["compile", "-m", "tiny", "--size", "64x64", "--engine", "tensorrt", "--device", "cpu"],
            2,
            "NVIDIA",
        ),
        (["compile", "-m", "other", "--size", "64x64"], 3, "no model named"),
        (["bench", "-m", "tiny", "--engines", "warp"], 2, "--engines"),
        (["bench", "-m", "tiny", "--precisions", "fp8"], 2, "--precisions"),
    ],
)
def test_what_makes_no_sense_is_refused(
    model: str, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    got, _, err = run(capsys, *arguments)
    assert got == code and words in err and len(err.strip().splitlines()) == 1


def test_bench_measures(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        capsys, "bench", "-m", model, "--size", "64x64", "--engines", "eager", "--seconds", "0.1", "--json"
    )
    data = json.loads(out)
    assert code == 0
    assert {result["precision"] for result in data["results"]} == {"fp32", "bf16"}
    for result in data["results"]:
        assert result["network"] > 0 and result["convert"] > 0 and result["problem"] is None
        assert 0 < result["share"] < 1.5
        moved = result["network"] * count_bytes(tiny_model().generator, 3, 64, 64, result["precision"])
        share = moved / data["limits"]["copy_bytes_per_second"]
        assert result["memory_share"] == pytest.approx(share, abs=1e-4) and share > 0
    assert data["limits"]["copy_bytes_per_second"] > 1e8


def test_bench_of_an_intel_gpu_measures_no_processor(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO here has no such device: a line says so, and no figures of another device are in its place."""
    pytest.importorskip("openvino")
    arguments = ["bench", "-m", model, "--size", "64x64", "--device", "gpu", "--seconds", "0.1", "--json"]
    monkeypatch.setattr("cgconvert.engines.openvino.available_gpus", list)
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "no Intel GPU" in err
    code, _, err = run(capsys, *arguments, "--engines", "eager")
    assert code == 2 and "only openvino runs on an Intel GPU" in err
    monkeypatch.setattr("cgconvert.engines.openvino.available_gpus", lambda: ["GPU.7"])
    code, out, _ = run(capsys, *arguments)
    data = json.loads(out)
    assert code == 0 and data["limits"] == {"macs_per_second": {}, "copy_bytes_per_second": None}
    assert [(one["engine"], one["precision"], one["device"]) for one in data["results"]] == [
        ("openvino", "fp32", "gpu"),
        ("openvino", "fp16", "gpu"),
    ]
    assert all(one["network"] is None and "gpu.7" in one["problem"] for one in data["results"])


def test_bench_goes_on_where_memory_was_short(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(job: EngineJob, pixels: np.ndarray) -> np.ndarray:
        if job.engine.precision == "bf16":
            raise OutOfMemoryError("not enough memory (simulated)")
        return convert_pixels(job, pixels)

    monkeypatch.setattr(measure, "convert_pixels", short)
    code, out, _ = run(
        capsys, "bench", "-m", model, "--size", "64x64", "--engines", "eager", "--seconds", "0.1", "--json"
    )
    results = {one["precision"]: one for one in json.loads(out)["results"]}
    assert code == 0 and results["fp32"]["convert"] > 0
    assert results["bf16"]["problem"] == "out of memory at batch 1: use a smaller `batch` or `size`"


def test_bench_calibrates_on_other_pictures_than_it_compares(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}

    def create(model: Model, options: object, pixels: np.ndarray, progress: object, samples: Samples) -> None:
        given.update(pixels=pixels, samples=samples(3))
        raise UnavailableError("seen enough")

    monkeypatch.setattr(measure, "create_job", create)
    candidate = Candidate("openvino", "int8", torch.device("cpu"))
    told = measure.measure(tiny_model(), candidate, (64, 48), 2, Limits({}, None), Silent())
    assert told.problem == "seen enough"
    assert [sample.shape for sample in given["samples"]] == [(64, 48, 3)] * 3
    for sample in given["samples"]:
        assert all(np.abs(sample.astype(int) - picture).mean() > 10 for picture in given["pixels"])


def test_doctor_tries_an_intel_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(engines, "ENGINES", ())
    monkeypatch.setattr("cgconvert.engines.openvino.available_gpus", list)
    assert list(engines.try_engines()) == []
    monkeypatch.setattr("cgconvert.engines.openvino.available_gpus", lambda: ["GPU.7"])
    tried = list(engines.try_engines())
    assert [one.name for one in tried] == ["openvino fp16 on gpu.7", "openvino fp32 on gpu.7"]
    assert all(not one.works and 'use `device="cpu"`' in one.detail for one in tried)

    def broken() -> list[str]:
        raise RuntimeError("libOpenCL.so is too old")

    monkeypatch.setattr("cgconvert.engines.openvino.available_gpus", broken)
    (one,) = engines.try_engines()
    assert (
        not one.works and one.name == "openvino on gpu" and one.detail.startswith("libOpenCL.so is too old; ")
    )


@pytest.mark.parametrize(
    ("name", "device", "remedy"),
    [
        (
            "openvino",
            "cpu",
            "--force-reinstall 'cgconvert[openvino]'; without it: `engine=\"eager\"`",
        ),
        ("tensorrt", "cuda", "look at nvidia-smi and the driver, or pip install --force-reinstall "),
        ("eager", "cuda", 'without it: `device="cpu"`'),
        ("eager", "cpu", "pip install --force-reinstall --no-deps torch"),
    ],
)
def test_doctor_says_what_to_do_about_what_is_broken(
    name: str, device: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("symbol not found\nin a library")

    monkeypatch.setattr(engines, "build", broken)
    told = engines._run(Candidate(name, "fp32", torch.device(device)))
    assert not told.works and told.detail.startswith("symbol not found; ") and remedy in told.detail


def test_doctor_tries_everything() -> None:
    """In a process of its own, without a compiler, which would take half a minute."""
    done = subprocess.run(
        [sys.executable, "-m", "cgconvert", "doctor", "--json"],
        capture_output=True,
        text=True,
        env={"PATH": "", "CGCONVERT_HOME": str(models_folder().parent), "OMP_NUM_THREADS": "1"},
    )
    found = json.loads(done.stdout)
    engines = {trial["name"]: trial for trial in found["engines"]}
    assert engines["eager fp32 on cpu"]["works"]
    assert not engines["compile fp32 on cpu"]["works"]
    assert "C++ compiler" in engines["compile fp32 on cpu"]["detail"]
    assert "NVIDIA" in engines["tensorrt on cpu"]["detail"]
    assert found["codecs"]["h264"] is None and found["pictures"][".png"] is None
    assert found["machine"]["versions"]["torch"] != "absent"
    assert all(trial["works"] or trial["detail"] for trial in found["engines"])


def test_multiplications_are_counted_as_published() -> None:
    """49.55 G for the ResNet-9 at 256x256: a transposed convolution by the multiplications it makes."""
    assert count_macs(build_generator("resnet", {}), 3, 256, 256) == pytest.approx(49.55e9, rel=1e-3)


def test_bytes_are_those_of_each_convolution_once() -> None:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.ConvTranspose2d(8, 4, 2, 2)
    )
    values = (3 + 8) * 16 * 16 + 3 * 8 * 9 + 8 * 16 * 16 + 4 * 32 * 32 + 8 * 4 * 4
    assert count_bytes(network, 3, 16, 16, "fp32") == 4 * values
    assert count_bytes(network, 3, 16, 16, "int8") == values
    weights = 3 * 8 * 9 + 8 * 4 * 4
    assert count_bytes(network, 3, 16, 16, "bf16", batch=4) == 2 * (values - weights + weights / 4)
