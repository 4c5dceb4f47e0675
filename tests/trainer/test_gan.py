"""The gan: pictures from noise, of labels that are the names of folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from cgconvert.errors import UsageError
from cgconvert.media.picture.codec import read_picture
from tests.trainer.conftest import SMALL, make_domain, write_run
from trainer.cli import train
from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.data.batches import LABELS
from trainer.data.domains import labels_of, open_data
from trainer.data.pictures import scan_domain
from trainer.exporting.export import export_model
from trainer.methods import build_method
from trainer.methods.gan import generate, new_dcgan
from trainer.networks.dcgan import DcganDiscriminator, DcganGenerator
from trainer.runs.sample import sample_run
from trainer.runs.setup import init_run, label_names
from trainer.runs.start import start
from trainer.storage.checkpoint import load_checkpoint
from trainer.storage.folder import RunFolder

GAN: dict[str, Any] = {
    "run.method": "gan",
    "run.batch": 4,
    "run.images": 24,
    "run.decay_images": 0,
    "data.preprocess": "resize_and_crop",
    "data.load_size": 36,
    "data.crop_size": 32,
    "network.generator": "dcgan",
    "network.arguments": {"ngf": 4, "latent": 8},
    "network.ndf": 4,
    "loss.gan": "vanilla",
    "loss.pool": 0,
    "watch.learned": False,
}


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Warm pictures in one folder, cold ones in another."""
    make_domain(tmp_path / "b" / "warm", True, 8)
    make_domain(tmp_path / "b" / "cold", False, 8)
    return tmp_path / "b"


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("classes", [0, 3])
def test_networks_have_the_shapes_of_the_paper(size: int, classes: int) -> None:
    generator, disc = DcganGenerator(size, 8, 4, classes), DcganDiscriminator(size, 4, classes)
    labels = torch.tensor([0, 2]) if classes else None
    images = generator(torch.randn(2, 8), labels)
    assert images.shape == (2, 3, size, size)
    assert float(images.detach().abs().max()) <= 1
    assert disc(images, labels).shape == (2,)
    published = DcganGenerator(64, 100, 64)
    widths = [m.out_channels for m in published.modules() if isinstance(m, torch.nn.ConvTranspose2d)]
    assert widths == [512, 256, 128, 64, 3]


def test_sizes_and_arguments_that_cannot_be_are_refused() -> None:
    for size in (48, 8, 512):
        with pytest.raises(UsageError, match=f"must be a power of two from 16 to 256, got {size}"):
            DcganGenerator(size)
    for arguments in ({"blocks": 3}, {"ngf": 0}, {"latent": True}):
        with pytest.raises(UsageError, match="are whole numbers ngf and latent"):
            new_dcgan(Config().with_changes({**SMALL, **GAN, "network.arguments": arguments}))
    for changes, message in (
        ({"data.labels": ["one"]}, "data.labels must be two or more different folders"),
        ({"data.labels": ["one", "one"]}, "data.labels must be two or more different folders"),
        ({"data.preprocess": "none", "run.batch": 1}, "a gan makes pictures of one size"),
        ({"loss.projected": 1.0}, "loss.projected is for methods that convert pictures, not gan"),
        ({"run.method": "cut", "data.labels": ["a", "b"]}, "data.labels are for run.method gan, not cut"),
    ):
        with pytest.raises(UsageError, match=message):
            Config().with_changes({**SMALL, **GAN, **changes})


def test_labels_are_those_of_the_pictures_in_a_batch(labelled: Path) -> None:
    config = Config().with_changes({**SMALL, **GAN, "data.b": str(labelled), "data.labels": ["warm", "cold"]})
    batch = open_data(config, labelled).source.batch(8)
    assert set(batch) == {"b", LABELS}
    # Warm pictures are red on average, cold ones blue.
    blue = batch["b"][:, 2].float().mean((1, 2)) > batch["b"][:, 0].float().mean((1, 2))
    assert batch[LABELS].tolist() == blue.long().tolist()
    source = open_data(config, labelled).source
    seen = {label for first in (0, 4, 8) for label in source.batch(first)[LABELS].tolist()}
    assert seen == {0, 1}


def test_pictures_without_a_label_and_labels_without_pictures_are_named(labelled: Path) -> None:
    domain = scan_domain(str(labelled), warn=False)
    assert sorted(labels_of(domain, ["cold", "warm"])) == [0] * 8 + [1] * 8
    with pytest.raises(UsageError, match=r"000.png: is in none of the folders warm, green of data.labels"):
        labels_of(domain, ["warm", "green"])
    with pytest.raises(UsageError, match=r"has no readable picture in green, one of data.labels"):
        labels_of(domain, ["warm", "cold", "green"])
    assert label_names(str(labelled)) == ["cold", "warm"]
    with pytest.raises(UsageError, match="has fewer than two folders, so there are no labels"):
        label_names(str(labelled / "warm"))


