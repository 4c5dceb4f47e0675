"""Hostile, damaged and oversized files: nothing is run, nothing allocated, nothing installed."""

from __future__ import annotations

import inspect
import json
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
from cgconvert.generators import ARCHITECTURES, build_generator
from cgconvert.generators.arguments import COUNTS
from cgconvert.models import checkpoints, pickles
from cgconvert.models.catalog import list_models, models_folder
from cgconvert.models.files import HEADER_LIMIT, count_parameters, read_card, read_header, write_model
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
    ({"blocks": 128, "ngf": 2048}, "do not fit architecture 'resnet'"),
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


# ---- bounds -----------------------------------------------------------------------------------------


def contains_itself(names: int) -> dict[str, Any]:
    """A dict in which each of so many names means the dict itself, beside a tensor."""
    content: dict[str, Any] = {"a": torch.zeros(1)}
    content |= {f"name{number}": content for number in range(names)}
    return content


def test_a_checkpoint_that_contains_itself(tmp_path: Path) -> None:
    """100 names at 4 levels would be 10^8 dicts; each is looked at once."""
    path = saved(tmp_path, contains_itself(100))
    assert path.stat().st_size < 10_000
    assert "its 1 tensors are of no known network" in refusal(path)


def test_a_generator_that_two_names_mean_is_one_generator(tmp_path: Path) -> None:
    state = reference.resnet(ngf=4, blocks=1).state_dict()
    import_checkpoint(saved(tmp_path, {"netG": state, "generator": state}), "twice")
    assert load_model("twice").card.arguments["ngf"] == 4


def doubled(levels: int) -> bytes:
    """A pickle of `((((), ()), ((), ())), ...)`: 2 ** levels parts in some bytes a level, as a dict's key."""
    level = b"".join(
        b"h" + bytes([number]) + b"h" + bytes([number]) + b"\x86q" + bytes([number + 1])
        for number in range(levels)
    )
    return b"\x80\x02}q\xff)q\x00" + level + b"K\x01s."


def nested(levels: int) -> bytes:
    """A pickle of a tuple in a tuple in a tuple ..., as a dict's key."""
    return b"\x80\x02})" + b"\x85" * levels + b"K\x01s."


def with_pickle(path: Path, content: bytes) -> Path:
    """A checkpoint file whose content is this pickle."""
    whole = saved(path.parent, {"a": torch.zeros(1)})
    with zipfile.ZipFile(whole) as before, zipfile.ZipFile(path, "w") as after:
        for entry in before.infolist():
            data = content if entry.filename.endswith("/data.pkl") else before.read(entry)
            after.writestr(entry.filename, data)
    return path


@pytest.mark.parametrize("content", [doubled(60), nested(1_000_000)], ids=["doubled", "nested"])
def test_tuples_that_nobody_can_hash(tmp_path: Path, content: bytes) -> None:
    """The first would take for ever, the second would end the interpreter's stack."""
    message = refusal(with_pickle(tmp_path / "bomb.pth", content))
    assert message.endswith(
        "bomb.pth: refused: it holds tuples within tuples without end, which no checkpoint needs"
    )


@pytest.mark.parametrize("opcode", [b"\x8d", b"\x8e", b"\x96"], ids=["text", "bytes", "bytearray"])
def test_a_text_that_says_it_is_larger_than_memory(tmp_path: Path, opcode: bytes) -> None:
    """Python allocates what a read asks for before it reads; this asks for 64 TiB."""
    path = tmp_path / "bomb.pth"
    path.write_bytes(b"\x80\x02" + opcode + struct.pack("<Q", 2**46) + b"x")
    refusal(path)


def test_tuples_in_an_old_file(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + doubled(60))
    assert "tuples within tuples without end" in refusal(path)


def test_more_objects_than_any_checkpoint_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, {"numbers": list(range(3000))})
    monkeypatch.setattr(pickles, "MOST_OPCODES", 1000)
    assert "refused: it holds more than 1000 objects" in refusal(path)


def test_more_generators_than_can_be_compared(tmp_path: Path) -> None:
    """Each prefix is compared with each name; one file of 100,000 such names would take hours."""
    state = {f"net{number}.model.1.weight": torch.zeros(1, 1, 7, 7) for number in range(100)}
    assert "more than 64 networks that may be generators" in refusal(saved(tmp_path, state))


