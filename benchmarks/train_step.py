"""Images/s and peak memory of a CycleGAN step: ours, and a plain transcription of the published one.

    python benchmarks/train_step.py            # writes benchmarks/results/train_step_cpu.json

Both train the same networks from the same start on the same random images. "Published" is the step as the
paper's code orders it: eager, float32, one image of each domain through one network at a time, the library's
instance norm, Adam in its plain form. Each variant has a process of its own, so that the peak memory is its.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import save
from trainer.config import Config
from trainer.methods import build_method
from trainer.methods.base import Method, use_library_norms
from trainer.precision import Precision

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

    def __call__(self, a: Tensor, b: Tensor) -> list[float]:
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
        return [float(loss.detach()) for loss in losses]  # it reports every step


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
    """Images/s over at least `seconds`, after steps to warm up; peak memory in MiB."""
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

    for _ in range(3):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds or steps < 3:
        step()
        steps += 1
        if device.type == "cuda":
            torch.cuda.synchronize()
    elapsed = time.perf_counter() - start
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated() / 2**20
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"images_per_second": batch * steps / elapsed, "peak_memory_mib": memory, "steps": steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--variants", nargs="+", default=["published", "ours fp32", "ours bf16"])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument(
        "--rounds", type=int, default=2, help="each variant this often, in turn; the best counts"
    )
    parser.add_argument("--single", nargs=2, metavar=("CASE", "VARIANT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = torch.device(options.device)
    if options.single:
        print(json.dumps(measure(*options.single, device, options.batch, options.seconds)))
        return
    results: dict[str, dict[str, Any]] = {}
    for case in options.cases:
        rows: dict[str, Any] = {}
        for _ in range(options.rounds):
            for variant in options.variants:
                command = [sys.executable, __file__, "--device", options.device, "--single", case, variant]
                command += ["--seconds", str(options.seconds), "--batch", str(options.batch)]
                figures = json.loads(subprocess.check_output(command, text=True))
                if figures["images_per_second"] > rows.get(variant, {}).get("images_per_second", 0):
                    rows[variant] = figures
        base = rows.get("published", {}).get("images_per_second")
        for variant, figures in rows.items():
            if base:
                figures["speedup"] = figures["images_per_second"] / base
            print(
                f"{case:20} {variant:20}",
                {key: round(value, 3) for key, value in figures.items()},
                flush=True,
            )
        results[case] = rows
    figures = {"batch": options.batch, "threads": torch.get_num_threads(), "cases": CASES, "results": results}
    print(save(f"train_step_{device.type}", figures))


if __name__ == "__main__":
    main()
