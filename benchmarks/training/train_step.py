"""Measure a CycleGAN training step, ours and the published one: images a second and peak memory.

    python benchmarks/training/train_step.py

Both train the same networks from the same start on the same random images. "Published" is the step in the
order of the paper's code: eager, float32, one image of each domain through one network at a time, the
library's instance norm, Adam in its default form, cuDNN choosing its algorithms by trial. Ours also updates
its averaged weights.

Each variant runs in a process of its own, so that the peak memory is its own. The variants take turns,
`--rounds` times. The median counts, and the speed-up is the median of the ratios within each round. A step
that takes longer than `--seconds` is measured once a round. Writes results/train_step_DEVICE.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.common import option_parser, save
from cgconvert.generators.layers import InstanceNorm2d
from trainer.compute.precision import Precision
from trainer.config import Config
from trainer.methods import build_method
from trainer.methods.base import Method

CASES = {
    "resnet9_ngf64_256": {
        "generator": "resnet",
        "arguments": {"ngf": 64, "blocks": 9},
        "ndf": 64,
        "edge": 256,
    },
    "resnet6_ngf32_128": {
        "generator": "resnet",
        "arguments": {"ngf": 32, "blocks": 6},
        "ndf": 64,
        "edge": 128,
    },
    "h2_24_64_6_128": {
        "generator": "h2",
        "arguments": {"half_channels": 24, "channels": 64, "blocks": 6},
        "ndf": 32,
        "edge": 128,
    },
}


class PublishedStep:
    """The CycleGAN step as published, on the networks of one of our methods."""

    def __init__(self, method: Method) -> None:
        networks = method.networks
        self.gen_ab, self.gen_ba = networks["gen_ab"], networks["gen_ba"]
        self.disc_a, self.disc_b = networks["disc_a"], networks["disc_b"]
        for network in networks.values():
            use_library_norms(network)
        generators = [*self.gen_ab.parameters(), *self.gen_ba.parameters()]
        discriminators = [*self.disc_a.parameters(), *self.disc_b.parameters()]
        self.adam_g = torch.optim.Adam(generators, lr=2e-4, betas=(0.5, 0.999))
        self.adam_d = torch.optim.Adam(discriminators, lr=2e-4, betas=(0.5, 0.999))

    def __call__(self, a: Tensor, b: Tensor) -> list[Tensor]:
        fake_b = self.gen_ab(a)
        back_a = self.gen_ba(fake_b)
        fake_a = self.gen_ba(b)
        back_b = self.gen_ab(fake_a)
        for disc in (self.disc_a, self.disc_b):
            disc.requires_grad_(False)
        self.adam_g.zero_grad()
        losses = [
            5 * F.l1_loss(self.gen_ab(b), b),
            5 * F.l1_loss(self.gen_ba(a), a),
            _lsgan(self.disc_b(fake_b), 1.0),
            _lsgan(self.disc_a(fake_a), 1.0),
            10 * F.l1_loss(back_a, a),
            10 * F.l1_loss(back_b, b),
        ]
        sum(losses, start=torch.zeros((), device=a.device)).backward()
        self.adam_g.step()
        for disc in (self.disc_a, self.disc_b):
            disc.requires_grad_(True)
        self.adam_d.zero_grad()
        for disc, real, fake in ((self.disc_b, b, fake_b), (self.disc_a, a, fake_a)):
            loss = 0.5 * (_lsgan(disc(real), 1.0) + _lsgan(disc(fake.detach()), 0.0))
            loss.backward()
            losses.append(loss)
        self.adam_d.step()
        return [loss.detach() for loss in losses]


def use_library_norms(network: nn.Module) -> None:
    """Replace our instance norms by the library's, in place; names and weights stay."""
    for parent in network.modules():
        for name, norm in parent.named_children():
            if isinstance(norm, InstanceNorm2d):
                plain = nn.InstanceNorm2d(norm.num_features, norm.eps, affine=norm.affine)
                plain.load_state_dict(norm.state_dict())
                setattr(parent, name, plain)


def _lsgan(logits: Tensor, wanted: float) -> Tensor:
    return F.mse_loss(logits, torch.full_like(logits, wanted))


