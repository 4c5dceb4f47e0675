"""Installs checkpoints of other implementations of CycleGAN, pix2pix and what came after them as models."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cgconvert.card import ModelCard, check_name
from cgconvert.errors import ModelError, OutputError, first_line
from cgconvert.generators import generator_shapes, size_rule
from cgconvert.host.files import file_sha256
from cgconvert.host.interrupts import Breakable
from cgconvert.models.catalog import installed_path, shipped_path
from cgconvert.models.checkpoints import ProgramError, read_foreign
from cgconvert.models.describe import describe_architecture
from cgconvert.models.files import (
    expanded,
    has_card,
    is_regular_file,
    read_card,
    read_header,
    read_weights,
    write_model,
)
from cgconvert.models.graphs import Graph, is_onnx, read_onnx, read_torchscript
from cgconvert.models.loading import find_misfit, generator_with_weights
from cgconvert.models.recognition import SUPPORTED, Recognised, UnrecognisedError, recognise
from cgconvert.models.trust import is_trusted
from cgconvert.models.trust import trust as trust_model
from cgconvert.models.unwrapping import Weights, find_generator

CHANNELS = (1, 3)
TRIAL_EDGE = 32
WEIGHT_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
COUNTER_TYPES = (torch.int64, torch.int32)
ROUNDING = 4096
"""Bytes by which the tensors may exceed the file: counters that old files lack."""

COUNTER = ".num_batches_tracked"

BESIDE = "train_config.json"
BESIDE_LIMIT = 2**20
"""The name of joliGEN's configuration, and the bytes of it that are read."""


@dataclass(frozen=True)
class Imported:
    """A recognised checkpoint: what it is, and its tensors under the names of our generator."""

    recognised: Recognised
    tensors: dict[str, Tensor]


def import_checkpoint(
    path: str | Path,
    name: str,
    title: str | None = None,
    domains: tuple[str, str] | None = None,
    overwrite: bool = False,
    *,
    origin: str | None = None,
    licence: str = "unknown",
    values: str | None = None,
    order: str | None = None,
    trust: bool = False,
) -> ModelCard:
    """Install a generator checkpoint from elsewhere as the model `name`; returns its card.

    Takes the generators that `SUPPORTED` names, as `.pth` or `.safetensors`, alone or inside a training
    checkpoint, and also a cgconvert model file. Architecture and arguments are read off the file;
    replicating padding cannot be told from reflecting and is read as that. Nothing in the file is run.
    Before it is installed the network is tried on a small picture. `domains` are (source, target) in words.
    Float16 weights stay float16 in the file. `origin` says where the file was downloaded from, and `licence`
    what is said of its licence there.

    An ONNX graph from one picture to another is taken as it is, and ONNX Runtime or OpenVINO run it. `values`
    says what values its pictures have ("-1..1", "0..1" or "0..255", or two of them with a comma for its
    input and its output), and `order` the order of its dimensions ("nchw" or "nhwc"); None: what the graph
    shows. So is a TorchScript program, which is code and runs at once: only with `trust`.

    Raises `ModelError` if the file is no such generator, damaged or unsafe (nothing is installed then), and
    `OutputError` if the name is taken and `overwrite` is False, or the file cannot be written.
    """
    path = expanded(path)
    target = free_target(name, overwrite)
    with Breakable():  # nothing is written before all of it is known to be good
        graph: Graph | None = None
        if _is_own_model(path):
            card = read_card(path).with_changes(name=name)
            tensors = read_weights(path, card)
            if card.architecture == "torchscript" and not (trust or is_trusted(card.weights_sha256)):
                raise ModelError(
                    f"{path}: it holds a TorchScript program, and importing it runs code of the file: use "
                    "`trust=True` if you trust whoever made it"
                )
        elif (graph := _graph(path, values, order, trust)) is not None:
            card, tensors = _card_of_graph(name, path, graph), graph.tensors
        elif values is not None or order is not None:
            raise ModelError(f"{path}: `values` and `order` are for ONNX graphs and TorchScript programs")
        else:
            imported = recognise_checkpoint(path)
            tensors = imported.tensors
            card = _new_card(name, path, imported.recognised)
        card = card.with_changes(**_words(title, domains))
        if origin is not None:
            card = card.with_changes(training={**card.training, "from": origin})
        if card.licence == "unknown":
            card = card.with_changes(licence=licence)
        network = _fitted(path, card, tensors)
        if graph is None:  # which has been tried
            _try(path, network, card)
    written = write_model(target, card, tensors, overwrite)
    if written.architecture == "torchscript":
        trust_model(written.weights_sha256)
    return written


