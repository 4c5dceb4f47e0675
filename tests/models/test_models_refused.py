"""Files that are no generator, damaged or hostile: one clear line, nothing run, nothing installed."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import reference_networks as reference
import torch
from safetensors.torch import save_file

from cgconvert.errors import ModelError
from cgconvert.models import reading
from cgconvert.models.card import ModelCard
from cgconvert.models.catalog import models_folder
from cgconvert.models.files import write_model
from cgconvert.models.foreign import import_checkpoint
from cgconvert.models.loading import load_model


@pytest.fixture(autouse=True)
def nothing_installed(own_home: Path) -> Iterator[None]:
    """After every test of this file the models folder is empty, hidden files included."""
    yield
    assert not models_folder().exists() or not list(models_folder().iterdir())


def refusal(path: Path) -> str:
    """The message with which an import is refused: one line that names the file."""
    with pytest.raises(ModelError) as caught:
        import_checkpoint(path, "made")
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert len(message) < 600
    assert "weights_only" not in message  # nobody is told to read the file in an unsafe way
    return message


def saved(tmp_path: Path, content: Any, **options: Any) -> Path:
    path = tmp_path / "net.pth"
    torch.save(content, path, **options)
    return path


# ---- hostile pickles --------------------------------------------------------------------------------


class Evil:
    """Runs a command where it is unpickled without care."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def hostile_files(tmp_path: Path, evil: Evil) -> dict[str, Path]:
    state = reference.resnet().state_dict()
    paths = {name: tmp_path / f"{name}.pth" for name in ("zip", "old", "beside", "p0", "p2", "p4", "renamed")}
    torch.save(evil, paths["zip"])
    torch.save(evil, paths["old"], _use_new_zipfile_serialization=False)
    torch.save({"state_dict": state, "extra": evil}, paths["beside"])
    for protocol in (0, 2, 4):
        paths[f"p{protocol}"].write_bytes(pickle.dumps(evil, protocol))
    paths["renamed"] = tmp_path / "renamed.safetensors"
    torch.save(evil, paths["renamed"])
    return paths


@pytest.mark.parametrize("kind", ["zip", "old", "beside", "p0", "p2", "p4", "renamed"])
def test_code_in_a_pickle_does_not_run(tmp_path: Path, kind: str) -> None:
    mark = tmp_path / "mark"
    path = hostile_files(tmp_path, Evil(mark))[kind]
    message = refusal(path)
    assert not mark.exists()
    if kind != "p4":  # protocol 4 is not even read far enough to see the name
        assert "refused: it holds more than weights (posix.system)" in message


def test_the_hostile_file_would_have_worked(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = hostile_files(tmp_path, Evil(mark))["zip"]
    torch.load(path, weights_only=False)
    assert mark.exists()


def test_a_whole_pickled_network_is_named_so(tmp_path: Path) -> None:
    message = refusal(saved(tmp_path, torch.nn.Conv2d(1, 1, 1)))
    assert "is a whole pickled network (torch.nn.modules.conv.Conv2d)" in message
    assert "state_dict" in message


def test_an_old_pytorch_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, reference.resnet().state_dict())
    monkeypatch.setattr(reading.torch, "__version__", "2.9.1+cpu")
    with pytest.raises(ModelError, match=r"2\.10 or newer"):
        import_checkpoint(path, "made")


# ---- damage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [0.0001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.99999])
@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_truncated_files(tmp_path: Path, kind: str, part: float) -> None:
    state = reference.resnet().state_dict()
    path = tmp_path / "net.pth"
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: max(1, int(len(whole) * part))])
    message = refusal(path)
    if part > 0.001:
        assert "cut short" in message


def test_flipped_bytes_never_crash(tmp_path: Path) -> None:
    whole = saved(
        tmp_path, reference.resnet(ngf=1, blocks=1).state_dict(), _use_new_zipfile_serialization=False
    )
    data = whole.read_bytes()
    path = tmp_path / "flipped.pth"
    for place in range(0, 1200, 37):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        try:
            import_checkpoint(path, "made", overwrite=True)
        except ModelError as error:
            assert "\n" not in str(error)
    for left in models_folder().glob("*"):
        left.unlink()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_diverged_weights(tmp_path: Path, value: float) -> None:
    state = reference.resnet().state_dict()
    state["model.4.weight"][0, 0, 0, 0] = value
    assert "'model.4.weight' has numbers that are not finite" in refusal(saved(tmp_path, state))


