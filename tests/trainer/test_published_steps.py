"""Three steps of ours against three of the published implementation: the proof that it is that algorithm.

Every `*_float64_steps.pt` in `tests/data/official`, and in the folder that CGCONVERT_FIXTURES names, is read.

Both sides compute in double precision. In float32 the comparison would depend on the processor: an instance
norm cancels the biases before it, so their gradients are nothing but rounding errors, and Adam, which divides
a gradient by its own size, makes full steps of them. In double precision those errors vanish beside Adam's
epsilon, and every processor, thread count and order of sums gives the same figures.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.methods import Method, build_method

OWN = Path(__file__).parents[1] / "data" / "official"
GIVEN = os.environ.get("CGCONVERT_FIXTURES")
FILES = sorted(
    path for folder in (OWN, *([Path(GIVEN)] if GIVEN else [])) for path in folder.glob("*_float64_steps.pt")
)

LOSS_BOUND = 1e-9
"""Largest relative difference of a loss: sums of some thousand doubles are exact to about 1e-13."""

WEIGHT_BOUND = 1e-6
"""Largest absolute difference of a weight: the files store those, up to about 1, in float32."""

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


def config(options: dict[str, Any], method: str, images: int) -> Config:
    """Our config for the original's options; an option that would be ignored is an error here.

    `images` of each domain are trained on: a pool draws no random numbers until it is full.
    """
    assert options["no_dropout"], "dropout draws random numbers"
    assert options["pool_size"] == 0 or images <= options["pool_size"], "a full pool draws random numbers"
    architecture, arguments = generator(options)
    return Config().with_changes(
        {
            "run.method": method,
            "run.device": "cpu",
            "run.precision": "fp64",
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
            "loss.pool": options["pool_size"],
            "optimizer.lr": options["lr"],
            "optimizer.beta1": options["beta1"],
            "data.direction": "a_to_b" if options["direction"] == "AtoB" else "b_to_a",
        }
    )


def run(data: dict[str, Any]) -> tuple[Method, dict[str, str], dict[str, str], list[dict[str, float]]]:
    """The method after the file's steps, names of networks and losses, and the losses of each step."""
    options = data["options"]
    assert options["dtype"] == "float64"
    images = sum(len(batch["A"]) for batch in data["inputs"])
    if "G_A" in data["initial"]:
        settings, networks, losses = config(options, "cyclegan", images), CYCLEGAN_NETWORKS, CYCLEGAN_LOSSES
        if options["direction"] == "BtoA":
            # The original then calls our B its A.
            settings = settings.with_changes({"data.direction": "a_to_b"})
            data = {**data, "inputs": [{"A": b["B"], "B": b["A"]} for b in data["inputs"]]}
    else:
        settings, losses = config(options, "pix2pix", images), PIX2PIX_LOSSES
        networks = {"G": "gen_ab" if settings.data.direction == "a_to_b" else "gen_ba", "D": "disc"}
    method = build_method(settings, Precision(torch.device("cpu"), "fp64"))
    for theirs, ours in networks.items():
        method.networks[ours].load_state_dict(data["initial"][theirs])
    steps = []
    for batch in data["inputs"]:
        result = method.train_step({"a": batch["A"], "b": batch["B"]})
        steps.append({name: float(value) for name, value in result.items()})
    return method, networks, losses, steps


def test_there_are_files_for_both_methods() -> None:
    assert {"cyclegan_float64_steps.pt", "pix2pix_float64_steps.pt"} <= {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_three_steps_are_the_published_ones(path: Path) -> None:
    """All losses of all three steps, and after them all weights without exception."""
    data = torch.load(path, weights_only=True)
    method, networks, losses, steps = run(data)
    assert len(steps) == len(data["losses"]) == 3
    for number, (ours, theirs) in enumerate(zip(steps, data["losses"], strict=True)):
        for name, value in theirs.items():
            # A loss that the options switch off is 0 there and absent here.
            found = ours.get(losses[name], 0.0)
            assert found == pytest.approx(value, rel=LOSS_BOUND, abs=1e-12), (number, name)
    for theirs, ours in networks.items():
        final = method.networks[ours].state_dict()
        assert set(final) == set(data["final"][theirs])
        for name, tensor in data["final"][theirs].items():
            difference = (final[name].double() - tensor.double()).abs().max().item()
            assert difference <= WEIGHT_BOUND, (ours, name)


def test_a_pool_that_never_fills_changes_nothing() -> None:
    data = torch.load(OWN / "cyclegan_float64_steps.pt", weights_only=True)
    results = []
    for size in (0, 50):
        data["options"]["pool_size"] = size
        method, _, _, steps = run(data)
        assert len(method.pools["a"].state_dict()["images"]) == min(size, 3)
        results.append((steps, {name: network.state_dict() for name, network in method.networks.items()}))
    (plain, weights), (pooled, pooled_weights) = results
    assert plain == pooled
    for name, network in weights.items():
        for key, tensor in network.items():
            assert torch.equal(tensor, pooled_weights[name][key]), (name, key)
    data["options"]["pool_size"] = 2
    with pytest.raises(AssertionError, match="a full pool draws random numbers"):
        run(data)
