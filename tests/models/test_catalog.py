"""Cards, model files, and where models are found."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cgconvert.card import ModelCard, card_from_json
from cgconvert.errors import ModelError, OutputError, UsageError
from cgconvert.models import catalog
from cgconvert.models.catalog import (
    SHIPPED_FOLDER,
    find_model,
    installed_path,
    list_models,
    models_folder,
    remove_model,
    renamed_note,
)
from cgconvert.models.describe import describe_architecture, describe_bytes, describe_count, describe_sizes
from cgconvert.models.files import count_parameters, read_card, read_weights, write_model
from cgconvert.models.identity import IDENTITY_CARD
from cgconvert.models.loading import load_model

WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b.running_mean": torch.zeros(4)}


def install(name: str, **fields: Any) -> Path:
    path = installed_path(name)
    write_model(path, ModelCard(name=name, architecture="resnet", **fields), WEIGHTS)
    return path


# ---- the card ---------------------------------------------------------------------------------------


def test_a_card_comes_back_as_it_was_written(tmp_path: Path) -> None:
    card = ModelCard(
        "m.1-a_b",
        "resnet",
        {"ngf": 8},
        title="Öl auf Leinwand",
        source_domain="photo",
        target_domain="monet",
        size_multiple=4,
        size_minimum=16,
        native_size=256,
        work_size=480,
        training={"images": 12, "fid": 1.5},
        licence="Apache-2.0",
    )
    path = tmp_path / "m.safetensors"
    signed = write_model(path, card, WEIGHTS)
    assert read_card(path) == signed == card.with_changes(weights_sha256=signed.weights_sha256)
    read = read_weights(path, signed)
    assert read.keys() == WEIGHTS.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in WEIGHTS.items())
    assert count_parameters(path) == 6  # statistics are no parameters


WRONG_FIELDS = [
    ({"name": "a/b"}, "cannot be a model's name"),
    ({"name": ".hidden"}, "cannot be a model's name"),
    ({"name": ""}, "cannot be a model's name"),
    ({"name": 5}, "cannot be a model's name"),
    ({"title": "two\nlines"}, "title must be one line"),
    ({"title": "\x1b[31mred"}, "title must be one line"),
    ({"title": "x" * 300}, "title must be one line"),
    ({"licence": None}, "licence must be one line"),
    ({"architecture": ["resnet"]}, "architecture must be one line"),
    ({"arguments": [1]}, "arguments must be a mapping"),
    ({"arguments": {"in_channels": "x"}}, "in_channels must be a whole number"),
    ({"training": "long"}, "training must be a mapping"),
    ({"size_multiple": 0}, "size_multiple must be a whole number"),
    ({"size_multiple": True}, "size_multiple must be a whole number"),
    ({"size_minimum": 10**9}, "size_minimum must be a whole number"),
    ({"work_size": 1.5}, "work_size must be null or a whole number"),
    ({"value_range": [0, 1]}, "value_range must be"),
    ({"value_range": 3}, "value_range must be"),
    ({"format_version": 99}, "is newer than this cgconvert knows"),
    ({"format_version": "1"}, "no format version"),
]


@pytest.mark.parametrize(("fields", "words"), WRONG_FIELDS)
def test_cards_with_wrong_fields_are_refused(fields: dict[str, Any], words: str) -> None:
    good = ModelCard("good", "resnet").to_dict()
    assert card_from_json(json.dumps(good), "f").name == "good"
    with pytest.raises(ModelError, match=words) as caught:
        card_from_json(json.dumps(good | fields), "some.safetensors")
    assert str(caught.value).startswith("some.safetensors: ")


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "[" * 100_000, None, '{"format_version": 1}'])
def test_what_is_no_card(text: Any) -> None:
    with pytest.raises(ModelError, match="model card"):
        card_from_json(text, "f")


def test_unknown_fields_of_a_card_are_ignored() -> None:
    data = ModelCard("good", "resnet").to_dict() | {"mood": "blue"}
    assert card_from_json(json.dumps(data), "f") == ModelCard("good", "resnet")


# ---- the file ---------------------------------------------------------------------------------------


def test_changed_weights_are_noticed() -> None:
    path = install("m")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="do not match the checksum"):
        load_model("m")


def test_a_missing_checksum_is_said(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file(WEIGHTS, path, {"cgconvert": ModelCard("m", "resnet").to_json()})
    with pytest.raises(ModelError, match="no checksum"):
        load_model(path)


@pytest.mark.parametrize("keep", [0, 5, 20, 200, -1])
def test_cut_model_files(keep: int) -> None:
    path = install("m")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="cut short"):
        load_model("m")


def test_weights_without_a_card_say_how_to_bring_them_in(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file(WEIGHTS, path)
    with pytest.raises(ModelError, match="cgconvert models import"):
        load_model(path)


def test_weights_of_another_network_are_told() -> None:
    install("m")
    with pytest.raises(ModelError, match=r"do not fit architecture 'resnet': 'model.1.weight' is missing"):
        load_model("m")


# ---- shipped ----------------------------------------------------------------------------------------


def test_the_shipped_identity_is_what_its_maker_writes(tmp_path: Path) -> None:
    path = tmp_path / "identity.safetensors"
    write_model(path, IDENTITY_CARD, {})
    assert (SHIPPED_FOLDER / path.name).read_bytes() == path.read_bytes()
    assert load_file(path) == {}


def test_every_shipped_model_loads_under_its_name() -> None:
    shipped = [model for model in list_models() if model.origin == "shipped"]
    assert "identity" in [model.name for model in shipped]
    for model in shipped:
        card = load_model(model.name).card
        assert card.name == model.name
        assert card.title
        assert card.licence != "unknown"


# ---- the catalog ------------------------------------------------------------------------------------


def test_the_users_models_come_first_and_hide_shipped_ones() -> None:
    mine = install("identity")
    assert find_model("identity") == mine
    assert [(m.name, m.origin) for m in list_models() if m.name == "identity"] == [("identity", "installed")]
    assert remove_model("identity") == mine
    assert find_model("identity") == SHIPPED_FOLDER / "identity.safetensors"


def test_broken_and_half_written_files_in_the_folder() -> None:
    install("good")
    installed_path("broken").write_bytes(b"junk")
    installed_path("dangling").symlink_to("nowhere")
    (models_folder() / ".cgconvert-12.safetensors").write_bytes(b"half")
    mine = {model.name: model for model in list_models() if model.origin == "installed"}
    assert mine.keys() == {"good", "broken", "dangling"}
    assert "no such model file" in str(mine["dangling"].problem)
    assert mine["good"].problem is None
    assert "cut short" in str(mine["broken"].problem)


def test_without_a_variable_models_are_in_the_platforms_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CGCONVERT_HOME")
    assert models_folder().parts[-2:] == ("cgconvert", "models")
    monkeypatch.setenv("CGCONVERT_HOME", "~/elsewhere")
    assert models_folder() == Path.home() / "elsewhere" / "models"


def test_paths_in_their_many_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = install("m").rename(tmp_path / "m.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    forms = [
        file,
        str(file),
        "m.safetensors",
        "./m.safetensors",
        f".{os.sep}m",
        str(tmp_path / "m"),
        "~/m",
        "m",
    ]
    for form in forms:
        assert find_model(form).resolve() == file, form


WRONG_NAMES = [
    ("identty", r"no model named 'identty'; did you mean identity\? \(known: identity"),
    ("IDENTITY2", r"did you mean identity\?"),
    ("qqqq", r"no model named 'qqqq' \(known: "),
    ("identity.safetensors", r"no such model file: identity.safetensors; did you mean identity\?"),
    ("/nowhere/identity", r"no such model file: /nowhere/identity; did you mean identity\?"),
    ("latest_net_G.pth", "cgconvert models import"),
    ("x" * 5000, "no model named 'xxx"),
    (f"/{'x' * 5000}", "no such model file: /xxx"),
    ("a\0b", r"no model named 'a\\x00b'"),
    ("~nobody-of-this-name/m", "no such home folder"),
    ("", "folder"),
    (".", "folder"),
]


@pytest.mark.parametrize(("name", "words"), WRONG_NAMES)
def test_wrong_names_get_help(name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=words):
        find_model(name)


def test_a_folder_and_a_foreign_file_are_told_apart(tmp_path: Path) -> None:
    install("m").rename(tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match=r"is a folder: name one model file; in it: m$"):
        find_model(tmp_path)
    foreign = tmp_path / "latest_net_G.pth"
    foreign.touch()
    with pytest.raises(
        ModelError, match=r"bring it in first: cgconvert models import .*latest_net_G\.pth --name"
    ):
        find_model(foreign)


def test_removing() -> None:
    path = install("m")
    assert remove_model("m") == path
    assert not path.exists()
    with pytest.raises(ModelError, match="no model named 'm'"):
        remove_model("m")
    with pytest.raises(UsageError, match="is shipped"):
        remove_model("identity")
    with pytest.raises(ModelError, match="cannot be a model's name"):
        remove_model("../m")


def test_removing_what_the_system_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    install("m")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(catalog.Path, "unlink", refuse)
    with pytest.raises(OutputError, match="permission"):
        remove_model("m")


# ---- words ------------------------------------------------------------------------------------------


def test_descriptions() -> None:
    assert describe_architecture("resnet", {}) == "ResNet, 9 blocks, ngf 64, instance norm"
    many = {
        "blocks": 6,
        "norm": "batch",
        "padding": "zero",
        "upsampling": "resize",
        "dropout": True,
        "in_channels": 1,
    }
    assert describe_architecture("resnet", many) == (
        "ResNet, 6 blocks, ngf 64, batch norm, zero padding, resize upsampling, dropout, 1 -> 3 channels"
    )
    assert describe_architecture("h2", {"channels": 48, "half_channels": 16}) == "H2 16-48-6"
    assert describe_architecture("unet", {"depth": 7}) == "U-Net, depth 7, ngf 64, batch norm"
    assert describe_architecture("h2", {"blocks": 2, "in_channels": 3}) == "H2 24-64-2"
    assert describe_architecture("pix2pixhd", {"ngf": 4, "in_channels": 3}) == "pix2pixhd, ngf 4"
    assert describe_count(11_378_179) == "11.4 M"
    assert describe_bytes(4_512_345) == "4.5 MB"
    assert describe_bytes(616) == "616 bytes"
    assert describe_sizes(ModelCard("a", "identity")) == "any"


def test_a_former_name_finds_its_successor_unless_the_user_has_a_model_of_that_name() -> None:
    note = "photo2monet-tiny is no longer shipped: photo2monet-fast takes its place"
    assert find_model("photo2monet-tiny") == SHIPPED_FOLDER / "photo2monet-fast.safetensors"
    assert renamed_note("photo2monet-tiny") == [note]
    assert renamed_note("photo2monet-fast") == []
    own = install("photo2monet-tiny")
    assert find_model("photo2monet-tiny") == own
    assert renamed_note("photo2monet-tiny") == []
