"""Hostile, damaged and oversized files: nothing is run, nothing allocated, nothing installed."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cgconvert.card import ModelCard
from cgconvert.errors import ModelError
from cgconvert.models import checkpoints
from cgconvert.models.files import write_model
from cgconvert.models.importing import import_checkpoint
from cgconvert.models.loading import load_model
from tests.models import reference_networks as reference
from tests.models.refusals import refusal, saved

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
    monkeypatch.setattr(checkpoints.torch, "__version__", "2.9.1+cpu")
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
        file.truncate(checkpoints.SIZE_LIMIT + 1)  # sparse: takes no room
    assert "more than any generator" in refusal(path)