def test_a_network_that_overflows(tmp_path: Path) -> None:
    state = reference.randomised(reference.resnet(norm="none")).state_dict()
    for name in state:
        state[name] = state[name] * 1e12
    assert "not finite" in refusal(saved(tmp_path, state))


# ---- bombs ------------------------------------------------------------------------------------------


def test_a_compressed_archive_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("bomb/data/0", bytes(20_000_000))
    assert path.stat().st_size < 100_000
    assert "unpacks to more than its own size" in refusal(path)


def test_tensors_that_claim_more_than_the_file_holds(tmp_path: Path) -> None:
    state = reference.resnet(ngf=256, blocks=1).state_dict()
    claimed = sum(tensor.numel() for tensor in state.values())
    tiny = {name: torch.zeros(1).expand(tensor.shape) for name, tensor in state.items()}
    path = saved(tmp_path, tiny)
    assert path.stat().st_size < claimed
    assert "claim" in refusal(path)


def test_an_old_file_that_declares_a_huge_storage(tmp_path: Path) -> None:
    path = saved(tmp_path, {"model.1.weight": torch.zeros(1234)}, _use_new_zipfile_serialization=False)
    small, huge = b"M" + struct.pack("<H", 1234), b"\x8a\x06" + (10**14).to_bytes(6, "little")
    data = path.read_bytes()
    assert small in data
    path.write_bytes(data.replace(small, huge))
    refusal(path)


HOSTILE_ARGUMENTS = [
    ({"ngf": 10**9}, "ngf must be a whole number"),
    ({"ngf": 4096}, "do not fit architecture 'resnet'"),
    ({"blocks": 10**9}, "blocks must be a whole number"),
    ({"blocks": 1000, "ngf": 2048}, "do not fit architecture 'resnet'"),
    ({"ngf": "64"}, "ngf must be a whole number"),
    ({"norm": "spectral"}, "norm must be one of"),
    ({"norm": ["batch"]}, "norm must be one of"),
    ({"colour": 1}, "has no argument 'colour'"),
    ({"in_channels": 10**9}, "in_channels must be a whole number"),
]


@pytest.mark.parametrize(("arguments", "words"), HOSTILE_ARGUMENTS)
def test_a_card_that_promises_too_much_allocates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], words: str
) -> None:
    path = tmp_path / "model.safetensors"
    monkeypatch.setattr(ModelCard, "__post_init__", lambda self: None)
    write_model(path, ModelCard("model", "resnet", arguments), {"a": torch.zeros(3)})
    monkeypatch.undo()
    monkeypatch.setattr("cgconvert.models.loading.build_generator", lambda *_: pytest.fail("was built"))
    with pytest.raises(ModelError, match=words):
        load_model(path)


