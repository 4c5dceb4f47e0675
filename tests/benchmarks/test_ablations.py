"""The benchmark that redraws the papers' ablation tables: every condition, measured, and continued."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import common
from benchmarks.training import ablations
from tests.trainer.conftest import H2_TINY, make_domain, make_pairs
from trainer.config import CYCLEGAN_ABLATIONS, PIX2PIX_ABLATIONS
from trainer.runs.template import toml_value

SET = {
    "run.device": "cpu",
    "run.precision": "fp32",
    "run.threads": 1,
    "network.ndf": 4,
    "network.disc_layers": 1,
    "network.generator": "h2",
    "network.arguments": H2_TINY,
    "network.disc_norm": "instance",
}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the benchmark with words of its command line; returns what it wrote."""
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")

    def run(method: str, *words: object) -> tuple[dict, str]:
        settings = [word for key, value in SET.items() for word in ("--set", f"{key}={toml_value(value)}")]
        common_words = [method, tmp_path / "runs", "--edge", 32, "--images", 4, *settings, *words]
        monkeypatch.setattr(sys, "argv", ["ablations.py", *map(str, common_words)])
        ablations.main()
        data = json.loads((tmp_path / "results" / f"ablations_{method}.json").read_text())
        return data, (tmp_path / "runs" / f"{method}.md").read_text()

    return run


def test_every_condition_of_the_papers_is_there() -> None:
    assert set(ablations.CONDITIONS["cyclegan"]) == set(CYCLEGAN_ABLATIONS)
    assert set(ablations.CONDITIONS["pix2pix"]) == set(PIX2PIX_ABLATIONS)


def test_cyclegans_table_is_drawn_and_continued(tmp_path: Path, table, capsys) -> None:
    a, b = make_domain(tmp_path / "a", True), make_domain(tmp_path / "b", False)
    places = ["--a", a, "--b", b]
    part, _ = table("cyclegan", *places, "--conditions", "gan-alone")
    assert list(part["rows"]) == ["gan-alone"]
    first = (tmp_path / "runs" / "cyclegan-gan-alone" / "checkpoint.pt").stat().st_mtime_ns
    data, text = table("cyclegan", *places)
    assert (tmp_path / "runs" / "cyclegan-gan-alone" / "checkpoint.pt").stat().st_mtime_ns == first
    assert list(data["rows"]) == list(ablations.CONDITIONS["cyclegan"])
    assert data["rows"]["gan-alone"] == part["rows"]["gan-alone"]
    for condition, row in data["rows"].items():
        assert row["images_seen"] == 4
        assert set(row["metrics"]) == {"gen_ab", "gen_ba"}
        lines = (tmp_path / "runs" / f"cyclegan-{condition}" / "metrics.jsonl").read_text().splitlines()
        losses = next(set(line["losses"]) for line in map(json.loads, lines) if line["kind"] == "losses")
        assert ("gan_ab" in losses) == (condition != "cycle-alone")
        assert ("cycle_a" in losses) == (condition in ("cycle-alone", "gan-forward", "full"))
        assert ("cycle_b" in losses) == (condition in ("cycle-alone", "gan-backward", "full"))
        assert not {"identity_a", "identity_b"} & losses
    rows = [line for line in text.splitlines() if line.startswith("| GAN + forward cycle |")]
    assert len(rows) == 2, "a row for each generator"
    swd = data["rows"]["gan-forward"]["metrics"]["gen_ab"]["swd"]
    assert rows[0].split("|")[2].strip() == f"{swd:.4g}"
    with pytest.raises(SystemExit) as caught:
        table("cyclegan", *places, "--set", "optimizer.lr=1e-3")
    assert caught.value.code == 2
    assert "was made with other settings (optimizer.lr); take another folder" in capsys.readouterr().err


def test_pix2pixs_table_is_drawn(tmp_path: Path, table) -> None:
    pairs = make_pairs(tmp_path / "pairs")
    data, text = table("pix2pix", "--pairs", pairs)
    assert list(data["rows"]) == ["l1-alone", "gan-alone", "cgan-alone", "l1-gan", "full"]
    assert all(row["metrics"]["gen_ab"]["l1"] > 0 for row in data["rows"].values())
    assert "| L1 + cGAN |" in text
    assert text.startswith("| gen_ab | l1 | truth_ssim | swd | swd_common |")
