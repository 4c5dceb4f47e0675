"""The config: read, checked, written with every setting explained."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest

from cgconvert.doctor.limits import count_macs
from cgconvert.errors import UsageError
from cgconvert.generators import build_generator
from trainer.config import Config, config_from_checkpoint, config_from_dict, read_config
from trainer.runs.schedule import Schedule
from trainer.runs.setup import DEFAULTS, recipes, student_settings
from trainer.runs.template import commented_toml, toml_value


def read(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return read_config(path)


def test_the_written_config_is_the_one_read(tmp_path: Path) -> None:
    config = Config().with_changes(
        {
            "run.method": "cut",
            "data.a": 'odd "name" \\ with é and\ttab',
            "network.arguments": {"ngf": 8, "upsampling": "resize", "dropout": True},
            "loss.diffaugment": ["color"],
            "optimizer.lr": 3e-05,
        }
    )
    assert read(tmp_path, commented_toml(config)) == config


def test_every_setting_is_in_the_file_and_explained() -> None:
    lines = commented_toml(Config()).splitlines()
    for section in dataclasses.fields(Config):
        for setting in dataclasses.fields(getattr(Config(), section.name)):
            (line,) = [
                x for x in lines if x.startswith(f"{setting.name} =") and setting.metadata["help"] in x
            ]
            assert "#" in line
            choices = setting.metadata.get("choices", ())
            assert all(choice in line for choice in choices)
    (edge,) = [line for line in lines if line.startswith("load_size =")]
    assert edge.endswith("resized to before the crop (at least 8)")
    (decay,) = [line for line in lines if line.startswith("ema =")]
    assert decay.endswith("0: none (from 0 to 0.999999)")


def test_nothing_is_needed(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Config()
    assert read(tmp_path, "[optimizer]\nlr = 1\n").optimizer.lr == 1.0


def test_the_decay_follows_the_length_unless_it_is_set(tmp_path: Path) -> None:
    assert Config().run.decay == 100_000, "half of the default length"
    assert read(tmp_path, "[run]\nimages = 10\n").run.decay == 5
    assert read(tmp_path, "[run]\nimages = 10\ndecay_images = 2\n").run.decay == 2
    assert read(tmp_path, "[run]\nimages = 10\ndecay_images = 0\n").run.decay == 0
    longer = Config().with_changes({"run.images": 400_000})
    assert longer.run.decay == 200_000
    assert Schedule(longer.run).rate(300_000) == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[run]\nmethod = 'cyclgan'",
            "run.method must be one of cyclegan, pix2pix, cut, distill, one_sided, gan, got 'cyclgan'",
        ),
        ("[run]\nimges = 3", "unknown setting 'imges' in \\[run\\]; did you mean 'images'"),
        ("[rnu]\nimages = 3", "unknown section \\[rnu\\]; did you mean 'run'"),
        ("run = 3", "\\[run\\] must be a section"),
        ("[run]\nimages = '3'", "run.images must be int, got '3'"),
        ("[run]\nimages = true", "run.images must be int, got True"),
        ("[run]\nimages = 0", "run.images must be at least 1, got 0"),
        ("[network]\nema = 1.0", "network.ema must be from 0 to 0.999999, got 1.0"),
        ("[optimizer]\nlr = -1", "optimizer.lr must be at least 0, got -1.0"),
        ("[optimizer]\nlr = nan", "optimizer.lr must be a finite number, got nan"),
        ("[optimizer]\nlr = inf", "optimizer.lr must be a finite number, got inf"),
        ("[run]\nimages = 10\ndecay_images = 11", "run.decay_images 11 is above run.images 10"),
        ("[run]\ndecay_images = -2", "run.decay_images must be at least -1, got -2"),
        ("[data]\ncrop_size = 300", "data.crop_size 300 is above data.load_size 286"),
        ("[data]\nscale_min = 2.0", "data.scale_min 2.0 is above data.scale_max 1.5"),
        ("[data]\npreprocess = 'none'\n[run]\nbatch = 2", "use run.batch = 1"),
        ("[loss]\nablation = 'l1-alone'", "'l1-alone' is not one of cyclegan's"),
        ("[loss]\ndiffaugment = ['blur']", "knows color, translation, cutout; got blur"),
        ("[loss]\nnce_layers = ['1']", r"loss.nce_layers must be a list of int, got \['1'\]"),
        ("[loss]\nnce_layers = [true]", r"loss.nce_layers must be a list of int, got \[True\]"),
        ("[loss]\ndiffaugment = [1]", r"loss.diffaugment must be a list of str, got \[1\]"),
        ("[run\n", "is not valid TOML"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read(tmp_path, text)
    assert "config.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not there; make one with"):
        read_config(tmp_path / "none.toml")
    with pytest.raises(UsageError, match=r"cannot be read \(Is a directory\)"):
        read_config(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not text in UTF-8"):
        read_config(tmp_path / "bytes.toml")


def test_settings_are_changed_by_their_dotted_name() -> None:
    config = Config()
    assert config.with_changes({"run.batch": 4}).run.batch == 4
    assert config.run.batch == 1
    with pytest.raises(UsageError, match=r"unknown setting 'batch': write SECTION\.KEY"):
        config.with_changes({"batch": 4})
    with pytest.raises(UsageError, match="did you mean 'batch'"):
        config.with_changes({"run.bach": 4})
    assert config_from_dict(config.to_dict(), "") == config


def test_changes_are_told_by_name() -> None:
    before = Config()
    after = before.with_changes({"loss.temporal": 1.5, "network.arguments": {"ngf": 8}})
    assert after.changes_since(before) == {"network.arguments": ({}, {"ngf": 8}), "loss.temporal": (0.0, 1.5)}
    assert before.changes_since(before) == {}


def test_a_checkpoint_of_another_version_can_be_read() -> None:
    stored = Config().with_changes({"run.batch": 3}).to_dict()
    stored["loss"]["gone"] = 1.0
    stored["old"] = {"x": 1}
    del stored["loss"]["temporal_noise"]
    assert config_from_checkpoint({"config": stored}, "").run.batch == 3
    stored["run"]["batch"] = 0
    with pytest.raises(UsageError, match=r"checkpoint.pt: run.batch must be at least 1"):
        config_from_checkpoint({"config": stored}, "checkpoint.pt")


def test_configs_share_nothing() -> None:
    one, two = Config(), Config()
    one.network.arguments["ngf"] = 1
    assert two.network.arguments == {}


def test_defaults_of_methods_and_recipes_are_valid() -> None:
    for method, changes in DEFAULTS.items():
        Config().with_changes({"run.method": method, **changes})
    assert "photo2monet" in recipes()
    for path in recipes().values():
        text = path.read_text(encoding="utf-8")
        read_config(path)
        assert "/work" not in text
        assert "/home" not in text


@pytest.mark.parametrize(
    ("name", "gmac"), [("tiny", 1.1), ("small", 2.0), ("fast", 2.0), ("base", 6.4), ("mobile", 0.955)]
)
def test_students_cost_what_they_are_said_to(name: str, gmac: float) -> None:
    settings = student_settings(name)
    Config().with_changes({"run.method": "distill", **settings})
    network = build_generator(settings["network.generator"], settings["network.arguments"])
    assert count_macs(network, 3, 256, 256) / 1e9 == pytest.approx(gmac, rel=0.12)


def test_a_student_that_is_not_known() -> None:
    with pytest.raises(UsageError, match="unknown student 'huge'; known: tiny, small, fast, base, mobile"):
        student_settings("huge")


@pytest.mark.parametrize("value", [1, 1.5, -2e-8, True, "a'b\"c\\", "", ["x", "y"], [], {"a": [1, 2]}, {}])
def test_values_survive_toml(value: object) -> None:
    assert tomllib.loads(f"v = {toml_value(value)}")["v"] == value
