"""The benchmark of engines measures a model whose network takes noise beside the picture."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks import common
from benchmarks.converter import engines
from cgconvert.doctor.limits import Limits
from cgconvert.models.loading import load_model


def test_noise_channels_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counted the picture's channels alone, which the network refused."""
    model = load_model("photo2monet-fast")
    assert model.card.network_channels > model.card.in_channels
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(engines, "measure_limits", lambda *_: Limits({"fp32": 1e12}, 1e10))
    arguments = argparse.Namespace(
        models="photo2monet-fast", sizes="48x40", batches="2", engines="eager", precisions="fp32",
        device="cpu", seconds=0.01, name=None,
    )  # fmt: skip
    path = engines.run(arguments)
    written = json.loads(path.read_text())
    (result,) = written["results"]
    assert path == tmp_path / "engines.json"
    assert written["macs_at_256x256"]["photo2monet-fast"] > 1e8
    assert (result["width"], result["height"], result["batch"]) == (48, 40, 2)
    assert result["problem"] is None and result["network"] > 0
