"""Exports models as ONNX, as TorchScript, and as checkpoints of the original implementation.

What is written is read back and compared with the plain float32 network, in sizes and batches other than
the one that it was traced with; only then does it appear at its name.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cgconvert.card import ModelCard
from cgconvert.engines.fuse import with_plain_norms
from cgconvert.engines.verify import BOUNDS_DB, VerificationError
from cgconvert.errors import ModelError, UnavailableError, UsageError
from cgconvert.generators import build_generator
from cgconvert.host.files import atomic_path
from cgconvert.models.describe import FOREIGN
from cgconvert.models.loading import Model
from cgconvert.options import EXPORT_SUFFIXES
from cgconvert.tensors.images import padded_size, psnr
from cgconvert.tensors.noise import field_keys, hash_places, with_noise

INPUT, OUTPUT = "images", "translated"
INSTALL = "pip install 'cgconvert[onnx]'"
ORIGINAL_NORMS = ("instance", "batch", "none")
OPSET = 20

Runner = Callable[[np.ndarray], np.ndarray]


def export_model(model: Model, format: str, target: Path, overwrite: bool = False) -> float:
    """Write a model as "onnx", "torchscript" or "pth"; returns the PSNR in decibels to the plain network.

    ONNX and TorchScript take float32 NCHW images in [-1, 1] with any batch and any height and width that
    are multiples of the card's, and return the same. A network that takes noise beside its images makes it
    itself. `pth` is the state dict of the original CycleGAN and
    pix2pix implementation.

    Raises `UsageError` for an unknown format or a network that the original does not have,
    `UnavailableError` if a library is missing, `OutputError` if the file is there or cannot be written,
    `VerificationError` if what was written computes something else.
    """
    if format not in EXPORT_SUFFIXES:
        raise UsageError(f"unknown format {format!r}: use {', '.join(EXPORT_SUFFIXES)}")
    write, read = {
        "onnx": (_write_onnx, _read_onnx),
        "torchscript": (_write_torchscript, _read_torchscript),
        "pth": (_write_checkpoint, _read_checkpoint),
    }[format]
    _check_possible(model, format)
    with atomic_path(target, overwrite) as temporary:
        write(model, temporary)
        return _compare(model, read(model, temporary), format)


def _check_possible(model: Model, kind: str) -> None:
    """Raise what is known before anything is written."""
    if model.card.architecture in FOREIGN:
        raise UsageError(
            f"{model.card.name!r} is a file of another program already "
            f"({FOREIGN[model.card.architecture]}), and only models of weights are exported"
        )
    if kind == "onnx":
        missing = [n for n in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(n) is None]
        if missing:
            raise UnavailableError(f"export to ONNX needs {', '.join(missing)}: {INSTALL}")
    if kind == "pth":
        card = model.card
        norm = card.arguments.get("norm", "instance" if card.architecture == "resnet" else "batch")
        resize = card.arguments.get("upsampling", "transposed") != "transposed"
        blur = card.arguments.get("downsampling", "strided") != "strided"
        plain = card.architecture in ("resnet", "unet") and not (resize or blur)
        if not plain or norm not in ORIGINAL_NORMS or card.noise:
            raise UsageError(
                f"the original implementation has no network like that of {card.name!r}: use "
                '`format="onnx"` or torchscript'
            )


class NoiseInside(nn.Module):
    """A generator that takes images alone: the noise of its card is computed in it, from the places."""

    keys: Tensor

    def __init__(self, generator: nn.Module, card: ModelCard) -> None:
        super().__init__()
        self.generator = generator
        self.register_buffer("keys", field_keys(card.noise_seed, card.noise_channels))

    def forward(self, images: Tensor) -> Tensor:
        rows = torch.arange(images.shape[2], dtype=torch.int32, device=images.device)[:, None]
        columns = torch.arange(images.shape[3], dtype=torch.int32, device=images.device)[None]
        noise = hash_places(rows, columns, self.keys)[None].expand(images.shape[0], -1, -1, -1)
        return self.generator(torch.cat([images, noise], dim=1))


def _exportable(model: Model) -> nn.Module:
    """The network with norms that exporters know, as a function of images alone."""
    network = with_plain_norms(model.generator)
    return NoiseInside(network, model.card).eval() if model.card.noise else network


def _example(model: Model) -> Tensor:
    """What is traced: two pictures of a size that is neither square nor the smallest."""
    card = model.card
    edge = 2 * max(card.size_minimum, card.size_multiple)
    height, width = padded_size(edge, edge + 1, card)
    return torch.zeros(2, card.in_channels, height, width)


def _write_onnx(model: Model, path: Path) -> None:
    import onnx

    card = model.card
    step = card.size_multiple
    batch = torch.export.Dim("batch", min=1, max=1024)
    rows, columns = (torch.export.Dim(name, min=1, max=65536 // step) for name in ("rows", "columns"))
    shapes = {0: batch, 2: step * rows, 3: step * columns} if step > 1 else {0: batch, 2: rows, 3: columns}
    quiet = io.StringIO()
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(quiet), redirect_stderr(quiet):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _exportable(model),
            (_example(model),),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            dynamic_shapes=(shapes,),
        )
        assert program is not None
        program.save(str(path), external_data=False)
    written = onnx.load(str(path))
    onnx.helper.set_model_props(written, {"cgconvert": card.to_json()})
    onnx.checker.check_model(written, full_check=True)
    onnx.save(written, str(path))


def _read_onnx(model: Model, path: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]


def _write_torchscript(model: Model, path: Path) -> None:
    with warnings.catch_warnings():  # that tracing is old, and that a layer compares shapes
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(_exportable(model), _example(model), check_trace=False)
        package = io.BytesIO()  # torch's own writer of files ends the process where the disk is full
        torch.jit.save(traced, package, _extra_files={"cgconvert.json": model.card.to_json()})
    path.write_bytes(package.getbuffer())


def _read_torchscript(model: Model, path: Path) -> Runner:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = torch.jit.load(str(path))
    return lambda images: _run(loaded, images)


def _write_checkpoint(model: Model, path: Path) -> None:
    package = io.BytesIO()  # as above
    torch.save(dict(model.generator.state_dict()), package)
    path.write_bytes(package.getbuffer())


def _read_checkpoint(model: Model, path: Path) -> Runner:
    generator = build_generator(model.card.architecture, model.card.arguments)
    generator.load_state_dict(torch.load(path, weights_only=True))
    return lambda images: _run(generator.eval(), images)


def _run(network: nn.Module, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network(torch.from_numpy(images)).numpy()


def _compare(model: Model, run: Runner, kind: str) -> float:
    """PSNR of what was written to the plain network, the worst of three shapes. Raises `ModelError`."""
    card = model.card
    edge = 2 * max(card.size_minimum, card.size_multiple)
    worst = float("inf")
    random = torch.Generator().manual_seed(0)
    for count, height, width in [(1, edge, edge), (3, edge, 2 * edge), (2, 3 * edge // 2, edge)]:
        shape = (count, card.in_channels, *padded_size(height, width, card))
        images = torch.rand(shape, generator=random) * 2 - 1
        with torch.inference_mode():
            wanted = model.generator(with_noise(images, card.noise_channels, card.noise_seed))
        try:
            got = torch.from_numpy(np.array(run(images.numpy())))
        except Exception as error:  # each runtime has errors of its own
            raise ModelError(f"the {kind} file cannot be run on {tuple(shape)}: {error!s:.300}") from error
        worst = min(worst, psnr(got, wanted) if got.shape == wanted.shape else float("-inf"))
    if not worst >= BOUNDS_DB["fp32"]:
        raise VerificationError(
            f"the {kind} file computes something else than {card.name!r} ({worst:.1f} dB); nothing is written"
        )
    return worst
