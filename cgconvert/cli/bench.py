"""`cgconvert bench` measures each engine and precision, and their share of this machine's limits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from cgconvert.cli.common import complete_model
from cgconvert.cli.engines import read_sizes
from cgconvert.cli.status import create_progress
from cgconvert.cli.wording import worded
from cgconvert.errors import UsageError
from cgconvert.host.interrupts import deferring

if TYPE_CHECKING:
    from cgconvert.doctor.limits import Limits
    from cgconvert.doctor.measure import Measurement
    from cgconvert.engines.choose import Candidate

HEADINGS = "engine    precision         size  batch  network/s  pictures/s   arithmetic  memory"


@click.command(short_help="Measure how fast each engine is on this machine.")
@click.option(
    "-m",
    "--model",
    default="photo2monet",
    show_default=True,
    shell_complete=complete_model,
    help="Name of a model or path of its file.",
)
@click.option(
    "--size", "sizes", multiple=True, metavar="WxH", help="Picture size; may be repeated. Default: 512x512."
)
@click.option("--engines", default="all", metavar="all|A,B", help="Engines to measure.")
@click.option("--precisions", default="all", metavar="all|A,B", help="Precisions to measure.")
@click.option(
    "--device",
    default="auto",
    metavar="auto|cpu|cuda[:N]|mps|xpu|gpu",
    help="Where the network runs. gpu: an Intel GPU.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Pictures that go through together.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 600),
    default=3.0,
    show_default=True,
    help="Time for each measurement.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def bench(
    model: str,
    sizes: tuple[str, ...],
    engines: str,
    precisions: str,
    device: str,
    batch: int,
    seconds: float,
    as_json: bool,
) -> None:
    """Measure how fast each engine and precision runs a model.

    "network/s" is the rate of the network alone, "pictures/s" the rate from pixels in memory to pixels in
    memory. "arithmetic" is the network's share of the multiplications that a large convolution reaches on
    this machine. "memory" is its share of the memory's rate, if each convolution moves its input, weights
    and output once; it exceeds 100% where caches hold them. Both limits are measured in the same run. No
    figure includes building and loading.
    """
    with deferring():
        from cgconvert.doctor.measure import measure
        from cgconvert.models.loading import load_model
        from cgconvert.options import ENGINES, PRECISIONS

    wanted = read_sizes(sizes or ("512x512",))
    names = _read_list(engines, ENGINES, "--engines")
    kinds = _read_list(precisions, PRECISIONS, "--precisions")
    found = _candidates(device, names, kinds, "all" in (engines, precisions))
    loaded = load_model(model)
    limits = _limits(found, kinds)
    progress = create_progress(quiet=True)
    if not as_json:
        click.echo(_describe_limits(limits))
        click.echo(HEADINGS)
    results: list[Measurement] = []
    for size in wanted:
        for candidate in found:
            results.append(measure(loaded, candidate, size, batch, limits, progress, seconds))
            if not as_json:
                click.echo(_row(results[-1]))
    if as_json:
        click.echo(json.dumps(_as_data(model, limits, results), indent=2))


def _candidates(device: str, names: list[str], kinds: list[str], skip: bool) -> list[Candidate]:
    """Return what is to be measured. With `skip` it leaves out what the device does not have.

    Raises `UsageError`, `UnavailableError`.
    """
    from cgconvert.engines.choose import (
        GPU_PRECISIONS,
        Candidate,
        choose_device,
        engine_class,
        find_intel_gpu,
    )

    where = choose_device(device)
    if device.lower() == "gpu":
        chosen = [kind for kind in kinds if kind in GPU_PRECISIONS]
        if "openvino" not in names or not chosen:
            raise UsageError(
                f"only openvino runs on an Intel GPU, in {' and '.join(GPU_PRECISIONS)}: leave "
                "--engines and --precisions at all"
            )
        plugin = find_intel_gpu()
        return [Candidate("openvino", kind, where, plugin) for kind in chosen]
    return [
        Candidate(name, kind, where)
        for name in names
        for kind in kinds
        if kind in engine_class(name).precisions(where) or not skip
    ]


def _limits(found: list[Candidate], kinds: list[str]) -> Limits:
    """Measure the limits of the device, except those of an Intel GPU, which torch cannot reach."""
    from cgconvert.doctor.limits import Limits, measure_limits
    from cgconvert.engines.eager import EagerEngine

    if not found or found[0].plugin:
        return Limits({}, None)
    where = found[0].device
    return measure_limits(where, tuple(kind for kind in kinds if kind in EagerEngine.precisions(where)))


def _read_list(text: str, known: tuple[str, ...], option: str) -> list[str]:
    """Return the names in "a,b", or all known ones for "all". Raises `UsageError`."""
    if text == "all":
        return list(known)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UsageError(f"{option} {name!r}: use all, or some of {', '.join(known)}")
    return names


def _describe_limits(limits: Limits) -> str:
    if limits.copy_bytes is None:
        return "the limits of this device are not measured"
    rates = ", ".join(f"{name} {2 * rate / 1e9:.0f} GFLOP/s" for name, rate in limits.macs.items())
    return f"measured here: convolutions {rates}; copies {limits.copy_bytes / 1e9:.1f} GB/s"


def _row(result: Measurement) -> str:
    start = f"{result.engine:10}{result.precision:11}{f'{result.width}x{result.height}':>11}{result.batch:>7}"
    if result.network is None or result.convert is None:
        return f"{start}   {worded(result.problem or '')}"
    shares = [f"{share:.0%}" if share is not None else "-" for share in (result.share, result.memory_share)]
    return f"{start}{result.network:>11.2f}{result.convert:>12.2f}{shares[0]:>13}{shares[1]:>8}"


def _as_data(model: str, limits: Limits, results: list[Measurement]) -> dict[str, Any]:
    return {
        "model": model,
        "limits": {"macs_per_second": limits.macs, "copy_bytes_per_second": limits.copy_bytes},
        "results": [result.to_dict() for result in results],
    }