@pytest.mark.parametrize("zip64", [False, True])
def test_a_zip_archive_with_a_directory_that_fills_memory(tmp_path: Path, zip64: bool) -> None:
    """The end of the archive says how long the directory is, which Python would read as a whole."""
    path = tmp_path / "wide.pth"
    size = 5_000_000
    directory = b"PK\x03\x04" + bytes(size)
    if zip64:
        record = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, size, 4)
        locator = b"PK\x06\x07" + struct.pack("<IQI", 0, len(directory), 1)
        end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, 0xFFFFFFFF, 0xFFFFFFFF, 0)
        path.write_bytes(directory + record + locator + end)
    else:
        path.write_bytes(directory + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, size, 4, 0))
    assert "refused: its directory has 5000000 bytes" in refusal(path)


def header_of(length: int) -> bytes:
    """The beginning of a model file with a header of this many bytes."""
    return struct.pack("<Q", length) + b"{" + b" " * (length - 2) + b"}"


def test_a_header_larger_than_any_models(tmp_path: Path) -> None:
    """JSON of 94 MB took 20 s and 2.7 GiB, in `models list` too."""
    path = tmp_path / "wide.safetensors"
    path.write_bytes(header_of(HEADER_LIMIT + 1))
    wanted = f"its header has {HEADER_LIMIT + 1} bytes, more than any model's"
    with pytest.raises(ModelError, match=wanted):
        read_card(path)
    assert len(read_header(path, 2 * HEADER_LIMIT)) == 0  # where a larger one is asked for
    models_folder().mkdir(parents=True)
    (models_folder() / "wide.safetensors").write_bytes(path.read_bytes())
    problems = [model.problem for model in list_models() if model.name == "wide"]
    assert wanted in (problems[0] or "")


def test_a_pipe_in_the_models_folder_is_not_waited_for() -> None:
    models_folder().mkdir(parents=True)
    os.mkfifo(models_folder() / "pipe.safetensors")
    problems = [model.problem for model in list_models() if model.name == "pipe"]
    assert (problems[0] or "").endswith("pipe.safetensors is no regular file")


def write_header(path: Path, header: dict[str, Any]) -> Path:
    """A model file with this header and nothing behind it."""
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path


@pytest.mark.parametrize("own", [True, False])
def test_names_that_a_terminal_would_obey(tmp_path: Path, own: bool) -> None:
    """The library's text repeats the name of the tensor that is damaged."""
    header: dict[str, Any] = {"\x1b[2J": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}
    if own:
        header["__metadata__"] = {"cgconvert": ModelCard("model", "identity").to_json()}
    path = write_header(tmp_path / "model.safetensors", header)
    with pytest.raises(ModelError, match="invalid offset for tensor") as caught:
        load_model(path) if own else import_checkpoint(path, "made")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("shape", [[2**63] * 8, [10**18] * 9, [-1], [1.5], ["a"], 3, None, [True]])
def test_shapes_that_are_none(tmp_path: Path, shape: Any) -> None:
    path = write_header(tmp_path / "model.safetensors", {"a": {"dtype": "F32", "shape": shape}})
    with pytest.raises(ModelError, match="damaged safetensors header"):
        count_parameters(path)


def test_a_card_nested_without_end(tmp_path: Path) -> None:
    """Deep enough and `asdict`, which the command line prints, would end in a RecursionError."""
    card = json.loads(ModelCard("model", "identity").to_json())
    for _ in range(400):
        card["training"] = {"in": card["training"]}
    path = write_header(tmp_path / "model.safetensors", {"__metadata__": {"cgconvert": json.dumps(card)}})
    with pytest.raises(ModelError, match="its model card is nested more than 16 deep"):
        read_card(path)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_largest_network_that_a_card_can_ask_for(architecture: str) -> None:
    """Its layers are made before its weights are compared; those of pix2pixhd took 15 s."""
    names = inspect.signature(ARCHITECTURES[architecture]).parameters
    arguments = {name: high for name, (_, high) in COUNTS.items() if name in names}
    with torch.device("meta"):
        modules = sum(1 for _ in build_generator(architecture, arguments).modules())
    assert modules < 3000