def _graph(path: Path, values: str | None, order: str | None, trust: bool) -> Graph | None:
    """What an ONNX graph or a trusted TorchScript program is; None for any other file."""
    if order not in (None, "nchw", "nhwc"):
        raise ModelError(f"`order={order!r}` is neither nchw nor nhwc")
    if is_regular_file(path) and path.stat().st_size and is_onnx(path):
        return read_onnx(path, values, order)
    if not trust:
        return None  # the reader of checkpoints says what a program is
    try:
        read_foreign(path)
    except ProgramError:
        return read_torchscript(path, values, order)
    except ModelError:
        return None
    return None


def _card_of_graph(name: str, path: Path, graph: Graph) -> ModelCard:
    training: dict[str, Any] = {"imported_from": path.name, "sha256": file_sha256(path)}
    if graph.remarks:
        training["remarks"] = list(graph.remarks)
    return ModelCard(
        name=name,
        architecture=graph.architecture,
        arguments=graph.arguments,
        size_multiple=graph.size_multiple,
        size_minimum=graph.size_minimum,
        training=training,
    )


def recognise_checkpoint(path: Path) -> Imported:
    """What generator a foreign checkpoint holds, and its tensors, all floating ones float32 or smaller.

    Raises `ModelError` with a diagnosis of anything else.
    """
    content = read_foreign(path)
    try:
        weights, remarks = find_generator(content)
        recognised = recognise(replace(weights.layout, padding=_padding_beside(path)))
    except UnrecognisedError as unknown:
        raise ModelError(f"{path}: {unknown}; {SUPPORTED}") from unknown
    _check_channels(path, recognised)
    tensors = _collect(path, weights, recognised)
    remarks += recognised.remarks
    return Imported(replace(recognised, remarks=remarks), tensors)


