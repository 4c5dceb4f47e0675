"""Generators of every layout that the original implementation saves come in and compute the same."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cgconvert.card import ModelCard
from cgconvert.errors import ModelError, OutputError
from cgconvert.generators import H2Generator, ResnetGenerator
from cgconvert.models.catalog import installed_path, models_folder
from cgconvert.models.importing import import_checkpoint
from cgconvert.models.loading import load_model
from tests.models import reference_networks as reference


def assert_same(network: nn.Module, name: str, image: torch.Tensor) -> None:
    """The installed model returns what the network returns."""
    with torch.inference_mode():
        wanted = network(image.clone())
        got = load_model(name).generator(image.clone())
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().max()) <= 1e-4
    assert float(wanted.std()) > 1e-3  # a constant picture would agree with anything


def imported(tmp_path: Path, content: Any, **options: Any) -> ModelCard:
    path = tmp_path / "latest_net_G.pth"
    torch.save(content, path)
    return import_checkpoint(path, "made", **options)


RESNETS = {
    "plain": {},
    "6 blocks": {"blocks": 6, "ngf": 4},
    "9 blocks": {"blocks": 9, "ngf": 6},
    "1 block": {"blocks": 1, "ngf": 16},
    "12 blocks": {"blocks": 12, "ngf": 4},
    "no blocks": {"blocks": 0},
    "full width": {"blocks": 1, "ngf": 64},
    "gray in": {"inputs": 1},
    "gray out": {"outputs": 1},
    "gray both": {"inputs": 1, "outputs": 1},
    "batch": {"norm": "batch"},
    "batch, dropout": {"norm": "batch", "dropout": True},
    "batch with bias": {"norm": "batch", "bias": True},
    "no norm": {"norm": "none"},
    "no norm, dropout, zero": {"norm": "none", "dropout": True, "padding": "zero"},
    "instance without bias": {"norm": "instance", "bias": False},
    "affine": {"norm": "instance_affine"},
    "dropout": {"dropout": True},
    "zero padding": {"padding": "zero"},
    "zero padding, dropout": {"padding": "zero", "dropout": True},
    "zero padding, batch": {"padding": "zero", "norm": "batch"},
}


@pytest.mark.parametrize("options", RESNETS.values(), ids=RESNETS.keys())
def test_resnet_is_read_off_and_computes_the_same(tmp_path: Path, options: dict[str, Any]) -> None:
    network = reference.randomised(reference.resnet(**options))
    card = imported(tmp_path, network.state_dict())
    norm = options.get("norm", "instance")
    assert card.architecture == "resnet"
    assert card.arguments == {
        "in_channels": options.get("inputs", 3),
        "out_channels": options.get("outputs", 3),
        "ngf": options.get("ngf", 8),
        "blocks": options.get("blocks", 3),
        "norm": norm,
        "padding": options.get("padding", "reflect"),
        "dropout": options.get("dropout", False),
        "bias": options.get("bias", norm.startswith("instance")),
        "upsampling": "transposed",
    }
    assert (card.size_multiple, card.size_minimum) == (4, 16)
    assert_same(network, "made", reference.picture(32, options.get("inputs", 3), 44))


UNETS = {
    "5 levels": {"depth": 5},
    "128": {"depth": 7},
    "256": {"depth": 8, "ngf": 2},
    "512": {"depth": 9, "ngf": 1},
    "6, no dropout": {"depth": 6, "dropout": False},
    "256, no dropout": {"depth": 8, "ngf": 2, "dropout": False},
    "instance": {"depth": 6, "norm": "instance"},
    "no norm": {"depth": 6, "norm": "none"},
    "affine": {"depth": 6, "norm": "instance_affine"},
    "gray": {"depth": 5, "inputs": 1, "outputs": 1},
    "colourise": {"depth": 5, "inputs": 1},
}


@pytest.mark.parametrize("options", UNETS.values(), ids=UNETS.keys())
def test_unet_is_read_off_and_computes_the_same(tmp_path: Path, options: dict[str, Any]) -> None:
    network = reference.randomised(reference.unet(**options))
    card = imported(tmp_path, network.state_dict())
    norm, depth = options.get("norm", "batch"), options["depth"]
    assert card.architecture == "unet"
    assert card.arguments == {
        "in_channels": options.get("inputs", 3),
        "out_channels": options.get("outputs", 3),
        "ngf": options.get("ngf", 4),
        "depth": depth,
        "norm": norm,
        "dropout": depth > 5 and options.get("dropout", True),
        "bias": norm.startswith("instance"),
    }
    assert card.size_multiple == card.size_minimum == 2**depth
    assert_same(network, "made", reference.picture(2**depth, options.get("inputs", 3)))


def test_batch_norm_without_statistics_uses_those_of_the_picture(tmp_path: Path) -> None:
    network = reference.randomised(reference.unet(6, norm="batch_without_statistics"))
    card = imported(tmp_path, network.state_dict())
    assert card.arguments["norm"] == "instance_affine"
    assert "no running statistics" in card.training["remarks"][0]
    assert_same(network, "made", reference.picture(64))


@pytest.mark.parametrize("counter", [True, False])
def test_unused_statistics_of_old_instance_norm_are_dropped(tmp_path: Path, counter: bool) -> None:
    old = reference.randomised(reference.resnet(norm="instance_legacy"))
    state = {k: v for k, v in old.state_dict().items() if counter or not k.endswith("num_batches_tracked")}
    card = imported(tmp_path, state)
    assert card.arguments["norm"] == "instance"
    assert "unused running statistics" in card.training["remarks"][0]
    current = reference.resnet(norm="instance")
    current.load_state_dict({k: v for k, v in state.items() if k.endswith(("weight", "bias"))})
    assert_same(current.eval(), "made", reference.picture(32))


def test_batch_norm_from_before_the_counter(tmp_path: Path) -> None:
    network = reference.randomised(reference.resnet(norm="batch"))
    state = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    assert imported(tmp_path, state).arguments["norm"] == "batch"
    assert_same(network, "made", reference.picture(32))


def test_without_metadata_missing_bias_means_no_norm_and_no_dropout_is_seen(tmp_path: Path) -> None:
    resnet = reference.randomised(reference.resnet(norm="none"))
    assert imported(tmp_path, dict(resnet.state_dict())).arguments["norm"] == "none"
    unet = reference.randomised(reference.unet(6))
    assert imported(tmp_path, dict(unet.state_dict()), overwrite=True).arguments["dropout"] is False
    assert_same(unet, "made", reference.picture(64))


def test_replicating_padding_is_read_as_reflecting(tmp_path: Path) -> None:
    network = reference.randomised(reference.resnet(padding="replicate"))
    assert imported(tmp_path, network.state_dict()).arguments["padding"] == "reflect"


WRAPPINGS = {
    "data parallel": lambda s: {f"module.{k}": v for k, v in s.items()},
    "compiled": lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    "both": lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
    "state_dict": lambda s: {"state_dict": s},
    "params": lambda s: {"params": s},
    "model": lambda s: {"model": {f"module.{k}": v for k, v in s.items()}},
    "training": lambda s: {
        "epoch": 3,
        "netG": s,
        "optimizer": {
            "state": {0: {"exp_avg": torch.zeros(3)}},
            "param_groups": [{"lr": 0.1, "params": [0]}],
        },
    },
    "lightning": lambda s: {
        "state_dict": {
            **{f"netG_A.{k}": v for k, v in s.items()},
            **{f"netD_A.{k}": v for k, v in reference.patch_discriminator().state_dict().items()},
        },
        "pytorch-lightning_version": "2.0",
    },
    "averaged": lambda s: {"params": {k: v + 1 for k, v in s.items()}, "params_ema": s},
    "parameters": lambda s: {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in s.items()},
}


@pytest.mark.parametrize("kind", ["resnet", "unet"])
@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS.keys())
def test_wrappers_are_taken_off(tmp_path: Path, wrap: Any, kind: str) -> None:
    network = reference.randomised(reference.resnet() if kind == "resnet" else reference.unet(5))
    assert imported(tmp_path, wrap(network.state_dict())).architecture == kind
    assert_same(network, "made", reference.picture(32))


def test_dropout_is_seen_through_a_data_parallel_prefix(tmp_path: Path) -> None:
    network = nn.DataParallel(reference.unet(6))
    assert imported(tmp_path, network.state_dict()).arguments["dropout"] is True


def test_of_two_generators_none_is_guessed(tmp_path: Path) -> None:
    state = reference.randomised(reference.resnet()).state_dict()
    with pytest.raises(ModelError, match=r"holds 2 generators \('G_AB', 'G_BA'\)"):
        imported(tmp_path, {"G_AB": state, "G_BA": dict(state)})
    assert not list(models_folder().glob("*"))


def test_old_serialisation_and_safetensors(tmp_path: Path) -> None:
    network = reference.randomised(reference.resnet())
    old = tmp_path / "old.pth"
    torch.save(network.state_dict(), old, _use_new_zipfile_serialization=False)
    import_checkpoint(old, "old")
    assert_same(network, "old", reference.picture(32))
    flat = tmp_path / "flat.safetensors"
    save_file(network.state_dict(), flat)
    import_checkpoint(flat, "flat")
    assert_same(network, "flat", reference.picture(32))


@pytest.mark.parametrize(
    ("saved", "kept"),
    [(torch.float16, torch.float16), (torch.bfloat16, torch.bfloat16), (torch.float64, torch.float32)],
)
def test_other_precisions(tmp_path: Path, saved: torch.dtype, kept: torch.dtype) -> None:
    from safetensors.torch import load_file

    network = reference.randomised(reference.resnet(norm="batch")).to(saved)
    imported(tmp_path, network.state_dict())
    stored = load_file(installed_path("made"))
    assert stored["model.1.weight"].dtype == kept
    assert_same(network.float(), "made", reference.picture(32))


def test_tensors_that_are_views_of_one_storage(tmp_path: Path) -> None:
    network = reference.randomised(reference.resnet())
    state = network.state_dict()
    flat = torch.cat([tensor.flatten() for tensor in state.values()])
    views, start = {}, 0
    for name, tensor in state.items():
        views[name] = flat[start : start + tensor.numel()].view(tensor.shape)
        start += tensor.numel()
    imported(tmp_path, views)
    assert_same(network, "made", reference.picture(32))


OWN = {
    "resize": (
        ResnetGenerator(ngf=8, blocks=2, upsampling="resize"),
        {"ngf": 8, "blocks": 2, "upsampling": "resize", "norm": "instance"},
    ),
    "h2": (
        H2Generator(half_channels=8, channels=12, blocks=2),
        {"half_channels": 8, "channels": 12, "blocks": 2},
    ),
}


@pytest.mark.parametrize(("network", "arguments"), OWN.values(), ids=OWN.keys())
def test_plain_state_dicts_of_our_own_networks(
    tmp_path: Path, network: nn.Module, arguments: dict[str, Any]
) -> None:
    card = imported(tmp_path, reference.randomised(network).state_dict())
    assert arguments.items() <= card.arguments.items()
    assert_same(network, "made", reference.picture(32))


def test_card_says_where_it_is_from(tmp_path: Path) -> None:
    card = imported(
        tmp_path, reference.resnet().state_dict(), title="Made of clay", domains=("photo", "clay")
    )
    digest = hashlib.sha256((tmp_path / "latest_net_G.pth").read_bytes()).hexdigest()
    assert card.training == {"imported_from": "latest_net_G.pth", "sha256": digest}
    assert (card.title, card.source_domain, card.target_domain) == ("Made of clay", "photo", "clay")
    assert card.licence == "unknown"
    assert load_model("made").card == card


def test_a_taken_name_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    imported(tmp_path, reference.resnet().state_dict())
    before = installed_path("made").read_bytes()
    with pytest.raises(OutputError, match="`overwrite`"):
        imported(tmp_path, reference.unet().state_dict())
    assert installed_path("made").read_bytes() == before
    assert imported(tmp_path, reference.unet().state_dict(), overwrite=True).architecture == "unet"
    assert load_model("made").card.architecture == "unet"


def test_a_shipped_name_is_hidden_only_when_told(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(reference.resnet().state_dict(), path)
    with pytest.raises(OutputError, match="shipped with cgconvert"):
        import_checkpoint(path, "identity")
    import_checkpoint(path, "identity", overwrite=True)
    assert load_model("identity").card.architecture == "resnet"


def test_a_cgconvert_model_comes_in_under_another_name(tmp_path: Path) -> None:
    network = reference.randomised(reference.resnet())
    imported(tmp_path, network.state_dict(), title="First")
    copy = tmp_path / "copy.bin"
    copy.write_bytes(installed_path("made").read_bytes())
    card = import_checkpoint(copy, "second", domains=("a", "b"))
    assert (card.name, card.title, card.source_domain) == ("second", "First", "a")
    assert_same(network, "second", reference.picture(32))
