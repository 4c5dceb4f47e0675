"""`cgconvert doctor` tries everything that could work on this machine and prints why the rest does not."""

from __future__ import annotations

import json
from typing import Any

import click

from cgconvert.cli.wording import worded
from cgconvert.host.interrupts import deferring


@click.command(short_help="Show what works on this machine and why the rest does not.")
@click.option("--json", "as_json", is_flag=True, help="Print all details as JSON.")
def doctor(as_json: bool) -> None:
    """Try every engine, codec, picture format and hardware decoder on a tiny input.

    Shows GPUs, drivers, memory and library versions too, where models and engines are kept, and what is
    missing for a machine that is one of many. It takes some seconds, and longer where a compiler has to run.
    """
    found = examine(tell=not as_json)
    if as_json:
        click.echo(json.dumps(found, indent=2))


def examine(tell: bool) -> dict[str, Any]:
    """Return the result of every trial. With `tell` each is printed when it is known."""
    with deferring():
        from cgconvert.doctor.engines import describe_machine, try_engines
        from cgconvert.doctor.worker import try_worker
        from cgconvert.engines.cache import cache_is_on, engines_folder, list_entries
        from cgconvert.media.picture.trial import try_pictures
        from cgconvert.media.video.trial import try_codecs, try_hardware_decoders
        from cgconvert.models.catalog import models_folder

    machine = describe_machine()
    if tell:
        _print_machine(machine)
    engines = []
    for trial in try_engines():
        engines.append(trial.to_dict())
        if tell:
            _print_line(trial.works, trial.name, trial.detail)
    if tell:
        click.echo("codecs and picture formats")
    formats: dict[str, dict[str, str | None]] = {"codecs": {}, "pictures": {}}
    for kind, trials in (("codecs", try_codecs()), ("pictures", try_pictures())):
        for name, reason in trials:
            formats[kind][name] = reason
            if tell:
                _print_line(reason is None, name, reason or "written and read")
    decoders: dict[str, str | None] = {}
    if tell:
        click.echo("hardware decoders")
    for name, reason in try_hardware_decoders():
        decoders[name] = reason
        if tell:
            _print_line(reason is None, name, reason or "h264 decoded")
    if tell and not decoders:
        click.echo("  none in this build of PyAV")
    worker: dict[str, dict[str, Any]] = {}
    if tell:
        click.echo("as one of many machines")
    for name, works, detail in try_worker():
        worker[name] = {"works": works, "detail": detail}
        if tell:
            _print_line(works, name, detail)
    folders = {
        "models": str(models_folder()),
        "engines": str(engines_folder()),
        "kept_engines": len(list_entries()),
        "cache": cache_is_on(),
    }
    if tell:
        click.echo(f"models in {folders['models']}, engines in {folders['engines']}")
    return {
        "machine": machine,
        "engines": engines,
        **formats,
        "hardware_decoders": decoders,
        "worker": worker,
        "folders": folders,
    }


def _print_machine(machine: dict[str, Any]) -> None:
    bf16 = "with" if machine["bf16_in_hardware"] else "without"
    click.echo(f"{machine['system']}, Python {machine['python']}")
    click.echo(f"CPU: {machine['cpu']}, {machine['threads']} threads, {bf16} bf16 in hardware")
    click.echo(f"memory: {machine['free_memory_bytes'] / 2**30:.1f} GiB free")
    for card in machine["cards"]:
        memory = f"{card['free_bytes'] / 2**30:.1f} of {card['memory_bytes'] / 2**30:.1f} GiB free"
        click.echo(f"card: {card['name']}, {memory}, CUDA {card['cuda']}, driver {card['driver']}")
    if machine["no_cards_because"]:
        click.echo(f"card: none; {machine['no_cards_because']}")
    click.echo(", ".join(f"{name} {version}" for name, version in machine["versions"].items()))
    click.echo("engines")


def _print_line(works: bool, name: str, detail: str) -> None:
    click.echo(f"  {'works' if works else 'no   '}  {name:24} {worded(detail)}")
