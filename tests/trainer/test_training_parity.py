"""Three steps of ours against three of the published implementation: the proof that it is that algorithm.

Every `*_steps.pt` in `tests/data/official`, and in the folder that CGCONVERT_FIXTURES names, is read.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainer.config import Config
from trainer.methods import Method, build_method
from trainer.precision import Precision

OWN = Path(__file__).parents[1] / "data" / "official"
GIVEN = os.environ.get("CGCONVERT_FIXTURES")
FILES = sorted(
    path for folder in (OWN, *([Path(GIVEN)] if GIVEN else [])) for path in folder.glob("*_steps.pt")
)

# The original's G_A makes B from A, and its D_A judges B.
CYCLEGAN_NETWORKS = {"G_A": "gen_ab", "G_B": "gen_ba", "D_A": "disc_b", "D_B": "disc_a"}
CYCLEGAN_LOSSES = {
    "G_A": "gan_ab",
    "G_B": "gan_ba",
    "D_A": "disc_b",
    "D_B": "disc_a",
    "cycle_A": "cycle_a",
    "cycle_B": "cycle_b",
    "idt_A": "identity_b",
    "idt_B": "identity_a",
}
PIX2PIX_LOSSES = {"G_GAN": "gan", "G_L1": "l1", "D_real": "disc_real", "D_fake": "disc_fake"}
GAN_MODES = {"lsgan": "lsgan", "vanilla": "vanilla", "wgangp": "wgan"}


def generator(options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Architecture and arguments that the original's options name."""
    norm = options["norm"]
    arguments = {
        "in_channels": options["input_nc"],
        "out_channels": options["output_nc"],
        "ngf": options["ngf"],
        "norm": norm,
        "dropout": not options["no_dropout"],
        "bias": norm == "instance",
    }
    kind, size = options["netG"].split("_")
    if kind == "resnet":
        return "resnet", {**arguments, "blocks": int(size.removesuffix("blocks"))}
    assert kind == "unet", options["netG"]
    return "unet", {**arguments, "depth": {"128": 7, "256": 8}[size]}


def config(options: dict[str, Any], method: str) -> Config:
    """Our config for the original's options; an option that would be ignored is an error here."""
    assert options["pool_size"] == 0 and options["no_dropout"], "these draw random numbers"
    architecture, arguments = generator(options)
    return Config().with_changes(
        {
            "run.method": method,
            "run.device": "cpu",
            "run.precision": "fp32",
            "network.generator": architecture,
            "network.arguments": arguments,
            "network.discriminator": "pixel" if options["netD"] == "pixel" else "patch",
            "network.ndf": options["ndf"],
            "network.disc_layers": options["n_layers_D"] if options["netD"] == "n_layers" else 3,
            "network.disc_norm": options["norm"],
            "loss.gan": GAN_MODES[options["gan_mode"]],
            "loss.lambda_a": options["lambda_A"],
            "loss.lambda_b": options["lambda_B"],
            "loss.lambda_identity": options["lambda_identity"],
            "loss.lambda_l1": options["lambda_L1"],
            "loss.pool": 0,
            "optimizer.lr": options["lr"],
            "optimizer.beta1": options["beta1"],
            "data.direction": "a_to_b" if options["direction"] == "AtoB" else "b_to_a",
        }
    )


def run(data: dict[str, Any]) -> tuple[Method, dict[str, str], dict[str, str], list[dict[str, float]]]:
    """The method after the file's steps, names of networks and losses, and the losses of each step."""
    options = data["options"]
    if "G_A" in data["initial"]:
        settings, networks, losses = config(options, "cyclegan"), CYCLEGAN_NETWORKS, CYCLEGAN_LOSSES
        if options["direction"] == "BtoA":
            # The original then calls our B its A.
            settings = settings.with_changes({"data.direction": "a_to_b"})
            data = {**data, "inputs": [{"A": b["B"], "B": b["A"]} for b in data["inputs"]]}
    else:
        settings, losses = config(options, "pix2pix"), PIX2PIX_LOSSES
        networks = {"G": "gen_ab" if settings.data.direction == "a_to_b" else "gen_ba", "D": "disc"}
    method = build_method(settings, Precision(torch.device("cpu"), "fp32"))
    for theirs, ours in networks.items():
        method.networks[ours].load_state_dict(data["initial"][theirs])
    steps = []
    for batch in data["inputs"]:
        result = method.train_step({"a": batch["A"], "b": batch["B"]})
        steps.append({name: float(value) for name, value in result.items()})
    return method, networks, losses, steps


def cancelled(network: nn.Module) -> set[str]:
    """Biases that an instance norm takes away again.

    Their gradient is zero but for rounding, which Adam scales up to full steps: two machines, or two
    orders of the same sums, walk them to different places, and no result depends on where.
    """
    names = set()
    for path, module in network.named_modules():
        if isinstance(module, nn.Sequential):
            for (name, layer), (_, after) in itertools.pairwise(module.named_children()):
                if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) and isinstance(
                    after, nn.InstanceNorm2d
                ):
                    names.add(f"{path}.{name}.bias")
    return names


def test_there_are_files_for_both_methods() -> None:
    assert {"cyclegan_three_steps.pt", "pix2pix_three_steps.pt"} <= {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_three_steps_are_the_published_ones(path: Path) -> None:
    data = torch.load(path, weights_only=True)
    method, networks, losses, steps = run(data)
    assert len(steps) == len(data["losses"]) == 3
    for number, (ours, theirs) in enumerate(zip(steps, data["losses"], strict=True)):
        bound = 5e-4 if number == 2 else 1e-4
        for name, value in theirs.items():
            # A loss that the options switch off is 0 there and absent here.
            assert ours.get(losses[name], 0.0) == pytest.approx(value, rel=bound, abs=1e-7), (number, name)
    for theirs, ours in networks.items():
        network = method.networks[ours]
        final, loose = network.state_dict(), cancelled(network)
        furthest = 2 * 3 * 1.5 * data["options"]["lr"]  # three steps, apart from each other
        assert set(final) == set(data["final"][theirs])
        for name, tensor in data["final"][theirs].items():
            difference = (final[name].double() - tensor.double()).abs().max().item()
            assert difference <= (furthest if name in loose else 1e-4), (theirs, name, difference)
