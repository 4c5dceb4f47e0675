"""Pairs from parallel folders, and pictures that are trained on whole: checked before the first step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cgconvert.errors import UsageError
from tests.trainer.conftest import SMALL, draw, make_domain, save, write_run
from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.data.domains import open_data
from trainer.data.pictures import read_image
from trainer.methods import build_method
from trainer.runs.start import start
from trainer.storage.folder import RunFolder


def settings(**changes: object) -> Config:
    return Config().with_changes(
        {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
    )


def parallel(tmp_path: Path, **changes: object) -> Config:
    places = {"data__a": str(tmp_path / "a"), "data__b": str(tmp_path / "b")}
    return settings(**{"run__method": "pix2pix", **places, **changes})


def test_pairs_are_found_by_their_whole_path_below_the_folder(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for domain, folders in (("a", ("day", "dusk")), ("b", ("night", "dusk"))):
        for folder in folders:
            for index in range(4):
                save(tmp_path / domain / folder / f"{index}.png", draw(random, True))
    data = open_data(parallel(tmp_path, data__holdout=1), tmp_path)
    for part, count in ((data.training, 3), (data.holdout, 1)):
        for a, b in zip(part["a"].pictures, part["b"].pictures, strict=True):
            assert a.path.relative_to(tmp_path / "a") == b.path.relative_to(tmp_path / "b")
            assert a.path.parent.name == "dusk"
        assert len(part["a"].pictures) == count
    save(tmp_path / "b" / "dusk" / "3.jpg", draw(random, True))
    with pytest.raises(UsageError, match=r"b/dusk: 3\.jpg and 3\.png have one name; remove one of them"):
        open_data(parallel(tmp_path), tmp_path)


def test_pairs_are_matched_before_some_are_held_out(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for index in range(12):
        save(tmp_path / "a" / f"{index:02d}.png", draw(random, True))
    for index in range(4, 16):
        save(tmp_path / "b" / f"{index:02d}.png", draw(random, True))
    data = open_data(parallel(tmp_path, data__holdout=2), tmp_path)
    names = [[p.name for p in part["a"].pictures] for part in (data.training, data.holdout)]
    assert names == [["04", "05", "07", "08", "09", "11"], ["06", "10"]], "none is lost"
    assert [p.name for p in data.holdout["b"].pictures] == ["06", "10"]
    with pytest.raises(UsageError, match=r"set data\.holdout_a and data\.holdout_b"):
        open_data(parallel(tmp_path, data__holdout_a=str(tmp_path / "a")), tmp_path)


def test_pairs_of_two_sizes_are_refused_before_the_first_step(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for index in range(6):
        save(tmp_path / "a" / f"{index}.png", draw(random, True))
        save(tmp_path / "b" / f"{index}.png", draw(random, True, (48, 60 if index in (2, 4) else 48)))
    wanted = (
        rf"{tmp_path}/a/2\.png is 48x48 and {tmp_path}/b/2\.png 60x48 \(1 more pairs likewise\): "
        r"with data\.preprocess = 'crop' the two of a pair need one size"
    )
    with pytest.raises(UsageError, match=wanted):
        open_data(parallel(tmp_path, data__preprocess="crop", data__holdout=1), tmp_path)
    resized = parallel(tmp_path, data__preprocess="resize_and_crop", data__load_size=40)
    assert open_data(resized, tmp_path).source.batch(0)["b"].shape == (1, 3, 32, 32)


def test_pairs_of_two_sizes_are_shown_and_measured_where_the_training_resizes_them(tmp_path: Path) -> None:
    make_domain(tmp_path / "a", True, 8, (48, 48))
    make_domain(tmp_path / "b", True, 8, (36, 40))
    sizes = {"data.preprocess": "resize_and_crop", "data.load_size": 36}
    places = {"data.a": str(tmp_path / "a"), "data.b": str(tmp_path / "b")}
    length = {"run.images": 2, "run.decay_images": 1, "run.method": "pix2pix"}
    run = RunFolder(write_run(tmp_path / "run", {**sizes, **places, **length}))
    start(run)
    assert read_image(run.samples / "gen_ab-000000002.png").shape == (2 * 50, 3 * 48, 3)
    (line,) = [line for line in run.lines() if line["kind"] == "metrics"]
    assert 0 < line["l1"] < 255


@pytest.mark.parametrize(
    ("generator", "arguments", "shape"),
    [
        ("h2", {"half_channels": 8, "channels": 8, "blocks": 1}, (48, 92)),
        ("unet", {"ngf": 4, "depth": 5}, (64, 96)),
        ("pix2pixhd", {"ngf": 4, "downs": 2, "blocks": 1, "local_blocks": 1}, (48, 88)),
    ],
)
def test_whole_pictures_fit_the_generator(
    tmp_path: Path, generator: str, arguments: dict[str, int], shape: tuple[int, int]
) -> None:
    for name in ("a", "b"):
        make_domain(tmp_path / name, True, 4, (49, 91))
    network = {"network__generator": generator, "network__arguments": arguments}
    config = parallel(tmp_path, data__preprocess="none", **network)
    data = open_data(config, tmp_path)
    assert data.source.batch(0)["a"].shape == (1, 3, *shape)
    method = build_method(config, Precision(torch.device("cpu"), "fp32"))
    assert torch.isfinite(method.train_step(data.source.batch(0))["l1"])


def test_small_whole_pictures_are_enlarged_to_what_the_networks_accept(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_domain(tmp_path / name, True, 4, (9, 20))
    config = parallel(tmp_path, data__preprocess="none", network__disc_layers=3)
    assert open_data(config, tmp_path).source.batch(0)["a"].shape == (1, 3, 24, 24)


@pytest.mark.parametrize("method", ["pix2pix", "cut", "cyclegan"])
def test_networks_of_other_channels_are_refused(tmp_path: Path, method: str) -> None:
    config = parallel(tmp_path, run__method=method, network__arguments={"in_channels": 1})
    with pytest.raises(UsageError, match=r"arguments: in_channels must be 3, got 1: pictures are"):
        open_data(config, tmp_path)