def test_a_run_makes_pictures_and_says_how_to_see_more(
    tmp_path: Path, labelled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "trainer")
    changes = {**GAN, "data.b": str(labelled), "data.labels": ["cold", "warm"], "run.images": 8}
    folder = RunFolder(write_run(tmp_path / "run", changes))
    start(folder)
    assert (
        caplog.messages[-1] == f"more of its pictures: cgconvert train sample {folder.path} -o PICTURES.png"
    )
    grid = read_picture(folder.samples / "generator-000000008.png").pixels
    assert grid.shape == (8 * (32 + 2), 8 * 32, 3)
    assert "generator: pictures from noise" in folder.report.read_text()
    metrics = [line for line in folder.lines() if line["kind"] == "metrics"]
    assert metrics[-1]["swd"] > 0 and "ssim" not in metrics[-1]
    assert folder.best.exists()

    def sampled(*words: Any) -> np.ndarray:
        out = tmp_path / "out.png"
        result = CliRunner().invoke(train, ["sample", str(folder.path), "-o", str(out), *map(str, words)])
        assert result.exit_code == 0, result.exception
        return read_picture(out).pixels

    nine = sampled("--count", 9)
    assert nine.shape == (3 * (32 + 2), 3 * 32, 3)
    assert np.array_equal(sampled("--count", 9), nine), "the same for a seed"
    assert not np.array_equal(sampled("--count", 9, "--seed", 1), nine)
    assert not np.array_equal(sampled("--count", 9, "--label", "warm"), nine)
    with pytest.raises(UsageError, match="unknown label 'green'; known: cold, warm"):
        sample_run(folder.path, [], tmp_path / "x.png", "", 64, labels=["green"])
    with pytest.raises(UsageError, match="is of a gan, which makes pictures from noise and takes none"):
        sample_run(folder.path, [labelled / "warm" / "000.png"], tmp_path / "x.png", "", 64)
    with pytest.raises(UsageError, match="makes pictures from noise and converts none"):
        export_model(folder.checkpoint, tmp_path / "gan.safetensors")


def test_init_fills_in_the_labels(tmp_path: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.runs.rate.measure_rate", lambda config, quick: 1000.0)
    words = ["init", str(tmp_path / "run"), "--method", "gan", "--b", str(labelled), "--labels"]
    result = CliRunner().invoke(train, words)
    assert result.exit_code == 0, result.exception
    config = RunFolder(tmp_path / "run").read_config()
    assert config.data.labels == ["cold", "warm"]
    assert (config.data.crop_size, config.run.batch, config.loss.gan) == (64, 64, "vanilla")
    with pytest.raises(UsageError, match=r"no pictures named: set data.b in the config"):
        init_run(tmp_path / "none", {"run.method": "gan"}, None, False)


def test_it_learns_the_colour_of_a_label() -> None:
    """Two labels, plain red and plain blue: after some steps a picture of a label has its colour."""
    changes = {**SMALL, **GAN, "data.crop_size": 16, "data.load_size": 16, "data.labels": ["red", "blue"]}
    changes |= {"run.batch": 16, "network.arguments": {"ngf": 8, "latent": 8}, "network.ndf": 8}
    changes |= {"network.ema": 0.8, "optimizer.lr": 1e-3}
    torch.manual_seed(0)
    method = build_method(Config().with_changes(changes), Precision(torch.device("cpu"), "fp32"))
    random = torch.Generator().manual_seed(1)
    for _ in range(150):
        labels = torch.randint(0, 2, (16,), generator=random)
        images = torch.full((16, 3, 16, 16), 40, dtype=torch.uint8)
        images[labels == 0, 0] = 220
        images[labels == 1, 2] = 220
        losses = method.train_step({"b": images, LABELS: labels})
    assert set(losses) == {"gan", "disc_real", "disc_fake"}
    generator = method.ema.generators["generator"]
    assert isinstance(generator, DcganGenerator)
    red, blue = (generate(generator, 8, 0, [label]).mean((0, 2, 3)) for label in (0, 1))
    assert red[0] > red[2] + 0.1 and blue[2] > blue[0] + 0.1


def test_a_stopped_gan_goes_on_exactly(
    tmp_path: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {**GAN, "data.b": str(labelled), "data.labels": ["cold", "warm"], "run.images": 16}
    one, two = (RunFolder(write_run(tmp_path / name, changes)) for name in ("one", "two"))
    start(one)
    start(two, {"run.images": 8})
    torch.manual_seed(99)
    start(two, {"run.images": 16}, resume=True)
    first, second = (load_checkpoint(run.checkpoint)["method"] for run in (one, two))
    for network in ("generator", "disc"):
        for key, value in first["networks"][network].items():
            assert torch.equal(value, second["networks"][network][key]), key