def build(case: str, precision: str, compile: bool, device: torch.device, batch: int) -> Method:
    settings = CASES[case]
    torch.manual_seed(0)
    config = Config().with_changes(
        {
            "run.compile": compile,
            "run.batch": batch,
            "data.crop_size": settings["edge"],
            "network.generator": settings["generator"],
            "network.arguments": settings["arguments"],
            "network.ndf": settings["ndf"],
            "loss.pool": 0,
        }
    )
    return build_method(config, Precision(device, precision))


def measure(case: str, variant: str, device: torch.device, batch: int, seconds: float) -> dict[str, float]:
    """Images/s over at least `seconds` and one step, after steps to warm up; peak memory in MiB."""
    torch.backends.cudnn.benchmark = True
    precision = "fp32" if variant in ("published", "ours fp32") else "bf16"
    method = build(case, precision, variant.endswith("compile"), device, batch)
    edge = int(CASES[case]["edge"])  # type: ignore[call-overload]
    a, b = (torch.rand(batch, 3, edge, edge, device=device) * 2 - 1 for _ in range(2))
    if variant == "published":
        published = PublishedStep(method)

        def step() -> Any:
            return published(a, b)
    else:

        def step() -> Any:
            return method.train_step({"a": a, "b": b})

    def timed(least: float, most: int) -> int:
        """Steps until `least` seconds are over or `most` are done, each waited for."""
        steps, start = 0, time.perf_counter()
        while not steps or (time.perf_counter() - start < least and steps < most):
            step()
            steps += 1
            if device.type == "cuda":
                torch.cuda.synchronize()
        return steps

    timed(seconds / 2, 10)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    steps = timed(seconds, 10**6)
    elapsed = time.perf_counter() - start
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated() / 2**20
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"images_per_second": batch * steps / elapsed, "peak_memory_mib": memory, "steps": steps}


def measure_alone(case: str, variant: str, options: argparse.Namespace) -> dict[str, float]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--device", options.device, "--single", case, variant]
    command += ["--seconds", str(options.seconds), "--batch", str(options.batch)]
    return json.loads(subprocess.check_output(command, text=True).splitlines()[-1])


def summarise(rounds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """Of each variant the median speed, that of each round, the most memory, the median speed-up."""
    rows: dict[str, dict[str, Any]] = {}
    for variant in rounds[0]:
        speeds = [found[variant]["images_per_second"] for found in rounds]
        rows[variant] = {
            "images_per_second": median(speeds),
            "rounds": [round(speed, 4) for speed in speeds],
            "peak_memory_mib": max(found[variant]["peak_memory_mib"] for found in rounds),
            "steps": sum(found[variant]["steps"] for found in rounds),
        }
        if "published" in rounds[0]:
            base = [found["published"]["images_per_second"] for found in rounds]
            rows[variant]["speedup"] = median(speed / b for speed, b in zip(speeds, base, strict=True))
    return rows


def main() -> None:
    parser = option_parser(__doc__, "train_step_DEVICE")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--variants", nargs="+", help="on a GPU: ours compiled as well")
    parser.add_argument("--seconds", type=float, default=6.0, help="that each measurement takes at least")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="each variant this often, in turn")
    parser.add_argument("--single", nargs=2, metavar=("CASE", "VARIANT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = torch.device(options.device)
    if options.single:
        case, variant = options.single
        print(json.dumps(measure(case, variant, device, options.batch, options.seconds)))
        return
    variants = options.variants or ["published", "ours fp32", "ours bf16"]
    if device.type == "cuda" and not options.variants:
        variants += ["ours bf16 compile"]
    results: dict[str, dict[str, Any]] = {}
    for case in options.cases:
        rounds = [
            {variant: measure_alone(case, variant, options) for variant in variants}
            for _ in range(options.rounds)
        ]
        results[case] = summarise(rounds)
        for variant, figures in results[case].items():
            shown = {
                key: round(value, 3) for key, value in figures.items() if isinstance(value, (int, float))
            }
            print(f"{case:20} {variant:20}", shown, flush=True)
    figures = {"batch": options.batch, "threads": torch.get_num_threads(), "cases": CASES, "results": results}
    print(save(options.name or f"train_step_{device.type}", figures))


if __name__ == "__main__":
    main()
