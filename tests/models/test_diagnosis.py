"""Files and networks that are no supported generator are told what they are, in one line."""

from __future__ import annotations

import gzip
import os
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from cgconvert.errors import ModelError
from cgconvert.models.importing import import_checkpoint
from tests.models import reference_networks as reference
from tests.models.refusals import refusal, saved

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
        "half antialiased": (
            {**plain, "model.7.filt": torch.zeros(8, 1, 3, 3)},
            "its first block is 'model.10': 2 strided convolutions before it",
        ),
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
