"""ONNX graphs and TorchScript programs of others: imported, run by their own runtime, and compared."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgconvert.cli import cgconvert
from cgconvert.engines.ready import create_job
from cgconvert.engines.tiles.stages import cut_into_stages
from cgconvert.errors import ModelError, UsageError
from cgconvert.models.catalog import models_folder
from cgconvert.models.importing import import_checkpoint
from cgconvert.models.loading import load_model
from cgconvert.options import EngineOptions
from tests.models.refusals import refusal

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

AGREE = 1e-4
"""On [-1, 1]: two runtimes add up in another order."""


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Of a network with two convolutions down, an instance norm, and one transposed convolution up."""
    draw = np.random.default_rng(seed)
    shapes = {"first": (6, 3, 3, 3), "second": (8, 6, 3, 3), "up": (8, 6, 4, 4), "last": (3, 6, 3, 3)}
    return {name: draw.normal(0, 0.25, shape).astype(np.float32) for name, shape in shapes.items()}


def network(images: Tensor) -> Tensor:
    """The same in torch: images (N, 3, H, W) in [-1, 1] to such images; H and W are multiples of 2."""
    w = {name: torch.from_numpy(value) for name, value in weights().items()}
    x = F.relu(F.conv2d(images, w["first"], padding=1))
    x = F.relu(F.instance_norm(F.conv2d(x, w["second"], stride=2, padding=1)))
    x = F.relu(F.conv_transpose2d(x, w["up"], stride=2, padding=1))
    return torch.tanh(F.conv2d(x, w["last"], padding=1))


def graph(
    path: Path,
    shape: Sequence[int | None] = (1, 3, 64, 64),
    order: str = "nchw",
    enters: tuple[float, float] | None = None,
    leaves: tuple[float, float] | None = None,
    number: int = 1,
    squash: str = "Tanh",
    extra: Sequence[Any] = (),
    inputs: int = 1,
) -> Path:
    """The network as ONNX.

    `enters` and `leaves` are (times, plus) at its ends inside the graph, and `number` is ONNX's of the type
    at both ends.
    """
    from onnx import helper, numpy_helper

    tensors = {**weights(), "ones": np.ones(8, np.float32), "zeros": np.zeros(8, np.float32)}
    nodes: list[Any] = []
    name = "picture"

    def then(kind: str, *more: str, **attributes: Any) -> None:
        nonlocal name
        nodes.append(helper.make_node(kind, [name, *more], [f"v{len(nodes)}"], **attributes))
        name = nodes[-1].output[0]

    def scaled(steps: tuple[float, float] | None, end: str) -> None:
        if steps is not None:
            tensors[f"{end}_times"], tensors[f"{end}_plus"] = (np.array(step, np.float32) for step in steps)
            then("Mul", f"{end}_times")
            then("Add", f"{end}_plus")

    if number != 1:
        then("Cast", to=1)
    if order == "nhwc":
        then("Transpose", perm=[0, 3, 1, 2])
    scaled(enters, "in")
    then("Conv", "first", pads=[1] * 4)
    then("Relu")
    then("Conv", "second", pads=[1] * 4, strides=[2, 2])
    then("InstanceNormalization", "ones", "zeros")
    then("Relu")
    then("ConvTranspose", "up", pads=[1] * 4, strides=[2, 2])
    then("Relu")
    then("Conv", "last", pads=[1] * 4)
    then(squash)
    scaled(leaves, "out")
    if order == "nhwc":
        then("Transpose", perm=[0, 2, 3, 1])
    if number == 2:
        tensors["black"], tensors["white"] = np.array(0, np.float32), np.array(255, np.float32)
        then("Round")
        then("Clip", "black", "white")
    if number != 1:
        then("Cast", to=number)
    for node in extra:
        node.input[0] = name
        nodes.append(node)
        name = node.output[0]
    made = helper.make_graph(
        nodes,
        "made",
        [
            helper.make_tensor_value_info("picture", number, shape),
            *(helper.make_tensor_value_info(f"more{i}", 1, [1]) for i in range(inputs - 1)),
        ],
        [helper.make_tensor_value_info(name, number, None)],
        [numpy_helper.from_array(value, key) for key, value in tensors.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)
    return path


def images(height: int = 48, width: int = 56) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(3)) * 2 - 1


