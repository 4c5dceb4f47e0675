"""Generators of other software come in without being told what they are, and compute the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cgconvert.card import ModelCard
from cgconvert.errors import ModelError
from cgconvert.generators import build_generator
from cgconvert.models.importing import import_checkpoint
from cgconvert.models.loading import load_model
from tests.models import foreign_networks as foreign
from tests.models import reference_networks as reference
from tests.models.refusals import refusal, saved

KINDS: dict[str, tuple[nn.Module, str, dict[str, Any]]] = {
    "CUT": (foreign.cut(), "resnet", {"downsampling": "blur", "upsampling": "blur", "ngf": 6, "blocks": 2}),
    "CUT, batch norm": (foreign.cut(norm="batch"), "resnet", {"downsampling": "blur", "norm": "batch"}),
    "CUT, plain down": (foreign.cut(down=False), "resnet", {"upsampling": "blur"}),
    "CUT, plain up": (foreign.cut(up=False), "resnet", {"downsampling": "blur", "upsampling": "transposed"}),
    "pix2pixHD global": (
        foreign.hd_global(),
        "pix2pixhd",
        {"downs": 3, "blocks": 2, "enhancers": 0, "ngf": 4},
    ),
    "pix2pixHD 4 downs": (foreign.hd_global(2, 4, 1, "zero"), "pix2pixhd", {"downs": 4, "padding": "zero"}),
    "pix2pixHD batch": (foreign.hd_global(norm="batch"), "pix2pixhd", {"norm": "batch", "bias": True}),
    "pix2pixHD local": (
        foreign.LocalEnhancer(),
        "pix2pixhd",
        {"downs": 2, "blocks": 2, "enhancers": 1, "local_blocks": 1, "ngf": 4},
    ),
    "pix2pixHD 2 enhancers": (
        foreign.LocalEnhancer(ngf=2, downs=3, enhancers=2, local=2),
        "pix2pixhd",
        {"downs": 3, "enhancers": 2, "local_blocks": 2, "ngf": 2},
    ),
    "GAN Compression": (
        foreign.compressed(),
        "mobile_resnet",
        {"blocks": 9, "widths": [4, 10, 12, *[24] * 3, *[20] * 3, *[28] * 3, 8, 5], "padding": "reflect"},
    ),
    "GAN Compression, 6 widths": (
        foreign.compressed((4, 5, 3, 6, 5, 4), "zero"),
        "mobile_resnet",
        {"widths": [4, 10, 12, *[24] * 9, 10, 4], "padding": "zero"},
    ),
    "OMGD": (reference.mobile_resnet(ngf=4, blocks=2), "mobile_resnet", {"ngf": 4, "blocks": 2}),
    "joliGEN resnet": (foreign.Halves(dropout=False), "resnet", {"ngf": 6, "blocks": 2, "dropout": False}),
    "joliGEN dropout": (foreign.Halves(), "resnet", {"dropout": True}),
    "joliGEN mobile": (foreign.Halves(mobile=True), "mobile_resnet", {"ngf": 6, "blocks": 2}),
    "joliGEN mobile, no dropout": (
        foreign.Halves(mobile=True, dropout=False),
        "mobile_resnet",
        {"blocks": 2},
    ),
    "joliGEN attention": (
        foreign.Attention(),
        "resnet_attention",
        {"masks": 4, "input_masks": 1, "separable": False, "padding": "reflect", "blocks": 2},
    ),
    "joliGEN mobile attention": (
        foreign.Attention(masks=3, input_masks=2, mobile=True),
        "resnet_attention",
        {"masks": 3, "input_masks": 2, "separable": True},
    ),
    "AnimeGANv2": (foreign.Anime(), "animegan2", {"ngf": 4}),
}


def assert_same(network: nn.Module, name: str, image: torch.Tensor) -> None:
    """The installed model returns what the network returns, which is no constant picture."""
    with torch.inference_mode():
        wanted = network(image.clone())
        got = load_model(name).generator(image.clone())
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().max()) <= 1e-4
    assert float(wanted.std()) > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_recognised_and_computes_the_same(tmp_path: Path, kind: str) -> None:
    network, architecture, arguments = KINDS[kind]
    reference.randomised_but_filters(network)
    card = import_checkpoint(saved(tmp_path, network.state_dict()), "made")
    assert card.architecture == architecture
    assert arguments.items() <= card.arguments.items()
    assert_same(network, "made", reference.picture(64, 3, 96))


@pytest.mark.parametrize(
    "kind", ["CUT", "pix2pixHD local", "joliGEN mobile", "joliGEN attention", "AnimeGANv2"]
)
def test_it_is_found_inside_a_training_checkpoint(tmp_path: Path, kind: str) -> None:
    network, architecture, _ = KINDS[kind]
    reference.randomised_but_filters(network)
    state = {f"netG_A.module.{name}": tensor for name, tensor in network.state_dict().items()}
    netD = {f"netD_A.{name}": tensor for name, tensor in reference.patch_discriminator().state_dict().items()}
    content = {"epoch": 3, "state_dict": {**state, **netD}}
    assert import_checkpoint(saved(tmp_path, content), "made").architecture == architecture
    assert_same(network, "made", reference.picture(64, 3, 96))


@pytest.mark.parametrize("mobile", [False, True])
@pytest.mark.parametrize("form", ["nested", "flat"])
def test_padding_of_attention_is_read_from_the_configuration_beside(
    tmp_path: Path, form: str, mobile: bool
) -> None:
    network = reference.randomised(foreign.Attention(mode="zeros", mobile=mobile))
    config = {"G": {"padding_type": "zeros"}} if form == "nested" else {"G_padding_type": "zeros"}
    (tmp_path / "train_config.json").write_text(json.dumps(config))
    card = import_checkpoint(saved(tmp_path, network.state_dict()), "made")
    assert card.arguments["padding"] == "zero"
    assert "remarks" not in card.training
    assert_same(network, "made", reference.picture(32, 3, 48))


@pytest.mark.parametrize("text", ["[1]", "{", '{"G": 3}', "[" * 100_000])
def test_a_configuration_that_says_nothing_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "train_config.json").write_text(text)
    network = reference.randomised(foreign.Attention())
    card = import_checkpoint(saved(tmp_path, network.state_dict()), "made")
    assert "reflecting padding is assumed" in card.training["remarks"][0]
    assert_same(network, "made", reference.picture(32))


def test_a_padding_that_is_not_known_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train_config.json").write_text('{"G_padding_type": "mirror"}')
    message = refusal(saved(tmp_path, foreign.Attention().state_dict()))
    assert "its configuration says G_padding_type 'mirror'" in message


def without(network: nn.Module, *names: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in network.state_dict().items() if name not in names}


def strange() -> dict[str, tuple[dict[str, torch.Tensor], str]]:
    """Networks that are almost one of these, and the words that say where they differ."""
    cut, hd, local = foreign.cut(), foreign.hd_global(), foreign.LocalEnhancer()
    small, halves, attention = foreign.compressed(), foreign.Halves(), foreign.Attention()
    mobile, anime = foreign.Halves(mobile=True), foreign.Anime()
    block = "model.10.conv_block"

    def moved(state: dict[str, torch.Tensor], old: str, new: str) -> dict[str, torch.Tensor]:
        return {name.replace(old, new): tensor for name, tensor in state.items()}

    def changed(network: nn.Module, name: str, *shape: int) -> dict[str, torch.Tensor]:
        return {**network.state_dict(), name: torch.zeros(shape)}

    return {
        "cut without a filter": (without(cut, "model.11.filt"), "'model.11.filt' is missing"),
        "cut, wide filter": (changed(cut, "model.7.filt", 12, 1, 5, 5), "12x1x5x5 instead of 12x1x3x3"),
        "cut, no up": (without(cut, "model.14.filt"), "another upsampling"),
        "cut, no last": (without(cut, "model.23.weight"), "'model.23.weight' is missing"),
        "cut, extra": (changed(cut, "model.99.weight", 3), "'model.99.weight' has no place in it"),
        "hd without a block": (
            {k: v for k, v in hd.state_dict().items() if "model.13." not in k},
            "its first block is 'model.14'",
        ),
        "hd, other blocks": (moved(hd.state_dict(), "conv_block.5", "conv_block.6"), "convolutions at 1, 6"),
        "hd 6 channels": (changed(hd, "model.1.weight", 4, 6, 7, 7), "takes 6 channels"),
        "hd 35 labels": (changed(local, "model.1.weight", 8, 35, 7, 7), "takes 35 channels"),
        "hd 5x5": (changed(hd, "model.1.weight", 4, 3, 5, 5), "is 5x5 instead of 7x7"),
        "local without its end": (without(local, "model1_2.5.weight"), "'model1_2.5.weight' is missing"),
        "local, other entrance": (
            changed(local, "model1_1.1.weight", 5, 3, 7, 7),
            "5x3x7x7 instead of 4x3x7x7",
        ),
        "local, extra": (changed(local, "model2_2.0.weight", 3), "has no place in it"),
        "compressed, 5x5": (changed(small, "model.1.weight", 4, 3, 5, 5), "is 5x5 instead of 7x7"),
        "compressed, gap": (
            {k: v for k, v in small.state_dict().items() if "model.12." not in k},
            "'model.12' has no conv_block",
        ),
        "compressed, other block": (
            moved(small.state_dict(), f"{block}.6", f"{block}.9"),
            "convolutions at 1, 9",
        ),
        "compressed, no up": (without(small, "model.19.weight"), "'model.19.weight' is missing"),
        "compressed, other depthwise": (
            changed(small, f"{block}.1.conv.0.weight", 12, 2, 3, 3),
            "12x2x3x3 instead of 12x1x3x3",
        ),
        "compressed, empty": (
            changed(small, "model.4.weight", 0, 4, 3, 3),
            "a convolution's weights were expected",
        ),
        "joligen without padding": (
            moved(halves.state_dict(), "encoder.model.1.", "encoder.model.0."),
            "is not padded: its results are smaller",
        ),
        "joligen, zeros at the end": (
            moved(halves.state_dict(), "decoder.model.7.", "decoder.model.6."),
            "is padded with zeros",
        ),
        "joligen, encoder alone": (
            {k: v for k, v in halves.state_dict().items() if k.startswith("encoder.")},
            "the first transposed convolution, is missing",
        ),
        "joligen, extra": (changed(mobile, "decoder.model.9.weight", 3), "has no place in it"),
        "joligen, spectral": (
            {
                k.replace("encoder.model.1.weight", "encoder.model.1.weight_orig"): v
                for k, v in halves.state_dict().items()
            },
            "spectral norm",
        ),
        "attention, wrong content": (
            changed(attention, "deconv3_content.weight", 8, 6, 7, 7),
            "does not fit 4 masks of 3 channels",
        ),
        "attention, no content": (
            without(attention, "deconv3_content.weight"),
            "'deconv3_content.weight' is missing",
        ),
        "attention, gap": (
            {k: v for k, v in attention.state_dict().items() if ".0.conv" not in k},
            "its blocks are not consecutive",
        ),
        "attention 5x5": (changed(attention, "conv1.weight", 6, 3, 5, 5), "is 5x5 instead of 7x7"),
        "anime, no end": (without(anime, "out_layer.0.weight"), "'out_layer.0.weight' is missing"),
        "anime, other block": (without(anime, "block_c.2.layers.0.1.weight"), "is missing (the only one)"),
        "anime 3x3": (changed(anime, "block_a.0.1.weight", 4, 3, 3, 3), "is 3x3 instead of 7x7"),
        "two of one place": (changed(local, "base.1.weight", 8, 3, 7, 7), "have one place in the network"),
    }


@pytest.mark.parametrize("kind", strange())
def test_what_is_almost_one_is_told_in_one_line(tmp_path: Path, kind: str) -> None:
    state, words = strange()[kind]
    message = refusal(saved(tmp_path, state))
    assert words in message
    assert message.isprintable()


def test_there_are_thirty_strange_files() -> None:
    assert len(strange()) >= 30


WRONG = [
    ("mobile_resnet", {"blocks": 2, "widths": [4, 4]}, "widths are 7 for 2 blocks, got 2"),
    ("mobile_resnet", {"blocks": 0, "widths": [4, 4, 4, 0, 4]}, "a list of whole numbers from 1 to 4096"),
    ("mobile_resnet", {"widths": "4"}, "a list of whole numbers from 1 to 4096"),
    ("resnet_attention", {"masks": 2, "input_masks": 2}, "leave none for a result"),
    ("resnet_attention", {"out_channels": 1}, "channels in and out are the same"),
    ("resnet", {"downsampling": "pool"}, "downsampling must be one of strided, blur"),
]


@pytest.mark.parametrize(("architecture", "arguments", "words"), WRONG)
def test_arguments_that_fit_nothing(architecture: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        build_generator(architecture, arguments)


def test_the_remark_of_animegan_says_what_is_assumed(tmp_path: Path) -> None:
    card: ModelCard = import_checkpoint(saved(tmp_path, foreign.Anime().state_dict()), "made")
    assert card.training["remarks"] == [
        "bilinear resizing with aligned corners is assumed, the default of its network"
    ]
