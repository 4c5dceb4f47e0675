"""A training in figures: what is kept of a run's log."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.training.curves import collect, picture
from benchmarks.training.summary import settings, summarise, tenths
from cgconvert.errors import UsageError
from tests.trainer.conftest import write_run
from trainer.config import Config
from trainer.storage.folder import RunFolder


def test_losses_are_averaged_by_tenths_of_the_log() -> None:
    losses = [{"images": 10 * i, "losses": {"cycle": float(i)}} for i in range(1, 26)]
    rows = tenths(losses)
    assert len(rows) == 10
    assert rows[0] == {"images": 20, "cycle": 1.5} and rows[-1] == {"images": 250, "cycle": 24.0}
    assert tenths(losses[:3]) == [{"images": i, "cycle": i / 10} for i in (10, 20, 30)]


def test_a_loss_that_comes_and_goes_is_averaged_over_its_lines() -> None:
    r1 = {2: 0.5, 3: 1.5, 7: 4.0}
    losses = [
        {"images": i, "losses": {"gan": 1.0, **({"r1_a": r1[i]} if i in r1 else {})}} for i in range(1, 31)
    ]
    rows = tenths(losses)
    assert [row.get("r1_a") for row in rows[:4]] == [1.0, None, 4.0, None]
    assert all(row["gan"] == 1.0 for row in rows)


def test_a_path_is_told_by_its_last_two_parts() -> None:
    config = Config().with_changes({"data.a": "/home/someone/sets/horse2zebra/trainA", "run.seed": 7})
    assert settings(config) == {"run.seed": 7, "data.a": "horse2zebra/trainA"}


def test_curves_are_drawn_by_kind_of_loss_and_by_metric(tmp_path: Path) -> None:
    lines = [
        {"kind": "metrics", "images": 0, "generator": "gen_ab", "swd": 60.0, "grid": 1.5},
        {"kind": "losses", "images": 4, "losses": {"gan_ab": 0.5, "gan_ba": 0.25}},
        {"kind": "roll-back", "images": 4},
        {"kind": "losses", "images": 8, "losses": {"gan_ab": 0.75, "gan_ba": 0.5}},
        {"kind": "metrics", "images": 8, "generator": "gen_ab", "swd": 40.0, "grid": 2.0},
    ]
    plots = collect(lines)
    assert list(plots) == ["gan loss", "distance, normalised", "grid"]
    assert plots["gan loss"] == {"gan_ab": [(4, 0.5), (8, 0.75)], "gan_ba": [(4, 0.25), (8, 0.5)]}
    root = ElementTree.fromstring(picture(plots))
    name = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f".//{name}polyline")) == 4
    words = [text.text for text in root.findall(f".//{name}text")]
    assert {"gan loss", "grid", "8 images", "0.75", "60"} <= set(words)
    with pytest.raises(UsageError, match="no curves to draw"):
        picture({})


def test_a_run_is_summarised(tmp_path: Path) -> None:
    folder = RunFolder(write_run(tmp_path / "run", {"run.images": 20}))
    with pytest.raises(UsageError, match="no losses were logged; name the folder of a run that has trained"):
        summarise(folder)
    lines = [
        {"kind": "losses", "images": 4, "seconds": 2.5, "losses": {"disc_a": 0.25}},
        {"kind": "metrics", "images": 4, "generator": "gen_ab", "swd": 40.0},
        {"kind": "losses", "images": 20, "seconds": 9.5, "losses": {"disc_a": 0.125}},
    ]
    whole = "".join(json.dumps(line) + "\n" for line in lines)
    folder.log.write_text(whole + '{"kind": "los')  # what a killed process leaves
    told = summarise(folder)
    assert (told["images"], told["seconds"]) == (20, 9.5)
    assert told["losses"] == [{"images": 4, "disc_a": 0.25}, {"images": 20, "disc_a": 0.125}]
    assert told["metrics"] == {"gen_ab": [{"images": 4, "swd": 40.0}]}