KINDS: dict[str, dict[str, Any]] = {
    "fixed size": {},
    "free size": {"shape": (1, 3, None, None)},
    "channels last": {"shape": (1, None, None, 3), "order": "nhwc"},
    "bytes": {
        "shape": (1, None, None, 3),
        "order": "nhwc",
        "number": 2,
        "enters": (1 / 127.5, -1.0),
        "leaves": (127.5, 127.5),
    },
    "0..255": {"enters": (1 / 127.5, -1.0), "leaves": (127.5, 127.5)},
    "half": {"number": 10},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_computes_what_the_network_does(tmp_path: Path, kind: str) -> None:
    card = import_checkpoint(graph(tmp_path / "net.onnx", **KINDS[kind]), "made")
    assert card.architecture == "onnx" and card.size_multiple == 2
    model = load_model("made")
    # Bytes and half precision round at both ends.
    source = images()
    if kind == "bytes":
        source = ((source + 1) * 127.5).round() / 127.5 - 1
    tolerance = {"bytes": 0.51 / 127.5, "half": 4e-3}.get(kind, AGREE)
    with torch.inference_mode():
        got, wanted = model.generator(source), network(source)
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() < tolerance
    assert (wanted - source).abs().max() > 0.5


def test_the_values_of_its_pictures_are_read_or_asked_for(tmp_path: Path) -> None:
    assert import_checkpoint(graph(tmp_path / "a.onnx"), "a").arguments["input_values"] == "-1..1"
    both = import_checkpoint(graph(tmp_path / "b.onnx", enters=(2.0, -1.0), leaves=(0.5, 0.5)), "b").arguments
    assert (both["input_values"], both["output_values"]) == ("0..1", "0..1")
    mixed = import_checkpoint(graph(tmp_path / "c.onnx", enters=(1 / 127.5, -1.0)), "c").arguments
    assert (mixed["input_values"], mixed["output_values"]) == ("0..255", "-1..1")
    sigmoid = graph(tmp_path / "d.onnx", squash="Sigmoid")
    assert import_checkpoint(sigmoid, "d").arguments["input_values"] == "0..1"
    open_end = graph(tmp_path / "e.onnx", squash="Relu")
    with pytest.raises(ModelError, match="what values its pictures have cannot be read off it: say `values`"):
        import_checkpoint(open_end, "e")
    asked = import_checkpoint(open_end, "e", values="0..255,0..1").arguments
    assert (asked["input_values"], asked["output_values"]) == ("0..255", "0..1")
    with pytest.raises(ModelError, match=r"`values='0..2'` is none of"):
        import_checkpoint(open_end, "f", values="0..2")


@pytest.mark.parametrize("kind", ["fixed size", "bytes"])
def test_openvino_is_verified_against_its_own_runtime(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("openvino")
    import_checkpoint(graph(tmp_path / "net.onnx", **KINDS[kind]), "made")
    pixels = (np.random.default_rng(1).random((2, 48, 56, 3)) * 255).astype(np.uint8)
    job = create_job(load_model("made"), EngineOptions("cpu", "openvino", "fp32"), pixels)
    try:
        assert job.engine.name == "openvino"
        (verification,) = job.verifications
        # Where the network returns bytes, one that falls to the other side of a half is a whole level.
        assert verification.passed and verification.psnr_db > (60 if kind == "bytes" else 100)
    finally:
        job.close()


def test_it_goes_through_the_converter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cgconvert.media.picture.codec import Picture, decode_picture, encode_picture

    path = graph(tmp_path / "net.onnx")
    cgconvert.main(["models", "import", str(path), "--name", "made"], standalone_mode=False)
    assert capsys.readouterr().out.startswith("net.onnx: ONNX graph\n  it is taken to see values of -1..1")
    pixels = (np.random.default_rng(1).random((45, 51, 3)) * 255).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(encode_picture(Picture(pixels), "png")[0])
    report, target = tmp_path / "r.json", tmp_path / "b.png"
    arguments = ["image", str(tmp_path / "a.png"), "-o", str(target), "--model", "made", "--device", "cpu"]
    arguments += ["--precision", "fp32", "--report", str(report)]
    assert not cgconvert.main(arguments, standalone_mode=False)
    result = decode_picture(target.read_bytes()).pixels
    padded = np.pad(pixels, ((0, 1), (0, 1), (0, 0)), mode="reflect")
    source = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 127.5 - 1
    wanted = ((network(source)[0] + 1) * 127.5).permute(1, 2, 0).numpy()[:45, :51]
    assert result.shape == pixels.shape
    assert np.abs(result - wanted).max() <= 0.51


def test_what_cannot_run_it_is_refused(tmp_path: Path) -> None:
    import_checkpoint(graph(tmp_path / "net.onnx"), "made")
    model, pixels = load_model("made"), np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(UsageError, match="compile cannot run 'made', which is a file of another program"):
        create_job(model, EngineOptions("cpu", "compile"), pixels)
    with pytest.raises(UsageError, match=r"eager runs 'made' .ONNX graph. in fp32 alone"):
        create_job(model, EngineOptions("cpu", "eager", "bf16"), pixels)
    from cgconvert.engines.exporting import export_model

    with pytest.raises(UsageError, match="only models of weights are exported"):
        export_model(model, "torchscript", tmp_path / "net.pt")
    with pytest.raises(ModelError):  # and so goes through whole
        cut_into_stages(model.generator, 3, 2, 2)


def broken(path: Path, kind: str) -> Path:
    """A graph that is no image-to-image network, or not all of one."""
    from onnx import helper

    if kind == "upscaler":
        wide = helper.make_node("Concat", ["", "v8"], ["wide"], axis=3)
        return graph(path, extra=[wide, helper.make_node("Sigmoid", [""], ["end"])])
    if kind == "two inputs":
        return graph(path, inputs=2)
    if kind == "four channels":
        return graph(path, shape=(1, 4, 64, 64))
    if kind == "flat":
        return graph(path, shape=(1, 3))
    graph(path)
    if kind == "cut short":
        path.write_bytes(path.read_bytes()[:900])
    if kind == "elsewhere":
        model = onnx.load(path)
        onnx.external_data_helper.convert_model_to_external_data(model, location="more.bin", size_threshold=0)
        onnx.save(model, path)
    if kind == "one size":
        model = onnx.load(path)
        shape = onnx.numpy_helper.from_array(np.array([1, 3, 64, 64], np.int64), "size")
        last = model.graph.output[0]
        model.graph.node.append(helper.make_node("Reshape", [last.name, "size"], ["sized"]))
        model.graph.initializer.append(shape)
        last.name = "sized"
        onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("upscaler", "no network from a picture to one of the same size"),
        ("two inputs", "takes 2 inputs ('picture', 'more0'), not one picture"),
        ("four channels", "takes 4 channels; pictures have 3 (RGB) or 1 (gray)"),
        ("flat", "takes 1x3, not pictures of 4 dimensions"),
        ("cut short", "is an ONNX graph, but damaged or cut short"),
        ("elsewhere", "keeps weights in another file ('more.bin')"),
        ("one size", "it was made for 64x64 alone: export it with free height and width"),
    ],
)
def test_graphs_that_are_no_generators_end_in_one_line(tmp_path: Path, kind: str, words: str) -> None:
    assert words in refusal(broken(tmp_path / "net.onnx", kind))


