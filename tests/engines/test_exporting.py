"""What is exported computes what the model computes, in the program that it is meant for."""

from __future__ import annotations

import errno
import io
from pathlib import Path

import numpy as np
import pytest
import torch

from cgconvert.cli import main
from cgconvert.engines import exporting
from cgconvert.engines.exporting import export_model
from cgconvert.engines.verify import VerificationError
from cgconvert.errors import OutputError, UsageError
from cgconvert.models.catalog import models_folder
from cgconvert.models.files import write_model
from cgconvert.options import EXPORT_SUFFIXES
from cgconvert.tensors.noise import with_noise
from tests.engines.models import make_model
from tests.models import reference_networks

SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "kind", [pytest.param("resnet_gray"), *(pytest.param(k, marks=SLOW) for k in ("unet", "h2"))]
)
def test_onnx_takes_any_size_and_batch(kind: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")
    model = make_model(kind)
    path = tmp_path / "network.onnx"
    assert export_model(model, "onnx", path) > 100
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for shape in [(1, 64, 64), (5, 96, 160)]:
        images = np.random.default_rng(0).uniform(-1, 1, (shape[0], model.card.in_channels, *shape[1:]))
        (got,) = session.run(["translated"], {"images": images.astype(np.float32)})
        wanted = model.generator(torch.from_numpy(images.astype(np.float32))).numpy()
        assert np.abs(got - wanted).max() < 1e-4
    properties = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    assert model.card.name in properties["cgconvert"]


@SLOW
def test_noise_is_computed_in_what_is_exported(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    model = make_model("h2_noise")
    assert export_model(model, "onnx", tmp_path / "network.onnx") > 100
    assert export_model(model, "torchscript", tmp_path / "network.pt") > 100
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    compiled = openvino.compile_model(
        tmp_path / "network.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    )
    loaded = torch.jit.load(str(tmp_path / "network.pt"))
    for shape in [(1, 3, 64, 64), (2, 3, 96, 32)]:
        images = torch.rand(shape) * 2 - 1
        wanted = model.generator(with_noise(images, 2, 3)).numpy()
        assert np.abs(loaded(images).numpy() - wanted).max() < 1e-4
        (got,) = session.run(["translated"], {"images": images.numpy()})
        assert np.abs(got - wanted).max() < 1e-4
        assert np.abs(compiled(images.numpy())[0] - wanted).max() < 1e-3
    other = model.generator(with_noise(images, 2, 4)).numpy()
    assert np.abs(other - wanted).max() > 1e-2, "noise is seen in the result at all"


def test_the_original_has_no_noise(tmp_path: Path) -> None:
    model = make_model("h2_noise")
    with pytest.raises(UsageError, match="the original implementation has no network like that"):
        export_model(model, "pth", tmp_path / "network.pth")


def test_torchscript_runs_without_cgconvert(tmp_path: Path) -> None:
    model = make_model("resnet")
    path = tmp_path / "network.pt"
    export_model(model, "torchscript", path)
    loaded = torch.jit.load(str(path))
    images = torch.rand(3, 3, 60, 44) * 2 - 1
    assert (loaded(images) - model.generator(images)).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("kind", "original"),
    [
        ("resnet", reference_networks.resnet(blocks=2)),
        ("resnet_batch", reference_networks.resnet(blocks=2, norm="batch", dropout=True)),
        ("unet", reference_networks.unet()),
    ],
)
def test_a_checkpoint_loads_back_in_the_original(
    kind: str, original: torch.nn.Module, tmp_path: Path
) -> None:
    model = make_model(kind)
    path = tmp_path / "latest_net_G.pth"
    export_model(model, "pth", path)
    original.load_state_dict(torch.load(path, weights_only=True))
    original.eval()
    images = torch.rand(1, 3, 64, 96) * 2 - 1
    with torch.inference_mode():
        assert (original(images.clone()) - model.generator(images)).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["h2", "identity", "resnet_affine"])
def test_what_the_original_does_not_have_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the original implementation has no"):
        export_model(make_model(kind), "pth", tmp_path / "x.pth")
    assert list(tmp_path.iterdir()) == []


def test_what_computes_something_else_does_not_appear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_model("resnet", seed=1)
    write = exporting._write_torchscript
    monkeypatch.setattr(exporting, "_write_torchscript", lambda model, path: write(other, path))
    with pytest.raises(VerificationError, match="something else"):
        export_model(make_model("resnet"), "torchscript", tmp_path / "network.pt")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "network.pt"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="`overwrite`"):
        export_model(make_model("resnet"), "torchscript", path)
    assert path.read_bytes() == b"mine"


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("resnet")
    models_folder().mkdir(parents=True)
    write_model(models_folder() / "small.safetensors", model.card, model.generator.state_dict())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as leave:
        main(["models", "export", "small", "--format", "pth"])
    assert not leave.value.code
    assert (tmp_path / "resnet.pth").is_file()
    assert "equal to the model" in capsys.readouterr().out
    assert set(EXPORT_SUFFIXES) == {"onnx", "torchscript", "pth"}


@pytest.mark.parametrize("kind", ["torchscript", "pth"])
def test_a_full_disk_does_not_end_the_process(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's writer of files calls `abort` where its disk is full, so that it gets none of them to write."""
    saves = {"torchscript": (torch.jit, "save"), "pth": (torch, "save")}
    module, name = saves[kind]
    save = getattr(module, name)

    def only_to_memory(network: object, place: object, **more: object) -> None:
        assert isinstance(place, io.BytesIO), f"{place} would be written by torch"
        save(network, place, **more)

    def full(self: Path, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, name, only_to_memory)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="disk full while writing"):
        export_model(make_model(), kind, tmp_path / "model", overwrite=False)
    assert list(tmp_path.iterdir()) == []