def _padding_beside(path: Path) -> str | None:
    """What joliGEN's configuration beside a checkpoint says of padding; None without a readable one."""
    beside = path.with_name(BESIDE)
    try:
        if not is_regular_file(beside) or beside.stat().st_size > BESIDE_LIMIT:
            return None
        config = json.loads(beside.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(config, dict):
        return None
    nested = config.get("G")
    found = nested.get("padding_type") if isinstance(nested, dict) else config.get("G_padding_type")
    return found if isinstance(found, str) else None


def free_target(name: str, overwrite: bool) -> Path:
    """Where the model will be. Raises `OutputError` if the name is taken and may not be replaced."""
    target = installed_path(check_name(name))
    if overwrite:
        return target
    if target.exists():
        raise OutputError(f"there is a model {name!r} already ({target}): use `overwrite` or another `name`")
    if shipped_path(name):
        raise OutputError(
            f"{name!r} is a model shipped with cgconvert: use another `name`, or `overwrite` to hide it"
        )
    return target


def _is_own_model(path: Path) -> bool:
    """Whether the file is a cgconvert model; what is wrong with any other file is for the reader to say."""
    try:
        return is_regular_file(path) and has_card(read_header(path))
    except ModelError:
        return False


def _words(title: str | None, domains: tuple[str, str] | None) -> dict[str, Any]:
    words: dict[str, Any] = {} if title is None else {"title": title}
    if domains is not None:
        words |= {"source_domain": domains[0], "target_domain": domains[1]}
    return words


def _new_card(name: str, path: Path, recognised: Recognised) -> ModelCard:
    training: dict[str, Any] = {"imported_from": path.name, "sha256": file_sha256(path)}
    if recognised.remarks:
        training["remarks"] = list(recognised.remarks)
    multiple, minimum = size_rule(recognised.architecture, recognised.arguments)
    return ModelCard(
        name=name,
        architecture=recognised.architecture,
        arguments=recognised.arguments,
        size_multiple=multiple,
        size_minimum=minimum,
        training=training,
    )


def _check_channels(path: Path, recognised: Recognised) -> None:
    for key, verb in (("in_channels", "takes"), ("out_channels", "returns")):
        count = recognised.arguments[key]
        if count not in CHANNELS:
            raise ModelError(
                f"{path}: its network {verb} {count} channels; pictures have 3 (RGB) or 1 (gray)"
            )


def _collect(path: Path, weights: Weights, recognised: Recognised) -> dict[str, Tensor]:
    """The tensors that the generator needs, checked and copied; what it does not use is left out."""
    tensors = {
        recognised.renamed.get(name, name): tensor
        for name, tensor in weights.tensors.items()
        if name not in recognised.unused
    }
    if len(tensors) != len(weights.tensors.keys() - recognised.unused):
        raise ModelError(f"{path}: two of its tensors have one place in the network")
    try:
        expected = generator_shapes(recognised.architecture, recognised.arguments)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    for name in expected:
        if name.endswith(COUNTER):  # absent before PyTorch 0.4.1, and without meaning in conversion
            tensors.setdefault(name, torch.zeros((), dtype=torch.int64))
    misfit = find_misfit(expected, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    if misfit:
        what = describe_architecture(recognised.architecture, recognised.arguments)
        raise ModelError(f"{path}: looks like a generator ({what}), but {misfit}; {SUPPORTED}")
    # Tensors may be views that claim more than the file holds, each by itself or together.
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if claimed > path.stat().st_size + ROUNDING:
        raise ModelError(f"{path}: refused: its tensors claim {claimed} bytes, more than the file holds")
    return {name: _checked(path, name, tensor) for name, tensor in tensors.items()}


def _checked(path: Path, name: str, tensor: Tensor) -> Tensor:
    """A dense copy of a tensor that is what it seems; `ModelError` otherwise."""
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not dense or tensor.dtype not in (COUNTER_TYPES if name.endswith(COUNTER) else WEIGHT_TYPES):
        raise ModelError(
            f"{path}: {name!r:.100} is no plain tensor of numbers ({tensor.dtype}, {tensor.device})"
        )
    if not bool(torch.isfinite(tensor).all()):
        raise ModelError(f"{path}: {name!r:.100} has numbers that are not finite: the training had diverged")
    wanted = torch.float32 if tensor.dtype == torch.float64 else tensor.dtype
    return tensor.detach().to(wanted).clone(memory_format=torch.contiguous_format)


def _fitted(path: Path, card: ModelCard, tensors: dict[str, Tensor]) -> nn.Module:
    try:
        return generator_with_weights(card.architecture, card.arguments, tensors)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def _try(path: Path, network: nn.Module, card: ModelCard) -> None:
    """Run the network once, on the smallest picture it takes. Raises `ModelError` on a wrong result."""
    multiple, minimum = card.size_multiple, card.size_minimum
    edge = max(minimum, TRIAL_EDGE // multiple * multiple)
    ramp = torch.linspace(-1, 1, card.in_channels * edge * edge).view(1, card.in_channels, edge, edge)
    with torch.inference_mode():
        try:
            result = network(ramp)
        except RuntimeError as error:
            reason = first_line(error)
            raise ModelError(f"{path}: its network fails on a {edge}x{edge} picture ({reason})") from error
    if result.shape != (1, card.out_channels, edge, edge):
        raise ModelError(f"{path}: its network turns {edge}x{edge} pixels into {list(result.shape)}")
    if not bool(torch.isfinite(result).all()):
        raise ModelError(f"{path}: its network returns numbers that are not finite")
