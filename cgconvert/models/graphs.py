"""Reads ONNX graphs and TorchScript programs of image-to-image networks, to install them as models.

What can be read off them is: channels, order of the dimensions, number type, and the values that pictures
have in them, where the first or last operations show these. The sizes that they accept are found by trying.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cgconvert.errors import ModelError, UnavailableError, first_line, printable
from cgconvert.generators import build_generator
from cgconvert.generators.foreign import COMMON, INSTALL, SPANS, ForeignGenerator, outside_file

SIZE_LIMIT = 2**31 - 1
"""Bytes: protobuf, and so ONNX, has no larger files."""

MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 128)
LEAST_TRIED = 48
SHAPED_EDGE = 64

PASSING = ("Transpose", "Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Dropout")
"""Operations that leave values as they are."""

TYPES = {1: "float32", 10: "float16", 2: "uint8"}
"""ONNX's numbers of the types that a picture may have."""


@dataclass(frozen=True)
class Graph:
    """A network that is a file: what it is, the arguments of its generator, the file, and its size rule."""

    architecture: str
    arguments: dict[str, Any]
    content: bytes
    size_multiple: int
    size_minimum: int
    remarks: tuple[str, ...]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The file as the one tensor of its generator."""
        return as_tensors(self.content)


def as_tensors(content: bytes) -> dict[str, Tensor]:
    """The bytes of a file as the state of a `ForeignGenerator`."""
    return {"file": torch.frombuffer(bytearray(content), dtype=torch.uint8)}


def is_onnx(path: Path) -> bool:
    """Whether a file is an ONNX graph by its suffix or its first bytes: a small version, then a field."""
    if path.suffix.lower() == ".onnx":
        return True
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return False
    return (
        head[:1] == b"\x08"
        and 1 < head[1] < 32
        and head[2:3] in (b"\x12", b"\x3a", b"\x1a")
        and (b"pytorch" in head or b"onnx" in head.lower() or head[2:3] == b"\x3a")
    )


def read_onnx(path: Path, values: str | None, order: str | None) -> Graph:
    """An ONNX graph from one picture to another. Raises `ModelError`, `UnavailableError`.

    `values` ("0..255", or "0..1,-1..1" where input and output differ) and `order` ("nchw", "nhwc") are what
    the user says of it; None: as the graph says.
    """
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UnavailableError(f"{path} is an ONNX graph, which needs {', '.join(missing)}: {INSTALL}")
    import onnx

    if path.stat().st_size > SIZE_LIMIT:
        raise ModelError(f"{path} is an ONNX graph of more than 2 GiB, more than any generator")
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # protobuf's own
        raise ModelError(f"{path} is an ONNX graph, but damaged or cut short: get the file anew") from error
    if not model.graph.node:
        raise ModelError(f"{path} is an ONNX graph without a network, or a damaged one: get the file anew")
    outside = outside_file(model)
    if outside is not None:
        raise ModelError(
            f"{path} is an ONNX graph that keeps weights in another file ({printable(outside)!r:.80}): save "
            "it as one file"
        )
    reader = _OnnxReader(path, model)
    arguments, remarks = reader.arguments(values, order)
    reader.free_sizes()
    content = model.SerializeToString()
    try:
        return _tried(path, "onnx", arguments, content, remarks, len(model.graph.output))
    except ModelError as error:
        if reader.fixed is None:
            raise
        raise ModelError(
            f"{error}; it was made for {reader.fixed} alone: export it with free height and width"
        ) from error


def read_torchscript(path: Path, values: str | None, order: str | None) -> Graph:
    """A TorchScript program from one picture to another, which is run. Raises `ModelError`."""
    content = path.read_bytes()
    base: dict[str, Any] = {"file_bytes": len(content)}
    generator = _generator("torchscript", base, content)
    try:
        program = generator.program(torch.device("cpu"))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    operations = program.inlined_graph  # which its nodes do not keep alive
    last = next(iter(operations.outputs())).node().kind()
    read = {"aten::tanh": "-1..1", "aten::sigmoid": "0..1"}.get(last)
    arguments, remarks = _values(path, base, values, read, read)
    remarks += ("its program is run: it was imported with trust",)
    failures: list[ModelError] = []
    for channels in (3, 1):
        for each in (order,) if order is not None else ("nchw", "nhwc"):
            tried = {**arguments, "in_channels": channels, "input_order": each, "output_order": each}
            try:
                return _tried(path, "torchscript", tried, content, remarks, 8)
            except ModelError as error:
                failures.append(error)
    raise failures[0]


def _generator(kind: str, arguments: Mapping[str, Any], content: bytes) -> ForeignGenerator:
    generator = build_generator(kind, arguments)
    assert isinstance(generator, ForeignGenerator)
    generator.load_state_dict(as_tensors(content))
    return generator


def _values(
    path: Path, arguments: dict[str, Any], asked: str | None, entering: str | None, leaving: str | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The arguments with the values that pictures have; `entering` and `leaving` are what has been read."""
    remarks: tuple[str, ...] = ()
    if asked is not None:
        parts = [part.strip() for part in asked.split(",")]
        if not 1 <= len(parts) <= 2 or not set(parts) <= SPANS.keys():
            raise ModelError(
                f"`values={asked!r}` is none of {', '.join(SPANS)}, nor two of them with a comma"
            )
        entering, leaving = parts[0], parts[-1]
    if entering is None and leaving is not None:
        entering = leaving
        remarks = (f"it is taken to see values of {entering}, since it returns these",)
    if entering is None or leaving is None:
        raise ModelError(
            f"{path}: what values its pictures have cannot be read off it: say `values`, one of "
            f"{', '.join(SPANS)}"
        )
    return {**arguments, "input_values": entering, "output_values": leaving}, remarks