def test_a_card_of_an_unknown_architecture(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_model(path, ModelCard("model", "hypernet"), {})
    with pytest.raises(ModelError, match="unknown architecture 'hypernet'; known: resnet, unet"):
        load_model(path)


def test_files_too_large_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.pth"
    with path.open("wb") as file:
        file.truncate(reading.SIZE_LIMIT + 1)  # sparse: takes no room
    assert "more than any generator" in refusal(path)


# ---- files of other kinds ---------------------------------------------------------------------------

OTHER_FILES = {
    "empty": (b"", "is empty"),
    "text": (b"hello, this is not it\n" * 40, "is a text file"),
    "html": (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page saved in place"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "is a Git LFS pointer"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(100), "is a PNG picture"),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(100), "is a JPEG picture"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(100), "is a Keras/HDF5 file"),
    "gzip": (gzip.compress(b"x" * 1000), "compressed with gzip: unpack it first"),
    "tar": (bytes(257) + b"ustar\x0000" + bytes(300), "is a tar archive: unpack it first"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(100), "is a 7z archive"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(100), "is a TensorFlow Lite model"),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0" + bytes(100), "is an ONNX graph"),
    "numpy": (b"\x93NUMPY\x01\x00" + bytes(100), "is a NumPy array"),
    "noise": (bytes(range(255, 100, -1)) * 20, "is no PyTorch checkpoint and no safetensors file"),
}


@pytest.mark.parametrize(("content", "words"), OTHER_FILES.values(), ids=OTHER_FILES.keys())
def test_other_kinds_of_files_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    assert words in refusal(path)


def test_onnx_is_known_by_its_suffix_too(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x08\x08\x12\x00" + bytes(100))
    assert "is an ONNX graph" in refusal(path)


def test_a_torchscript_program(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w") as archive:  # what torch.jit.save writes, without its deprecated call
        for name in ("net/data.pkl", "net/code/__torch__/net.py", "net/constants.pkl"):
            archive.writestr(name, b"x")
    assert "is a TorchScript program" in refusal(path)


def test_zip_archives_around_something(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("horse2zebra/latest_net_G.pth", b"x")
    assert "zip archive with 'horse2zebra/latest_net_G.pth' in it: unpack it first" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", b"x")
    assert "zip archive without PyTorch weights" in refusal(path)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "missing.pth")
    with pytest.raises(ModelError, match="no such file"):
        import_checkpoint(f"{tmp_path}/{'x' * 5000}.pth", "made")
    assert "is a folder" in refusal(tmp_path)
    (tmp_path / "latest_net_G_A.pth").touch()
    assert "did you mean one of latest_net_G_A.pth?" in refusal(tmp_path)
    pipe = tmp_path / "pipe.pth"
    os.mkfifo(pipe)
    assert "no regular file" in refusal(pipe)


# ---- other networks ---------------------------------------------------------------------------------


def shapes(**named: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name.replace("__", "."): torch.zeros(shape) for name, shape in named.items()}


OTHER_NETWORKS = {
    "netD": (reference.patch_discriminator().state_dict(), "a PatchGAN discriminator (netD)"),
    "netD batch": (reference.patch_discriminator("batch").state_dict(), "a PatchGAN discriminator (netD)"),
    "pixel netD": (shapes(net__0__weight=(8, 3, 1, 1)), "a pixel discriminator"),
    "netF": (shapes(mlp_0__0__weight=(256, 3)), "the feature network (netF) of CUT"),
    "esrgan": (
        {"params_ema": shapes(conv_first__weight=(8, 3, 3, 3), body__0__rdb1__conv1__weight=(4, 8, 3, 3))},
        "'body.0.rdb1.conv1.weight' looks like an ESRGAN or Real-ESRGAN upscaler",
    ),
    "animegan": (shapes(block_a__0__1__weight=(8, 3, 7, 7)), "AnimeGANv2"),
    "stylegan": ({"g_ema": shapes(mapping__fc0__weight=(4, 4))}, "StyleGAN"),
    "stylegan2": (shapes(style__1__weight=(4, 4), convs__0__conv__modulation__weight=(4, 4)), "StyleGAN2"),
    "torchvision": (
        shapes(conv1__weight=(64, 3, 7, 7), layer1__0__conv1__weight=(64, 64, 3, 3), fc__weight=(9, 64)),
        "a torchvision ResNet, which is a classifier",
    ),
    "vgg": (shapes(features__0__weight=(64, 3, 3, 3)), "which is a classifier"),
    "ugatit": ({"genA2B": shapes(DownBlock__1__weight=(64, 3, 7, 7))}, "U-GAT-IT"),
    "unknown": (
        shapes(foo__weight=(3, 3), bar=(1,)),
        "2 tensors are of no known network (the first: 'foo.weight'",
    ),
    "single tensor": (torch.zeros(3), "a single tensor of shape [3]"),
    "list": ([torch.zeros(3)], "it holds a list, not a state dict"),
    "no tensors": ({"epoch": 3, "loss": 0.1}, "it holds no weights by name, but 'epoch', 'loss'"),
    "nothing": ({}, "it holds no weights by name, but nothing"),
    "training of netD": (
        {"epoch": 2, "model": reference.patch_discriminator().state_dict()},
        "a training checkpoint (with 'epoch'), and 'model.11.weight' has one channel out",
    ),
}


@pytest.mark.parametrize(("content", "words"), OTHER_NETWORKS.values(), ids=OTHER_NETWORKS.keys())
def test_other_networks_are_named(tmp_path: Path, content: Any, words: str) -> None:
    message = refusal(saved(tmp_path, content))
    assert words in message
    assert "supported are ResNet and U-Net generators of the original" in message


def without(state: dict[str, torch.Tensor], *names: str) -> dict[str, torch.Tensor]:
    return OrderedDict((name, tensor) for name, tensor in state.items() if name not in names)


def variants() -> dict[str, tuple[dict[str, torch.Tensor], str]]:
    """Generators that are almost one of ours, and the words that say where they differ."""
    plain = reference.resnet().state_dict()
    batch = reference.resnet(norm="batch").state_dict()
    unet = reference.unet(6).state_dict()
    inner = "model.model.1.model.3.model."
    blocks = {k: v for k, v in plain.items() if "model.11." not in k}
    shifted = {k.replace("conv_block.5", "conv_block.7"): v for k, v in plain.items()}
    norm = [f"model.5.{end}" for end in ("running_mean", "running_var", "num_batches_tracked")]
    return {
        "antialiased": ({**plain, "model.7.filt": torch.zeros(8, 1, 3, 3)}, "a CUT/FastCUT generator"),
        "3 downs": (reference.resnet(downs=3).state_dict(), "3 strided convolutions before it instead of 2"),
        "5x5": ({**plain, "model.1.weight": torch.zeros(8, 3, 5, 5)}, "is 5x5 instead of 7x7"),
        "gap": (blocks, "'model.11' has no conv_block"),
        "other block": (shifted, "convolutions at 1, 7"),
        "missing": (without(plain, "model.7.weight"), "'model.7.weight' is missing (the only one)"),
        "missing bias": (without(plain, "model.4.bias"), "'model.4.bias' is missing"),
        "no last": (without(plain, "model.20.weight"), "'model.20.weight' is missing"),
        "no up": (without(plain, "model.13.weight"), "the first transposed convolution, is missing"),
        "extra": ({**plain, "attention.weight": torch.zeros(1)}, "'attention.weight' has no place in it"),
        "shape": ({**plain, "model.4.weight": torch.zeros(9, 8, 3, 3)}, "9x8x3x3 instead of 16x8x3x3"),
        "mixed norms": (without(batch, *norm), "'model.5' is a norm layer without statistics"),
        "half a norm": (without(batch, "model.5.running_var"), "the norm layer at 'model.5' is incomplete"),
        "6 channels": (reference.resnet(inputs=6).state_dict(), "takes 6 channels"),
        "2 out": (reference.resnet(outputs=2).state_dict(), "returns 2 channels"),
        "shallow": (reference.unet(4).state_dict(), "it has 4 levels; 5 to 12 are read"),
        "unet hole": (without(unet, f"{inner}5.weight"), f"'{inner}5.weight' is missing"),
        "unet no end": (without(unet, "model.model.3.weight"), "'model.model.3.weight' is missing"),
        "integers": ({k: (v * 9).to(torch.int8) for k, v in plain.items()}, "no plain tensor of numbers"),
        "control": ({**plain, "\x1b[2J\nx": torch.zeros(1)}, "'\\x1b[2J\\nx' has no place in it"),
    }


@pytest.mark.parametrize("kind", variants().keys())
def test_variants_are_told_apart_by_the_tensor_that_differs(tmp_path: Path, kind: str) -> None:
    state, words = variants()[kind]
    message = refusal(saved(tmp_path, state))
    assert words in message
    assert message.isprintable()


def test_sparse_tensors_are_refused(tmp_path: Path) -> None:
    state = reference.resnet().state_dict()
    state["model.1.weight"] = state["model.1.weight"].to_sparse()
    assert "no plain tensor of numbers" in refusal(saved(tmp_path, state))
