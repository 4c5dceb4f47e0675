"""Three steps of ours against three of the published implementation: the proof that it is that algorithm.

Every `*_steps.pt` in `tests/data/official`, and in the folder that CGCONVERT_FIXTURES names, is read.

Some weights have gradients of nothing but rounding: biases that an instance norm takes away again above all.
Adam divides a gradient by its own size, so such noise becomes full steps, and the weights agree only where
every sum is rounded alike. Ours takes all of them in the published order, so with the same kernels and as
many threads the result is the published one to the last bit, noise included.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainer.config import Config
from trainer.methods import Method, build_method
from trainer.runs.precision import Precision

OWN = Path(__file__).parents[1] / "data" / "official"
GIVEN = os.environ.get("CGCONVERT_FIXTURES")
FILES = sorted(
    path for folder in (OWN, *([Path(GIVEN)] if GIVEN else [])) for path in folder.glob("*_steps.pt")
)

# The processor's kernels and the release of torch that the files were made with.
SAME_KERNELS = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.__version__.startswith("2.13.")

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
            "loss.pool": options["pool_size"],
            "optimizer.lr": options["lr"],
            "optimizer.beta1": options["beta1"],
            "data.direction": "a_to_b" if options["direction"] == "AtoB" else "b_to_a",
        }
    )


def run(data: dict[str, Any]) -> tuple[Method, dict[str, str], dict[str, str], list[dict[str, float]]]:
    """The method after the file's steps, names of networks and losses, and the losses of each step."""
    options = data["options"]
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
    method = build_method(settings, Precision(torch.device("cpu"), "fp32"))
    for theirs, ours in networks.items():
        method.networks[ours].load_state_dict(data["initial"][theirs])
    steps = []
    for batch in data["inputs"]:
        result = method.train_step({"a": batch["A"], "b": batch["B"]})
        steps.append({name: float(value) for name, value in result.items()})
    return method, networks, losses, steps


def cancelled(network: nn.Module) -> set[str]:
    """Biases that an instance norm takes away again: their gradient is zero but for rounding."""
    names = set()
    for path, module in network.named_modules():
        if isinstance(module, nn.Sequential):
            for (name, layer), (_, after) in itertools.pairwise(module.named_children()):
                if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) and isinstance(
                    after, nn.InstanceNorm2d
                ):
                    names.add(f"{path}.{name}.bias")
    return names


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Arithmetic in so many threads; a sum over places is split among them, which decides its rounding."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def differences(method: Method, networks: dict[str, str], wanted: dict[str, Any]) -> dict[str, float]:
    """The largest absolute difference of each weight, by network and name."""
    result = {}
    for theirs, ours in networks.items():
        final = method.networks[ours].state_dict()
        assert set(final) == set(wanted[theirs])
        for name, tensor in wanted[theirs].items():
            result[f"{ours} {name}"] = (final[name].double() - tensor.double()).abs().max().item()
    return result


def longest_walk(steps: int, beta1: float, beta2: float) -> float:
    """How far Adam can move a weight in `steps` steps, in units of the learning rate, whatever the gradients.

    A step is the ratio of a weighted mean of gradients to the root of one of their squares; by
    Cauchy-Schwarz its largest value is the root of the sum of (first weight squared / second weight).
    """
    total = 0.0
    for step in range(1, steps + 1):
        ages = range(step)
        first = [beta1**age * (1 - beta1) / (1 - beta1**step) for age in ages]
        second = [beta2**age * (1 - beta2) / (1 - beta2**step) for age in ages]
        total += sum(a * a / b for a, b in zip(first, second, strict=True)) ** 0.5
    return total


def assert_losses(steps: list[dict[str, float]], data: dict[str, Any], losses: dict[str, str]) -> None:
    assert len(steps) == len(data["losses"]) == 3
    for number, (ours, theirs) in enumerate(zip(steps, data["losses"], strict=True)):
        bound = 5e-4 if number == 2 else 1e-4
        for name, value in theirs.items():
            # A loss that the options switch off is 0 there and absent here.
            assert ours.get(losses[name], 0.0) == pytest.approx(value, rel=bound, abs=1e-7), (number, name)


def test_there_are_files_for_both_methods() -> None:
    assert {"cyclegan_three_steps.pt", "pix2pix_three_steps.pt"} <= {path.name for path in FILES}


@pytest.mark.skipif(not SAME_KERNELS, reason="this processor's or this torch's kernels round otherwise")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_three_steps_are_the_published_ones(path: Path) -> None:
    """All losses, and all weights without exception."""
    data = torch.load(path, weights_only=True)
    furthest = {}
    # The files do not say how many threads made them.
    for count in (2, 1, 4, 8, 16):
        with threads(count):
            method, networks, losses, steps = run(data)
        assert_losses(steps, data, losses)
        found = differences(method, networks, data["final"])
        if max(found.values()) <= 1e-4:
            return
        furthest[count] = max(found.items(), key=lambda item: item[1])
    pytest.fail(f"with no number of threads: {furthest}")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("count", [1, 2])
def test_on_any_machine_only_what_has_no_effect_may_differ(path: Path, count: int) -> None:
    data = torch.load(path, weights_only=True)
    with threads(count):
        method, networks, losses, steps = run(data)
    assert_losses(steps, data, losses)
    options = data["options"]
    # Both walk from one place, at most this far each.
    apart = 2 * options["lr"] * longest_walk(3, options["beta1"], 0.999)
    found = differences(method, networks, data["final"])
    for theirs, ours in networks.items():
        network = method.networks[ours]
        loose = cancelled(network)
        for name in data["final"][theirs]:
            bound = apart if name in loose else 1e-4
            assert found[f"{ours} {name}"] <= bound, (ours, name)
        # And nothing depends on where those went: with theirs in their place the results are the same.
        channels = next(p for p in network.parameters() if p.dim() == 4).shape[1]
        images = torch.rand(1, channels, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
        with torch.no_grad():
            before = network(images)
            network.load_state_dict({k: data["final"][theirs][k] for k in loose}, strict=False)
            assert (network(images) - before).abs().max() <= 1e-5, ours


def test_a_pool_that_never_fills_changes_nothing() -> None:
    data = torch.load(OWN / "cyclegan_three_steps.pt", weights_only=True)
    results = []
    for size in (0, 50):
        data["options"]["pool_size"] = size
        with threads(1):
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


def test_the_longest_walk_of_adam() -> None:
    assert longest_walk(1, 0.5, 0.999) == pytest.approx(1)
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=1.0, betas=(0.5, 0.999))
    for gradient in (0.25, 0.5, 1.0):  # in proportion to their weights: the worst case
        weight.grad = torch.tensor([gradient])
        optimizer.step()
    assert 0.9 * longest_walk(3, 0.5, 0.999) < abs(weight.item()) <= longest_walk(3, 0.5, 0.999)