def _tried(
    path: Path, kind: str, arguments: dict[str, Any], content: bytes, remarks: tuple[str, ...], outputs: int
) -> Graph:
    """The graph with its size rule, and the one of its outputs that is a picture. Raises `ModelError`."""
    arguments = {**arguments, "file_bytes": len(content)}
    problem = ""
    for output in range(min(outputs, 8)):
        for order in dict.fromkeys((arguments["input_order"], "nchw", "nhwc")):
            told = {**arguments, "output": output, "output_order": order}
            generator = _generator(kind, told, content)
            try:
                generator.program(torch.device("cpu"))
            except ModelError as error:
                raise ModelError(f"{path}: {error}") from error
            found = _size_rule(generator)
            if isinstance(found, tuple):
                multiple, minimum, channels = found
                told["out_channels"] = channels
                return Graph(kind, told, content, multiple, minimum, remarks)
            problem = problem or found
    raise ModelError(f"{path}: no network from a picture to one of the same size: {problem}")


def _size_rule(generator: ForeignGenerator) -> tuple[int, int, int] | str:
    """(multiple, minimum, channels of the result), found by trying sizes; what is wrong where none does."""
    problem = ""

    def channels(height: int, width: int) -> int | None:
        """How many channels come back for a size that is kept, None where it is not."""
        nonlocal problem
        images = torch.linspace(-1, 1, generator.in_channels * height * width)
        images = images.view(1, generator.in_channels, height, width)
        try:
            with torch.inference_mode():
                result = generator(images)
        except (RuntimeError, IndexError) as error:
            problem = problem or f"it fails on {width}x{height} pixels ({first_line(error, 120)})"
            return None
        if result.ndim != 4 or result.shape[2:] != (height, width) or result.shape[1] not in (1, 3):
            problem = problem or f"{width}x{height} pixels become {'x'.join(map(str, result.shape))}"
            return None
        return int(result.shape[1])

    for multiple in MULTIPLES:
        odd = max(3, math.ceil(LEAST_TRIED / multiple) // 2 * 2 + 1)
        sizes = ((odd, odd + 2), (odd + 1, odd + 3))
        found = {channels(multiple * rows, multiple * columns) for rows, columns in sizes}
        if len(found) == 1 and (count := found.pop()) is not None:
            edge = multiple
            while edge < multiple * odd and channels(edge, edge) is None:
                edge *= 2
            return multiple, min(edge, multiple * odd), count
    return problem


class _OnnxReader:
    """What an ONNX model says of its pictures. Raises `ModelError` for what is no image-to-image network."""

    def __init__(self, path: Path, model: Any) -> None:
        self.path, self.model, self.graph = path, model, model.graph
        weights = {entry.name for entry in self.graph.initializer}
        inputs = [entry for entry in self.graph.input if entry.name not in weights]
        if len(inputs) != 1:
            names = ", ".join(f"{printable(entry.name)!r:.40}" for entry in inputs[:4]) or "none"
            raise ModelError(f"{path}: its ONNX graph takes {len(inputs)} inputs ({names}), not one picture")
        self.input = inputs[0]
        self.shape = [
            entry.dim_value if entry.HasField("dim_value") else None
            for entry in self.input.type.tensor_type.shape.dim
        ]
        if len(self.shape) != 4:
            shown = "x".join("?" if edge is None else str(edge) for edge in self.shape) or "no shape"
            raise ModelError(f"{path}: its ONNX graph takes {shown}, not pictures of 4 dimensions")

    def arguments(self, values: str | None, order: str | None) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Arguments of the generator, without what is found by trying, and remarks."""
        self.order = order or ("nhwc" if self.shape[3] in (1, 3) and self.shape[1] not in (1, 3) else "nchw")
        channels = self.shape[1 if self.order == "nchw" else 3]
        height, width = self.shape[2:] if self.order == "nchw" else self.shape[1:3]
        self.fixed = None if height is None or width is None else f"{width}x{height}"
        if channels not in (None, 1, 3):
            raise ModelError(
                f"{self.path}: its ONNX graph takes {channels} channels; pictures have 3 (RGB) or 1 (gray)"
            )
        number = TYPES.get(self.input.type.tensor_type.elem_type)
        if number is None:
            raise ModelError(f"{self.path}: its ONNX graph takes no float32, float16 or uint8 pictures")
        arguments: dict[str, Any] = {
            "in_channels": channels or 3,
            "number_type": number,
            "input_order": self.order,
            "pixel_bytes": self._pixel_bytes(channels or 3),
        }
        entering = "0..255" if number == "uint8" else self._entering()
        leaving = "0..255" if self.graph.output[0].type.tensor_type.elem_type == 2 else self._leaving()
        return _values(self.path, arguments, values, entering, leaving)

    def free_sizes(self) -> None:
        """Let height and width be any; files often fix them to those of the picture that was traced."""
        places = (2, 3) if self.order == "nchw" else (1, 2)
        self.input.type.tensor_type.shape.dim[0].dim_value = 1  # pictures go through one by one
        for place in places:
            self.input.type.tensor_type.shape.dim[place].dim_param = f"edge{place}"
        for entry in self.graph.output:
            entry.type.tensor_type.ClearField("shape")
        del self.graph.value_info[:]

    def _pixel_bytes(self, channels: int) -> int:
        """Bytes of the largest inner value for each pixel, by ONNX's own inference of shapes."""
        import onnx

        shaped = onnx.ModelProto()
        shaped.CopyFrom(self.model)
        del shaped.graph.value_info[:]
        edge = SHAPED_EDGE
        sizes = {"nchw": (1, channels, edge, edge), "nhwc": (1, edge, edge, channels)}
        (entry,) = (entry for entry in shaped.graph.input if entry.name == self.input.name)
        for place, size in zip(entry.type.tensor_type.shape.dim, sizes[self.order], strict=True):
            place.dim_value = size
        for output in shaped.graph.output:
            output.type.tensor_type.ClearField("shape")
        try:
            found = onnx.shape_inference.infer_shapes(shaped).graph.value_info
        except Exception:  # an operation that it does not know
            return COMMON
        counts = [
            math.prod(place.dim_value for place in value.type.tensor_type.shape.dim)
            for value in found
            if all(place.HasField("dim_value") for place in value.type.tensor_type.shape.dim)
        ]
        largest = 4 * max(counts, default=0) // SHAPED_EDGE**2
        return min(max(largest, 12), 2**20) if len(counts) * 2 > len(found) else COMMON

    def _constants(self) -> dict[str, float]:
        """Every constant of one number, by name."""
        from onnx import numpy_helper

        tensors = {entry.name: entry for entry in self.graph.initializer}
        for node in self.graph.node:
            if node.op_type == "Constant":
                for attribute in node.attribute:
                    if attribute.name == "value":
                        tensors[node.output[0]] = attribute.t
        single = {name: tensor for name, tensor in tensors.items() if math.prod(tensor.dims) == 1}
        return {name: float(numpy_helper.to_array(tensor).reshape(-1)[0]) for name, tensor in single.items()}

    def _leaving(self) -> str | None:
        """The values of the result, where a squashing function is followed by nothing but scale and shift."""
        constants, makers = self._constants(), {out: node for node in self.graph.node for out in node.output}
        scale, shift, name = 1.0, 0.0, self.graph.output[0].name
        for _ in range(len(self.graph.node)):
            node = makers.get(name)
            if node is None:
                return None
            ends = {"Tanh": (-1.0, 1.0), "Sigmoid": (0.0, 1.0)}.get(node.op_type)
            if node.op_type == "Clip" and len(node.input) == 3 and set(node.input[1:]) <= constants.keys():
                ends = constants[node.input[1]], constants[node.input[2]]
            if ends is not None:
                return _nearest(scale * ends[0] + shift, scale * ends[1] + shift)
            step = _step(node, constants)
            if step is None:
                return None
            name, times, plus = step
            scale, shift = scale * times, scale * plus + shift
        return None

    def _entering(self) -> str | None:
        """The values of the picture, where it is brought to [-1, 1] or [0, 1] before anything else."""
        constants, users = self._constants(), dict[str, list[Any]]()
        for node in self.graph.node:
            for name in node.input:
                users.setdefault(name, []).append(node)
        scale, shift, name = 1.0, 0.0, self.input.name
        while len(users.get(name, ())) == 1 and (step := _step(users[name][0], constants)) is not None:
            before, times, plus = step
            if before != name:
                break
            scale, shift, name = times * scale, times * shift + plus, users[name][0].output[0]
        if math.isclose(scale, 1, rel_tol=0.02) and abs(shift) < 0.02:
            return None
        for goal in ((-1.0, 1.0), (0.0, 1.0)):
            for span in ("0..255", "0..1"):
                low, high = SPANS[span]
                ends = scale * low + shift, scale * high + shift
                if ends != (low, high) and all(abs(a - b) < 0.02 for a, b in zip(ends, goal, strict=True)):
                    return span
        return None


def _step(node: Any, constants: Mapping[str, float]) -> tuple[str, float, float] | None:
    """(input, times, plus) of an operation that only scales and shifts by one number; None for others."""
    if node.op_type in PASSING:
        return node.input[0], 1.0, 0.0
    if node.op_type not in ("Mul", "Div", "Add", "Sub") or len(node.input) != 2:
        return None
    first, second = node.input
    if second in constants:
        number = constants[second]
        if node.op_type == "Div":
            return (first, 1 / number, 0.0) if number else None
        steps = {"Mul": (first, number, 0.0), "Add": (first, 1.0, number), "Sub": (first, 1.0, -number)}
        return steps[node.op_type]
    if first in constants and node.op_type != "Div":
        number = constants[first]
        steps = {"Mul": (second, number, 0.0), "Add": (second, 1.0, number), "Sub": (second, -1.0, number)}
        return steps[node.op_type]
    return None


def _nearest(low: float, high: float) -> str | None:
    """The span whose ends these are, within 2% of it."""
    for name, (black, white) in SPANS.items():
        if max(abs(low - black), abs(high - white)) <= 0.02 * (white - black):
            return name
    return None
