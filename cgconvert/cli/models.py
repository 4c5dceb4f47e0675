"""`cgconvert models`: list, inspect, import, export and remove models. Only import and export need torch."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from cgconvert.card import ModelCard
from cgconvert.cli.common import complete_model
from cgconvert.cli.export import export
from cgconvert.cli.wording import tell
from cgconvert.errors import OutputError, UsageError
from cgconvert.host.channels import in_worker
from cgconvert.host.files import write_atomically
from cgconvert.host.interrupts import deferring
from cgconvert.models.catalog import (
    InstalledModel,
    find_model,
    installed_path,
    list_models,
    models_folder,
    remove_model,
    shipped_path,
)
from cgconvert.models.describe import (
    FOREIGN,
    describe_architecture,
    describe_bytes,
    describe_count,
    describe_domains,
    describe_sizes,
)
from cgconvert.models.files import count_parameters, read_card
from cgconvert.models.page import model_page
from cgconvert.progress import Silent

HEADINGS = ("NAME", "LOOK", "NETWORK", "FILE", "FROM")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def models() -> None:
    """List, inspect, import, export and remove models."""


models.add_command(export)


@models.command("list", short_help="List your models and the shipped ones.")
@click.option("--json", "as_json", is_flag=True, help="Print all details as JSON.")
def list_command(as_json: bool) -> None:
    """List the models that can be used by name: your own and the shipped ones."""
    found = list_models()
    if as_json:
        click.echo(json.dumps([_as_data(model) for model in found], indent=2))
        return
    _print_table(HEADINGS, [_row(model) for model in found])
    for model in found:
        if model.problem:
            tell(f"Warning: {model.problem}")


@models.command(short_help="Show what is known about a model.")
@click.argument("name", shell_complete=complete_model)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def info(name: str, as_json: bool) -> None:
    """Show what is known about the model NAME, which may also be the path of its file."""
    path = find_model(name)
    card = read_card(path)
    size, parameters = path.stat().st_size, count_parameters(path)
    if as_json:
        data = card.to_dict() | {"path": str(path), "file_bytes": size, "parameters": parameters}
        click.echo(json.dumps(data, indent=2))
        return
    _print_pairs(_card_lines(card, path, size, parameters))


@models.command("import", short_help="Install a checkpoint of other software as a model.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name that the model gets.")
@click.option("--title", help="A one-line description.")
@click.option("--domains", metavar="SOURCE,TARGET", help="What it converts to what, for example photo,monet.")
@click.option("--overwrite", is_flag=True, help="Replace a model of the same name.")
@click.option(
    "--values",
    metavar="IN[,OUT]",
    help="Of an ONNX graph or TorchScript program: the values of its pictures, -1..1, 0..1 or 0..255.  "
    "[default: as the graph shows]",
)
@click.option(
    "--order",
    type=click.Choice(["nchw", "nhwc"]),
    help="Of an ONNX graph or TorchScript program: the order of its dimensions.  "
    "[default: as the graph shows]",
)
@click.option("--trust", is_flag=True, help="Take a TorchScript program, which is code and is run.")
def import_command(
    file: Path,
    name: str,
    title: str | None,
    domains: str | None,
    overwrite: bool,
    values: str | None,
    order: str | None,
    trust: bool,
) -> None:
    """Install FILE, a generator checkpoint of other software, as a model.

    It may be of CycleGAN, pix2pix, CUT, pix2pixHD, joliGEN, GAN Compression or AnimeGANv2. The network's
    architecture is read from the file. No code in the file is run. ONNX graphs from one picture to another
    are taken too, and with --trust TorchScript programs, which are code.
    """
    pair = _read_domains(domains)
    with deferring():
        from cgconvert.models.importing import import_checkpoint

    card = in_worker(
        "import",
        lambda progress: import_checkpoint(
            file, name, title, pair, overwrite, values=values, order=order, trust=trust
        ),
        Silent(),
    )
    path = installed_path(name)
    what = describe_architecture(card.architecture, card.arguments)
    click.echo(f"{file.name}: {what}{_parameters(card, path)}")
    for remark in card.training.get("remarks", ()):
        click.echo(f"  {remark}")
    click.echo(f"Installed as {name}: {path}")


@models.command(short_help="Download a model and install it.")
@click.argument("source")
@click.option("--name", help="Name that the model gets; without it that of the repository or file.")
@click.option("--title", help="A one-line description.")
@click.option("--domains", metavar="SOURCE,TARGET", help="What it converts to what, for example photo,monet.")
@click.option("--overwrite", is_flag=True, help="Replace a model of the same name.")
@click.option("--frozen", is_flag=True, help="Take only what is pinned, with the bytes that are recorded.")
@click.option(
    "--lock-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of the pins.  [default: models.lock.json in your models folder]",
)
def add(
    source: str,
    name: str | None,
    title: str | None,
    domains: str | None,
    overwrite: bool,
    frozen: bool,
    lock_file: Path | None,
) -> None:
    """Download the model SOURCE and install it.

    SOURCE is hf:OWNER/REPOSITORY[@REVISION][:FILE], or https://...#sha256=... with the file's checksum. The
    file is a model of cgconvert or a checkpoint that `models import` understands. Commit, checksum and
    licence are kept in a lock file. This is the only command that uses a network.
    """
    pair = _read_domains(domains)
    with deferring():
        from cgconvert.models.hub import add_model

    card = in_worker(
        "add",
        lambda progress: add_model(source, name, progress, title, pair, overwrite, frozen, lock_file),
        Silent(),
    )
    click.echo(f"Installed as {card.name}: {installed_path(card.name)} (licence: {card.licence})")


@models.command()
@click.argument("name", shell_complete=complete_model)
def remove(name: str) -> None:
    """Remove your own model NAME. Shipped models cannot be removed."""
    path = remove_model(name)
    click.echo(f"Removed {path}")
    if shipped_path(name):
        click.echo(f"{name} now means the shipped model again")


@models.command(short_help="Write what the page of a model on a hub needs.")
@click.argument("name", shell_complete=complete_model)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Folder for the files."
)
@click.option("--repository", required=True, metavar="OWNER/NAME", help="What it will be called on the hub.")
@click.option("--licence", help="Licence of the weights, for example apache-2.0.  [default: the card's]")
@click.option(
    "--picture",
    "pictures",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Picture for the preview sheet; may be given several times.",
)
@click.option("--overwrite", is_flag=True, help="Replace files of these names in the folder.")
def publish(
    name: str,
    output: Path | None,
    repository: str,
    licence: str | None,
    pictures: tuple[Path, ...],
    overwrite: bool,
) -> None:
    """Write the model NAME, its card, a README and a preview sheet into a folder, to be uploaded to a hub.

    Nothing is uploaded.
    """
    path = find_model(name)
    card = read_card(path)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UsageError(f"--repository {repository!r:.80} is not of the form OWNER/NAME")
    if licence is None and card.licence == "unknown":
        raise UsageError(f"the licence of {card.name} is unknown: say it with --licence")
    folder = output or Path(f"{card.name}.page")
    names = [f"{card.name}.safetensors", "card.json", "README.md", *["preview.png"] * bool(pictures)]
    taken = [folder / each for each in names if (folder / each).exists()]
    if taken and not overwrite:
        raise OutputError(f"{taken[0]} exists already: use `overwrite` to replace it")
    sheet = _preview_of(path, pictures) if pictures else None
    target = folder / names[0]
    if licence is None or licence == card.licence:
        write_atomically(target, path.read_bytes(), overwrite)
    else:
        with deferring():
            from cgconvert.models.files import read_weights, write_model

        card = write_model(target, card.with_changes(licence=licence), read_weights(path, card), overwrite)
    text = json.dumps(card.to_dict(), indent=2, ensure_ascii=False)
    write_atomically(folder / "card.json", f"{text}\n".encode(), overwrite)
    page = model_page(
        card, target.stat().st_size, count_parameters(target), repository, "preview.png" if sheet else None
    )
    write_atomically(folder / "README.md", page.encode(), overwrite)
    if sheet:
        write_atomically(folder / "preview.png", sheet, overwrite)
    click.echo(f"Wrote {', '.join(names)} to {folder}")


def _preview_of(model: Path, pictures: tuple[Path, ...]) -> bytes:
    """A PNG of pictures before and after."""
    with deferring():
        from cgconvert.media.picture.codec import Picture, encode_picture
        from cgconvert.options import EngineOptions
        from cgconvert.preview.looks import Looks
        from cgconvert.preview.sheet import SheetOptions, make_sheet
        from cgconvert.preview.shots import read_picture_shot

    shots = [read_picture_shot(picture) for picture in pictures]
    looks = Looks(EngineOptions(), Silent())
    try:
        sheet = make_sheet(read_card(model).name, shots, SheetOptions([model]), looks, Silent())
    finally:
        looks.close()
    return encode_picture(Picture(sheet), "png")[0]


@models.command("path", short_help="Print where a model or your models folder is.")
@click.argument("name", required=False, shell_complete=complete_model)
def path_command(name: str | None) -> None:
    """Print the path of the model NAME, or without NAME that of your models folder."""
    click.echo(find_model(name) if name else models_folder())


def _parameters(card: ModelCard, path: Path) -> str:
    """How many parameters a network has, if it is not a file of another program, in which nobody counts."""
    return "" if card.architecture in FOREIGN else f", {describe_count(count_parameters(path))} parameters"


def _read_domains(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(parts):
        raise UsageError(f"--domains {text!r} is not of the form SOURCE,TARGET, for example photo,monet")
    return parts[0], parts[1]


def _as_data(model: InstalledModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "origin": model.origin,
        "path": str(model.path),
        "card": model.card.to_dict() if model.card else None,
        "problem": model.problem,
    }


def _row(model: InstalledModel) -> tuple[str, ...]:
    if model.card is None:
        return model.name, "unreadable", "", "", model.origin
    size = describe_bytes(model.path.stat().st_size)
    network = describe_architecture(model.card.architecture, model.card.arguments)
    return model.name, describe_domains(model.card), network, size, model.origin


def _card_lines(card: ModelCard, path: Path, size: int, parameters: int) -> list[tuple[str, str]]:
    lines = [
        ("name", card.name),
        ("title", card.title or "-"),
        ("look", describe_domains(card)),
        ("network", describe_architecture(card.architecture, card.arguments)),
        ("parameters", "-" if card.architecture in FOREIGN else describe_count(parameters)),
        ("picture size", describe_sizes(card)),
    ]
    if card.native_size:
        lines.append(("trained at", f"{card.native_size} pixels"))
    if card.work_size:
        lines.append(("advised height", f"{card.work_size} pixels"))
    lines += [("verified in", card.precision), ("licence", card.licence)]
    lines += [(f"training: {_safe(str(key))}", _in_words(value)) for key, value in card.training.items()]
    lines += [
        ("weights SHA-256", card.weights_sha256 or "-"),
        ("file", f"{path} ({describe_bytes(size)})"),
    ]
    return lines


def _in_words(value: Any) -> str:
    """Return lists and tables of plain values as text, and everything else as JSON.

    The values come from files of others. So text goes through `_safe`, and JSON escapes control characters.
    """
    if isinstance(value, str):
        return _safe(value)
    if isinstance(value, list) and all(isinstance(part, str | int | float) for part in value):
        return ", ".join(_in_words(part) for part in value)
    if isinstance(value, dict) and all(isinstance(part, int | float) for part in value.values()):
        return ", ".join(f"{_safe(str(key))} {part:g}" for key, part in value.items())
    return json.dumps(value)


def _safe(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on a terminal, and aligned columns into a pipe."""
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*headings, box=box.SIMPLE_HEAD)
        for row in rows:
            table.add_row(*map(Text, row))
        Console().print(table)
        return
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _print_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Print names and values as a grid on a terminal, and as aligned text into a pipe."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in pairs:
            grid.add_row(Text(name, style="bold"), Text(value))
        Console().print(grid)
        return
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        click.echo(f"{name.ljust(width)}  {value}")