class Scripted(nn.Module):
    """The network as a module that TorchScript can take."""

    def __init__(self) -> None:
        super().__init__()
        w = {name: nn.Parameter(torch.from_numpy(value)) for name, value in weights().items()}
        self.first, self.second, self.up, self.last = w["first"], w["second"], w["up"], w["last"]

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.first, padding=1))
        x = F.relu(F.instance_norm(F.conv2d(x, self.second, stride=2, padding=1)))
        x = F.relu(F.conv_transpose2d(x, self.up, stride=2, padding=1))
        return torch.tanh(F.conv2d(x, self.last, padding=1))


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.trace(Scripted().eval(), torch.zeros(1, 3, 16, 16)), path)
    return path


@pytest.mark.filterwarnings("ignore")
def test_a_program_runs_only_if_it_is_trusted(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("code of the file would have run")

    with monkeypatch.context() as patched:
        patched.setattr(torch.jit, "load", never)
        assert "is a TorchScript program, and importing it runs code of the file" in refusal(program)
    card = import_checkpoint(program, "made", trust=True)
    assert card.architecture == "torchscript" and card.size_multiple == 2
    source = images()
    with torch.inference_mode():
        assert (load_model("made").generator(source) - network(source)).abs().max() < AGREE
    # The same model file on a machine whose user has not said so.
    elsewhere = shutil.copy(models_folder() / "made.safetensors", tmp_path / "made.safetensors")
    monkeypatch.setenv("CGCONVERT_HOME", str(tmp_path / "other"))
    with monkeypatch.context() as patched:
        patched.setattr(torch.jit, "load", never)
        with pytest.raises(ModelError, match="it holds a TorchScript program, which is code: if you trust"):
            load_model(elsewhere)
        assert "it holds a TorchScript program, and importing it runs code" in refusal(Path(elsewhere))
    import_checkpoint(elsewhere, "again", trust=True)
    assert load_model("again").card.architecture == "torchscript"


@pytest.mark.filterwarnings("ignore")
def test_openvino_runs_a_program(program: Path) -> None:
    pytest.importorskip("openvino")
    import_checkpoint(program, "made", trust=True)
    pixels = (np.random.default_rng(1).random((3, 48, 56, 3)) * 255).astype(np.uint8)
    job = create_job(load_model("made"), EngineOptions("cpu", "openvino", "fp32"), pixels)
    try:
        assert job.verifications[0].passed and job.verifications[0].psnr_db > 100
    finally:
        job.close()
