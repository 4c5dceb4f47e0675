"""The commands around engines: compile, engines, doctor, bench."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cgconvert.cli import main
from cgconvert.engines.limits import count_macs
from cgconvert.engines.trial import tiny_model
from cgconvert.generators import build_generator
from cgconvert.models.catalog import models_folder
from cgconvert.models.files import write_model


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
    assert "openvino" in out and "1 engines" in out
    code, out, _ = run(capsys, "engines", "clear")
    assert code == 0 and "removed 1 engines" in out
    assert json.loads(run(capsys, "engines", "list", "--json")[1]) == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["compile", "-m", "tiny", "--size", "64"], 2, "WIDTHxHEIGHT"),
        (["compile", "-m", "tiny", "--size", "0x64"], 2, "WIDTHxHEIGHT"),
        (["compile", "-m", "tiny", "--size", "64x64", "--precision", "int8"], 2, "calibrated"),
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
    assert data["limits"]["copy_bytes_per_second"] > 1e8


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
